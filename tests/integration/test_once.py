"""What is killed at the worst moment is done all the same, and done once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from sqlalchemy import Engine, text

from alertrec import fitting
from alertrec.catalog import ALERT_KEYS
from alertrec.embedded import Servers
from alertrec.task_names import ACTIONS, BATCH, INTERACTIVE, TRAINING
from alertrec.workspace import Workspace
from tests.integration.messages import deliver_again
from tests.integration.processes import (
    Environment,
    backends_that_wait,
    broker,
    database,
    environment,
    kill,
    load_bank,
    n_versions,
    rows,
    wait_for,
    web_app,
    worker,
)
from tests.integration.worlds import execute, train, workspace_on

N_USERS = 60
PROMISED_SECONDS = 30


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("once")


@pytest.fixture(scope="module")
def database_url(running_servers: Servers, _template: None, scratch: Path) -> Iterator[str]:
    with database(running_servers) as url:
        load_bank(url, scratch, n_users=N_USERS)
        yield url


@pytest.fixture
def env(running_servers: Servers, database_url: str, scratch: Path) -> Iterator[Environment]:
    with broker(running_servers) as url:
        yield environment(DATABASE_URL=database_url, REDIS_URL=url, DATA_DIR=scratch / "data", CHUNK_SIZE=N_USERS)


@pytest.fixture
def workspace(database_url: str, scratch: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, scratch / "data") as workspace:
        yield workspace


@contextmanager
def locked(engine: Engine, *tables: str) -> Iterator[None]:
    """Hold up whoever touches these tables."""
    with engine.begin() as connection:
        connection.execute(text(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"))
        yield


def seconds_until(condition: Callable[[], bool]) -> float:
    started = time.monotonic()
    wait_for(condition)
    return time.monotonic() - started


def training_of(engine: Engine, job_id: Any) -> Any:
    return rows(engine, "SELECT * FROM alertrec.job_runs WHERE job_id = :job_id", job_id=job_id)[0]


def n_sessions_that_gave_way(engine: Engine) -> int:
    """How many workers' sessions have found the training's lock taken; the two of who trains end otherwise."""
    query = """
        SELECT pid FROM pg_stat_activity AS mine
        WHERE datname = current_database() AND application_name = 'alertrec worker' AND state = 'idle'
          AND wait_event_type = 'Client' AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')
    """
    return len(rows(engine, query))


def ask_ten_times(workspace: Workspace) -> Any:
    """Ask for a training ten times at once, and return the one job that comes of it."""
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(fitting.request_training, workspace, force=True) for _ in range(10)]
    (job_id,) = {each.result() for each in asked}
    return job_id


def is_over(engine: Engine, env: Environment, job_id: Any) -> bool:
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        return training_of(engine, job_id)["finished_at"] is not None and client.llen(TRAINING) == 0


def test_ten_trainings_at_once_and_the_holder_killed_make_one_model(
    env: Environment, engine: Engine, workspace: Workspace, tmp_path: Path
):
    before, job_id = n_versions(engine), ask_ten_times(workspace)
    with ExitStack() as lock, web_app(env) as send:
        lock.enter_context(locked(engine, "transactions"))
        with worker(env, tmp_path, name="first", queues=[TRAINING]) as first:
            sent = [send("train_model", False, str(job_id)) for _ in range(10)]
            wait_for(lambda: len(backends_that_wait(engine)) == 1)
            with worker(env, tmp_path, name="second", queues=[TRAINING]) as second:
                wait_for(lambda: any(second.logged(task_id, "received") for task_id in sent))
                wait_for(lambda: n_sessions_that_gave_way(engine))
                with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
                    client.delete(TRAINING)  # no message will come to its help
                assert training_of(engine, job_id)["attempts"] == 1
                kill(first)
                seconds = seconds_until(lambda: training_of(engine, job_id)["attempts"] == 2)
                print(f"taken over after {seconds:.1f} s")
                assert seconds < PROMISED_SECONDS
                lock.close()
                wait_for(lambda: is_over(engine, env, job_id))
                assert training_of(engine, job_id)["status"] == "done"
    assert n_versions(engine) == before + 1
    assert rows(engine, "SELECT * FROM alertrec.job_runs WHERE job = 'training' AND finished_at IS NULL") == []


def test_ten_messages_that_ask_at_once_make_one_model(
    env: Environment, engine: Engine, workspace: Workspace, tmp_path: Path
):
    before = n_versions(engine)
    with web_app(env) as send, ExitStack() as lock:
        lock.enter_context(locked(engine, "transactions"))
        with worker(env, tmp_path, name="trains", queues=[TRAINING]) as trains:
            sent = [send("train_model", True) for _ in range(10)]
            wait_for(lambda: len(backends_that_wait(engine)) == 1)
            lock.close()
            wait_for(lambda: all(trains.logged(task_id, "succeeded") for task_id in sent))
            assert n_versions(engine) == before + 1
            later = send("train_model", True)
            wait_for(lambda: trains.logged(later, "succeeded"))
    assert n_versions(engine) == before + 2


def test_a_worker_that_waits_for_another_ones_training_stops_at_once_when_told_to(
    env: Environment, engine: Engine, workspace: Workspace, tmp_path: Path
):
    job_id = ask_ten_times(workspace)
    with ExitStack() as lock:
        lock.enter_context(locked(engine, "transactions"))
        with (
            worker(env, tmp_path, name="trains", queues=[TRAINING]),
            worker(env, tmp_path, name="waits", queues=[TRAINING]) as waiting,
            web_app(env) as send,
        ):
            for _ in range(4):  # more than who trains fetches ahead
                send("train_model", False, str(job_id))
            wait_for(lambda: waiting.logged("alertrec.train_model", "received"))
            wait_for(lambda: len(backends_that_wait(engine)) == 1)
            waiting.process.terminate()
            assert waiting.process.wait(timeout=PROMISED_SECONDS) == 0
            assert training_of(engine, job_id)["attempts"] == 1
            lock.close()
            wait_for(lambda: training_of(engine, job_id)["finished_at"])


def test_a_training_whose_only_worker_was_killed_goes_on_with_the_next(
    env: Environment, engine: Engine, workspace: Workspace, tmp_path: Path
):
    before, job_id = n_versions(engine), ask_ten_times(workspace)
    with ExitStack() as lock:
        lock.enter_context(locked(engine, "transactions"))
        with worker(env, tmp_path, name="first", queues=[TRAINING]) as first:  # takes up what waits
            wait_for(lambda: len(backends_that_wait(engine)) == 1)
            kill(first)
        with worker(env, tmp_path, name="second", queues=[TRAINING]):
            seconds = seconds_until(lambda: training_of(engine, job_id)["attempts"] == 2)
            print(f"taken up after {seconds:.1f} s")
            assert seconds < PROMISED_SECONDS
            lock.close()
            wait_for(lambda: is_over(engine, env, job_id))
    assert n_versions(engine) == before + 1


def test_a_worker_killed_after_the_commit_and_before_the_acknowledgement_changes_nothing_the_second_time(
    env: Environment, engine: Engine, workspace: Workspace, tmp_path: Path
):
    if n_versions(engine) == 0:
        train(workspace, as_of=datetime.now(UTC))
    queues, tables = [INTERACTIVE, ACTIONS, BATCH], ["alertrec.recommendations", "alertrec.alert_actions"]
    event = {"event_id": str(uuid4()), "user_id": "nobody", "action": "dismissed", "alert_type": ALERT_KEYS[0]}
    broken_off = worker(env, tmp_path, name="killed", queues=queues, concurrency=3)
    with ExitStack() as lock, broken_off as killed, web_app(env) as send:
        lock.enter_context(locked(engine, *tables))
        send("refresh_recommendations")
        wait_for(lambda: rows(engine, "SELECT * FROM alertrec.job_chunks"))
        execute(workspace, "INSERT INTO users (id) VALUES ('z-came-later')")  # in no chunk
        ids = [send("generate_recommendations", "z-came-later"), send("log_alert_action", event)]
        wait_for(lambda: len(backends_that_wait(engine)) == 3)
        killed.process.send_signal(signal.SIGSTOP)  # its processes work on, and nobody acknowledges
        lock.close()
        wait_for(lambda: [row["status"] for row in rows(engine, "SELECT status FROM alertrec.job_chunks")] == ["done"])
        wait_for(lambda: rows(engine, "SELECT 1 FROM alertrec.recommendation_lists WHERE user_id = 'z-came-later'"))
        wait_for(lambda: rows(engine, "SELECT 1 FROM alertrec.alert_actions"))
        kill(killed)
    before = everything(engine)
    assert deliver_again(env["ALERTREC_REDIS_URL"]) == 3
    with (
        redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client,
        worker(env, tmp_path, name="next", queues=queues) as following,
    ):
        wait_for(lambda: all(following.logged(task_id, "succeeded") for task_id in ids))
        wait_for(lambda: following.logged("alertrec.refresh_chunk", "succeeded"))
        wait_for(lambda: client.hlen("unacked") == 0 and not any(client.llen(queue) for queue in queues))
    assert everything(engine) == before
    assert rows(engine, "SELECT * FROM alertrec.dead_letters") == []


def everything(engine: Engine) -> dict[str, list[Any]]:
    """Return what users see and what is counted, less when the list of who asked for it was made."""
    moments = "CASE WHEN user_id <> 'z-came-later' THEN generated_at END AS generated_at"
    return {
        "lists": rows(engine, f"SELECT user_id, n_items, {moments} FROM alertrec.recommendation_lists ORDER BY 1"),  # noqa: S608  # of our own
        "items": rows(
            engine,
            "SELECT user_id, rank, alert_type, recommendation_id, probability, title, parameters "
            "FROM alertrec.recommendations ORDER BY 1, 2",
        ),
        "chunks": rows(engine, "SELECT * FROM alertrec.job_chunks ORDER BY job_id, chunk"),
        "runs": rows(engine, "SELECT * FROM alertrec.job_runs ORDER BY job_id"),
        "actions": rows(engine, "SELECT event_id, action, recorded_at FROM alertrec.alert_actions"),
    }
