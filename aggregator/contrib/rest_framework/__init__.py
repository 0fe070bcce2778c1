"""
Django REST framework over a cluster (``pip install django-shardkit[drf]``).

    ShardedModelSerializer     the serializer of a sharded model, and of a global model that refers to sharded ones
    KeysetCursorPagination     cursor pagination that neither skips nor repeats a row
"""

from __future__ import annotations

from aggregator.contrib.rest_framework.pagination import KeysetCursorPagination
from aggregator.contrib.rest_framework.serializers import ShardedModelSerializer

__all__ = ["KeysetCursorPagination", "ShardedModelSerializer"]
