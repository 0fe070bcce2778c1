"""
Second keys: tables in the control database that say in which bucket the rows with a value are.

``declaration`` is what a model writes, ``tables`` makes models of it, ``entries`` writes their rows, ``states`` knows
which lookups are complete, and ``matching`` finds the lookup that a WHERE clause names.
"""
