from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

import sharding.fields


class Migration(migrations.Migration):
    dependencies = [
        ("flights", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="BookingCodeLookup",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("bucket", models.SmallIntegerField()),
                ("code", models.CharField(max_length=6)),
            ],
            options={
                "db_table": "flights_booking_code_lookup",
                "default_permissions": (),
                "constraints": [models.UniqueConstraint(fields=("code",), name="flights_booking_code_lookup_key")],
            },
        ),
        migrations.CreateModel(
            name="Booking",
            fields=[
                ("bucket", sharding.fields.BucketField()),
                ("id", sharding.fields.ShardUUIDField(primary_key=True, serialize=False)),
                ("code", models.CharField(max_length=6, unique=True)),
                ("name", models.CharField(max_length=40)),
                (
                    "plane",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="bookings", to="flights.plane"
                    ),
                ),
            ],
            options={
                "abstract": False,
                "indexes": [models.Index(fields=["bucket", "id"], name="flights_boo_bucket_4f2204_idx")],
            },
        ),
    ]
