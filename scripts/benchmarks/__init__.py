"""The scenarios of ``scripts/bench.py``."""
