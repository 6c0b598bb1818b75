"""Real processes under test: commands, workers, and a web app that sends tasks; and servers of their own to use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import psycopg
import redis
from celery import Celery
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, Row, text

import alertrec
from alertrec.embedded import Servers, running
from alertrec.importing import import_files
from alertrec.sample_bank import make_sample_bank
from alertrec.storage.database import create_engine
from alertrec.task_names import QUEUES

ROOT = Path(alertrec.__file__).parents[1]
# Only ever reached by a failure: a busy machine takes its time.
WAIT_SECONDS = 90.0

T = TypeVar("T")
Environment = Mapping[str, str]
Send = Callable[..., str]

_databases = count()
_brokers = set(range(1, 16))  # Redis has sixteen databases; the first one is the fixture `redis_url`

# What a web process does: it imports the tasks and sends them.
_WEB_APP = """
import json, sys
import tasks
for line in sys.stdin:
    name, args = json.loads(line)
    print(getattr(tasks, name).delay(*args).id, flush=True)
"""


def wait_for(condition: Callable[[], T], *, seconds: float = WAIT_SECONDS) -> T:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"the condition did not come true in {seconds:.0f} s"
        time.sleep(0.05)
    return answer


def environment(**settings: object) -> dict[str, str]:
    """Return the environment of a process under test: these settings of alertrec, and none of the caller's."""
    inherited = {name: value for name, value in os.environ.items() if "ALERTREC_" not in name}
    # Wide enough that no sentence is broken.
    return {**inherited, "COLUMNS": "300", **{f"ALERTREC_{name}": str(value) for name, value in settings.items()}}


def run(
    *arguments: str, env: Environment, cwd: Path, module: str = "alertrec", timeout: float = WAIT_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def run_script(script: str, *arguments: str, env: Environment, cwd: Path = ROOT) -> Any:
    """Run a script that prints JSON, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def process(command: Sequence[str], *, env: Environment, cwd: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with its output in a log, and see that it and its session are gone afterwards."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        started.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(timeout=30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@dataclass(frozen=True)
class Worker:
    """A worker that runs."""

    process: subprocess.Popen[bytes]
    log: Path
    broker_url: str
    hostname: str

    def answers(self) -> bool:
        """Return whether it answers a ping within a second."""
        # A connection of its own: one from the pool may be from before a restart of the broker.
        with (
            Celery("test", broker=self.broker_url, set_as_current=False) as app,
            app.connection_for_write() as connection,
        ):
            return bool(app.control.ping(destination=[self.hostname], timeout=1.0, connection=connection))

    def children(self) -> list[psutil.Process]:
        """Return the processes of its pool."""
        return psutil.Process(self.process.pid).children()

    def logged(self, *parts: str) -> int:
        """Return how many lines of its log hold all of these parts."""
        return sum(all(part in line for part in parts) for line in self.text().splitlines())

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def worker(
    env: Environment,
    cwd: Path,
    *,
    name: str,
    queues: Sequence[str] = QUEUES,
    concurrency: int = 1,
    module: str = "alertrec",
) -> Iterator[Worker]:
    """Start a worker, wait until it answers, and stop it afterwards."""
    arguments = ["worker", "--queues", ",".join(queues), "--concurrency", str(concurrency), "--name", name]
    log = cwd / f"{name}.log"
    with process([sys.executable, "-m", module, *arguments], env=env, cwd=cwd, log=log) as started:
        found = Worker(started, log, env["ALERTREC_REDIS_URL"], f"{name}@{socket.gethostname()}")

        def is_up() -> bool:
            assert started.poll() is None, found.text()
            return "ready." in found.text() and found.answers()

        wait_for(is_up)
        yield found


def kill(*workers: Worker) -> None:
    """Kill workers with all their processes, stopped or not."""
    for one in workers:
        os.killpg(one.process.pid, signal.SIGKILL)
    for one in workers:
        one.process.wait()


def facts(workers: Sequence[Worker], action: str) -> list[dict[str, Any]]:
    """Return what workers logged, as JSON, of a use case; they do so after the commit."""
    lines = [line for each in workers for line in each.text().splitlines() if f'"{action}"' in line]
    return [record for record in map(json.loads, lines) if record.get("action") == action]


@contextlib.contextmanager
def web_app(env: Environment) -> Iterator[Send]:
    """Start a process that sends tasks, and yield `send(name, *args) -> task id`."""
    with subprocess.Popen(
        [sys.executable, "-c", _WEB_APP], env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:

        def send(name: str, *args: object) -> str:
            assert started.stdin is not None
            assert started.stdout is not None
            started.stdin.write(json.dumps([name, args]) + "\n")
            started.stdin.flush()
            answer = started.stdout.readline().strip()
            assert answer, "the message was refused"
            return answer

        yield send


@contextlib.contextmanager
def database(servers: Servers, *, template: str | None = "alertrec_template") -> Iterator[str]:
    """Make a database, with all tables unless `template` is None, and yield its URL."""
    name = Identifier(f"alertrec_processes_{next(_databases)}")
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        made = SQL("CREATE DATABASE {} TEMPLATE {}").format(name, Identifier(template or "template1"))
        connection.execute(made)
        try:
            yield urlsplit(servers.database_url)._replace(path=f"/{name._obj[0]}").geturl()
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@contextlib.contextmanager
def broker(servers: Servers) -> Iterator[str]:
    """Yield the URL of an empty database of the broker that nobody else uses."""
    number = _brokers.pop()
    url = urlsplit(servers.redis_url)._replace(path=f"/{number}").geturl()
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        try:
            yield url
        finally:
            client.flushdb()
            _brokers.add(number)


def write_bank(directory: Path, *, n_users: int) -> dict[str, Path]:
    """Write the files of a small bank whose history ends this midnight, and return them by relation."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    bank = make_sample_bank(n_users, as_of=midnight, days=60)
    files = {name: directory / f"{name}.parquet" for name in ("users", "transactions", "alert_rules")}
    for name, path in files.items():
        getattr(bank, name).write_parquet(path)
    return files


def load_bank(database_url: str, directory: Path, *, n_users: int) -> None:
    """Load a small bank into a database with all tables."""
    files = write_bank(directory, n_users=n_users)
    with connected(database_url) as engine, engine.begin() as connection:
        import_files(connection, schema="public", rejects_path=directory / "rejects.jsonl", **files)


@contextlib.contextmanager
def connected(database_url: str) -> Iterator[Engine]:
    """Yield an engine, and dispose it."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@contextlib.contextmanager
def held(engine: Engine) -> Iterator[None]:
    """Hold all work at the moment at which it is about to write a list; who reads lists waits as well."""
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE alertrec.recommendations IN ACCESS EXCLUSIVE MODE"))
        yield


@contextlib.contextmanager
def writers_held(engine: Engine) -> Iterator[None]:
    """Hold all work at the moment at which it is about to write a list; who reads lists goes on."""
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE alertrec.recommendation_lists IN EXCLUSIVE MODE"))
        yield


def rows(engine: Engine, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Run a statement, and return its rows by column, if it has any."""
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []


def tuples(engine: Engine, query: str, **values: Any) -> list[Row[Any]]:
    """Run a query, and return its rows as tuples."""
    with engine.begin() as connection:
        return list(connection.execute(text(query), values))


def n_versions(engine: Engine) -> int:
    """Return how many models there are."""
    return len(rows(engine, "SELECT FROM alertrec.model_versions"))


def let_chunks_age(engine: Engine, job_id: object, *, minutes: int) -> None:
    """Move all that a refresh has written down of its chunks into the past: leases run out, messages count as lost."""
    columns = ("published_at", "started_at", "finished_at", "lease_until")
    moved = ", ".join(f"{column} = {column} - make_interval(mins => :minutes)" for column in columns)
    statement = f"UPDATE alertrec.job_chunks SET {moved} WHERE job_id = :job_id"  # noqa: S608  # names of our own
    rows(engine, statement, job_id=job_id, minutes=minutes)


def backends_that_wait(engine: Engine) -> list[int]:
    """Return the database's processes that wait for a lock."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        return list(connection.scalars(text(query)))


def family_of(pid: int, home: Path) -> list[psutil.Process]:
    """Return a process and all below it, and the embedded servers of a data directory with theirs."""
    tops = [psutil.Process(pid)]
    if running(home):
        tops.append(psutil.Process(int((home / "supervisor.lock").read_text())))
    return [each for top in tops for each in (top, *top.children(recursive=True))]


def alive(family: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return who of them runs; a zombie that process 1 does not collect, as in some containers, does not."""

    def runs(one: psutil.Process) -> bool:
        try:
            return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [one for one in family if runs(one)]


def forget(home: Path) -> None:
    """Stop what a failed test left of embedded servers, and delete the cluster, which root keeps elsewhere."""
    if running(home):
        psutil.Process(int((home / "supervisor.lock").read_text())).terminate()
        wait_for(lambda: not running(home))
    if (room := home / "postgres-room").is_symlink():
        shutil.rmtree(room.resolve(), ignore_errors=True)
