"""
The functions of the triggers of sharded tables, as SQL: for each row, or for each statement.

Their arguments are the columns of the primary key, for the log of what is written while a bucket is being copied.
"""

from __future__ import annotations

from typing import Final

_KEY = """
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_key(written jsonb, columns text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_agg(written -> name ORDER BY place) FROM unnest(columns) WITH ORDINALITY AS part (name, place)
$$;
"""

_NOTE = """
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_note(noted smallint, relation oid, written jsonb, columns text[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO @schema@.sharding_dirty (bucket, table_name, key)
    VALUES (noted, @schema@.sharding_fence_table(relation), @schema@.sharding_fence_key(written, columns))
$$;
"""

_ROW = """
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_row_{operation}() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF strpos(current_setting('sharding.checked', true), ',' || {row}.bucket || ',') > 0 THEN
        RETURN {row};
    END IF;
    IF @schema@.sharding_fence_check({row}.bucket, TG_RELID) THEN
        PERFORM @schema@.sharding_fence_note({row}.bucket, TG_RELID, to_jsonb({row}), TG_ARGV);
    END IF;
    RETURN {row};
END $$;
"""

_ROW_UPDATE = """
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_row_update() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NEW.bucket = OLD.bucket
        AND strpos(current_setting('sharding.checked', true), ',' || NEW.bucket || ',') > 0 THEN
        RETURN NEW;
    END IF;
    IF @schema@.sharding_fence_check(OLD.bucket, TG_RELID) THEN
        PERFORM @schema@.sharding_fence_note(OLD.bucket, TG_RELID, to_jsonb(OLD), TG_ARGV);
        IF NEW.bucket = OLD.bucket AND @schema@.sharding_fence_key(to_jsonb(NEW), TG_ARGV)
            <> @schema@.sharding_fence_key(to_jsonb(OLD), TG_ARGV) THEN
            PERFORM @schema@.sharding_fence_note(NEW.bucket, TG_RELID, to_jsonb(NEW), TG_ARGV);
        END IF;
    END IF;
    IF NEW.bucket <> OLD.bucket AND @schema@.sharding_fence_check(NEW.bucket, TG_RELID) THEN
        PERFORM @schema@.sharding_fence_note(NEW.bucket, TG_RELID, to_jsonb(NEW), TG_ARGV);
    END IF;
    RETURN NEW;
END $$;
"""

_STATEMENT = """
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_statement_{operation}() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    noted smallint[] := @schema@.sharding_fence_check_all(ARRAY({buckets}), TG_RELID);
BEGIN
    IF noted IS NOT NULL THEN
        INSERT INTO @schema@.sharding_dirty (bucket, table_name, key)
        SELECT bucket, @schema@.sharding_fence_table(TG_RELID), @schema@.sharding_fence_key(written, TG_ARGV)
        FROM ({rows}) AS touched
        WHERE bucket = ANY (noted);
    END IF;
    RETURN NULL;
END $$;
"""


def _statement(operation: str, *tables: str) -> str:
    return _STATEMENT.format(
        operation=operation,
        # UNION leaves out what comes twice, also in one table.
        buckets=" UNION ".join(f"SELECT DISTINCT bucket FROM {table}" for table in tables),
        rows=" UNION ALL ".join(f"SELECT bucket, to_jsonb({table}) AS written FROM {table}" for table in tables),
    )


TRIGGER_FUNCTIONS: Final = (
    _KEY,
    _NOTE,
    _ROW.format(operation="insert", row="NEW"),
    _ROW_UPDATE,
    _ROW.format(operation="delete", row="OLD"),
    _statement("insert", "new_rows"),
    _statement("update", "old_rows", "new_rows"),
    _statement("delete", "old_rows"),
)
