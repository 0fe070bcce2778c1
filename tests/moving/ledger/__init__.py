"""Writers of all kinds that keep books of what was acknowledged, while buckets go from shard to shard."""
