"""Ask several shards, and answer as one database would."""
