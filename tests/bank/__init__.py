"""
The bank test: transfers among accounts on four shards and the control database, while clients and servers are killed.

settings, models   the bank's project; its databases lie on servers of the test's own
transfers          what a client does in one atomic block
steps              the statements of the commit protocol, numbered, and a fault before or after one of them
client             a process that does transfers and resolves, each in a fork of its own
processes          clients as the tests see them
cluster            the servers: they are cut off, restarted and taken down
audit              what must hold after recovery, asked with plain SQL
"""
