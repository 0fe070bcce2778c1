"""
Measure the toolkit on the flights of the demo: four shards, and one database that holds all rows besides.

    python scripts/bench.py routing        what it costs that no database is named
    python scripts/bench.py fanout         what it costs, or gains, to ask all shards at once
    python scripts/bench.py transactions   what it costs to commit on several databases
    python scripts/bench.py rebalance      how fast buckets move, and what clients notice of it
    python scripts/bench.py fence          what the triggers of the fence cost
    python scripts/bench.py fanout --json  ends with one JSON object: {"scenario": …, "figures": {…}}

Each figure of the table is a ratio of time: the median of paired rounds. Below 1 the toolkit is faster. The servers do
not wait for the disk, so that it does not hide what the toolkit costs; except for transactions, whose cost are such
waits.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from rich.table import Table

# Run as a file, this module has its own folder on the path and not the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.data_set import DataSetMissing
from demo.report import Report
from scripts.benchmarks import flights
from scripts.benchmarks.rounds import ROUNDS, Figure, measure
from scripts.postgres_programs import ClusterError

SCENARIOS = ("routing", "fanout", "transactions", "rebalance", "fence")
#: Their servers wait for the disk.
DURABLE = {"transactions"}
#: Their clusters are not the demo's.
SETTINGS = {"rebalance": "scripts.benchmarks.moves.settings"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line ``arguments`` and return the exit code, which does not judge the figures."""
    options = _parser().parse_args(arguments)
    report = Report()
    try:
        settings = SETTINGS.get(options.scenario, "scripts.benchmarks.settings")
        durable = options.scenario in DURABLE
        with flights.loaded(report, options.dir, options.rows, durable=durable, settings=settings):
            # Models can be imported only now.
            scenario = import_module(f"scripts.benchmarks.{options.scenario}")
            with scenario.comparisons() as comparisons:
                figures = [measure(each, options.rounds) for each in comparisons]
                figures += scenario.figures(options.rounds) if hasattr(scenario, "figures") else []
                values = list(scenario.values(options.rounds)) if hasattr(scenario, "values") else []
    except (ClusterError, DataSetMissing) as error:
        print(error, file=sys.stderr)
        return 1
    if figures:
        report.console.print(_table(options, figures))
    for value in values:
        target = "" if value.target is None else f" (target: {'≥' if value.at_least else '≤'} {value.target:g})"
        report.console.print(f"{value.what}: [bold]{value.number:.3g}[/] {value.unit}{target}")
    if options.json:
        rounded = {figure.comparison.name: round(figure.ratio, 4) for figure in figures}
        rounded |= {value.name: round(value.number, 4) for value in values}
        print(json.dumps({"scenario": options.scenario, "figures": rounded}))
    return 0


def _table(options: argparse.Namespace, figures: list[Figure]) -> Table:
    title = f"{options.scenario}: medians of {options.rounds} paired rounds"
    table = Table("what", "against", title=title, box=None, pad_edge=False, title_justify="left")
    for column in ("ms", "there", "ratio", "half within", "target"):
        table.add_column(column, justify="right")
    table.add_column("")
    for figure in figures:
        comparison = figure.comparison
        table.add_row(
            comparison.what,
            comparison.against,
            f"{figure.ours * 1000:.3f}",
            f"{figure.baseline * 1000:.3f}",
            f"[bold]{figure.ratio:.3f}[/]",
            " to ".join(f"{quartile:.2f}" for quartile in figure.quartiles),
            f"≤ {comparison.target:.2f}",
            "[green]met[/]" if figure.met else "[red]missed[/]",
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--json", action="store_true", help="print the figures as a JSON object on the last line")
    parser.add_argument("--rows", type=_positive, help="load only the first ROWS flights (default: all 336,776)")
    parser.add_argument(
        "--rounds", type=_positive, default=ROUNDS, help="rounds for each figure (default: %(default)s)"
    )
    parser.add_argument("--dir", type=Path, default=flights.FOLDER, help="the servers' folder (default: %(default)s)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text} is less than 2")
    return number


if __name__ == "__main__":
    sys.exit(main())
