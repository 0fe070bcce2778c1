"""
Numbers that the database itself gives to columns: the shard that gets rows goes on after those of the shard that gave.

Ids are made elsewhere, and hold what made them. This is for other columns with a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from psycopg.sql import SQL, Literal

from sharding.rebalance.comparing import nothing
from sharding.rebalance.sessions import Session, Sessions
from sharding.rebalance.tables import Table

#: Numbers that are drawn in one statement.
AT_ONCE = 100_000

# A serial column owns its sequence. A default, which Django makes by db_default, may draw from one of its own.
_OF_COLUMNS = """
SELECT c.relname, a.attname, coalesce(pg_get_serial_sequence(quote_ident(c.relname), a.attname), drawn.sequence)
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN LATERAL (
    SELECT format('%%I.%%I', n.nspname, s.relname) AS sequence FROM pg_attrdef AS e
    JOIN pg_depend AS d ON (d.classid, d.objid, d.refclassid) = ('pg_attrdef'::regclass, e.oid, 'pg_class'::regclass)
    JOIN pg_class AS s ON s.oid = d.refobjid AND s.relkind = 'S' JOIN pg_namespace AS n ON n.oid = s.relnamespace
    WHERE e.adrelid = c.oid AND e.adnum = a.attnum LIMIT 1
) AS drawn ON true
WHERE c.oid = ANY (SELECT to_regclass(quote_ident(name)) FROM unnest(%s::text[]) AS name)
AND coalesce(pg_get_serial_sequence(quote_ident(c.relname), a.attname), drawn.sequence) IS NOT NULL
"""


def carry_over(sessions: Sessions, tables: Iterable[Table], pause: Callable[[], None] = nothing) -> None:
    """
    Let no sequence of the target be behind the source's.

    Numbers are drawn, not set: whoever draws at the same time gets none twice.
    """
    source, target = sessions.source, sessions.target
    names = [table.name for table in tables]
    there = _sequences(target, names)
    if not there:
        return
    for column, sequence in _sequences(source, names).items():
        if column in there:
            while (missing := _missing(source, sequence, target, there[column])) > 0:
                pause()
                target.connection.execute(
                    "SELECT count(nextval(%s::regclass)) FROM generate_series(1, %s)",
                    [there[column], min(missing, AT_ONCE)],
                )


def _sequences(session: Session, names: list[str]) -> dict[tuple[str, str], str]:
    found = session.connection.execute(_OF_COLUMNS, [names]).fetchall()
    return {(table, column): sequence for table, column, sequence in found}


def _missing(source: Session, theirs: str, target: Session, own: str) -> int:
    """Return how many numbers have to be drawn until the last one is not before the source's; it may be negative."""
    (there, _), (here, step) = _last(source, theirs), _last(target, own)
    # By tens, or downwards, as each sequence goes: rounded up.
    return -((there - here) // -step)


def _last(session: Session, sequence: str) -> tuple[int, int]:
    """Return the number that was given last, or would be the one before the first; and the step to the next."""
    ((last, called, step),) = session.connection.execute(
        SQL(
            "SELECT last_value, is_called, (SELECT seqincrement FROM pg_sequence WHERE seqrelid = {}::regclass) FROM {}"
        ).format(Literal(sequence), SQL(sequence))
    )
    return int(last) if called else int(last) - int(step), int(step)
