"""System checks of sharded models."""

from __future__ import annotations

MODEL_CHECKS: tuple[()] = ()
