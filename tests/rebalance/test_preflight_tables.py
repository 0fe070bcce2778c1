"""What is found before the first move about tables: each finding has a real cause."""

from __future__ import annotations

import pytest

from sharding.fence.installation import VERSION
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.rebalance.preflights import SOURCE, TARGET, found, ready, spoilt

__all__ = ["ready"]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("ready"),
]

#: What is done on the target, what undoes it, and what is found then.
CASES = {
    "a column of another type": (
        "ALTER TABLE shop_ledger ALTER text TYPE varchar(999)",
        "ALTER TABLE shop_ledger ALTER text TYPE varchar(20)",
        (
            "error",
            "tables",
            "shop_ledger.text has the type 'character varying(20)' on 'shard_a' and 'character varying(999)' on "
            "'shard_b'. Run `manage.py migrate_all`, or make them alike.",
        ),
    ),
    "a migration that is not applied": (
        "UPDATE django_migrations SET name = '0004_other' WHERE app = 'shop' AND name = '0004_members'",
        "UPDATE django_migrations SET name = '0004_members' WHERE app = 'shop' AND name = '0004_other'",
        (
            "error",
            "migrations",
            "shop.0004_members is applied on 'shard_a' and not on 'shard_b'. Run `manage.py migrate_all`.",
        ),
        (
            "error",
            "migrations",
            "shop.0004_other is applied on 'shard_b' and not on 'shard_a'. Run `manage.py migrate_all`.",
        ),
    ),
    "another fence": (
        "COMMENT ON FUNCTION sharding_fence_check IS 'old'",
        f"COMMENT ON FUNCTION sharding_fence_check IS '{VERSION}'",
        (
            "error",
            "fence",
            "The fence of 'shard_b' is missing or of another release than this one. Run `manage.py migrate_all`, which "
            "brings it up to date.",
        ),
    ),
    "a trigger of the fence that is switched off": (
        "ALTER TABLE shop_tag DISABLE TRIGGER zz_sharding_fence_row_delete",
        "ALTER TABLE shop_tag ENABLE TRIGGER zz_sharding_fence_row_delete",
        (
            "error",
            "fence",
            "The triggers that keep writers from buckets which have moved are not as they should be on 'shard_b': "
            "those of public.shop_tag. Run `manage.py migrate_all`, which makes them.",
        ),
    ),
    "a right that is missing": (
        "REVOKE DELETE, UPDATE ON sharding_progress FROM CURRENT_USER",
        "GRANT ALL ON sharding_progress TO CURRENT_USER",
        (
            "error",
            "rights",
            "The role 'shardkit' lacks UPDATE, DELETE on sharding_progress of 'shard_b'. Grant it what it lacks.",
        ),
    ),
    "row level security": (
        "ALTER TABLE shop_tag ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "ALTER TABLE shop_tag DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
        (
            "error",
            "row security",
            "Row level security is active for shop_tag on 'shard_b', so that rows may be invisible to a move, and "
            "would not be copied. Let its role own the table without FORCE ROW LEVEL SECURITY, or bypass it.",
        ),
    ),
    "a trigger": (
        "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        "CREATE TRIGGER own AFTER INSERT ON shop_tag FOR EACH ROW EXECUTE FUNCTION own()",
        "DROP FUNCTION own CASCADE",
        (
            "warning",
            "triggers",
            "shop_tag has the trigger own on 'shard_b', which fires for the rows that a move writes or deletes there, "
            "too. Let it do nothing where current_setting('sharding.mover', true) is not empty, if it should not.",
        ),
    ),
    "a rule": (
        "CREATE RULE own AS ON DELETE TO shop_tag DO INSTEAD NOTHING",
        "DROP RULE own ON shop_tag",
        (
            "error",
            "rules",
            "shop_tag has the rule own on 'shard_b', which changes what statements write. Replace it by a trigger, or "
            "drop it.",
        ),
    ),
    "a foreign key to a table of that shard": (
        "CREATE TABLE others (id int PRIMARY KEY); "
        "ALTER TABLE shop_seat ADD CONSTRAINT own FOREIGN KEY (number) REFERENCES others NOT VALID",
        "ALTER TABLE shop_seat DROP CONSTRAINT own; DROP TABLE others",
        (
            "error",
            "foreign keys",
            "The foreign key own of shop_seat on 'shard_b' refers to others, which is neither sharded nor a reference "
            "table, so that its rows may be missing where the bucket goes. Make it a reference model, or drop the "
            "foreign key: Django's db_constraint=False keeps the field.",
        ),
    ),
    "a foreign key from a table of that shard": (
        "CREATE TABLE others (tag bigint CONSTRAINT own REFERENCES shop_tag)",
        "DROP TABLE others",
        (
            "error",
            "foreign keys",
            "The foreign key own of others on 'shard_b' refers to the sharded table shop_tag, whose rows could not "
            "leave that shard. Drop it: Django's db_constraint=False keeps the field.",
        ),
    ),
    "a foreign key to another bucket": (
        "CREATE UNIQUE INDEX numbers ON shop_seat (tenant_id, number); "
        "ALTER TABLE shop_line ADD other_tenant int, ADD other_number int, "
        "ADD CONSTRAINT own FOREIGN KEY (other_tenant, other_number) REFERENCES shop_seat (tenant_id, number)",
        "ALTER TABLE shop_line DROP other_tenant, DROP other_number; DROP INDEX numbers",
        (
            "error",
            "foreign keys",
            "The foreign key own of shop_line on 'shard_b' refers to rows of shop_seat that may be in another bucket, "
            "and so on another shard. Give both tables the same shard key, or drop it: Django's db_constraint=False "
            "keeps the field.",
        ),
    ),
    "a constraint over all buckets": (
        "CREATE UNIQUE INDEX one_label ON shop_tag (label)",
        "DROP INDEX one_label",
        (
            "warning",
            "unique",
            "one_label makes rows of shop_tag unique on 'shard_b', over all of its buckets and no others. If two "
            "shards have the same value of label, the bucket of one cannot move to the other. Add the shard key to it, "
            "or declare a unique lookup.",
        ),
    ),
    "an expression over all buckets": (
        "CREATE UNIQUE INDEX one_label ON shop_tag (upper(label))",
        "DROP INDEX one_label",
        (
            "warning",
            "unique",
            "one_label makes rows of shop_tag unique on 'shard_b', over all of its buckets and no others. If two "
            "shards have the same value of its expression, the bucket of one cannot move to the other. Add the shard "
            "key to it, or declare a unique lookup.",
        ),
    ),
}


@pytest.mark.parametrize(
    ("done", "undone", "expected"), [(each[0], each[1], each[2:]) for each in CASES.values()], ids=CASES
)
def test_something_is_not_as_it_should_be(done, undone, expected):
    with spoilt(TARGET, done, undone):
        findings = found()
    assert [each for each in expected if each not in findings] == []
    # Another column, or another foreign key between sharded tables, is a difference besides.
    assert [each for each in findings if each not in expected and each[1] != "tables"] == []
    assert found() == []


def test_large_objects():
    done, undone = "ALTER TABLE shop_tag ADD picture oid", "ALTER TABLE shop_tag DROP picture"
    with spoilt(SOURCE, done, undone), spoilt(TARGET, done, undone):
        assert found() == [
            (
                "error",
                "large objects",
                f"shop_tag.picture on {alias!r} is an oid, the number of a large object of that server, which does not "
                f"move. Store the bytes in a column of type bytea.",
            )
            for alias in (SOURCE, TARGET)
        ]


def test_collations():
    done = 'ALTER TABLE shop_ledger ALTER text TYPE varchar(20) COLLATE "C"'
    with spoilt(TARGET, done, done.replace('"C"', '"default"')):
        checks = {(severity, check) for severity, check, _ in found()}
    assert checks == {("error", "tables"), ("warning", "servers")}


@pytest.mark.parametrize(
    ("when", "body"),
    [
        ("WHEN (coalesce(current_setting('sharding.mover', true), '') = '')", "RETURN NULL;"),
        ("", "IF current_setting('sharding.mover', true) <> '' THEN RETURN NULL; END IF; RETURN NULL;"),
    ],
    ids=["its condition", "its function"],
)
def test_a_trigger_that_asks_for_the_mover(when, body):
    with spoilt(
        TARGET,
        f"CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$; "
        f"CREATE TRIGGER own AFTER INSERT ON shop_tag FOR EACH ROW {when} EXECUTE FUNCTION own()",
        "DROP FUNCTION own CASCADE",
    ):
        assert found() == []
