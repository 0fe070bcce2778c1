"""Each page about moves, from its first command to its last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from scripts.cluster import Cluster
from tests.documents import ROOT
from tests.how_to.following import follow, how_to, sections
from tests.how_to.project import Project, project, servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHARDS = ("shard_a", "shard_b", "shard_c")
ALL = (*SHARDS, "shard_d")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with servers(tmp_path_factory.mktemp("how-to") / "servers") as found:
        yield found


@pytest.fixture
def made(cluster: Cluster, tmp_path: Path) -> Iterator[Project]:
    with project(cluster, tmp_path) as found:
        yield found


def followed(made: Project, page: Path, before: Mapping[str, Callable[[Project], object]], *only: str) -> None:
    """Follow a page; ``before`` has what happens behind the reader's back before a section."""
    titles = [title for title, _ in sections(page)]
    assert {*before, *only} <= {*titles}
    for title, steps in sections(page):
        if only and title not in only:
            continue
        before.get(title, lambda project: None)(made)
        for step in steps:
            wrong = follow(made, step)
            if wrong is not None:
                pytest.fail(f"{page.name}, {title}: {wrong}", pytrace=False)


def add_empty_shard(made: Project) -> None:
    made.declare(*ALL)
    made.done("python manage.py migrate_all")
    made.done("python manage.py shards init")


def plan(made: Project, tenant: int, file: str = "plan.json") -> int:
    """Plan that the bucket of a tenant goes to shard_d, beside the others there; return the bucket."""
    made.done(f"python manage.py rebalance plan --isolate shop.Order:{tenant} --to shard_d --shared --output {file}")
    (move,) = json.loads(made.read(file))["moves"]
    return int(move["bucket"])


def lost(phase: str, tenant: int) -> Callable[[Project], int]:
    """Return what leaves a move in a phase, whose mover is dead."""

    def leave(made: Project) -> int:
        bucket = plan(made, tenant)
        made.done(f"python -m tests.how_to.lost_mover {phase}")
        return bucket

    return leave


def contradict(made: Project) -> None:
    bucket = lost("copying", 3)(made)
    made.execute("shard_d", "UPDATE sharding_fence SET state = 'owned' WHERE bucket = %s", [bucket])
    # It goes on trying, so that somebody must end it once it has met the contradiction.
    error = "SELECT error FROM sharding_move WHERE bucket = %s"
    while "both shards accept writes" not in str(made.execute("control", error, [bucket])):
        made.run("timeout --signal INT 15 python manage.py rebalance apply --json")


def change_a_row(made: Project) -> None:
    lost("catching_up", 4)(made)
    for statement in (
        "ALTER TABLE shop_order DISABLE TRIGGER USER",
        "UPDATE shop_order SET total = total + 1 WHERE tenant_id = 4 AND total = 7",
        "ALTER TABLE shop_order ENABLE TRIGGER USER",
    ):
        made.execute("shard_d", statement)


def differ(made: Project) -> None:
    plan(made, 5)
    made.execute("shard_d", "ALTER TABLE shop_order ADD COLUMN surplus integer")


def refuse_rows(made: Project) -> None:
    made.execute("shard_d", "ALTER TABLE shop_order DROP COLUMN surplus")
    lost("copying", 5)(made)
    # Of a tenant's orders each has another total, and other tenants of the bucket have the same.
    made.execute("shard_d", "CREATE UNIQUE INDEX one_total ON shop_order (total) WHERE bucket = 28")


def want_to_stop(made: Project) -> None:
    made.execute("shard_d", "DROP INDEX one_total")
    lost("copying", 6)(made)
    plan(made, 7, "taken-back.json")


def leave_rows(made: Project) -> None:
    bucket = plan(made, 8)
    made.execute(
        "shard_d",
        "INSERT INTO sharding_fence (bucket, state, epoch, generation, forward, mark) "
        "VALUES (%s, 'importing', 1, 1, '', 0)",
        [bucket],
    )


def test_add_a_shard(made):
    made.begin(*SHARDS)
    followed(made, how_to("add-a-shard.md"), {})


def test_drain_a_server(made):
    made.begin(*SHARDS)
    followed(made, how_to("drain-a-server.md"), {})


def test_isolate_a_tenant(made):
    made.begin(*SHARDS, large="42")
    add_empty_shard(made)
    followed(made, how_to("isolate-a-tenant.md"), {})


RECOVERY = {
    "The mover was killed": lost("copying", 42),
    "A bucket is closed to writes": lost("finishing", 2),
    "The fences contradict the map": contradict,
    "The rows differ": change_a_row,
    "Nothing begins": differ,
    "The target does not take a row": refuse_rows,
    "You want it to stop": want_to_stop,
    "Something is left": leave_rows,
}


def test_recover_moves(made):
    made.begin(*SHARDS)
    add_empty_shard(made)
    followed(made, how_to("recover-moves.md"), RECOVERY)


def test_grow_out_of_a_cluster_of_one(made):
    """The page about adopting: from one database to shards."""
    made.begin(initialise=False)
    page = ROOT / "docs" / "topics" / "adopting.md"
    followed(made, page, {}, "5. Declare shards", "6. Move buckets out of `default`")
