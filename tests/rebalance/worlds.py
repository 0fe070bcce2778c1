"""
Two shards with tables of every kind, made by hand, and a trigger that logs as the fence does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from sharding.bucket_states import BucketState, mark_of
from sharding.rebalance import tables
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.sessions import Session, Sessions, open_session, open_sessions

SOURCE, TARGET = "shard_a", "shard_b"
BUCKET, OTHER_BUCKET, GENERATION = 7, 8, 11

#: Those that are referred to first.
SCHEMA = """
CREATE TYPE rows_mood AS ENUM ('glad', 'sad');
CREATE DOMAIN rows_short AS varchar(10);
CREATE TABLE rows_parent (
    id uuid PRIMARY KEY, bucket smallint NOT NULL, tenant integer NOT NULL, name varchar(40) UNIQUE,
    gone integer, loud text GENERATED ALWAYS AS (upper(name)) STORED
);
ALTER TABLE rows_parent DROP COLUMN gone;
CREATE TABLE rows_child (
    tenant integer, number integer, bucket smallint NOT NULL, text text,
    parent_id uuid REFERENCES rows_parent DEFERRABLE INITIALLY DEFERRED,
    counted integer GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (tenant, number)
);
CREATE TABLE rows_grandchild (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, bucket smallint NOT NULL,
    tenant integer NOT NULL, number integer NOT NULL,
    FOREIGN KEY (tenant, number) REFERENCES rows_child ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE rows_tree (
    id bigint PRIMARY KEY, bucket smallint NOT NULL,
    above_id bigint REFERENCES rows_tree DEFERRABLE INITIALLY DEFERRED, label text
);
CREATE TABLE rows_hen (id bigint PRIMARY KEY, bucket smallint NOT NULL, egg_id bigint NOT NULL);
CREATE TABLE rows_egg (
    id bigint PRIMARY KEY, bucket smallint NOT NULL,
    hen_id bigint NOT NULL REFERENCES rows_hen DEFERRABLE INITIALLY DEFERRED
);
ALTER TABLE rows_hen ADD FOREIGN KEY (egg_id) REFERENCES rows_egg DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE rows_types (
    id text PRIMARY KEY, bucket smallint NOT NULL, at timestamptz, day date, span interval, price numeric,
    exact numeric(10, 2), ratio double precision, small real, doc json, jdoc jsonb, raw bytea, code char(5),
    words text[], grid integer[][], mood rows_mood, moods rows_mood[], short rows_short, flags bit(4), vague varbit,
    net inet, during tstzrange, cash money, yes boolean, note varchar(20), pairs rows_pair, "Odd ""name" integer
);
CREATE TABLE rows_when (at timestamptz, price numeric, bucket smallint NOT NULL, n integer, PRIMARY KEY (at, price));
"""
TABLES = (
    "rows_parent",
    "rows_child",
    "rows_grandchild",
    "rows_tree",
    "rows_hen",
    "rows_egg",
    "rows_types",
    "rows_when",
)
TRIGGER = """
CREATE FUNCTION rows_log() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    name text;
    key jsonb;
    line jsonb;
BEGIN
    IF coalesce(current_setting('sharding.mover', true), '') <> '' THEN
        RETURN NULL;
    END IF;
    FOREACH line IN ARRAY ARRAY[to_jsonb(OLD), to_jsonb(NEW)] LOOP
        IF line IS NOT NULL THEN
            key := '[]';
            FOREACH name IN ARRAY TG_ARGV LOOP
                key := key || jsonb_build_array(line->name);
            END LOOP;
            INSERT INTO sharding_dirty (bucket, table_name, key)
            SELECT bucket, TG_TABLE_NAME, key FROM sharding_fence
            WHERE bucket = (line->>'bucket')::smallint AND state = 'capturing';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
"""


@dataclass(frozen=True, slots=True)
class World:
    """A move that has begun."""

    sessions: Sessions
    #: The application's, on the source.
    application: Session
    facts: MoveFacts

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[World]:
        with (
            open_sessions(SOURCE, TARGET, buckets=BUCKET, generation=GENERATION) as sessions,
            open_session(SOURCE, buckets=0, generation=0) as application,
        ):
            kept = {session.alias: _kept(session) for session in (sessions.source, sessions.target)}
            for session in (sessions.source, sessions.target):
                _empty(session)
            fence(sessions.source, BucketState.CAPTURING)
            fence(sessions.target, BucketState.IMPORTING)
            found = tables.parents_first(tables.read(sessions.source, TABLES))
            yield cls(sessions, application, MoveFacts(BUCKET, GENERATION, found))
            for session in (application, sessions.target):
                with open_session(session.alias, buckets=0, generation=0) as last:
                    _empty(last)
                    last.connection.execute(_PUT_BACK, [kept[session.alias]])

    @staticmethod
    def opened_again() -> AbstractContextManager[Sessions]:
        """Return the sessions of a mover that begins anew."""
        return open_sessions(SOURCE, TARGET, buckets=BUCKET, generation=GENERATION)

    def write(self, statement: str, *params: Any) -> None:
        """Write as the application does."""
        self.application.connection.execute(statement, params or None)  # type: ignore[call-overload]

    def at_target(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        cursor = self.sessions.target.connection.execute(statement, params or None)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []

    def log(self) -> list[tuple[Any, ...]]:
        query = "SELECT table_name, key FROM sharding_dirty WHERE bucket = %s ORDER BY seq"
        return self.application.connection.execute(query, [BUCKET]).fetchall()

    def assert_alike(self) -> None:
        """Check that every row of the bucket is on both shards, the same in every column and form."""
        with open_session(TARGET, buckets=0, generation=0) as target:
            for table in TABLES:
                assert rows(target, table) == rows(self.application, table), table


_PUT_BACK = "INSERT INTO sharding_fence SELECT * FROM jsonb_populate_recordset(NULL::sharding_fence, %s::jsonb)"


def _kept(session: Session) -> str:
    """Return the fence as it is, as JSON."""
    ((found,),) = session.connection.execute("SELECT coalesce(jsonb_agg(f), '[]')::text FROM sharding_fence AS f")
    return str(found)


def rows(session: Session, table: str, bucket: int = BUCKET) -> list[str]:
    query = f'SELECT t::text FROM {table} t WHERE bucket = %s ORDER BY t::text COLLATE "C"'
    return [row for (row,) in session.connection.execute(query, [bucket])]  # type: ignore[call-overload]


def fence(session: Session, state: BucketState, generation: int = GENERATION, bucket: int = BUCKET) -> None:
    session.connection.execute(
        "INSERT INTO sharding_fence (bucket, state, epoch, generation, forward, mark) VALUES (%s, %s, 1, %s, '', %s) "
        "ON CONFLICT (bucket) DO UPDATE SET state = excluded.state, generation = excluded.generation",
        [bucket, state, generation, mark_of(bucket)],
    )


def make() -> None:
    for alias in (SOURCE, TARGET):
        with open_session(alias, buckets=0, generation=0) as session:
            # Types have other numbers on every server, and columns another order.
            session.connection.execute(f"CREATE TYPE rows_of_{alias} AS ENUM ('x')")  # type: ignore[call-overload]
            session.connection.execute("CREATE TYPE rows_pair AS (a integer, b text)")
            session.connection.execute(SCHEMA)  # type: ignore[call-overload]
            session.connection.execute(TRIGGER)  # type: ignore[call-overload]
            for name, table in tables.read(session, TABLES).items():
                keys = ", ".join(f"'{column.name}'" for column in table.key)
                session.connection.execute(  # type: ignore[call-overload]
                    f"CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON {name} "
                    f"FOR EACH ROW EXECUTE FUNCTION rows_log({keys}); "
                    f"CREATE INDEX ON {name} (bucket, {', '.join(column.name for column in table.key)})"
                )


def drop() -> None:
    for alias in (SOURCE, TARGET):
        with open_session(alias, buckets=0, generation=0) as session:
            for table in TABLES:
                session.connection.execute(f"DROP TABLE IF EXISTS {table} CASCADE")  # type: ignore[call-overload]
            for name in ("TYPE rows_mood", "DOMAIN rows_short", "TYPE rows_pair", f"TYPE rows_of_{alias}"):
                kind, found = name.split()
                session.connection.execute(f"DROP {kind} IF EXISTS {found} CASCADE")  # type: ignore[call-overload]
            session.connection.execute("DROP FUNCTION IF EXISTS rows_log() CASCADE")


def _empty(session: Session) -> None:
    names = ", ".join(TABLES)
    session.connection.execute(f"TRUNCATE {names}")  # type: ignore[call-overload]
    for table in ("sharding_dirty", "sharding_progress", "sharding_fence"):
        session.connection.execute(f"DELETE FROM {table}")  # type: ignore[call-overload]
