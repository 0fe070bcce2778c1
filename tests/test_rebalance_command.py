"""The command `rebalance` where nothing can move, and as a script; see tests/rebalance for what it plans."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests import servers
from tests.documents import ROOT
from tests.layouts import CLUSTER

if servers.engine == "sqlite":

    @pytest.mark.django_db(databases=CLUSTER)
    def test_sqlite_has_no_moves():
        with pytest.raises(CommandError) as raised:
            call_command("rebalance", "plan")
        assert str(raised.value) == (
            "'shard_a' is SQLite, and buckets move between PostgreSQL servers only. Nothing can be planned here."
        )


def test_the_script_runs_the_same_from_a_checkout():
    done = subprocess.run(
        [sys.executable, "scripts/rebalance.py", "plan", "--help"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: shardkit rebalance plan ")
