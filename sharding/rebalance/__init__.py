"""
Moving buckets from shard to shard while the application writes.
"""
