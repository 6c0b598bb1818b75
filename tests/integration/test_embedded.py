"""The embedded servers as real processes, with real signals."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

import alertrec
from alertrec.embedded import Servers, locks, postgres, processes, remembered, running, servers
from alertrec.errors import ConfigError, TransientError

ROOT = Path(alertrec.__file__).parents[1]
AS_ROOT = os.geteuid() == 0
WAIT_SECONDS = 20.0
SLEEPER = ["/bin/sleep", "60"]

# Says the URLs, then waits for the end of its input; Ctrl-C is answered by a look at the servers.
USER = """
import os, sys
from pathlib import Path
import psycopg, redis
from alertrec.embedded import running, servers
home = Path(sys.argv[1])
with servers(home) as urls:
    print(urls.database_url, urls.redis_url, flush=True)
    try:
        if "fork" in sys.argv and (child := os.fork()):
            print(child, flush=True)
        sys.stdin.read()
    except KeyboardInterrupt:
        psycopg.connect(urls.database_url).close()
        client = redis.Redis.from_url(urls.redis_url)
        print("drained", client.ping(), flush=True)
        client.close()
print("running" if running(home) else "stopped", flush=True)
"""


class User:
    """Another process that uses the servers of a data directory."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(home), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,  # a process group of its own, for Ctrl-C
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def urls(self) -> Servers:
        return Servers(*self.line().split())

    def begin_to_leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None  # `communicate` would flush it

    def end(self) -> None:
        self.process.communicate(timeout=WAIT_SECONDS)


@contextlib.contextmanager
def a_user(home: Path, *arguments: str) -> Iterator[User]:
    user = User(home, *arguments)
    try:
        yield user
    finally:
        user.process.kill()
        user.process.communicate()


def wait_for(condition: Callable[[], bool]) -> None:
    assert locks.wait_until(condition, WAIT_SECONDS), "the condition did not come true"


def supervisor_of(home: Path) -> psutil.Process:
    return psutil.Process(int((home / "supervisor.lock").read_text()))


def family_of(home: Path) -> list[psutil.Process]:
    """The supervisor, both servers and their children."""
    supervisor = supervisor_of(home)
    return [supervisor, *supervisor.children(recursive=True)]


def room_is_begun(home: Path) -> bool:
    return (room_of(home) / "postgres.part").exists()


def all_gone(family: list[psutil.Process]) -> bool:
    # An orphan stays a zombie where process 1 does not collect it, as in some containers.
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family)


def room_of(home: Path) -> Path:
    return (home / postgres.LINK).resolve() if AS_ROOT else home


def write(urls: Servers, value: str) -> None:
    with psycopg.connect(urls.database_url) as connection:
        connection.execute("drop table if exists kept")
        connection.execute("create table kept (value text)")
        connection.execute("insert into kept values (%s)", (value,))
    with redis.Redis.from_url(urls.redis_url) as client:
        client.delete("kept")
        client.rpush("kept", value)


def read(urls: Servers) -> tuple[list[str], list[str]]:
    with psycopg.connect(urls.database_url) as connection:
        rows = [row[0] for row in connection.execute("select value from kept order by value")]
    with redis.Redis.from_url(urls.redis_url, decode_responses=True) as client:
        return rows, sorted(client.lrange("kept", 0, -1))


def forget(home: Path) -> None:
    """Stop what a failed test left behind, and delete the cluster, which root keeps outside of `tmp_path`."""
    if running(home):
        supervisor_of(home).terminate()
        locks.wait_until(lambda: not running(home), WAIT_SECONDS)
    if AS_ROOT and (home / postgres.LINK).is_symlink():
        shutil.rmtree(room_of(home), ignore_errors=True)


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[Path]:
    """A data directory that has never been used."""
    yield tmp_path / "data"
    forget(tmp_path / "data")


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("embedded") / "used"
    try:
        with servers(home):
            pass
        yield home
    finally:
        forget(home)


@pytest.fixture
def home(used_home: Path) -> Path:
    """A data directory that has a cluster; no server runs, whatever the test before did."""
    wait_for(lambda: not running(used_home))
    return used_home


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("embedded") / "a data 'dir'"
    yield home
    forget(home)


@pytest.fixture(scope="module")
def shared(shared_home: Path) -> Iterator[Servers]:
    with servers(shared_home) as urls:
        yield urls


def setting(urls: Servers, name: str) -> str:
    with psycopg.connect(urls.database_url) as connection:
        row = connection.execute("select current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("log_timezone", "UTC"),
        ("max_connections", "200"),
        ("max_wal_size", "2GB"),
        ("jit", "off"),
        ("fsync", "on"),
        ("unix_socket_directories", ""),
    ],
)
def test_postgres_is_set_up(shared: Servers, name: str, value: str) -> None:
    assert setting(shared, name) == value


def test_postgres_sorts_alike_on_every_machine(shared: Servers) -> None:
    with psycopg.connect(shared.database_url) as connection:
        query = "select datlocprovider, datlocale from pg_database where datname = current_database()"
        assert connection.execute(query).fetchone() == ("b", "C.UTF-8")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
        ("protected-mode", "yes"),
    ],
)
def test_valkey_is_set_up(shared: Servers, name: str, value: str) -> None:
    with redis.Redis.from_url(shared.redis_url, decode_responses=True) as client:
        assert client.config_get(name) == {name: value}


@pytest.mark.parametrize("password", ["", ":wrong"])
def test_postgres_refuses_who_does_not_know_the_password(shared: Servers, password: str) -> None:
    secret = shared.database_url.partition("alertrec")[2].partition("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(shared.database_url.replace(secret, password))


def test_valkey_refuses_who_does_not_know_the_password(shared: Servers) -> None:
    secret = shared.redis_url.partition("//")[2].partition("@")[0]
    for url in (shared.redis_url.replace(secret + "@", ""), shared.redis_url.replace(secret, ":wrong")):
        with redis.Redis.from_url(url) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_no_password_is_visible_in_a_command_line_or_an_environment(shared: Servers, shared_home: Path) -> None:
    secrets = [url.rpartition("@")[0].rpartition(":")[2] for url in (shared.database_url, shared.redis_url)]
    family = family_of(shared_home)
    assert len(family) > 5
    for each in family:
        shown = " ".join([*each.cmdline(), *each.environ().values()])
        assert not any(secret in shown for secret in secrets), each


def test_the_servers_listen_on_the_loopback_interface_only(shared: Servers, shared_home: Path) -> None:
    family = family_of(shared_home)
    listening = {
        connection.laddr
        for each in family
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    ports = [int(url.rpartition(":")[2].partition("/")[0]) for url in (shared.database_url, shared.redis_url)]
    assert {tuple(each) for each in listening} == {("127.0.0.1", port) for port in ports}
    assert not [each for process in family for each in process.net_connections("unix") if each.laddr]


def test_only_the_owner_can_look_into_the_data_directory(shared: Servers, shared_home: Path) -> None:
    private = [shared_home, shared_home / "logs", shared_home / "valkey", room_of(shared_home) / "postgres"]
    assert [stat.S_IMODE(each.stat().st_mode) for each in private] == [0o700] * 4
    files = [each for each in shared_home.rglob("*") if each.is_file()]
    assert {"servers.json", "valkey.conf", "postgres.log", "users.lock"} <= {each.name for each in files}
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}


def test_postgres_does_not_run_as_root(shared: Servers, shared_home: Path) -> None:
    backends = [each for each in family_of(shared_home) if each.name() == "postgres"]
    owner = (room_of(shared_home) / "postgres").stat().st_uid
    assert backends
    assert {each.uids().real for each in backends} == {owner}
    assert owner != 0


def test_no_server_inherits_the_locks_that_stand_for_users(shared: Servers, shared_home: Path) -> None:
    for each in family_of(shared_home)[1:]:
        names = {Path(file.path).name for file in each.open_files()}
        assert names & {"postgres.lock", "valkey.lock"}, each
        assert not names & {"users.lock", "start.lock", "supervisor.lock", "serving.lock"}, each


def test_joining_starts_nothing_and_leaves_the_servers_to_the_others(shared: Servers, shared_home: Path) -> None:
    before = supervisor_of(shared_home).pid
    own = psutil.Process().children(recursive=True)
    with servers(shared_home) as joined:
        assert psutil.Process().children(recursive=True) == own
    assert joined == shared == remembered(shared_home)
    assert running(shared_home)
    assert supervisor_of(shared_home).pid == before
    psycopg.connect(shared.database_url).close()


def test_a_relative_data_directory_is_the_same_one(
    shared: Servers, shared_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared_home.parent)
    with servers(Path(shared_home.name)) as joined:
        assert joined == shared


def test_data_and_ports_survive_a_restart(home: Path) -> None:
    with servers(home) as first:
        write(first, "one")
        family = family_of(home)
    # The last user has waited: nothing is left at this moment, and not only soon.
    assert not running(home)
    assert all_gone(family[1:])
    assert remembered(home) == first
    with servers(home) as second:
        assert second == first
        assert read(second) == (["one"], ["one"])


def test_a_port_that_another_process_has_taken_is_replaced_and_the_new_one_remembered(home: Path) -> None:
    with servers(home) as first:
        write(first, "one")
    port = int(first.database_url.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)), servers(home) as second:
        assert second.database_url != first.database_url
        assert second.redis_url == first.redis_url
        assert read(second) == (["one"], ["one"])
    assert remembered(home) == second


def test_a_lost_password_file_does_not_lose_the_data(home: Path) -> None:
    with servers(home) as first:
        write(first, "one")
    (home / "servers.json").unlink()
    with servers(home) as second:
        assert second.database_url != first.database_url
        assert read(second) == (["one"], ["one"])


def test_two_first_starts_at_once_join_the_same_servers(new_home: Path) -> None:
    with a_user(new_home) as one, a_user(new_home) as two:
        assert one.urls() == two.urls()
        family = family_of(new_home)
        one.end()
        assert running(new_home)
        two.end()
        assert all_gone(family[1:])


@pytest.mark.parametrize("pause_seconds", [0, 0.12, 0.2])  # before the supervisor's notice, during the stop, after it
def test_who_comes_while_the_last_one_leaves_finds_servers(home: Path, pause_seconds: float) -> None:
    with a_user(home) as user:
        user.urls()
        user.begin_to_leave()
        time.sleep(pause_seconds)
        with servers(home) as urls:
            write(urls, "one")
            # Longer than a supervisor that had decided to stop would need to do so.
            time.sleep(0.5)
            assert read(urls) == (["one"], ["one"])


@pytest.mark.parametrize("arguments", [(), ("fork",)])
def test_no_server_survives_the_kill_of_its_only_user(home: Path, arguments: tuple[str, ...]) -> None:
    with a_user(home, *arguments) as user:
        user.urls()
        child = psutil.Process(int(user.line())) if arguments else None
        family = family_of(home)
        assert len(family) > 5
        user.process.kill()
        wait_for(lambda: all_gone(family))
        assert not running(home)
        if child is not None:
            assert child.is_running(), "the forked child was to outlive its parent and the servers"
            child.kill()


def test_no_server_survives_the_kill_of_the_supervisor_and_the_next_start_has_the_data(home: Path) -> None:
    with a_user(home) as user:
        write(user.urls(), "one")
        family = family_of(home)
        family[0].kill()
        wait_for(lambda: not running(home))
        # At once: the next start has to cope with servers that are still on their way out.
        with servers(home) as urls:
            assert read(urls) == (["one"], ["one"])
            assert all_gone(family)
            assert remembered(home) == urls


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start stops the servers")
def test_servers_die_with_their_supervisor_without_a_next_start(home: Path) -> None:
    with a_user(home) as user:
        user.urls()
        family = family_of(home)
        family[0].kill()
        wait_for(lambda: all_gone(family))


def test_ctrl_c_reaches_the_user_and_not_the_servers(home: Path) -> None:
    with a_user(home) as user:
        user.urls()
        family = family_of(home)
        os.killpg(user.process.pid, signal.SIGINT)
        assert user.line() == "drained True"
        assert user.line() == "stopped"
        wait_for(lambda: all_gone(family))


def test_a_first_start_that_was_killed_half_way_does_not_break_the_next(new_home: Path) -> None:
    with a_user(new_home) as user:
        wait_for(lambda: room_is_begun(new_home))
        family = family_of(new_home)
        family[0].kill()
        user.process.kill()
        assert not (room_of(new_home) / "postgres").exists()
        wait_for(lambda: all_gone(family))
    with servers(new_home) as urls:
        write(urls, "one")
    assert not (room_of(new_home) / "postgres.part").exists()
    assert not (room_of(new_home) / "postgres.password").exists()


def test_a_server_that_does_not_start_is_reported_with_the_end_of_its_log(home: Path) -> None:
    version = room_of(home) / "postgres" / "PG_VERSION"
    right = version.read_text()
    version.write_text("9.6\n")
    with pytest.raises(TransientError, match=r"(?s)PostgreSQL ended.*postgres\.log.*version 9\.6"), servers(home):
        pass
    assert not running(home)
    version.write_text(right)


def test_a_stale_pid_file_whose_number_lives_on_elsewhere_is_no_obstacle(home: Path) -> None:
    cluster = room_of(home) / "postgres"
    owner = cluster.stat()
    # As after the restart of a container: the number belongs to another process, of the same account.
    account = {"user": owner.st_uid, "group": owner.st_gid} if AS_ROOT else {}
    with subprocess.Popen(SLEEPER, cwd="/", **account) as other:  # type: ignore[call-overload]
        pid_file = cluster / "postmaster.pid"
        pid_file.write_text(f"{other.pid}\n{cluster}\n1700000000\n5432\n\n127.0.0.1\n\nready\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        try:
            with servers(home) as urls:
                psycopg.connect(urls.database_url).close()
            assert other.poll() is None
        finally:
            other.kill()


def test_a_server_left_over_by_a_killed_supervisor_is_stopped_first(tmp_path: Path) -> None:
    lock = locks.hold(tmp_path / "lock", locks.EXCLUSIVE, seconds=0)
    assert lock is not None
    leftover = subprocess.Popen(SLEEPER, pass_fds=(lock,))
    os.close(lock)
    (tmp_path / "pid").write_text(f"{leftover.pid}\nmore\n")
    recipe = processes.Recipe(
        name="a server",
        command=SLEEPER,
        log=tmp_path / "log",
        lock=tmp_path / "lock",
        pid_file=tmp_path / "pid",
        stop_signal=signal.SIGTERM,
        is_ready=lambda _pid: True,
    )
    with processes.run(recipe) as server:
        assert leftover.wait(WAIT_SECONDS) == -signal.SIGTERM
        assert server.process.poll() is None
    assert server.process.returncode == -signal.SIGTERM


@pytest.mark.skipif(not AS_ROOT, reason="only root keeps the cluster outside of the data directory")
def test_root_deletes_the_cluster_of_a_deleted_data_directory(new_home: Path) -> None:
    with servers(new_home):
        room, family = room_of(new_home), family_of(new_home)
        assert (room / "postgres" / "PG_VERSION").exists()
        shutil.rmtree(new_home)
    wait_for(lambda: all_gone(family))
    assert not room.exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root keeps the cluster outside of the data directory")
def test_root_does_not_begin_anew_where_the_cluster_is_gone(new_home: Path) -> None:
    new_home.mkdir()
    (new_home / postgres.LINK).symlink_to(new_home / "gone")
    with pytest.raises(ConfigError, match="delete the link"), servers(new_home):
        pass
