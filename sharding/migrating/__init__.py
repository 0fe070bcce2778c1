"""Migrate every database of a cluster, and compare their real schemas."""

from __future__ import annotations
