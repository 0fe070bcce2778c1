"""
The demo's settings, with buckets that are few and therefore large, and fences.
"""

from demo.settings import *  # noqa: F403

SHARDING = {"BUCKETS": 8, "FENCE": "row", "MAP_TTL": 0.2}
