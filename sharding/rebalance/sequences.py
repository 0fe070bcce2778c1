"""
Numbers that the database itself gives to columns: the shard that gets rows goes on after those of the shard that gave.

Ids are made elsewhere, and hold what made them. This is for other columns with a sequence.
"""

from __future__ import annotations

from psycopg.sql import SQL

from sharding.rebalance.attempt import Round
from sharding.rebalance.sessions import Session

#: Numbers that are drawn in one statement.
AT_ONCE = 100_000

_OF_COLUMNS = """
SELECT c.relname, a.attname, pg_get_serial_sequence(quote_ident(c.relname), a.attname)
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = ANY (SELECT to_regclass(quote_ident(name)) FROM unnest(%s::text[]) AS name)
AND pg_get_serial_sequence(quote_ident(c.relname), a.attname) IS NOT NULL
"""


def carry_over(work: Round) -> None:
    """
    Let no sequence of the target be behind the source's.

    Numbers are drawn, not set: whoever draws at the same time gets none twice.
    """
    source, target = work.sessions.source, work.sessions.target
    names = [table.name for table in work.attempts[0].tables]
    there = _sequences(target, names)
    if not there:
        return
    for column, sequence in _sequences(source, names).items():
        if column in there:
            while (missing := _last(source, sequence) - _last(target, there[column])) > 0:
                work.look_up()
                target.connection.execute(
                    "SELECT count(nextval(%s::regclass)) FROM generate_series(1, %s)",
                    [there[column], min(missing, AT_ONCE)],
                )


def _sequences(session: Session, names: list[str]) -> dict[tuple[str, str], str]:
    found = session.connection.execute(_OF_COLUMNS, [names]).fetchall()
    return {(table, column): sequence for table, column, sequence in found}


def _last(session: Session, sequence: str) -> int:
    """Return the number that was given last, or one less than the first."""
    ((last, called),) = session.connection.execute(SQL("SELECT last_value, is_called FROM {}").format(SQL(sequence)))
    return int(last) if called else int(last) - 1
