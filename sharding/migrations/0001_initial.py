from __future__ import annotations

from django.db import migrations, models

from sharding.id_sequence import CreateIdSequence


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Cluster",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("uuid", models.UUIDField()),
                ("buckets", models.SmallIntegerField()),
                ("hash", models.CharField(max_length=32)),
                ("epoch", models.BigIntegerField()),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={"db_table": "sharding_cluster"},
        ),
        migrations.CreateModel(
            name="BucketOwner",
            fields=[
                ("bucket", models.SmallIntegerField(primary_key=True, serialize=False)),
                ("shard", models.CharField(max_length=63)),
                ("epoch", models.BigIntegerField()),
            ],
            options={"db_table": "sharding_bucket"},
        ),
        migrations.CreateModel(
            name="ShardNumber",
            fields=[
                ("shard", models.CharField(max_length=63, primary_key=True, serialize=False)),
                ("number", models.SmallIntegerField(unique=True)),
            ],
            options={"db_table": "sharding_shard"},
        ),
        migrations.CreateModel(
            name="ShardIdentity",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("cluster", models.UUIDField()),
                ("shard", models.CharField(max_length=63)),
                ("epoch", models.BigIntegerField()),
            ],
            options={"db_table": "sharding_identity"},
        ),
        # Not managed from here on, so that flush leaves these tables alone.
        *(
            migrations.AlterModelOptions(name=name, options={"managed": False})
            for name in ("cluster", "bucketowner", "shardnumber", "shardidentity")
        ),
        CreateIdSequence(),
    ]
