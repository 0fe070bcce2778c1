from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

import sharding.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Airline",
            fields=[
                ("code", models.CharField(max_length=2, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=60)),
            ],
            options={"abstract": False},
        ),
        migrations.CreateModel(
            name="Airport",
            fields=[
                ("code", models.CharField(max_length=3, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=60)),
                ("latitude", models.FloatField()),
                ("longitude", models.FloatField()),
                ("time_zone", models.CharField(max_length=40, null=True)),
            ],
        ),
        migrations.CreateModel(
            name="Plane",
            fields=[
                ("bucket", sharding.fields.BucketField()),
                ("tailnum", models.CharField(max_length=10, primary_key=True, serialize=False)),
                ("year", models.IntegerField(null=True)),
                ("kind", models.CharField(max_length=30)),
                ("manufacturer", models.CharField(max_length=30)),
                ("model", models.CharField(max_length=30)),
                ("engines", models.IntegerField()),
                ("seats", models.IntegerField()),
                ("engine", models.CharField(max_length=20)),
            ],
            options={
                "abstract": False,
                "indexes": [models.Index(fields=["bucket", "tailnum"], name="flights_pla_bucket_27fa9c_idx")],
            },
        ),
        migrations.CreateModel(
            name="Flight",
            fields=[
                ("bucket", sharding.fields.BucketField()),
                ("id", sharding.fields.ShardUUIDField(primary_key=True, serialize=False)),
                ("number", models.IntegerField()),
                ("time_hour", models.DateTimeField()),
                ("departure_delay", models.IntegerField(null=True)),
                ("arrival_delay", models.IntegerField(null=True)),
                ("air_time", models.IntegerField(null=True)),
                ("distance", models.IntegerField()),
                (
                    "carrier",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="flights",
                        to="flights.airline",
                    ),
                ),
                (
                    "destination",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="arrivals",
                        to="flights.airport",
                    ),
                ),
                (
                    "origin",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="departures",
                        to="flights.airport",
                    ),
                ),
                (
                    "plane",
                    models.ForeignKey(
                        db_column="tailnum",
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="flights",
                        to="flights.plane",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["time_hour", "id"], name="flight_by_time"),
                    models.Index(fields=["bucket", "id"], name="flights_fli_bucket_d8db0d_idx"),
                ],
            },
        ),
    ]
