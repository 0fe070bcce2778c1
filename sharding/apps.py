"""The sharding app."""

from __future__ import annotations

from django.apps import AppConfig


class ShardingConfig(AppConfig):
    name = "sharding"
    verbose_name = "Sharding"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.core import checks

        from sharding.checks import SETTINGS_CHECKS
        from sharding.cluster_checks import check_servers, check_stored_cluster
        from sharding.fence_checks import check_fences, check_is_fenced, check_labels
        from sharding.model_checks import DATABASE_CHECKS, MODEL_CHECKS
        from sharding.view_checks import check_stored_code

        for check in (*SETTINGS_CHECKS, check_is_fenced, check_labels, *MODEL_CHECKS):
            checks.register(check, "sharding")
        for asking in (*DATABASE_CHECKS, check_stored_cluster, check_servers, check_fences, check_stored_code):
            # Not under our own tag: from Django 6.0 on, `check --tag sharding` would open every database.
            checks.register(asking, checks.Tags.database)
