"""The aggregator app."""

from __future__ import annotations

from django.apps import AppConfig


class AggregatorConfig(AppConfig):
    name = "aggregator"

    def ready(self) -> None:
        from aggregator.compilers import compiler_for
        from sharding.backends import hook

        hook.install(compiler_for)
