"""
The clones of the test databases, of which each process of ``manage.py test --parallel`` has its own.
"""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import cluster_map, conf, reference_copies


def tell_clone_of_control(alias: str, suffix: str) -> None:
    """Note in a clone of `default`, which is made before any shard is, which reference tables a cloned shard holds."""
    if alias not in conf.current().shards:
        return
    held = sorted(table for table, shards in cluster_map.stored_copies().items() if alias in shards)
    control = connections[DEFAULT_DB_ALIAS]
    settings = control.creation.get_test_db_clone_settings(suffix)
    # Django keeps one pool an alias, and a pool would be in the way of dropping the database.
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    clone = type(control)({**settings, "OPTIONS": options}, f"{DEFAULT_DB_ALIAS}_{suffix}")
    try:
        reference_copies.add(clone, alias, held)
    finally:
        clone.close()
