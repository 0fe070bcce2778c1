"""
Rows for a move: a family of three tables, a tree, and values of every type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.rebalance.worlds import BUCKET, World

FAMILY = """
INSERT INTO rows_parent (id, bucket, tenant, name)
SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, {bucket}, n % 3, {bucket} || ' ' || n
FROM generate_series({first}, {last}) n;
INSERT INTO rows_child (tenant, number, bucket, text, parent_id)
SELECT n % 3, n, {bucket}, CASE n % 3 WHEN 0 THEN '' WHEN 1 THEN 'é' END,
       ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid
FROM generate_series({first}, {last}) n;
INSERT INTO rows_grandchild (id, bucket, tenant, number) OVERRIDING SYSTEM VALUE
SELECT n, {bucket}, n % 3, n FROM generate_series({first}, {last}) n;
"""
TYPES = r"""
INSERT INTO rows_types (id, bucket, at, day, span, price, exact, ratio, small, doc, jdoc, raw, code, words, grid, mood,
    moods, short, flags, vague, net, during, cash, yes, note, pairs, "Odd ""name") VALUES
('all', 7, '2024-10-27 02:30:00.123456+02', '0044-03-15 BC', '1 mon -3 days 00:00:01.5', 1.00, 12.30, '-0', 0.1,
 '{"b": 1,  "a": 2, "a": 3}', '{"b": 1,  "a": [null, "\u00e9"]}', '\x00ff5c', 'ab', '{"a,b","",NULL,"NULL"}',
 '[0:1][2:3]={{1,2},{3,4}}', 'sad', '{glad,sad}', 'short', B'1010', B'110', '10.0.0.1/8',
 '[2020-01-01 00:00+00,2020-02-01 00:00+00)', '12.50', true, E'tab\t\\N "q"', ROW(1, 'a,"b'), 5),
('', 7, 'infinity', '-infinity', '0', 'NaN', NULL, 'NaN', '-Infinity', 'null', 'null', '', '', '{}', '{}', 'glad', NULL,
 '', B'0000', B'', '::1', 'empty', '-0.01', false, '', NULL, NULL),
('none', 7, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
 NULL, NULL, NULL, NULL, NULL, NULL, NULL),
('Ünï "c" \ öde', 7, '1900-01-01', '9999-12-31', '178000000 years', 12345678901234567890.123456789000, 0, 1e308, 1e-38,
 '[]', '1.10', repeat('x', 9000)::bytea, 'é', '{a}', '{1}', NULL, '{}', NULL, NULL, NULL, NULL, '(,)', NULL, NULL, NULL,
 ROW(NULL, ''), -1)
"""


def family(world: World, first: int, last: int, bucket: int = BUCKET) -> None:
    """Write parents with numbers in a range, each with a child and a grandchild."""
    world.write(FAMILY.format(first=first, last=last, bucket=bucket))


def tree(world: World, numbers: Iterable[int], above: Callable[[int], int | None]) -> None:
    """Write rows of which each refers to another one of the same table."""
    with world.application.connection.transaction():
        for number in numbers:
            world.write("INSERT INTO rows_tree VALUES (%s, 7, %s, 'x')", number, above(number))


def instants(world: World) -> None:
    """Write rows whose keys can be written in several ways."""
    world.write("INSERT INTO rows_when VALUES ('2024-10-27 02:30+02', 1.00, 7, 1), ('2024-10-27 02:30+01', 1.5, 7, 2)")
