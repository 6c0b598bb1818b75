"""Workers that are killed, or told to stop, in the middle of a refresh: every user gets one fresh list all the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from alertrec import service
from alertrec.embedded import Servers
from alertrec.processes import GRACE_SECONDS
from alertrec.task_names import BATCH, CONTROL
from tests.integration.messages import deliver_again
from tests.integration.processes import (
    Environment,
    Send,
    Worker,
    backends_that_wait,
    broker,
    database,
    environment,
    kill,
    let_chunks_age,
    load_bank,
    rows,
    wait_for,
    web_app,
    worker,
)
from tests.integration.worlds import train, workspace_on

N_USERS, CHUNK_SIZE = 130, 10
LEASE_MINUTES = service.CHUNK_LEASE_SECONDS // 60
QUEUES = [BATCH, CONTROL]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def database_url(running_servers: Servers, _template: None, scratch: Path) -> Iterator[str]:
    """A bank with a champion, and a list for each of its users."""
    with database(running_servers) as url:
        load_bank(url, scratch, n_users=N_USERS)
        with workspace_on(url, scratch / "data") as workspace:
            train(workspace, as_of=datetime.now(UTC))
            service.refresh_locally(workspace)
        yield url


@pytest.fixture
def env(running_servers: Servers, database_url: str, scratch: Path) -> Iterator[Environment]:
    with broker(running_servers) as url:
        yield environment(DATABASE_URL=database_url, REDIS_URL=url, DATA_DIR=scratch / "data", CHUNK_SIZE=CHUNK_SIZE)


@pytest.fixture
def send(env: Environment) -> Iterator[Send]:
    with web_app(env) as sending:
        yield sending


@contextmanager
def held_up(engine: Engine, *statements: str, **values: Any) -> Iterator[None]:
    """Hold up whoever needs what these statements lock."""
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)
        yield


def at_chunks(engine: Engine, *chunks: int, size: int = CHUNK_SIZE) -> ExitStack:
    """Hold up those who write these chunks of a refresh, and nobody else."""
    users = [row["id"] for row in rows(engine, "SELECT id FROM users WHERE is_active ORDER BY id")]
    stack = ExitStack()
    lock = "SELECT FROM alertrec.recommendation_lists WHERE user_id = ANY(:users) FOR UPDATE"
    stack.enter_context(held_up(engine, lock, users=[users[chunk * size] for chunk in chunks]))
    return stack


def run_of(engine: Engine, task_id: str) -> Any:
    """The job that a message asked for, once it is planned."""
    query = "SELECT * FROM alertrec.job_runs WHERE arguments ->> 'request' = :request AND status <> 'pending'"
    found = wait_for(lambda: rows(engine, query, request=f"asked:{task_id}"))
    return found[0]


def chunks_of(engine: Engine, job_id: Any) -> list[Any]:
    query = "SELECT * FROM alertrec.job_chunks WHERE job_id = :job_id ORDER BY chunk"
    return rows(engine, query, job_id=job_id)


def states(engine: Engine, job_id: Any) -> Counter[str]:
    return Counter(chunk["status"] for chunk in chunks_of(engine, job_id))


def is_at(engine: Engine, job_id: Any, *chunks: int) -> bool:
    """Whether these chunks are under way, and about to be written."""
    running = [chunk["chunk"] for chunk in chunks_of(engine, job_id) if chunk["status"] == "running"]
    return running == list(chunks) and len(backends_that_wait(engine)) == len(chunks)


def is_finished(engine: Engine, job_id: Any) -> bool:
    return bool(rows(engine, "SELECT FROM alertrec.job_runs WHERE job_id = :id AND finished_at IS NOT NULL", id=job_id))


def lists_made_since(engine: Engine, moment: datetime) -> list[str]:
    """Who has a list from after a moment with all of its items, once for each list."""
    query = """
        SELECT lists.user_id FROM alertrec.recommendation_lists AS lists
        WHERE lists.generated_at >= :moment AND lists.n_items =
            (SELECT count(*) FROM alertrec.recommendations AS items WHERE items.user_id = lists.user_id)
        ORDER BY 1
    """
    return [row["user_id"] for row in rows(engine, query, moment=moment)]


def assert_everybody_was_served_once(engine: Engine, run: Any, *, in_two_attempts: tuple[int, ...]) -> None:
    chunks = chunks_of(engine, run["job_id"])
    (ended,) = rows(engine, "SELECT status, error, result FROM alertrec.job_runs WHERE job_id = :id", id=run["job_id"])
    active = [row["id"] for row in rows(engine, "SELECT id FROM users WHERE is_active ORDER BY id")]
    assert {chunk["chunk"]: chunk["attempts"] for chunk in chunks} == {
        chunk["chunk"]: 2 if chunk["chunk"] in in_two_attempts else 1 for chunk in chunks
    }
    assert ended == {
        "status": "done",
        "error": None,
        "result": {"n_chunks": len(chunks), "n_failed": 0, "n_users": len(active)},
    }
    assert lists_made_since(engine, run["created_at"]) == active
    orphans = (
        "SELECT FROM alertrec.recommendations WHERE user_id NOT IN (SELECT user_id FROM alertrec.recommendation_lists)"
    )
    assert rows(engine, orphans) == []
    assert rows(engine, "SELECT * FROM alertrec.dead_letters") == []


def n_sessions_of_workers(engine: Engine) -> int:
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'alertrec worker'"
    return len(rows(engine, query))


def tick(send: Send, worker: Worker) -> None:
    """Do what Beat does each minute, and wait until it has been done."""
    task_id = send("tick")
    wait_for(lambda: worker.logged(task_id, "succeeded"))


def n_queued(env: Environment) -> int:
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        return int(client.llen(BATCH))


def n_unacknowledged(env: Environment) -> int:
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        return int(client.hlen("unacked"))


# --- one process of its pool


@pytest.mark.parametrize(
    "needed",
    [
        "LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE",
        "LOCK TABLE alertrec.recommendations IN ACCESS EXCLUSIVE MODE",
    ],
    ids=["reading", "writing"],
)
def test_a_process_killed_in_a_chunk_costs_a_second_attempt_and_nothing_else(
    engine: Engine, env: Environment, send: Send, tmp_path: Path, needed: str
):
    with worker(env, tmp_path, name="one-process", queues=[BATCH]) as alive:
        with held_up(engine, needed):
            run = run_of(engine, send("refresh_recommendations"))
            wait_for(lambda: is_at(engine, run["job_id"], 0))
            (child,) = alive.children()
            child.kill()
            killed_at = time.monotonic()
            wait_for(lambda: child not in alive.children())
        wait_for(lambda: is_finished(engine, run["job_id"]))
        print(f"finished {time.monotonic() - killed_at:.1f} s after the kill")
        assert alive.process.poll() is None
    assert_everybody_was_served_once(engine, run, in_two_attempts=(0,))


# --- whole workers


@pytest.mark.slow
def test_when_all_workers_are_killed_the_next_one_finishes_within_a_lease_and_a_tick(
    engine: Engine, env: Environment, send: Send, tmp_path: Path
):
    with ExitStack() as dead, at_chunks(engine, 3, 4):
        killed = [dead.enter_context(worker(env, tmp_path, name=name, queues=[BATCH])) for name in ("one", "two")]
        run = run_of(engine, send("refresh_recommendations"))
        job_id = run["job_id"]
        wait_for(lambda: is_at(engine, job_id, 3, 4))
        kill(*killed)
    n_chunks = len(chunks_of(engine, job_id))
    wait_for(lambda: n_sessions_of_workers(engine) == 0)
    assert states(engine, job_id) == Counter(done=3, running=2, pending=n_chunks - 5)
    assert len(lists_made_since(engine, run["created_at"])) == 3 * CHUNK_SIZE  # of what was begun, nothing
    with worker(env, tmp_path, name="next", queues=QUEUES) as back:
        wait_for(lambda: states(engine, job_id) == Counter(done=n_chunks - 2, running=2))
        tick(send, back)  # while their leases run, they may be in work
        assert states(engine, job_id) == Counter(done=n_chunks - 2, running=2)
        let_chunks_age(engine, job_id, minutes=LEASE_MINUTES)
        started = time.monotonic()
        tick(send, back)
        wait_for(lambda: is_finished(engine, job_id))
        print(f"finished {time.monotonic() - started:.1f} s after the tick after the lease")
        assert_everybody_was_served_once(engine, run, in_two_attempts=(3, 4))
        before = chunks_of(engine, job_id), lists_made_since(engine, run["created_at"])
        assert deliver_again(env["ALERTREC_REDIS_URL"])
        wait_for(lambda: n_unacknowledged(env) == 0 and n_queued(env) == 0)
        assert (chunks_of(engine, job_id), lists_made_since(engine, run["created_at"])) == before


@pytest.mark.slow
def test_a_worker_killed_late_in_a_long_refresh_costs_no_more_than_a_lease_and_a_tick(
    engine: Engine, env: Environment, send: Send, tmp_path: Path
):
    living, dying = (worker(env, tmp_path, name=name, queues=QUEUES) for name in ("living", "dying"))
    with living as alive, dying as killed:
        with at_chunks(engine, 3, 4):
            run = run_of(engine, send("refresh_recommendations"))
            job_id = run["job_id"]
            wait_for(lambda: is_at(engine, job_id, 3, 4))
            kill(killed)
        wait_for(lambda: states(engine, job_id)["pending"] == 0 and states(engine, job_id)["running"] == 1)
        (lost,) = (chunk["chunk"] for chunk in chunks_of(engine, job_id) if chunk["status"] == "running")
        # It was sent for the last time just before it was taken, a lease ago, two hours after the refresh began.
        rows(engine, _TWO_HOURS_LATER, job_id=job_id)
        rows(engine, _A_LEASE_LATER, job_id=job_id, lease=service.CHUNK_LEASE_SECONDS)
        tick(send, alive)
        wait_for(lambda: is_finished(engine, job_id))
    assert_everybody_was_served_once(engine, run, in_two_attempts=(lost,))


_TWO_HOURS_LATER = """
    UPDATE alertrec.job_runs
    SET created_at = created_at - interval '2 hours', started_at = started_at - interval '2 hours'
    WHERE job_id = :job_id
"""
_A_LEASE_LATER = """
    UPDATE alertrec.job_chunks
    SET published_at = now() - make_interval(secs => :lease + 2),
        started_at = now() - make_interval(secs => :lease + 1),
        lease_until = now() - interval '1 second'
    WHERE job_id = :job_id AND status = 'running'
"""


# --- a worker that is told to stop


@pytest.mark.slow
def test_a_worker_told_to_stop_with_a_hundred_chunks_queued_leaves_them_to_the_next(
    engine: Engine, env: Environment, send: Send, tmp_path: Path
):
    one_each = {**env, "ALERTREC_CHUNK_SIZE": "1"}
    with worker(one_each, tmp_path, name="stopped", queues=[BATCH], concurrency=2) as stopped:
        with at_chunks(engine, 3, 4, size=1):
            run = run_of(engine, send("refresh_recommendations"))
            job_id = run["job_id"]
            wait_for(lambda: is_at(engine, job_id, 3, 4))
            assert n_queued(env) >= 100
            stopped.process.terminate()
            told_at = time.monotonic()
            wait_for(lambda: stopped.logged("Warm shutdown"))
            assert stopped.process.poll() is None
        assert stopped.process.wait(timeout=GRACE_SECONDS) == 0
        print(f"stopped {time.monotonic() - told_at:.1f} s after it was told to")
    left = states(engine, job_id)
    assert set(left) == {"done", "pending"}  # what it was at is done, what it was not at was not begun
    assert left["pending"] == n_queued(env) >= 100
    assert n_unacknowledged(env) == 0
    with worker(one_each, tmp_path, name="next", queues=[BATCH], concurrency=2):
        started = time.monotonic()
        wait_for(lambda: is_finished(engine, job_id))
        print(f"the next did {left['pending']} chunks in {time.monotonic() - started:.1f} s")
    assert_everybody_was_served_once(engine, run, in_two_attempts=())
