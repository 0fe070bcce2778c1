from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sharding", "0003_sequential_commits")]

    operations = [
        migrations.CreateModel(
            name="ReferenceCopies",
            fields=[
                ("table_name", models.CharField(max_length=63, primary_key=True, serialize=False)),
                ("shards", models.TextField()),
            ],
            options={"db_table": "sharding_reference"},
        ),
        # Not managed from here on, so that flush leaves this table alone.
        migrations.AlterModelOptions(name="referencecopies", options={"managed": False}),
    ]
