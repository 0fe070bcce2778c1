"""
The traps of merging, a test for each: the cluster answers as one database, and the naive way would not.

limits      what is cut before it is merged
sorting     in what order rows are merged
aggregates  what is computed from the parts of a whole
equality    what is equal, and when duplicates are dropped
failures    what is missing
routes      who is asked at all
"""
