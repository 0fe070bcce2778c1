"""
What operators ask of a cluster, as functions: initialise it, look at it, explain a query, audit its rows.

The management command `shards` parses, calls one of these, and prints.
"""
