"""What moves of buckets cost, in parts."""
