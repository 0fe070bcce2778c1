from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sharding", "0004_reference_copies")]

    operations = [
        migrations.CreateModel(
            name="LookupState",
            fields=[
                ("name", models.CharField(max_length=63, primary_key=True, serialize=False)),
                ("built", models.BooleanField(default=False)),
                ("progress", models.TextField(default="{}")),
            ],
            options={"db_table": "sharding_lookup"},
        ),
        # Not managed from here on, so that flush leaves this table alone.
        migrations.AlterModelOptions(name="lookupstate", options={"managed": False}),
    ]
