"""
Raw SQL on every shard, for reading: its rows, each with the shard that it comes from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from django.db import DEFAULT_DB_ALIAS, transaction

from aggregator.each_shard import on_each_shard


@dataclass(frozen=True, slots=True)
class RawRow:
    """
    A row of raw SQL. A column is an attribute and an item: ``row.total`` is ``row["total"]``.

    Only as items there are columns that are called ``shard`` or ``columns``, or as no attribute can be called.
    """

    #: The alias of the shard that gave it.
    shard: str
    #: The values by column, in the order of the statement.
    columns: Mapping[str, Any]

    def __getitem__(self, column: str) -> Any:
        return self.columns[column]

    def __getattr__(self, name: str) -> Any:
        # Copies and pickles ask for attributes of a row that has none yet.
        if name not in self.__slots__ and name in self.columns:
            return self.columns[name]
        raise AttributeError(f"This row has no column {name!r}. Its columns are {', '.join(self.columns)}.", name=name)


def raw(
    sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None, *, shards: Iterable[str] | None = None
) -> list[RawRow]:
    """
    Return the rows that raw SQL gives on every shard, one shard after the other; nothing is merged.

    The statement may name sharded tables. It is meant to read: all shards run it at the same time, in one atomic block,
    which is the caller's if there is one. What is refused below is rolled back.

    Args:
        params: for ``%s`` a sequence, for ``%(name)s`` a mapping; left out, a ``%`` is nothing but a ``%``.
        shards: the aliases; left out, every shard that owns buckets.

    Raises:
        ValueError: two columns have one name, or the statement gives no rows at all, such as an UPDATE.
        UnknownShard: an alias is no shard of this cluster.
        ShardsUnavailable: a shard does not answer.
    """
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        answers = on_each_shard(_fetching(sql, params), shards=shards, parallel=True)
    return list(chain.from_iterable(answers.values()))


def _fetching(sql: str, params: Any) -> Callable[[Any], list[RawRow]]:
    def fetch(connection: Any) -> list[RawRow]:
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            names = _names(cursor.description)
            return [RawRow(connection.alias, dict(zip(names, row, strict=True))) for row in cursor.fetchall()]

    return fetch


def _names(description: Sequence[Sequence[Any]] | None) -> list[str]:
    if description is None:
        raise ValueError(
            "This statement gives no rows, and raw() is for reading. Nothing was changed. Write by querysets, or run "
            "it by aggregator.on_each_shard()."
        )
    names = [str(column[0]) for column in description]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise ValueError(
            f"Several columns of this statement are called {', '.join(map(repr, twice))}. Give each its own name "
            f"with AS."
        )
    return names
