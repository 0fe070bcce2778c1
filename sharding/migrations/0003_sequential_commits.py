from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sharding", "0002_decision")]

    operations = [
        migrations.CreateModel(
            name="Compensation",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("block", models.CharField(max_length=40)),
                ("number", models.IntegerField()),
                ("path", models.TextField()),
                ("arguments", models.TextField()),
                ("aliases", models.TextField()),
                ("committed", models.TextField(default="")),
                ("logged", models.DateTimeField()),
                ("failures", models.IntegerField(default=0)),
                ("error", models.TextField(default="")),
            ],
            options={"db_table": "sharding_compensation"},
        ),
        migrations.CreateModel(
            name="CommittedPart",
            fields=[("block", models.CharField(max_length=40, primary_key=True, serialize=False))],
            options={"db_table": "sharding_part"},
        ),
        # Not managed from here on, so that flush leaves these tables alone.
        migrations.AlterModelOptions(name="compensation", options={"managed": False}),
        migrations.AlterModelOptions(name="committedpart", options={"managed": False}),
    ]
