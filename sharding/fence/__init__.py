"""
The fence of a shard: what lets only the owner of a bucket write it, whatever a process believes of the bucket map.

A table says what each bucket is on this database, and triggers ask it inside the transaction that writes. Whoever
changes the table waits for the writers first. Only PostgreSQL has fences.
"""
