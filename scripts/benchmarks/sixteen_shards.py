"""
One row of sixteen shards that are 5 ms away: four databases on each of the four servers, and a cluster of their own.

It is a program of its own, since a process has one cluster. Sixteen servers would be too much for a small machine; each
database is behind a port of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from itertools import islice
from typing import Any

import django
import psycopg

from demo import data_set, records, servers
from scripts.benchmarks.delay_proxy import ROOT
from scripts.benchmarks.rounds import Comparison, Figure, measure, milliseconds

NAME = "one_row_16_ratio"
EACH = 4
ROWS = 4000
#: Rounds by which the slowest shard is found.
LOOKS = 9
PAIRS = 7


def figure(rounds: int) -> Figure:
    """Return what the program has measured; the servers are those of this process's environment."""
    command = [sys.executable, "-m", "scripts.benchmarks.sixteen_shards", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    comparison = _comparison(lambda _: None, lambda _: None)
    return Figure(comparison, found["ratio"], tuple(found["quartiles"]), found["ours"], found["baseline"])


def _environment() -> dict[str, str]:
    """Make the databases, and return the environment that names them."""
    prefixes = ("DATABASE_URL", "SHARD_URL", servers.PLAIN_PREFIX)
    found = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    found["DATABASE_URL"] = _created(os.environ["DATABASE_URL"], "sixteen")
    urls = sorted(value for name, value in os.environ.items() if name.startswith("SHARD_URL_"))
    for number, url in enumerate(urls * EACH):
        name = f"{number:02}"
        found[f"SHARD_URL_{name}"] = found[f"{servers.PLAIN_PREFIX}{name}"] = _created(url, f"sixteen_{name}")
    return found


def _created(url: str, database: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    return f"{url.rpartition('/')[0]}/{database}"


def main(rounds: int) -> None:
    """Set up the cluster of sixteen, and print what is measured as JSON."""
    django.setup()
    from demo import cluster_setup

    cluster_setup.migrate()
    cluster_setup.initialise()
    _load()
    measured = _measured(rounds)
    found = {"ratio": measured.ratio, "quartiles": measured.quartiles}
    print(json.dumps(found | {"ours": measured.ours, "baseline": measured.baseline}))


def _load() -> None:
    from demo.flights.models import Airline, Flight
    from scripts.benchmarks.flights import vacuum
    from sharding import conf

    data = data_set.obtain()
    Airline.objects.bulk_create(Airline(**record) for record in records.read(data.open("airlines"), records.AIRLINES))
    flights = (each for each in records.read(data.open("flights"), records.FLIGHTS) if each["plane_id"])
    Flight.objects.bulk_create(Flight(**record) for record in islice(flights, ROWS))
    vacuum(conf.current().shards)


def _measured(rounds: int) -> Figure:
    from aggregator import fan_out
    from demo.flights.models import Flight
    from scripts.benchmarks.delayed import delayed
    from scripts.benchmarks.routing import plain
    from sharding import conf

    def ours(_: object) -> list[Flight]:
        return list(fan_out(Flight.objects).order_by("-time_hour", "-id")[:1])

    def there(alias: str, _: object) -> list[Flight]:
        return list(Flight.objects.using(alias).order_by("-time_hour", "-id")[:1])

    shards = conf.current().shards
    with delayed([*shards, *map(plain, shards)]):
        times = {alias: milliseconds(partial(there, alias), LOOKS) for alias in map(plain, shards)}
        slowest = max(times, key=times.__getitem__)
        return measure(_comparison(ours, partial(there, slowest)), rounds)


def _comparison(ours: Any, there: Any) -> Comparison:
    what = "the latest flight of 16 shards, all 5 ms away"
    return Comparison(NAME, what, "the slowest shard", 1.3, ours, there, pairs=PAIRS)


if __name__ == "__main__":
    main(int(sys.argv[1]))
