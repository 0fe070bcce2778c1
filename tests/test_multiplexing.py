"""One statement for several servers from one thread: what wrappers see, errors, interruptions, other cursors."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

import psycopg
import pytest
from django.db import DataError, ProgrammingError, connections, transaction
from django.test.utils import CaptureQueriesContext, override_settings

from aggregator import executor, fan_out, finishing, multiplexing, on_each_shard
from aggregator.policy import Policy
from sharding.commits import waiting
from sharding.testing import cluster
from tests.shop.models import Order, Region

OWNERS = ("default", "shard_a", "shard_b", "shard_c")
# No transaction is open around these tests, which look at what autocommit leaves behind.
pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

#: A statement that takes a while, and answers when it began and ended. All servers have the clock of this machine.
NAP = "SELECT extract(epoch FROM clock_timestamp()), pg_sleep(%s), extract(epoch FROM clock_timestamp())"
#: Seconds that a statement takes which is not to come to its end.
LONG = 200


@pytest.fixture(scope="module", autouse=True)
def layout(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners(*OWNERS):
        yield


@pytest.fixture(autouse=True)
def orders(layout: None, db: None) -> None:
    Order.objects.bulk_create([Order(tenant_id=number, total=number, status=str(number)) for number in range(16)])


def wrappers() -> list[Any]:
    return [connections[alias] for alias in OWNERS]


def ask(sql: str, params: Any = ()) -> list[Any]:
    with executor.participating(connections["default"], OWNERS) as found:
        return executor.run(found, finishing.fetching(sql, params))


@contextmanager
def wrapped(wrapper: Callable[..., Any], *aliases: str) -> Iterator[None]:
    with ExitStack() as stack:
        for alias in aliases or OWNERS:
            stack.enter_context(connections[alias].execute_wrapper(wrapper))
        yield


def most_at_a_time(wanted: int) -> int:
    """Return how many statements that take a while ran at once; on a slow machine, only longer ones may meet."""
    for seconds in (0.3, 3, 30):
        naps = [(begun, ended) for [(begun, _, ended)] in ask(NAP, (seconds,))]
        found = max(sum(begun <= moment < ended for begun, ended in naps) for moment, _ in naps)
        if found >= wanted:
            break
    return found


def are_usable() -> bool:
    return ask("SELECT 1") == [[(1,)]] * len(OWNERS)


def test_answers_come_in_order() -> None:
    own = "SELECT pid FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    assert ask(own) == [[(connection.connection.info.backend_pid,)] for connection in wrappers()]


def test_statements_overlap() -> None:
    are_usable()
    assert most_at_a_time(4) == 4


def test_statements_of_a_block_overlap_with_its_beginning() -> None:
    """The driver begins a transaction with the first statement, and waits for the answer before that is sent."""
    with transaction.atomic(using="default"):
        assert most_at_a_time(4) == 4
        assert all(each.in_atomic_block for each in wrappers())


def test_max_parallel() -> None:
    with override_settings(SHARDING={"SHARDS": list(OWNERS[1:]), "MAX_PARALLEL": 2}):
        assert most_at_a_time(2) == 2


def test_no_other_thread_is_used() -> None:
    threads: set[int] = set()

    def note(execute: Any, *args: Any) -> Any:
        threads.add(threading.get_ident())
        return execute(*args)

    with wrapped(note):
        list(fan_out(Order.objects).order_by("total")[:5])
    assert threads == {threading.get_ident()}


def test_many_rows_and_long_statements() -> None:
    """More than a socket takes at once, in both directions."""
    text = "x" * 3_000_000
    answers = ask("SELECT %s || n FROM generate_series(1, 3) AS n", (text,))
    assert answers == [[(f"{text}{number}",) for number in (1, 2, 3)]] * 4


def test_statements_are_logged() -> None:
    with ExitStack() as stack:
        logs = [stack.enter_context(CaptureQueriesContext(each)) for each in wrappers()]
        ask("SELECT %s", ("logged",))
    assert [[query["sql"] for query in log.captured_queries] for log in logs] == [["SELECT 'logged'"]] * 4


def test_wrappers_may_change_a_statement() -> None:
    def comment(execute: Any, sql: Any, *args: Any) -> Any:
        return execute("SELECT 2", *args)

    with wrapped(comment, "shard_a"):
        assert ask("SELECT 1") == [[(1,)], [(2,)], [(1,)], [(1,)]]


@pytest.mark.parametrize("alias", OWNERS)
def test_wrappers_may_execute_twice(alias: str) -> None:
    def twice(execute: Any, *args: Any) -> Any:
        execute(*args)
        return execute(*args)

    with wrapped(twice, alias):
        assert are_usable()


@pytest.mark.parametrize("alias", OWNERS)
def test_wrappers_may_refuse_a_statement(alias: str) -> None:
    answered: list[str] = []

    def refuse(execute: Any, *args: Any) -> Any:
        raise ValueError("refused")

    def note(execute: Any, *args: Any) -> Any:
        result = execute(*args)
        answered.append(args[-1]["connection"].alias)
        return result

    with wrapped(refuse, alias), wrapped(note), pytest.raises(ValueError, match="refused"):
        ask("SELECT 1")
    # Each is noted when it has answered, the last one first.
    assert answered == [each for each in reversed(OWNERS) if each != alias] or alias not in answered
    assert are_usable()


def test_wrappers_see_the_errors() -> None:
    seen: list[tuple[str, type[Exception]]] = []

    def note(execute: Any, *args: Any) -> Any:
        try:
            return execute(*args)
        except Exception as error:
            seen.append((args[-1]["connection"].alias, type(error)))
            raise

    are_usable()
    pid = connections["shard_b"].connection.info.backend_pid
    with wrapped(note), pytest.raises(DataError) as caught:
        ask("SELECT 1 / (%s - pg_backend_pid())", (pid,))
    assert seen == [("shard_b", DataError)]
    assert caught.value.__notes__ == ["on shard 'shard_b'"]
    assert are_usable()


def test_every_shard_is_waited_for_before_an_error() -> None:
    with pytest.raises(ProgrammingError) as caught:
        ask("SELECT pg_sleep(0.1), nothing")
    assert caught.value.__notes__ == ["on shard 'default'"]
    assert [each.connection.info.transaction_status.name for each in wrappers()] == ["IDLE"] * 4


def test_an_error_of_a_block_breaks_it() -> None:
    with transaction.atomic(using="default"):
        with pytest.raises(ProgrammingError):
            ask("SELECT nothing")
        with pytest.raises(Exception, match="transaction is aborted"):
            ask("SELECT 1")
        transaction.set_rollback(True, using="default")
    assert are_usable()


def test_each_statement_is_known_to_run() -> None:
    """So that the locks of crashed blocks are looked for on each of the shards that do not answer."""
    found: set[str] = set()

    def look() -> None:
        patience = time.monotonic() + 60
        while len(found) < 3 and time.monotonic() < patience:
            found.update(waiting.overdue(time.monotonic() + 3600))
            time.sleep(0.01)

    watcher = threading.Thread(target=look)
    watcher.start()
    while watcher.is_alive():
        ask(NAP, (0.3,))
    assert found == {"shard_a", "shard_b", "shard_c"}
    assert waiting.overdue(time.monotonic() + 3600) == set()


def are_asked(*aliases: str) -> bool:
    """Return whether each of these shards is at a statement."""
    return {*aliases} <= {each.alias for each in [*waiting._running.values()]}


@contextmanager
def signalled(number: int, when: Callable[[], bool]) -> Iterator[None]:
    """Raise a signal inside when something is so, as it must be until then."""

    def watch() -> None:
        while not over.is_set() and not when():
            time.sleep(0.01)
        # Until the caller, too, waits for their answers.
        if not over.wait(0.2):
            signal.raise_signal(number)

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
def test_an_interruption_cancels_the_statements(atomic: bool) -> None:
    are_usable()
    begun = time.monotonic()
    block: Any = transaction.atomic(using="default") if atomic else nullcontext()
    with pytest.raises(KeyboardInterrupt), signalled(signal.SIGINT, lambda: are_asked(*OWNERS[1:])), block:
        ask("SELECT pg_sleep(%s)", (LONG,))
    assert time.monotonic() - begun < LONG / 2
    assert are_usable()


class SoftLimit(Exception):
    """As task queues raise it in a handler of a signal."""


@contextmanager
def soft_limit(*aliases: str) -> Iterator[None]:
    def end(*args: Any) -> None:
        raise SoftLimit

    before = signal.signal(signal.SIGUSR1, end)
    try:
        with signalled(signal.SIGUSR1, lambda: are_asked(*aliases)):
            yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
def test_what_a_signal_raises_cancels_the_statements(atomic: bool) -> None:
    def swallow(execute: Any, *args: Any) -> Any:
        try:
            return execute(*args)
        except SoftLimit as error:
            raise ValueError("not this") from error

    are_usable()
    begun = time.monotonic()
    block: Any = transaction.atomic(using="default") if atomic else nullcontext()
    with pytest.raises(SoftLimit), soft_limit(*OWNERS[1:]), block, wrapped(swallow, "shard_b"):
        ask("SELECT pg_sleep(%s)", (LONG,))
    assert time.monotonic() - begun < LONG / 2
    assert are_usable()


def test_what_a_signal_raises_while_one_server_is_waited_for() -> None:
    are_usable()
    pid = connections["shard_b"].connection.info.backend_pid
    question = executor.participating(connections["default"], ["shard_b"])
    try:
        with pytest.raises(SoftLimit), soft_limit("shard_b"), question as found:
            executor.run(found, finishing.fetching("SELECT pg_sleep(%s)", (LONG,)))
        assert Order.objects.using("shard_b").exists()
        assert are_usable()
    finally:
        # The connection is closed, which a server notices when its statement is over.
        with connections["shard_b"].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))


def test_an_interruption_while_statements_are_sent() -> None:
    def interrupt(execute: Any, *args: Any) -> Any:
        raise KeyboardInterrupt

    # Whatever a test before has closed.
    are_usable()
    with wrapped(interrupt, "shard_b"), pytest.raises(KeyboardInterrupt):
        ask("SELECT pg_sleep(60)")
    assert [each.connection.info.transaction_status.name for each in wrappers()] == ["IDLE"] * 4
    assert are_usable()


def test_a_cancellation_that_comes_before_the_statement_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server forgets the one that it gets while it does nothing yet."""
    forgotten: list[Any] = []
    cancel = psycopg.Connection.cancel_safe

    def too_early(connection: Any, **options: Any) -> None:
        if connection in forgotten:
            cancel(connection, **options)
        forgotten.append(connection)

    def interrupt(execute: Any, *args: Any) -> Any:
        raise KeyboardInterrupt

    are_usable()
    before = [each.connection for each in wrappers()]
    monkeypatch.setattr(psycopg.Connection, "cancel_safe", too_early)
    with wrapped(interrupt, "shard_b"), pytest.raises(KeyboardInterrupt):
        ask("SELECT pg_sleep(60)")
    assert forgotten
    assert [each.connection for each in wrappers()] == before
    assert are_usable()


class Instrumented(psycopg.ClientCursor[Any]):
    """As a library makes it that traces statements."""

    threads: set[int] = set()

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self.threads.add(threading.get_ident())
        return super().execute(*args, **kwargs)


def test_instrumented_cursors_are_asked_in_threads() -> None:
    Instrumented.threads.clear()
    are_usable()
    raw = connections["shard_c"].connection
    factory = raw.cursor_factory
    raw.cursor_factory = Instrumented
    try:
        assert not multiplexing.is_possible(connections["shard_c"])
        assert are_usable()
    finally:
        raw.cursor_factory = factory
    assert Instrumented.threads
    assert multiplexing.is_possible(connections["shard_c"])


@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
@pytest.mark.parametrize("alias", ["default", "shard_c"], ids=["here", "in another thread"])
def test_an_interruption_cancels_the_statements_of_threads(alias: str, atomic: bool) -> None:
    """Whether the caller is at a statement of its own, or waits for the other threads."""

    def nap(connection: Any) -> None:
        with connection.cursor() as cursor:
            if connection.alias == alias:
                napping.set()
            cursor.execute("SELECT pg_sleep(%s)", (LONG if connection.alias == alias else 0,))

    napping = threading.Event()
    are_usable()
    begun = time.monotonic()
    block: Any = transaction.atomic(using="default") if atomic else nullcontext()
    with pytest.raises(KeyboardInterrupt), signalled(signal.SIGINT, napping.is_set), block:
        on_each_shard(nap, parallel=True)
    assert time.monotonic() - begun < LONG / 2
    assert are_usable()


def test_rows_are_loaded_as_they_are_needed() -> None:
    """Of each shard's first rows, most are not on the page."""
    cursors: list[Any] = []
    task = finishing.reading("SELECT n FROM generate_series(1, 100) AS n", (), 3)

    def read(cursor: Any) -> Iterator[Any]:
        cursors.append(cursor)
        return task.read(cursor)

    with executor.participating(connections["default"], OWNERS) as found:
        streams = executor.run(found, replace(task, read=read))
    assert [next(stream) for stream in streams] == [(1,)] * 4
    assert [cursor.rownumber for cursor in cursors] == [3] * 4
    assert [row[0] for row in streams[0]] == list(range(2, 101))


def test_answers_are_read_while_others_are_waited_for() -> None:
    """One server does not answer until the others' answers are read."""
    answers: list[Any] = []
    other = connections["shard_c"].copy()

    def read(cursor: Any) -> None:
        answers.append(cursor.fetchall())
        if len(answers) == 3:
            other.close()

    are_usable()
    pid = connections["shard_c"].connection.info.backend_pid
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(7)")
    try:
        with executor.participating(connections["default"], OWNERS) as found:
            sql = "SELECT 1 WHERE pg_backend_pid() = %s AND pg_advisory_xact_lock(7) IS NOT NULL"
            executor.run(found, executor.Executing(sql, (pid,), read))
    finally:
        other.close()
    assert answers == [[], [], [], [(1,)]]


def test_nothing_is_left_for_the_garbage_collection() -> None:
    """What refers to itself would keep the rows of all shards until then."""
    are_usable()
    gc.collect()
    gc.disable()
    try:
        are_usable()
        assert gc.collect() == 0
    finally:
        gc.enable()


def _count_all() -> None:
    assert fan_out(Order.objects).count() == 16


def _count_all_in_time() -> None:
    assert fan_out(Order.objects, timeout=30).count() == 16


def _write_a_log() -> None:
    """As an audit trail would: a global row, by a connection whose shard is being asked."""
    Region.objects.create(name="asked")


def _fail_elsewhere() -> None:
    with pytest.raises(DataError), transaction.atomic(using="default"), connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1 / 0")


@pytest.mark.parametrize("use", [_count_all, _count_all_in_time, _write_a_log, _fail_elsewhere])
@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "in a block"])
@pytest.mark.parametrize("at", ["shard_a", "shard_c"])
def test_wrappers_may_use_connections_that_were_asked_already(use: Callable[[], None], atomic: bool, at: str) -> None:
    used: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not used:
            used.append(context["connection"].alias)
            use()
        return execute(sql, params, many, context)

    with transaction.atomic(using="default") if atomic else nullcontext():
        with wrapped(wrapper, at):
            assert [order.total for order in fan_out(Order.objects).order_by("total")] == list(range(16))
        assert used == [at]
        assert all(connection.in_flight is None for connection in wrappers())
        assert are_usable()


@pytest.mark.parametrize("alias", [None, *OWNERS], ids=["all shards", *OWNERS])
def test_wrappers_may_read_on_in_a_stream_of_their_block(alias: str | None) -> None:
    def wrapper(execute: Any, *args: Any) -> Any:
        read.extend(order.total for order in islice(rows, 1))
        return execute(*args)

    orders = fan_out(Order.objects, shards=None if alias is None else [alias], timeout=30)
    expected = [order.total for order in orders.order_by("total")]
    with transaction.atomic(using="default"):
        rows = orders.order_by("total").iterator(chunk_size=1)
        read = [next(rows).total]
        with wrapped(wrapper, "shard_c"):
            assert len(fan_out(Order.objects)) == 16
        assert [*read, *(order.total for order in rows)] == expected


@pytest.mark.parametrize("use", [_count_all, _write_a_log])
def test_wrappers_may_use_connections_that_other_threads_use(use: Callable[[], None]) -> None:
    used: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not used:
            used.append(sql)
            use()
        return execute(sql, params, many, context)

    are_usable()
    # The first connection is used by the caller's thread.
    question = executor.participating(connections["default"], OWNERS, Policy(timeout=30))
    with wrapped(wrapper, "default"), question as found:
        assert executor.run(found, finishing.fetching("SELECT 1 FROM pg_sleep(0.2)", ())) == [[(1,)]] * 4
    assert used == ["SELECT 1 FROM pg_sleep(0.2)"]
    assert all(connection.in_flight is None for connection in wrappers())
    assert are_usable()
