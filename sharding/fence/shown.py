"""
What keeps `sharding_identity.shown` and `hidden` right, as SQL; sharding.ownership compares them.
"""

from __future__ import annotations

from typing import Final

from sharding.bucket_states import HIDING, SHOWING

_SHOWING: Final = ", ".join(f"'{state}'" for state in sorted(SHOWING))

_HIDING: Final = ", ".join(f"'{state}'" for state in sorted(HIDING))

# A difference, not the sum of all: of two transactions that change the fence at the same time, neither sees the other.
_CHANGED = f"""
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_changed() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    more bigint := 0;
    more_hidden bigint := 0;
    is_changed boolean := true;
BEGIN
    -- This transaction itself may have written rows under the former states.
    PERFORM set_config('sharding.checked', '', true);
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE @schema@.sharding_identity SET shown = 0, hidden = 0;
        RETURN NULL;
    ELSIF TG_OP = 'INSERT' THEN
        SELECT sum(mark) FILTER (WHERE state IN ({_SHOWING})), count(*) FILTER (WHERE state IN ({_HIDING})),
               count(*) > 0
        INTO more, more_hidden, is_changed FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT -sum(mark) FILTER (WHERE state IN ({_SHOWING})), -count(*) FILTER (WHERE state IN ({_HIDING})),
               count(*) > 0
        INTO more, more_hidden, is_changed FROM old_rows;
    ELSE
        SELECT (SELECT coalesce(sum(mark), 0) FROM new_rows WHERE state IN ({_SHOWING}))
             - (SELECT coalesce(sum(mark), 0) FROM old_rows WHERE state IN ({_SHOWING})),
               (SELECT count(*) FROM new_rows WHERE state IN ({_HIDING}))
             - (SELECT count(*) FROM old_rows WHERE state IN ({_HIDING})),
               EXISTS (SELECT bucket, state, mark FROM new_rows EXCEPT SELECT bucket, state, mark FROM old_rows)
        INTO more, more_hidden, is_changed;
    END IF;
    IF is_changed THEN
        -- Also by nothing: that the row has changed tells a TRUNCATE with an older snapshot.
        UPDATE @schema@.sharding_identity SET shown = shown + coalesce(more, 0), hidden = hidden + more_hidden;
    END IF;
    RETURN NULL;
END $$;
"""

_IDENTIFIED = f"""
CREATE OR REPLACE FUNCTION @schema@.sharding_fence_identified() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    NEW.shown := (SELECT coalesce(sum(mark), 0) FROM @schema@.sharding_fence WHERE state IN ({_SHOWING}));
    NEW.hidden := (SELECT count(*) FROM @schema@.sharding_fence WHERE state IN ({_HIDING}));
    RETURN NEW;
END $$;
"""

_TRIGGERS = """
CREATE OR REPLACE TRIGGER sharding_fence_inserted AFTER INSERT ON @schema@.sharding_fence
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION @schema@.sharding_fence_changed();
CREATE OR REPLACE TRIGGER sharding_fence_updated AFTER UPDATE ON @schema@.sharding_fence
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION @schema@.sharding_fence_changed();
CREATE OR REPLACE TRIGGER sharding_fence_deleted AFTER DELETE ON @schema@.sharding_fence
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION @schema@.sharding_fence_changed();
CREATE OR REPLACE TRIGGER sharding_fence_truncated AFTER TRUNCATE ON @schema@.sharding_fence
FOR EACH STATEMENT EXECUTE FUNCTION @schema@.sharding_fence_changed();
CREATE OR REPLACE TRIGGER sharding_fence_identified BEFORE INSERT ON @schema@.sharding_identity
FOR EACH ROW EXECUTE FUNCTION @schema@.sharding_fence_identified();
"""

#: What the numbers are without triggers; they are put right when these are made.
_RECOMPUTED = f"""
UPDATE @schema@.sharding_identity SET
    shown = (SELECT coalesce(sum(mark), 0) FROM @schema@.sharding_fence WHERE state IN ({_SHOWING})),
    hidden = (SELECT count(*) FROM @schema@.sharding_fence WHERE state IN ({_HIDING}));
"""

SHOWN: Final = (_CHANGED, _IDENTIFIED, _TRIGGERS, _RECOMPUTED)
