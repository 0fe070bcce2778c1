"""
Placements propose which shard owns which bucket. They change nothing: what is true is in the bucket map.
"""

from __future__ import annotations

from sharding.placement.proposal import PLACEMENTS, Proposal, propose
from sharding.placement.request import PlacementRequest
from sharding.placement.strategies import ConsistentPlacement, EvenPlacement, ModuloPlacement, Placement

__all__ = [
    "PLACEMENTS",
    "ConsistentPlacement",
    "EvenPlacement",
    "ModuloPlacement",
    "Placement",
    "PlacementRequest",
    "Proposal",
    "propose",
]
