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
        from sharding.model_checks import MODEL_CHECKS

        for check in (*SETTINGS_CHECKS, *MODEL_CHECKS):
            checks.register(check, "sharding")
