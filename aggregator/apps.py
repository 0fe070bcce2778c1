"""The aggregator app."""

from __future__ import annotations

from django.apps import AppConfig


class AggregatorConfig(AppConfig):
    name = "aggregator"

    def ready(self) -> None:
        from aggregator.compilers import compiler_for
        from aggregator.explanation import explain
        from sharding.backends import hook
        from sharding.operations.explanation import install_planner

        hook.install(compiler_for)
        install_planner(explain)
