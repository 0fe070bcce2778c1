"""
Rows of a bucket on the shard that got them which refer to none there, although a foreign key says that they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg.sql import SQL, Composed, Literal

from sharding.rebalance import statements as s
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.refreshing import Keys
from sharding.rebalance.report import Orphans
from sharding.rebalance.sessions import Cursor
from sharding.rebalance.tables import ForeignKey, Table


def orphans_of(target: Cursor, facts: MoveFacts, keys: Keys | None) -> Iterator[Orphans]:
    """Yield what is found by the foreign keys of all rows, or of those with some keys."""
    found = [
        (table, foreign_key)
        for table in facts.tables
        for foreign_key in table.foreign_keys
        if keys is None or keys.get(table.name)
    ]
    if found:
        questions = [_question(facts, table, foreign_key, keys) for table, foreign_key in found]
        for name, constraint, rows in target.execute(SQL(" UNION ALL ").join(questions)).fetchall():
            if rows:
                yield Orphans(name, constraint, rows)


def with_orphans(target: Cursor, several: Sequence[tuple[MoveFacts, Keys | None]]) -> set[int]:
    """Return those of several buckets of which a row refers to none: one of all, or of those with some keys."""
    questions = [
        SQL("SELECT {}, rows FROM ({}) AS found (name, constraint_name, rows)").format(
            Literal(facts.bucket), _question(facts, table, foreign_key, keys)
        )
        for facts, keys in several
        for table in facts.tables
        for foreign_key in table.foreign_keys
        if keys is None or keys.get(table.name)
    ]
    if not questions:
        return set()
    return {bucket for bucket, rows in target.execute(SQL(" UNION ALL ").join(questions)).fetchall() if rows}


def _question(facts: MoveFacts, table: Table, foreign_key: ForeignKey, keys: Keys | None) -> Composed:
    pairs = list(zip(foreign_key.columns, foreign_key.target_columns, strict=True))
    same = s.AND.join(SQL("{} = {}").format(s.name(own, "child"), s.name(other, "parent")) for own, other in pairs)
    conditions = [s.in_bucket(facts.bucket, "child")]
    conditions += [SQL("{} IS NOT NULL").format(s.name(own, "child")) for own, _ in pairs]
    if keys is not None:
        conditions.append(s.among(table, keys[table.name]))
    return SQL(
        "SELECT {}, {}, count(*) FROM {} AS child WHERE {} AND NOT EXISTS (SELECT FROM {} AS parent WHERE {})"
    ).format(
        Literal(table.name),
        Literal(foreign_key.name),
        s.table_name(table),
        s.AND.join(conditions),
        s.name(foreign_key.target),
        same,
    )
