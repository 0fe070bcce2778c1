"""
delete() of a row with a GenericRelation deletes the sharded rows that refer to it, on whichever shards they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import connections, models

from aggregator import fan_out
from sharding import registry, scope
from sharding.errors import ScopeConflict, ShardKeyMissing
from sharding.fields import ShardUUIDField
from sharding.models import ShardedModel
from sharding.testing.statements import fan_outs
from tests.layouts import CLUSTER, Layout, tenant_on
from tests.messages import whole

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def _made() -> list[Any]:
    class Remark(ShardedModel):
        shard_key = "tenant_id"
        id = ShardUUIDField(primary_key=True)
        tenant_id = models.IntegerField()
        # Sorted by their names, the id comes first.
        kind = models.ForeignKey(ContentType, models.CASCADE, db_constraint=False)
        about = models.CharField(max_length=36)
        subject = GenericForeignKey("kind", "about")

        class Meta:
            app_label = "shop"

    class Reply(ShardedModel):
        shard_key = "tenant_id"
        id = ShardUUIDField(primary_key=True)
        tenant_id = models.IntegerField()
        remark = models.ForeignKey(Remark, models.CASCADE)

        class Meta:
            app_label = "shop"

    class Topic(ShardedModel):
        shard_key = "tenant_id"
        id = ShardUUIDField(primary_key=True)
        tenant_id = models.IntegerField()
        remarks = GenericRelation(Remark, "about", "kind")

        class Meta:
            app_label = "shop"

    class Board(models.Model):
        remarks = GenericRelation(Remark, "about", "kind")

        class Meta:
            app_label = "shop"

    return [Remark, Reply, Topic, Board]


@pytest.fixture(scope="module")
def made(django_db_setup: None, django_db_blocker: Any) -> Iterator[Any]:
    """Models with tables on every database, for the tests of this file."""
    known = dict(registry._models)
    found = _made()
    with django_db_blocker.unblock():
        for alias in CLUSTER:
            with connections[alias].schema_editor() as editor:
                for model in found:
                    editor.create_model(model)
        yield SimpleNamespace(**{model.__name__: model for model in found})
        for alias in CLUSTER:
            with connections[alias].schema_editor() as editor:
                for model in reversed(found):
                    editor.delete_model(model)
    for model in found:
        del apps.all_models["shop"][model._meta.model_name]
    apps.clear_cache()
    registry._models.clear()
    registry._models.update(known)
    registry.reset()


@pytest.fixture
def rows(made: Any, layout: Layout, db: None) -> Any:
    """A topic and a board, with remarks under two keys, and a topic that stays."""
    ContentType.objects.clear_cache()
    tenants = tenant_on(layout.home), tenant_on(layout.away or layout.home, 5)
    topic, other = (made.Topic.objects.create(tenant_id=tenants[0]) for _ in range(2))
    board = made.Board.objects.create()
    for subject in (topic, board, other):
        for tenant in tenants:
            remark = made.Remark.objects.create(tenant_id=tenant, subject=subject)
            made.Reply.objects.create(tenant_id=tenant, remark=remark)
    return SimpleNamespace(topic=topic, other=other, board=board, tenant=tenants[0])


def _subjects(made: Any) -> list[Any]:
    return sorted(fan_out(made.Remark.objects).values_list("about", flat=True))


def test_a_sharded_row(made: Any, rows: Any) -> None:
    with fan_outs() as questions:
        assert rows.topic.delete() == (5, {"shop.Reply": 2, "shop.Remark": 2, "shop.Topic": 1})
    assert [(each.buckets, each.probe) for each in questions][:1] == [(None, True)]
    assert _subjects(made) == sorted([str(rows.board.pk)] * 2 + [str(rows.other.pk)] * 2)


def test_sharded_rows(made: Any, rows: Any) -> None:
    deleted = made.Topic.objects.filter(tenant_id=rows.tenant).delete()
    assert deleted == (10, {"shop.Reply": 4, "shop.Remark": 4, "shop.Topic": 2})
    assert _subjects(made) == [str(rows.board.pk)] * 2


def test_a_global_row(made: Any, rows: Any) -> None:
    assert rows.board.delete() == (5, {"shop.Reply": 2, "shop.Remark": 2, "shop.Board": 1})
    assert _subjects(made) == sorted([str(rows.topic.pk)] * 2 + [str(rows.other.pk)] * 2)


def test_rows_on_which_nothing_depends(made: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    field = made.Reply._meta.get_field("remark")
    monkeypatch.setattr(field.remote_field, "on_delete", models.DO_NOTHING)
    fan_out(made.Reply.objects).delete()
    assert rows.topic.delete() == (3, {"shop.Remark": 2, "shop.Topic": 1})
    assert _subjects(made) == sorted([str(rows.board.pk)] * 2 + [str(rows.other.pk)] * 2)


def test_inside_a_scope(made: Any, rows: Any) -> None:
    """A sharded row's scope limits what depends on it, too; a global row belongs to every key."""
    message = (
        f"Looking for dependent rows of shop.Remark concerns rows of every tenant_id, inside a scope of "
        f"tenant_id={rows.tenant}. Leave the scope first."
    )
    with scope(rows.tenant, of=made.Topic):
        assert rows.topic.delete() == (3, {"shop.Reply": 1, "shop.Remark": 1, "shop.Topic": 1})
        with pytest.raises(ScopeConflict, match=whole(message)):
            rows.board.delete()


def test_prefetching_what_a_scope_hides(made: Any, rows: Any, layout: Layout) -> None:
    foreign = made.Topic.objects.create(tenant_id=tenant_on(layout.home, 2))
    remarks = [made.Remark(tenant_id=rows.tenant, subject=each) for each in (rows.topic, foreign)]
    for each in remarks:
        del each._state.fields_cache["subject"]
    message = (
        f"Fetching the shop.Topic rows to which several rows refer concerns rows of every tenant_id, inside a scope of "
        f"tenant_id={rows.tenant}. Leave the scope first."
    )
    with scope(rows.tenant, of=made.Topic), pytest.raises(ScopeConflict, match=whole(message)):
        models.prefetch_related_objects(remarks, "subject")
    models.prefetch_related_objects(remarks, "subject")
    assert [each.subject for each in remarks] == [rows.topic, foreign]


def test_the_application_still_says_whom_it_asks(made: Any, rows: Any) -> None:
    with pytest.raises(ShardKeyMissing):
        list(rows.topic.remarks.all())
    with pytest.raises(ShardKeyMissing):
        list(made.Topic.objects.filter(tenant_id=rows.tenant).prefetch_related("remarks"))
    assert rows.topic.remarks.filter(tenant_id=rows.tenant).get().subject == rows.topic
