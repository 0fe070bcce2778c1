from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sharding", "0006_fence")]

    operations = [
        migrations.CreateModel(
            name="Dirty",
            fields=[
                ("seq", models.BigAutoField(primary_key=True, serialize=False)),
                ("bucket", models.SmallIntegerField(db_index=True)),
                ("table_name", models.CharField(max_length=63)),
                ("key", models.JSONField()),
            ],
            options={
                "db_table": "sharding_dirty",
            },
        ),
        migrations.CreateModel(
            name="CopyProgress",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("bucket", models.SmallIntegerField()),
                ("table_name", models.CharField(max_length=63)),
                ("generation", models.BigIntegerField()),
                ("last", models.JSONField(null=True)),
                ("rows", models.BigIntegerField(default=0)),
                ("digest", models.DecimalField(decimal_places=0, default=0, max_digits=40)),
                ("done", models.BooleanField(default=False)),
            ],
            options={
                "db_table": "sharding_progress",
                "constraints": [
                    models.UniqueConstraint(fields=("bucket", "table_name"), name="sharding_progress_table")
                ],
            },
        ),
        migrations.CreateModel(
            name="Move",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("plan", models.UUIDField()),
                ("bucket", models.SmallIntegerField()),
                ("source", models.CharField(max_length=63)),
                ("target", models.CharField(max_length=63)),
                ("phase", models.CharField(max_length=16)),
                ("wanted", models.CharField(default="go", max_length=16)),
                ("generation", models.BigIntegerField(default=0)),
                ("epoch", models.BigIntegerField(null=True)),
                ("rows", models.BigIntegerField(default=0)),
                ("bytes", models.BigIntegerField(default=0)),
                ("copied", models.BigIntegerField(default=0)),
                ("noted", models.BigIntegerField(default=0)),
                ("planned", models.DateTimeField(auto_now_add=True)),
                ("begun", models.DateTimeField(null=True)),
                ("changed", models.DateTimeField(auto_now=True)),
                ("announced", models.DateTimeField(null=True)),
                ("window_ends", models.DateTimeField(null=True)),
                ("gap", models.FloatField(null=True)),
                ("report", models.JSONField(null=True)),
                ("error", models.TextField(default="")),
                ("failures", models.IntegerField(default=0)),
                ("retry_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "sharding_move",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("phase__in", ["done", "aborted"]), _negated=True),
                        fields=("bucket",),
                        name="sharding_move_bucket",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("move", models.BigIntegerField()),
                ("worker", models.CharField(max_length=200)),
                ("begun", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "db_table": "sharding_attempt",
            },
        ),
        migrations.CreateModel(
            name="CleanUp",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("move", models.BigIntegerField()),
                ("shard", models.CharField(max_length=63)),
                ("kind", models.CharField(max_length=32)),
                ("bucket", models.SmallIntegerField()),
            ],
            options={
                "db_table": "sharding_cleanup",
            },
        ),
        # Not managed from here on, so that flush leaves these tables alone.
        migrations.AlterModelOptions(name="dirty", options={"managed": False}),
        migrations.AlterModelOptions(name="copyprogress", options={"managed": False}),
        migrations.AlterModelOptions(name="move", options={"managed": False}),
        migrations.AlterModelOptions(name="attempt", options={"managed": False}),
        migrations.AlterModelOptions(name="cleanup", options={"managed": False}),
    ]
