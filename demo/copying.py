"""
Copy objects into one database by PostgreSQL's COPY, past the cluster: the reference database, the benchmark's shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections, models


def copy(objects: Sequence[models.Model], alias: str) -> None:
    """Write ``objects``, all of one model and complete with their ids, into their table on ``alias``."""
    if not objects:
        return
    options = type(objects[0])._meta
    connection: Any = connections[alias]
    quote = connection.ops.quote_name
    fields: list[Any] = list(options.concrete_fields)
    columns = ", ".join(quote(field.column) for field in fields)
    names = [field.attname for field in fields]
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {quote(options.db_table)} ({columns}) FROM STDIN") as target,
    ):
        for each in objects:
            values = each.__dict__
            target.write_row([values[name] for name in names])
