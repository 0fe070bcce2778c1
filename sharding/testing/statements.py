"""
What tests observe: the statements that each database was sent, and the questions that went to more than one bucket.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

from sharding.backends import hook
from sharding.backends.hook import FanOutRequest

#: How statements begin that only open, close or mark a transaction.
TRANSACTION_CONTROL = (
    *("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE ", "SET CONSTRAINTS", "PREPARE TRANSACTION"),
    # The question at the end of a block who wrote, and the decision of one over several databases.
    *("SELECT pg_current_xact_id_if_assigned()", "INSERT INTO sharding_decision", "DELETE FROM sharding_decision"),
)


class Statements(Mapping[str, list[str]]):
    """
    The statements of a block by database: ``{alias: [sql, …]}``. An alias that was sent nothing is missing.

    ``executemany()`` counts as one statement.
    """

    def __init__(self, *, transactions: bool = False) -> None:
        #: (alias, sql) in the order in which they were sent.
        self.sent: list[tuple[str, str]] = []
        self._transactions = transactions

    def __getitem__(self, alias: str) -> list[str]:
        found = [sql for name, sql in self.sent if name == alias]
        if not found:
            raise KeyError(alias)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({alias for alias, _ in self.sent}))

    def __len__(self) -> int:
        return len({alias for alias, _ in self.sent})

    def __repr__(self) -> str:
        return f"<Statements {dict(self)!r}>"

    @property
    def counts(self) -> dict[str, int]:
        """How many statements each database was sent."""
        return dict(sorted(Counter(alias for alias, _ in self.sent).items()))

    def record(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Note a statement, also one that fails, and execute it. An execute wrapper."""
        text = sql if isinstance(sql, str) else str(sql)
        if self._transactions or not text.lstrip().upper().startswith(TRANSACTION_CONTROL):
            self.sent.append((context["connection"].alias, text))
        return execute(sql, params, many, context)


@contextmanager
def statements(*, transactions: bool = False) -> Iterator[Statements]:
    """
    Record every statement of the block, on every database, in every thread that connects inside.

    Args:
        transactions: also record BEGIN, SAVEPOINT and the like, as far as Django sends them as statements. PostgreSQL's
            BEGIN and COMMIT are sent by the driver and are never seen.
    """
    found = Statements(transactions=transactions)
    here = threading.get_ident()

    with ExitStack() as stack:

        def listen(connection: Any, **kwargs: Any) -> None:
            if found.record not in connection.execute_wrappers:
                connection.execute_wrappers.append(found.record)
                stack.callback(connection.execute_wrappers.remove, found.record)

        def listen_elsewhere(connection: Any, **kwargs: Any) -> None:
            if threading.get_ident() != here:
                listen(connection)

        for connection in connections.all():
            listen(connection)
        # The wrappers of other threads are met when they connect.
        connection_created.connect(listen_elsewhere, weak=False)
        stack.callback(connection_created.disconnect, listen_elsewhere)
        yield found


@contextmanager
def fan_outs() -> Iterator[list[FanOutRequest]]:
    """Collect the questions of the block that name several buckets or none, Django's own probes among them."""
    found: list[FanOutRequest] = []
    with hook.watched_by(found.append):
        yield found


@contextmanager
def assert_no_fan_out() -> Iterator[None]:
    """
    Fail if the block asks anything that may lie in several buckets, wherever those buckets live today.

    Raises:
        AssertionError: it did; the message tells what.
    """
    with fan_outs() as found:
        yield
    if found:
        raise AssertionError(
            f"{len(found)} queries were not limited to one bucket:\n" + "\n".join(f"  {_told(each)}" for each in found)
        )


@contextmanager
def assert_statements(expected: Mapping[str, int]) -> Iterator[Statements]:
    """
    Fail unless the block sends exactly as many statements as said: ``{alias: number}``, without transaction control.

    Raises:
        AssertionError: it sent others; the message lists them.
    """
    with statements() as found:
        yield found
    wanted = {alias: number for alias, number in sorted(expected.items()) if number}
    if found.counts != wanted:
        sent = "\n".join(f"  {alias}: {sql}" for alias, sql in found.sent)
        raise AssertionError(f"Expected the statements {wanted}, but these were sent: {found.counts}\n{sent}")


class ShardedTestCaseMixin:
    """Mixin of Django's TestCase and TransactionTestCase: every database, and what one asks of several of them."""

    databases = "__all__"

    def assertNoFanOut(self) -> Any:
        """Fail if the ``with`` block asks anything that is not limited to one bucket."""
        return assert_no_fan_out()

    def assertStatements(self, expected: Mapping[str, int]) -> Any:
        """Fail unless the ``with`` block sends exactly ``{alias: number}`` statements."""
        return assert_statements(expected)


def _told(request: FanOutRequest) -> str:
    model: Any = request.query.model
    what = {"SQLUpdateCompiler": "UPDATE", "SQLDeleteCompiler": "DELETE"}.get(request.name, "SELECT")
    limit = "no bucket named" if request.buckets is None else f"{len(request.buckets)} buckets"
    asker = ", asked by Django itself" if request.probe else ""
    return f"{what} of {model._meta.label}: {limit}{asker}"
