"""
The functions that every write of a sharded table asks, as SQL.

A transaction takes the advisory lock of the bucket, shared, until it ends, and then reads the state. Two things keep a
late writer out: the functions are VOLATILE, so that under READ COMMITTED the state is read as it is after the lock was
got; and under the stricter levels, whose snapshots are older than that, the row is read FOR SHARE, which fails with a
serialization error if the row has changed since.

What was checked is remembered in a setting of the transaction, `sharding.checked`, a list like ``,17,205,``. It is
undone with a savepoint, just as the locks are. The first row that a transaction writes is not worth remembering: a
transaction of one row, the usual one, would pay a third more. When the list is full, the lock of the whole shard is
taken, and what is checked from there on is a bit in another setting, `sharding.checked_more`, which counts only beside
a list: whoever empties the list forgets both.
"""

from __future__ import annotations

from typing import Final

from sharding.hashing import MAX_BUCKETS

#: First keys of the advisory locks: of one bucket, and of all buckets of the shard, whose second key is 0.
BUCKET_LOCK: Final = 0x5348
SHARD_LOCK: Final = 0x5349
#: Buckets that one transaction locks one by one; from there on it has the lock of all. The server has room for about
#: max_locks_per_transaction (64) locks of each session.
MOST_LOCKS: Final = 64

#: The setting that marks a transaction as a mover's, and what it says: the generation, as text.
MOVER: Final = "sharding.mover"

MOVED: Final = "SH001"
FENCED: Final = "SH002"
UNKNOWN: Final = "SH003"
DIFFERENT: Final = "SH004"
SUPERSEDED: Final = "SH005"
TRUNCATED: Final = "SH006"

# Whether the transaction's snapshot is newer than the lock that was just got.
_IS_FRESH = "current_setting('transaction_isolation') = 'read committed'"
# Expressions alone: a PERFORM would cost as much as all the rest.
_LOCK_SHARD = f"IF pg_advisory_xact_lock_shared({SHARD_LOCK}, 0) IS NULL THEN NULL; END IF;"
# A bit for each bucket.
_NONE_MORE = f"repeat('00', {MAX_BUCKETS // 8})"

_NAME = """
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_table(relation oid) RETURNS text LANGUAGE sql STABLE AS $$
    -- A partition's rows are those of the whole table.
    SELECT relname::text FROM pg_catalog.pg_class WHERE oid = coalesce(pg_partition_root(relation::regclass), relation)
$$;
"""

_REFUSE = f"""
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_refuse(
    asked smallint, its_state text, its_epoch bigint, its_forward text, relation oid
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    its_table text := @schema@.sharding_fence_table(relation);
    its_detail text := json_build_object(
        'bucket', asked, 'state', its_state, 'epoch', its_epoch, 'forward', its_forward, 'table', its_table);
BEGIN
    IF its_state = 'moved' THEN
        RAISE EXCEPTION USING ERRCODE = '{MOVED}', DETAIL = its_detail,
            MESSAGE = format('Bucket %s has moved from this database to %s, so no row of it is written to %s here.',
                             asked, quote_literal(its_forward), its_table),
            HINT = 'Read the bucket map again, and write to the owner.';
    ELSIF its_state = 'fenced' THEN
        RAISE EXCEPTION USING ERRCODE = '{FENCED}', DETAIL = its_detail,
            MESSAGE = format('Bucket %s is about to move, so no row of it is written to %s at this moment.',
                             asked, its_table),
            HINT = 'Repeat the transaction in a moment.';
    ELSIF its_state = 'importing' THEN
        RAISE EXCEPTION USING ERRCODE = '{UNKNOWN}', DETAIL = its_detail,
            MESSAGE = format('Bucket %s is still being copied to this database, so no row of it is written to %s here.',
                             asked, its_table),
            HINT = 'Read the bucket map again, and write to the owner.';
    END IF;
    RAISE EXCEPTION USING ERRCODE = '{UNKNOWN}', DETAIL = its_detail,
        MESSAGE = format('Bucket %s is none of this database''s, so no row of it is written to %s here.',
                         asked, its_table),
        HINT = 'Read the bucket map again, and write to the owner.';
END $$;
"""

_REMEMBER = f"""
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_remember(asked smallint, checked text, more text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF more <> '' THEN
        more := encode(set_bit(decode(more, 'hex'), asked, 1), 'hex');
    ELSE
        checked := coalesce(nullif(checked, ''), ',') || asked || ',';
        -- A list of n numbers has two empty parts as well; one of so few characters need not be counted.
        IF octet_length(checked) > {2 * MOST_LOCKS}
            AND cardinality(string_to_array(checked, ',')) >= {MOST_LOCKS} + 2 THEN
            more := {_NONE_MORE};
        END IF;
        PERFORM set_config('sharding.checked', checked, true);
    END IF;
    PERFORM set_config('sharding.checked_more', more, true);
END $$;

CREATE OR REPLACE FUNCTION @schema@.sharding_fence_widen() RETURNS void LANGUAGE plpgsql AS $$
-- Lets the lock of the whole shard, which the transaction has, do for each bucket from here on: a bucket's own, taken
-- after it, would be in the way of a barrier that has that one and waits for the shard's.
DECLARE
    checked text := coalesce(current_setting('sharding.checked', true), '');
BEGIN
    IF checked = '' OR coalesce(current_setting('sharding.checked_more', true), '') = '' THEN
        PERFORM set_config('sharding.checked', coalesce(nullif(checked, ''), ','), true),
            set_config('sharding.checked_more', {_NONE_MORE}, true);
    END IF;
END $$;
"""

_MOVER = f"""
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_check_mover(asked smallint, mover text, relation oid)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    its_state text;
    its_epoch bigint;
    its_forward text;
    its_generation bigint;
BEGIN
    -- The lock keeps the next attempt from taking over before this transaction ends.
    SELECT state, epoch, forward, generation INTO its_state, its_epoch, its_forward, its_generation
    FROM @schema@.sharding_fence WHERE bucket = asked FOR SHARE;
    IF its_generation::text = mover AND its_state IN ('capturing', 'fenced', 'moved', 'importing') THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING ERRCODE = '{SUPERSEDED}',
        MESSAGE = format('Attempt %s moves bucket %s no longer, so it writes no row of it to %s.',
                         mover, asked, @schema@.sharding_fence_table(relation)),
        DETAIL = json_build_object('bucket', asked, 'state', its_state, 'epoch', its_epoch, 'forward', its_forward,
                                   'table', @schema@.sharding_fence_table(relation));
END $$;
"""

_CHECK = f"""
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_check(asked smallint, relation oid) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
-- Returns whether rows of the bucket are to be noted; raises an error if they are not to be written.
DECLARE
    checked text := current_setting('sharding.checked', true);
    mover text := current_setting('{MOVER}', true);
    -- Not empty when the list is full.
    more text := CASE WHEN checked <> '' THEN coalesce(current_setting('sharding.checked_more', true), '') ELSE '' END;
    its_state text;
    its_epoch bigint;
    its_forward text;
BEGIN
    IF asked IS NULL OR strpos(checked, ',' || asked || ',') > 0 THEN
        -- The column's constraint has its say on NULL.
        RETURN false;
    END IF;
    IF more <> '' AND asked BETWEEN 0 AND {MAX_BUCKETS - 1} AND get_bit(decode(more, 'hex'), asked) = 1 THEN
        RETURN false;
    END IF;
    IF mover <> '' THEN
        PERFORM @schema@.sharding_fence_check_mover(asked, mover, relation);
    ELSE
        IF more <> '' THEN
            {_LOCK_SHARD}
        ELSIF pg_advisory_xact_lock_shared({BUCKET_LOCK}, asked) IS NULL THEN
            NULL;
        END IF;
        IF {_IS_FRESH} THEN
            SELECT state, epoch, forward INTO its_state, its_epoch, its_forward
            FROM @schema@.sharding_fence WHERE bucket = asked;
        ELSE
            SELECT state, epoch, forward INTO its_state, its_epoch, its_forward
            FROM @schema@.sharding_fence WHERE bucket = asked FOR SHARE;
        END IF;
        IF its_state = 'capturing' THEN
            RETURN true;
        ELSIF its_state IS DISTINCT FROM 'owned' THEN
            PERFORM @schema@.sharding_fence_refuse(asked, its_state, its_epoch, its_forward, relation);
        END IF;
    END IF;
    -- A transaction that has no number yet has written nothing.
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        PERFORM @schema@.sharding_fence_remember(asked, checked, more);
    END IF;
    RETURN false;
END $$;
"""

_CHECK_ALL = f"""
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_check_all(asked smallint[], relation oid) RETURNS smallint[]
LANGUAGE plpgsql VOLATILE AS $$
-- Returns the buckets whose rows are to be noted, NULL for none; raises an error if one is not to be written.
DECLARE
    noted smallint[];
    each smallint;
BEGIN
    IF cardinality(asked) > {MOST_LOCKS} AND coalesce(current_setting('{MOVER}', true), '') = '' THEN
        {_LOCK_SHARD}
        PERFORM @schema@.sharding_fence_widen();
        IF NOT {_IS_FRESH} THEN
            PERFORM FROM @schema@.sharding_fence WHERE bucket = ANY (asked) ORDER BY bucket FOR SHARE;
        END IF;
        -- What is left over is looked at as usual.
        asked := ARRAY(
            SELECT given FROM unnest(asked) AS given
            WHERE NOT EXISTS (SELECT FROM @schema@.sharding_fence AS f WHERE f.bucket = given AND f.state = 'owned'));
    END IF;
    FOREACH each IN ARRAY asked LOOP
        IF @schema@.sharding_fence_check(each, relation) THEN
            noted := noted || each;
        END IF;
    END LOOP;
    RETURN noted;
END $$;
"""

_TRUNCATE = f"""
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_truncate() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    moving record;
BEGIN
    {_LOCK_SHARD}
    IF NOT {_IS_FRESH} THEN
        -- Its row changes with every state.
        PERFORM FROM @schema@.sharding_identity FOR SHARE;
    END IF;
    SELECT bucket, state, epoch, forward INTO moving FROM @schema@.sharding_fence
    WHERE state IN ('capturing', 'fenced', 'importing') ORDER BY bucket LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = '{TRUNCATED}',
            MESSAGE = format('%s cannot be truncated while bucket %s is being moved from or to this database.',
                             @schema@.sharding_fence_table(TG_RELID), moving.bucket),
            DETAIL = json_build_object('bucket', moving.bucket, 'state', moving.state, 'epoch', moving.epoch,
                                       'forward', moving.forward, 'table', @schema@.sharding_fence_table(TG_RELID)),
            HINT = 'Use DELETE, or wait until the move has ended.';
    END IF;
    RETURN NULL;
END $$;
"""

CHECKS: Final = (_NAME, _REFUSE, _REMEMBER, _MOVER, _CHECK, _CHECK_ALL, _TRUNCATE)
