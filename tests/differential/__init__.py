"""
The differential test: random programs on the cluster and on one database with the same rows; equal, or refused.

data             the rows, the same on both sides
conditions       WHERE clauses
programs         what is asked or written, as plain values
execution        runs a program on one side
foreign_keys     writes of foreign keys of several rows
ledger_programs  questions about rows with a composite primary key
lookup_programs  rows with second keys
blocks           programs that commit, and roll back, over several databases
tally            what the programs of a run covered
"""
