"""Models made by one test, in no registry afterwards."""

from __future__ import annotations

import pytest
from django.test.utils import isolate_apps

from sharding import cluster_map, reference_models, registry
from sharding.model_checks import MODEL_CHECKS


@pytest.fixture(autouse=True)
def isolated(monkeypatch):
    """Models made by a test are in no registry afterwards, and shards are declared that own buckets."""
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    monkeypatch.setattr(reference_models, "_models", dict(reference_models._models))
    monkeypatch.setattr(cluster_map, "_loaded", None)
    registry.reset()
    reference_models.reset()
    with isolate_apps("tests.shop") as apps:
        yield apps
    registry.reset()
    reference_models.reset()


@pytest.fixture
def found(isolated):
    """Return what the checks say of the models made so far."""
    return lambda: [each for check in MODEL_CHECKS for each in check(list(isolated.get_app_configs()))]
