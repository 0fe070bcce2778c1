from __future__ import annotations

from django.db import migrations, models

from sharding.ownership import SHOWS, SHOWS_ARGUMENTS, SHOWS_SQL
from sharding.sql_function import CreateFunction


class Migration(migrations.Migration):
    dependencies = [("sharding", "0005_lookup")]

    operations = [
        migrations.CreateModel(
            name="Fence",
            fields=[
                ("bucket", models.SmallIntegerField(primary_key=True, serialize=False)),
                ("state", models.CharField(max_length=16)),
                ("epoch", models.BigIntegerField()),
                ("generation", models.BigIntegerField(default=0)),
                ("forward", models.CharField(default="", max_length=63)),
                ("mark", models.BigIntegerField()),
            ],
            options={
                "db_table": "sharding_fence",
            },
        ),
        # Not managed from here on, so that flush leaves this table alone.
        migrations.AlterModelOptions(name="fence", options={"managed": False}),
        # Managed for as long as it takes to add a column.
        migrations.AlterModelOptions(name="shardidentity", options={"managed": True}),
        migrations.AddField("shardidentity", "shown", models.BigIntegerField(null=True)),
        migrations.AddField("shardidentity", "hidden", models.BigIntegerField(null=True)),
        migrations.AlterModelOptions(name="shardidentity", options={"managed": False}),
        CreateFunction(SHOWS, SHOWS_ARGUMENTS, SHOWS_SQL),
    ]
