from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sharding", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Decision",
            fields=[
                ("transaction", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("committed", models.BooleanField()),
                ("aliases", models.TextField()),
                ("decided", models.DateTimeField()),
            ],
            options={"db_table": "sharding_decision"},
        ),
        # Not managed from here on, so that flush leaves this table alone.
        migrations.AlterModelOptions(name="decision", options={"managed": False}),
    ]
