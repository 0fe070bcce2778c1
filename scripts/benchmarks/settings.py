"""Settings of the benchmarks: the demo's databases and models, with the toolkit's own defaults."""

from __future__ import annotations

from demo.settings import *  # noqa: F403 - all but what the demo has changed

SHARDING = {}
