"""The database is restarted, killed or out of connections in mid-refresh: nobody sees half a list; it is completed."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.task_names import BATCH
from tests.integration.breakable import Breakable, own_postgres
from tests.integration.processes import (
    Environment,
    Send,
    Worker,
    broker,
    connected,
    facts,
    let_chunks_age,
    wait_for,
    web_app,
    worker,
)
from tests.integration.web_worlds import API, as_user, bank, serve, variables

MAX_CONNECTIONS = 40
CHUNK_SIZE = 3
PROMISED_SECONDS = 60


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Breakable]:
    with own_postgres(tmp_path_factory.mktemp("postgres"), max_connections=MAX_CONNECTIONS) as postgres:
        yield postgres


@pytest.fixture(scope="module")
def settings(
    running_servers: Servers, postgres: Breakable, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    base, data_dir = tmp_path_factory.mktemp("bank"), tmp_path_factory.mktemp("data")
    with (
        contextlib.suppress(psycopg.OperationalError),  # the connection on which the bank was made is broken by then
        broker(running_servers) as redis_url,
        bank(Servers(postgres.url, redis_url), redis_url, base, data_dir, chunk_size=CHUNK_SIZE) as settings,
    ):
        yield settings


@pytest.fixture(scope="module")
def env(settings: Settings) -> Environment:
    return {**variables(settings), "ALERTREC_LOG_FORMAT": "json"}


@pytest.fixture(scope="module")
def workers(env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    scratch = tmp_path_factory.mktemp("workers")
    others = ["interactive", "actions", "control"]
    with (
        worker(env, scratch, name="batch", queues=[BATCH], concurrency=2) as batch,
        worker(env, scratch, name="others", queues=others) as interactive,
    ):
        yield [batch, interactive]


@pytest.fixture(scope="module")
def send(env: Environment, workers: list[Worker]) -> Iterator[Send]:
    with web_app(env) as send:
        yield send


@pytest.fixture(scope="module")
def url(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(settings, tmp_path_factory.mktemp("web")) as url:
        yield url


def rows(settings: Settings, query: str, *values: Any) -> list[dict[str, Any]]:
    """Run a statement on a connection of its own."""
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url, autocommit=True, row_factory=dict_row) as connection:
        cursor = connection.execute(query, values)
        return cursor.fetchall() if cursor.description is not None else []


# In one statement, and so in one snapshot.
PARTIAL = """
    SELECT count(*) AS n_lists, count(*) FILTER (WHERE lists.n_items <> items.n OR items.n_of_others > 0) AS n_partial
    FROM alertrec.recommendation_lists AS lists, LATERAL (
        SELECT count(*) AS n, count(*) FILTER (WHERE items.generated_at <> lists.generated_at) AS n_of_others
        FROM alertrec.recommendations AS items WHERE items.user_id = lists.user_id
    ) AS items
"""
EDITIONS = """
    SELECT lists.user_id, to_json(lists.generated_at) #>> '{}' AS generated_at,
        (SELECT array_agg(items.recommendation_id::text ORDER BY items.rank) FROM alertrec.recommendations AS items
         WHERE items.user_id = lists.user_id) AS ids
    FROM alertrec.recommendation_lists AS lists
"""


@dataclass
class Reader:
    """Reads lists all the time, from the tables and over HTTP, and keeps what it saw."""

    settings: Settings
    url: str
    user_ids: list[str]
    n_partial: int = 0
    n_read: int = 0
    n_refused: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    seen: set[tuple[str, str, tuple[str, ...]]] = field(default_factory=set)
    _ends: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self) -> Iterator[Reader]:
        threads = [threading.Thread(target=read) for read in (self._read_tables, self._ask)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            for thread in threads:
                thread.join()

    def _read_tables(self) -> None:
        while not self._ends.wait(0.01):
            try:
                (found,) = rows(self.settings, PARTIAL)
            except psycopg.OperationalError:
                self.n_refused += 1
                continue
            self.n_read += 1
            self.n_partial += found["n_partial"] or found["n_lists"] < len(self.user_ids)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            while not self._ends.wait(0.01):
                for user_id in self.user_ids:
                    answer = client.get(API, headers=as_user(self.settings, user_id))
                    self.statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        told = answer.json()
                        ids = tuple(item["recommendation_id"] for item in told["recommendations"])
                        self.seen.add((user_id, told["generated_at"], ids))


def editions(settings: Settings) -> set[tuple[str, str, tuple[str, ...]]]:
    """Return every list as a whole."""
    return {(row["user_id"], row["generated_at"], tuple(row["ids"] or ())) for row in rows(settings, EDITIONS)}


def refresh_of(settings: Settings, task_id: str) -> Any:
    found = rows(settings, "SELECT * FROM alertrec.job_runs WHERE arguments ->> 'request' = %s", f"asked:{task_id}")
    return found[0] if found else None


def n_chunks(settings: Settings, job_id: Any, status: str) -> int:
    query = "SELECT FROM alertrec.job_chunks WHERE job_id = %s AND status = %s"
    return len(rows(settings, query, job_id, status))


def is_over(settings: Settings, task_id: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        return refresh_of(settings, task_id)["finished_at"] is not None
    return False


@contextmanager
def out_of_connections(settings: Settings) -> Iterator[None]:
    """Take every connection that there is, those of others included."""
    assert settings.database_url is not None
    with ExitStack() as held:
        first = held.enter_context(psycopg.connect(settings.database_url, autocommit=True))
        n_held = 1
        while n_held < MAX_CONNECTIONS:
            with contextlib.suppress(psycopg.OperationalError):
                held.enter_context(psycopg.connect(settings.database_url, application_name="holds", autocommit=True))
                n_held += 1
                continue
            first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name <> 'holds' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        yield


@contextmanager
def in_mid_refresh(settings: Settings, send: Send) -> Iterator[str]:
    """Begin a refresh, hold it where some chunks are done and two are about to be written, and yield its message."""
    assert settings.database_url is not None
    with ExitStack() as held:
        holder = held.enter_context(psycopg.connect(settings.database_url))
        held.callback(holder.close)  # it is broken by then
        task_id = send("refresh_recommendations")
        wait_for(lambda: (run := refresh_of(settings, task_id)) and n_chunks(settings, run["job_id"], "done"))
        holder.execute("LOCK TABLE alertrec.recommendation_lists IN EXCLUSIVE MODE")
        wait_for(lambda: n_chunks(settings, refresh_of(settings, task_id)["job_id"], "running") == 2)
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_for(lambda: len(rows(settings, waiting)) == 2)
        yield task_id


@pytest.fixture
def reader(settings: Settings, url: str, workers: list[Worker]) -> Iterator[Reader]:
    user_ids = [row["id"] for row in rows(settings, "SELECT id FROM users WHERE is_active AND id <> 'newcomer'")]
    with Reader(settings, url, user_ids).at_work() as reader:
        wait_for(lambda: reader.n_read and reader.statuses[200])
        yield reader


def web_is_back(reader: Reader) -> bool:
    """Return whether the web process serves lists again, without having been restarted."""
    n_answered = reader.statuses[200]
    wait_for(lambda: reader.statuses[200] > n_answered + 10, seconds=PROMISED_SECONDS)
    return True


def take_up_what_was_lost(settings: Settings, send: Send, task_id: str) -> None:
    """Have a quarter of an hour pass and a tick come: the database may be away for longer than a task is tried."""
    assert settings.database_url is not None
    with connected(settings.database_url) as engine:
        let_chunks_age(engine, refresh_of(settings, task_id)["job_id"], minutes=15)
    send("tick")
    wait_for(lambda: is_over(settings, task_id))


def assert_complete(settings: Settings, reader: Reader, task_id: str, before: set[Any]) -> None:
    """Assert that the refresh reached everybody, and nobody ever saw anything but a whole list."""
    run = refresh_of(settings, task_id)
    n_all = n_chunks(settings, run["job_id"], "done")
    n_active = len(rows(settings, "SELECT FROM users WHERE is_active"))
    assert (run["status"], run["error"]) == ("done", None)
    assert run["result"] == {"n_chunks": n_all, "n_failed": 0, "n_users": n_active}
    stale = "SELECT FROM alertrec.recommendation_lists WHERE generated_at < %s AND user_id = ANY(%s)"
    assert rows(settings, stale, run["created_at"], reader.user_ids) == []
    print(f"{reader.n_read} looks at the tables, {reader.n_refused} refused; answers {dict(reader.statuses)}")
    assert reader.n_partial == 0
    assert set(reader.statuses) <= {200, 503}
    assert reader.seen <= before | editions(settings)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=["fast", "immediate", "killed"])
def test_a_refresh_goes_on_after_a_restart_of_the_database_and_no_list_is_ever_partial(
    settings: Settings, postgres: Breakable, send: Send, reader: Reader, number: signal.Signals
):
    before = editions(settings)
    with in_mid_refresh(settings, send) as task_id:
        postgres.end(number)
    wait_for(lambda: reader.statuses[503] and reader.n_refused)
    postgres.start()
    back = time.monotonic()
    assert web_is_back(reader)
    print(f"lists are served again after {time.monotonic() - back:.1f} s")
    take_up_what_was_lost(settings, send, task_id)
    print(f"the refresh is complete after {time.monotonic() - back:.1f} s")
    assert_complete(settings, reader, task_id, before)


@pytest.mark.slow
def test_a_refresh_that_ran_out_of_connections_is_taken_up_by_a_tick_and_no_list_is_ever_partial(
    settings: Settings, send: Send, reader: Reader, workers: list[Worker]
):
    before, n_given_up = editions(settings), len(facts(workers, "message_given_up"))
    with in_mid_refresh(settings, send) as task_id, out_of_connections(settings):
        wait_for(lambda: reader.statuses[503] and reader.n_refused)
        wait_for(lambda: len(facts(workers, "message_given_up")) > n_given_up)  # it was tried to the last
    back = time.monotonic()
    assert web_is_back(reader)
    print(f"lists are served again after {time.monotonic() - back:.1f} s")
    take_up_what_was_lost(settings, send, task_id)
    print(f"the refresh is complete after {time.monotonic() - back:.1f} s")
    assert_complete(settings, reader, task_id, before)
