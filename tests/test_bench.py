"""The measuring of the benchmarks, and each scenario on a small part of its data."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.benchmarks.delay_proxy import behind
from scripts.benchmarks.rounds import Comparison, measure
from tests.clocks import change_time

ROOT = Path(__file__).resolve().parent.parent


def test_figure_is_the_ratio_of_the_times(monkeypatch):
    def taking(seconds):
        # Each time a bit longer.
        return lambda _: clock.append(clock[-1] + seconds * (1 + len(clock) / 1e6))

    clock = [0.0]
    change_time(monkeypatch, "scripts.benchmarks.rounds", perf_counter=lambda: clock[-1])
    figure = measure(Comparison("slower", "two", "one", 1.5, taking(0.004), taking(0.002), pairs=3), rounds=5)
    assert figure.ratio == pytest.approx(2, rel=1e-3)
    assert figure.quartiles[0] <= figure.ratio <= figure.quartiles[1]
    assert figure.ours == pytest.approx(0.004, rel=1e-3)
    assert not figure.met


def test_both_operations_of_a_pair_get_the_same_argument():
    arguments = iter(range(100))
    ours: list[int] = []
    baseline: list[int] = []
    comparison = Comparison(
        *("same", "a", "b", 1.0), ours.append, baseline.append, argument=lambda: next(arguments), pairs=2
    )
    measure(comparison, rounds=2)
    assert ours == baseline == list(range(10))


FIGURES = {
    "routing": {"point_read_ratio", "point_read_by_key_ratio", "insert_ratio", "global_read_ratio"},
    "fanout": {
        *("first_page_vs_loop_ratio", "count_ratio", "group_by_ratio", "count_distinct_ratio"),
        *("first_page_delay_ratio", "one_row_16_ratio", "deep_page_ratio"),
        *("stream_instances_ratio", "stream_values_ratio", "stream_extra_mb"),
    },
    "transactions": {
        "one_shard_commit_ratio",
        "two_shard_commit_ratio",
        "lookup_read_ratio",
        "reference_write_ms",
        "half_commits",
    },
    "rebalance": {
        *("copy_ratio", "resume_ratio", "neighbour_latency_ratio"),
        *("gap_p50_ms", "gap_p99_ms", "gap_max_ms", "fence_us_single", "fence_us_bulk_row"),
        *("lost", "duplicated"),
    },
    "fence": {
        f"{form}_us_{what}" for form in ("fence", "statement") for what in ("single", "bulk_row", "bulk_row_of_one")
    },
}
#: What must not happen.
NEVER = ("half_commits", "lost", "duplicated")
#: What is no ratio, and may be less than nothing where so little is measured.
TIMES = {"gap_p50_ms", "gap_p99_ms", "gap_max_ms", *FIGURES["fence"]}


@pytest.mark.slow
@pytest.mark.parametrize("scenario", FIGURES)
def test_scenario_ends_with_its_figures(scenario, tmp_path):
    arguments = [scenario, "--json", "--rows", "3000", "--rounds", "2", "--dir", str(tmp_path / "cluster")]
    command = [sys.executable, "-W", "error", "scripts/bench.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["scenario"] == scenario
    assert set(found["figures"]) == FIGURES[scenario]
    assert [found["figures"].pop(name, 0) for name in NEVER] == [0] * len(NEVER)
    for name in TIMES:
        found["figures"].pop(name, None)
    # So few rows may need none.
    assert 0 <= found["figures"].pop("stream_extra_mb", 0) < 60
    assert all(0 < ratio < 100 for ratio in found["figures"].values())


def test_the_proxy_delays_each_way():
    with socket.create_server(("127.0.0.1", 0)) as server, behind([server.getsockname()[1]], 60) as (port,):
        client = socket.create_connection(("127.0.0.1", port))
        there, _ = server.accept()
        with client, there:
            begun = time.monotonic()
            for part in (b"one, ", b"two"):
                client.sendall(part)
                time.sleep(0.01)
            client.shutdown(socket.SHUT_WR)
            assert there.makefile("rb").read() == b"one, two"
            assert time.monotonic() - begun >= 0.03
            begun = time.monotonic()
            there.sendall(b"back")
            assert client.recv(100) == b"back"
            assert time.monotonic() - begun >= 0.03
