"""
Django's admin over a cluster.

    ShardedModelAdmin      the admin of a sharded model, and of a global model that refers to sharded ones
    ShardedTabularInline   their inlines
    ShardedStackedInline
"""

from __future__ import annotations

from aggregator.contrib.admin.changelist import ShardedChangeList
from aggregator.contrib.admin.options import ShardedModelAdmin, ShardedStackedInline, ShardedTabularInline

__all__ = ["ShardedChangeList", "ShardedModelAdmin", "ShardedStackedInline", "ShardedTabularInline"]
