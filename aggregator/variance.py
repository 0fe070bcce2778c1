"""
Variances and standard deviations of a whole from the parts of it, as the database itself computes them.
"""

from __future__ import annotations

from typing import Any

#: The number of values of which there is no answer, for each function.
TOO_FEW = {"VAR_POP": 0, "STDDEV_POP": 0, "VAR_SAMP": 1, "STDDEV_SAMP": 1}
#: Types of which PostgreSQL computes the variance in numeric, and so from sums without rounding.
EXACT = frozenset({"smallint", "integer", "bigint", "numeric"})
FLOAT = "double precision"
#: So many decimals that rounding the root again, to those of the variance, gives what rounding once gives.
DECIMALS = 1_000
#: What the functions are called in the memory in which SQLite's answers are finished.
PREFIX = "SHARDKIT_"


def of_numbers(function: str, number: str, total: str, squares: str) -> str:
    """Return the SQL for exact types, of columns with COUNT(x), SUM(x) and SUM(x * x); its digits are PostgreSQL's."""
    number, total, squares = f"SUM({number})", f"SUM({total})", f"SUM({squares})"
    few = TOO_FEW[function]
    spread = f"({number} * {squares} - {total} * {total})"
    variance = (
        f"CASE WHEN {number} <= {few} THEN NULL WHEN {spread} <= 0 THEN 0 "
        f"ELSE {spread} / ({number} * ({number} - {few})) END"
    )
    if function.startswith("VAR"):
        return f"({variance})"
    # NaN has no scale.
    return f"(SELECT ROUND(SQRT(ROUND(v, {DECIMALS})), COALESCE(SCALE(v), 0)) FROM (SELECT {variance} AS v) AS whole)"


def of_floats(function: str, number: str, total: str, variance: str) -> str:
    """
    Return the SQL for floats, of columns with COUNT(x), SUM(x) and VAR_POP(x).

    The squares of the parts' distances from the mean are added. Differences of great numbers are taken in numeric,
    where nothing is lost.
    """
    few = TOO_FEW[function]
    count = f"SUM({number})"
    exact = f"{total}::text::numeric"
    square = f"{exact} * {exact}"
    # As many decimals as the square has, and more for the quotient.
    quotient = "ROUND({0}, COALESCE(SCALE({0}), 0) + 40) / {1}"
    between = f"SUM({quotient.format(f'({square})', number)}) - " + quotient.format(
        f"(SUM({exact}) * SUM({exact}))", f"NULLIF({count}, 0)"
    )
    # Less is nothing to a float, and would be an error.
    distances = f"(SUM({variance} * {number}) + GREATEST(ROUND({between}, 300), 0)::float8)"
    whole = f"CASE WHEN {count} <= {few} THEN NULL ELSE {distances} / ({count} - {few})::float8 END"
    return f"({whole})" if function.startswith("VAR") else f"SQRT({whole})"


def of_values(function: str, value: str, number: str) -> str:
    """Return the SQL for SQLite, of columns with a value and how often there is that."""
    return f"{PREFIX}{function}({value}, {number}) FILTER (WHERE {number} > 0)"


def register(memory: Any) -> None:
    """Give a connection of sqlite3 Django's functions for values that come with a number."""
    from django.db.backends.sqlite3 import _functions

    def step(values: list[Any], value: Any, number: int) -> None:
        values.extend([value] * number)

    bases = {
        "VAR_POP": _functions.VarPop,
        "VAR_SAMP": _functions.VarSamp,
        "STDDEV_POP": _functions.StdDevPop,
        "STDDEV_SAMP": _functions.StdDevSamp,
    }
    for name, base in bases.items():
        memory.create_aggregate(f"{PREFIX}{name}", 2, type(name, (base,), {"step": step}))
