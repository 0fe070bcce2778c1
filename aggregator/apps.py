"""The aggregator app."""

from __future__ import annotations

from django.apps import AppConfig


class AggregatorConfig(AppConfig):
    name = "aggregator"

    def ready(self) -> None:
        from django.core.signals import request_finished, request_started

        from aggregator import own_sessions
        from aggregator.compilers import compiler_for
        from aggregator.explanation import explain
        from sharding.backends import hook
        from sharding.operations.explanation import install_planner

        hook.install(compiler_for)
        hook.install_cleaner(own_sessions.end_all)
        request_started.connect(own_sessions.begin_request, dispatch_uid="aggregator.own_sessions")
        request_finished.connect(own_sessions.end_request, dispatch_uid="aggregator.own_sessions")
        install_planner(explain)
