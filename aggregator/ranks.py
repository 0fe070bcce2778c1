"""
The order of values that Python does not compare as the database does: one of the shards is asked for their ranks.

It is the only way that is right for every collation of every provider, and for types such as enums and jsonb. Values
travel as text of their type. The question is about the values at hand alone, so that a rank means something only
beside the other ranks of the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

from django.db.models.sql import Query

from aggregator import collations, executor, finishing
from aggregator.merge import Row, SortKey, sorting_key
from aggregator.refusal import cannot_merge
from sharding.errors import ShardsDisagree

TEXT = "text"

Identities = dict[int, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class Kind:
    """By what a database compares the values of an expression."""

    #: As a statement that makes a table would call it.
    type: str
    #: None: the type's or the database's own.
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class Oracle:
    """The shard that is asked, and the columns, by position, of which it is asked for ranks."""

    query: Query
    connection: Any
    order: Mapping[int, Kind]
    equality: Mapping[int, Kind]

    @property
    def is_idle(self) -> bool:
        """Return whether Python compares all values alike, so that nothing is asked."""
        return not self.order and not self.equality

    def read(self, keys: Sequence[SortKey], lists: Sequence[Sequence[Row]]) -> tuple[Sequence[SortKey], Identities]:
        """
        Return sort keys that compare the rows at hand as the database does, and by position what is the same for values
        that are equal in the database.

        Raises:
            CannotMerge: the values are not what they are declared as, or a shard sorts them otherwise.
        """
        # What one shard alone sends is sorted already.
        order = self.order if sum(1 for rows in lists if rows) > 1 else {}
        readers = {at: self._reader(at, kind, lists) for at, kind in {**self.equality, **order}.items()}
        ranked = [replace(key, read=readers.get(key.position, key.read)) for key in keys]
        if order:
            self._require_sorted(ranked, lists)
        return ranked, {position: readers[position] for position in self.equality}

    def _require_sorted(self, keys: Sequence[SortKey], lists: Sequence[Sequence[Row]]) -> None:
        compare = sorting_key(keys)
        for rows in lists:
            if any(after < before for before, after in pairwise(map(compare, rows))):
                construct = f"rows that a shard sorts otherwise than {self.connection.alias} ranks their values"
                remedy = "Give an enum the same labels everywhere, expressions the output_field that they have, and "
                remedy += "REINDEX after a change of a collation's version."
                raise cannot_merge(self.query, construct, remedy, ShardsDisagree)

    def _reader(self, position: int, kind: Kind, lists: Sequence[Sequence[Row]]) -> Callable[[Any], Any]:
        values = (row[position] for row in chain.from_iterable(lists) if row[position] is not None)
        if kind.type == TEXT:
            return ranks_of(self.connection, kind, map(self._text, values)).__getitem__
        write = writer(self.connection)
        ranks = ranks_of(self.connection, kind, map(write, values))
        return lambda value: ranks[write(value)]

    def _text(self, value: Any) -> str:
        if type(value) is not str:
            construct = f"values that are declared as text, and are of Python's type {type(value).__name__}"
            raise cannot_merge(self.query, construct, "Declare the expression with the output_field that it has.")
        return value


def oracle(
    query: Query, home: Any, connections: Sequence[Any], order: Mapping[int, Kind], equality: Mapping[int, Kind]
) -> Oracle:
    """
    Return the oracle that asks ``home`` about the columns of ``order`` and ``equality`` which Python cannot compare.

    Raises:
        CannotMerge: the databases do not compare alike, or cannot be asked (SQLite).
    """
    asked = {at: kind for at, kind in order.items() if not sorts_by_code_points(connections, kind)}
    equal = {at: kind for at, kind in equality.items() if not _is_equal_if_same(connections, kind)}
    if home.vendor == "sqlite":
        _refuse(query, "text ordered under the collation", asked)
        _refuse(query, "DISTINCT under the nondeterministic collation", equal)
    for collation in {kind.collation for kind in (*asked.values(), *equal.values())}:
        collations.require_same(query, connections, collation)
    return Oracle(query, home, asked, equal)


def ranks_of(connection: Any, kind: Kind, texts: Iterable[str]) -> dict[str, int]:
    """Return the rank of each value, given as text of its type; equal values have the same rank."""
    values = list(dict.fromkeys(texts))
    if len(values) < 2:
        return dict.fromkeys(values, 1)
    typed = f"CAST(v AS {kind.type})"
    if kind.collation is not None:
        typed += f" COLLATE {connection.ops.quote_name(kind.collation)}"
    sql = (
        f"SELECT dense_rank() OVER (ORDER BY {typed.replace('%', '%%')}) "
        f"FROM unnest(%s::text[]) WITH ORDINALITY AS given (v, n) ORDER BY n"
    )
    rows = executor.run([connection], finishing.fetching(sql, (values,)))[0]
    return {value: rank for value, (rank,) in zip(values, rows, strict=True)}


def sorts_by_code_points(connections: Sequence[Any], kind: Kind) -> bool:
    """Return whether every database sorts the values of an expression as Python does: text by code points."""
    return kind.type == TEXT and collations.sort_by_code_points(connections, kind.collation)


def _is_equal_if_same(connections: Sequence[Any], kind: Kind) -> bool:
    return kind.type == TEXT and collations.are_deterministic(connections, kind.collation)


def _refuse(query: Query, what: str, kinds: Mapping[int, Kind]) -> None:
    for kind in kinds.values():
        remedy = "Order by Collate(…, 'binary'), or limit the query to one shard key."
        if what.startswith("DISTINCT"):
            remedy = "Select other fields, or limit the query to one shard key."
        raise cannot_merge(query, f"{what} {kind.collation}", remedy)


def writer(connection: Any) -> Callable[[Any], str]:
    """Return the function that writes a value of the driver as the database would write it as text."""
    # SQLite does without psycopg.
    from psycopg.adapt import PyFormat, Transformer

    transformer = Transformer.from_context(connection.connection)

    def write(value: Any) -> str:
        if type(value) is str:
            return value
        return bytes(transformer.get_dumper(value, PyFormat.TEXT).dump(value) or b"").decode()

    return write
