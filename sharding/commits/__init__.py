"""
Committing one atomic block over several databases, and finishing what a crash left half done.

Two-phase commit with presumed abort: every shard prepares, one row in the control database decides, every shard
commits what it prepared, and the row is forgotten.
"""
