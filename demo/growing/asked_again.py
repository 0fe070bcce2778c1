"""
Ask every fan-out of the demo again, in a process that knows all five shards, and print what came of it as JSON.
"""

from __future__ import annotations

import json

import django

django.setup()

from demo.chapters import fan_outs, pages  # noqa: E402
from demo.performance import perform  # noqa: E402
from demo.step import steps_of  # noqa: E402

if __name__ == "__main__":
    found = []
    for each in (*steps_of(fan_outs), *steps_of(pages)):
        outcome = perform(each, {})
        found.append({"name": each.function.__name__, "asked": sorted(outcome.asked), "failure": outcome.failure})
    print(json.dumps(found))
