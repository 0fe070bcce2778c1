"""
The mutations of pages by cursors: a page leaves out rows, or has some again.
"""

from __future__ import annotations

from scripts.mutation_list import Mutation

CONDITIONS = "aggregator/page_conditions.py"
PAGES = ("tests/test_keyset.py", "tests/differential/test_pages.py")

MUTATIONS = [
    Mutation(
        "rows with the last row's first key are not looked at any more",
        CONDITIONS,
        "    return _any(found)\n",
        "    return found[0]\n",
        PAGES,
    ),
    Mutation(
        "pages end before the NULLs",
        CONDITIONS,
        "        parts.append(first.is_null())\n",
        "        pass\n",
        PAGES,
    ),
    Mutation(
        "NULLs of a later key are left out",
        CONDITIONS,
        "            greater = _any([greater, key.is_null()])\n",
        "            pass\n",
        PAGES,
    ),
    Mutation(
        "the condition of a page is dropped",
        CONDITIONS,
        "    if condition is not None:\n",
        "    if condition is None:\n",
        PAGES,
    ),
]
