"""A real worker at work: what it does, what it survives, and what its messages hold."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import redis
from sqlalchemy import Engine, text

from alertrec.embedded import Servers
from alertrec.task_names import QUEUE_OF, QUEUES
from tests.integration.processes import (
    Environment,
    Send,
    Worker,
    backends_that_wait,
    broker,
    connected,
    database,
    environment,
    held,
    load_bank,
    wait_for,
    web_app,
    worker,
)

USER, OTHER_USER, THIRD_USER = "user-0003", "user-0004", "user-0005"
N_USERS, CHUNK_SIZE = 60, 20


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worker")


@pytest.fixture(scope="module")
def database_url(running_servers: Servers, _template: None, scratch: Path) -> Iterator[str]:
    """A small bank, shared by the tests of this module."""
    with database(running_servers) as url:
        load_bank(url, scratch, n_users=N_USERS)
        yield url


@pytest.fixture(scope="module")
def redis_url(running_servers: Servers) -> Iterator[str]:
    with broker(running_servers) as url:
        yield url


@pytest.fixture(scope="module")
def env(database_url: str, redis_url: str, scratch: Path) -> Environment:
    return environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=scratch / "data", CHUNK_SIZE=CHUNK_SIZE)


@pytest.fixture(scope="module")
def shared_worker(env: Environment, scratch: Path) -> Iterator[Worker]:
    with worker(env, scratch, name="test-shared") as started:
        yield started


@pytest.fixture(scope="module")
def send(env: Environment, shared_worker: Worker) -> Iterator[Send]:
    """Sends tasks to the shared worker."""
    with web_app(env) as sending:
        yield sending


@pytest.fixture(scope="module")
def _trained(database_url: str, send: Send) -> None:
    # Once for all tests: where it fails, they fail at once.
    send("train_model", True)
    with connected(database_url) as engine:
        wait_for(lambda: champion_in_force(engine))


@pytest.fixture
def champion(engine: Engine, _trained: None) -> str:
    """The version in force, trained by the worker."""
    return str(champion_in_force(engine))


@pytest.fixture
def idle_env(running_servers: Servers, env: Environment) -> Iterator[Environment]:
    """An environment with a broker of its own, on which no worker works."""
    with broker(running_servers) as url:
        yield {**env, "ALERTREC_REDIS_URL": url}


@pytest.fixture
def idle_send(idle_env: Environment) -> Iterator[Send]:
    with web_app(idle_env) as sending:
        yield sending


def champion_in_force(engine: Engine) -> str | None:
    return scalar(engine, "SELECT version FROM alertrec.model_versions WHERE alias = 'champion'")


def scalar(engine: Engine, query: str, **values: Any) -> Any:
    with engine.connect() as connection:
        return connection.scalar(text(query), values)


def execute(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def list_of(engine: Engine, user_id: str) -> Any:
    query = text("SELECT * FROM alertrec.recommendation_lists WHERE user_id = :user_id")
    with engine.connect() as connection:
        return connection.execute(query, {"user_id": user_id}).mappings().first()


def renewed(engine: Engine, user_id: str, since: datetime | None) -> bool:
    row = list_of(engine, user_id)
    return row is not None and (since is None or row["generated_at"] > since)


def made_at(engine: Engine, user_id: str) -> datetime | None:
    row = list_of(engine, user_id)
    return row and row["generated_at"]


def incomplete_lists(engine: Engine) -> int:
    """How many active users have no list, or one that lacks items."""
    return int(
        scalar(
            engine,
            """
            SELECT count(*) FROM users LEFT JOIN alertrec.recommendation_lists AS lists ON lists.user_id = users.id
            WHERE users.is_active AND lists.n_items IS DISTINCT FROM
                (SELECT count(*) FROM alertrec.recommendations AS items WHERE items.user_id = users.id)
            """,
        )
    )


def run_of(engine: Engine, task_id: str) -> Any:
    """The row of the job that a message asked for."""
    query = text("SELECT * FROM alertrec.job_runs WHERE arguments ->> 'request' = :request")
    with engine.connect() as connection:
        return connection.execute(query, {"request": f"asked:{task_id}"}).mappings().first()


def finished_run_of(engine: Engine, task_id: str) -> Any:
    row = run_of(engine, task_id)
    return row if row is not None and row["finished_at"] is not None else None


def chunks_of(engine: Engine, job_id: Any) -> list[Any]:
    query = text("SELECT chunk, status, attempts FROM alertrec.job_chunks WHERE job_id = :job_id ORDER BY chunk")
    with engine.connect() as connection:
        return list(connection.execute(query, {"job_id": job_id}))


def chunk_is_running(engine: Engine, task_id: str) -> bool:
    row = run_of(engine, task_id)
    return row is not None and any(chunk.status == "running" for chunk in chunks_of(engine, row["job_id"]))


def action(user_id: str, **fields: str) -> dict[str, str]:
    return {"user_id": user_id, "action": "accepted", "event_id": str(uuid4()), **fields}


def insert_action(engine: Engine, user_id: str) -> None:
    """Log an action as a web app that shares the database does: in a transaction of its own, with no message."""
    execute(
        engine,
        """
        INSERT INTO alertrec.alert_actions (event_id, user_id, action, occurred_at)
        VALUES (gen_random_uuid(), :user_id, 'shown', now())
        """,
        user_id=user_id,
    )


def unprocessed(engine: Engine) -> int:
    return int(scalar(engine, "SELECT count(*) FROM alertrec.alert_actions WHERE processed_at IS NULL"))


def messages(env: Environment, queue: str) -> list[dict[str, Any]]:
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        return [json.loads(each) for each in client.lrange(queue, 0, -1)]


def lengths(env: Environment) -> dict[str, int]:
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        return {queue: client.llen(queue) for queue in QUEUES if client.llen(queue)}


def put(url: str, queue: str, message: str | bytes) -> None:
    with redis.Redis.from_url(url) as client:
        client.lpush(queue, message)


def envelope(body: bytes, content_type: str) -> str:
    """A message for `process_actions` as it lies in its queue, with this body."""
    task_id = str(uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8" if content_type == "application/json" else "binary",
            "content-type": content_type,
            "headers": {"lang": "py", "task": "alertrec.process_actions", "id": task_id, "root_id": task_id},
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "actions"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )


class Trap:
    """Loaded from a pickle, it makes a directory: code has run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def still_works(worker: Worker, engine: Engine, send: Send) -> bool:
    before = made_at(engine, THIRD_USER)
    send("generate_recommendations", THIRD_USER)
    wait_for(lambda: renewed(engine, THIRD_USER, before) or worker.process.poll() is not None)
    return worker.process.poll() is None and worker.answers()


# --- what it does


def test_train_model_makes_a_champion(engine: Engine, send: Send, scratch: Path, champion: str):
    send("train_model", True)
    newer = wait_for(lambda: (version := champion_in_force(engine)) != champion and version)
    assert (scratch / "data" / "models" / newer / "card.json").exists()


def test_a_training_that_is_not_due_is_skipped(engine: Engine, send: Send, champion: str):
    done = "SELECT count(*) FROM alertrec.job_runs WHERE job = 'training' AND result ->> 'skipped' IS NOT NULL"
    before = scalar(engine, done)
    send("train_model")
    wait_for(lambda: scalar(engine, done) > before)
    assert champion_in_force(engine) == champion


def test_generate_recommendations_writes_the_list_of_that_user(engine: Engine, send: Send, champion: str):
    before = made_at(engine, USER)
    send("generate_recommendations", USER)
    wait_for(lambda: renewed(engine, USER, before))
    n_items = scalar(engine, "SELECT count(*) FROM alertrec.recommendations WHERE user_id = :user", user=USER)
    assert list_of(engine, USER)["n_items"] == n_items > 0
    assert list_of(engine, USER)["model_version"] == champion


def test_refresh_recommendations_gives_every_active_user_a_list(engine: Engine, send: Send, champion: str):
    task_id = send("refresh_recommendations")
    row = wait_for(lambda: finished_run_of(engine, task_id))
    n_active = scalar(engine, "SELECT count(*) FROM users WHERE is_active")
    n_chunks = -(-n_active // CHUNK_SIZE)
    assert (row["status"], row["error"]) == ("done", None)
    assert row["result"] == {"n_chunks": n_chunks, "n_failed": 0, "n_users": n_active}
    assert [(chunk.status, chunk.attempts) for chunk in chunks_of(engine, row["job_id"])] == [("done", 1)] * n_chunks
    assert incomplete_lists(engine) == 0


def test_a_new_champion_serves_without_a_restart(engine: Engine, send: Send, champion: str):
    send("train_model", True)
    newer = wait_for(lambda: (version := champion_in_force(engine)) != champion and version)
    send("generate_recommendations", USER)
    wait_for(lambda: list_of(engine, USER) and list_of(engine, USER)["model_version"] == newer)


def test_an_action_sent_twice_is_logged_once_and_renews_the_list(engine: Engine, send: Send, champion: str):
    event, before = action(USER), made_at(engine, USER)
    send("log_alert_action", event)
    send("log_alert_action", event)
    wait_for(lambda: renewed(engine, USER, before))
    rows = "SELECT count(*) FROM alertrec.alert_actions WHERE event_id = cast(:event_id AS uuid)"
    assert scalar(engine, f"{rows} AND processed_at IS NOT NULL", event_id=event["event_id"]) == 1
    assert scalar(engine, rows, event_id=event["event_id"]) == 1


def test_what_is_dismissed_leaves_the_list(engine: Engine, send: Send, champion: str):
    offered = "SELECT alert_type FROM alertrec.recommendations WHERE user_id = :user ORDER BY rank LIMIT 1"
    send("generate_recommendations", OTHER_USER)
    first = wait_for(lambda: scalar(engine, offered, user=OTHER_USER))
    send("log_alert_action", action(OTHER_USER, action="dismissed", alert_type=first))
    there = "SELECT count(*) FROM alertrec.recommendations WHERE user_id = :user AND alert_type = :alert_type"
    wait_for(lambda: scalar(engine, there, user=OTHER_USER, alert_type=first) == 0)


def test_process_actions_applies_what_was_logged_in_the_database(engine: Engine, send: Send, champion: str):
    before = made_at(engine, USER)
    insert_action(engine, USER)
    send("process_actions")
    wait_for(lambda: unprocessed(engine) == 0)
    assert renewed(engine, USER, before)


def test_a_tick_brings_back_what_was_lost(engine: Engine, send: Send, champion: str):
    before = made_at(engine, USER)
    insert_action(engine, USER)
    execute(
        engine,
        """
        INSERT INTO alertrec.job_runs (job_id, job, period, status, started_at, heartbeat_at, arguments)
        VALUES ('00000000-0000-0000-0000-00000000000a', 'refresh', 'lost', 'running', now(), now(), '{"scope": "all"}')
        """,
    )
    # One was never published; of the other, the worker died and so did the broker with the message.
    execute(
        engine,
        """
        INSERT INTO alertrec.job_chunks
            (job_id, chunk, first_user_id, last_user_id, n_users, status, attempts, claimed_by, lease_until, published_at)
        VALUES ('00000000-0000-0000-0000-00000000000a', 0, 'user-0001', 'user-0030', 30, 'pending', 0,
                NULL, NULL, NULL),
               ('00000000-0000-0000-0000-00000000000a', 1, 'user-0031', 'user-0060', 30, 'running', 1,
                'a dead worker', now() - interval '1 minute', now() - interval '1 hour')
        """,  # noqa: E501
    )
    send("tick")
    wait_for(lambda: scalar(engine, "SELECT status FROM alertrec.job_runs WHERE period = 'lost'") == "done")
    wait_for(lambda: unprocessed(engine) == 0)
    assert renewed(engine, USER, before)
    assert [(each.status, each.attempts) for each in chunks_of(engine, "00000000-0000-0000-0000-00000000000a")] == [
        ("done", 1),
        ("done", 2),
    ]
    # The schedule's own jobs, which this tick has started, must not get in the way of other tests.
    wait_for(lambda: scalar(engine, "SELECT count(*) FROM alertrec.job_runs WHERE finished_at IS NULL") == 0)


def test_ticks_start_what_is_due_once_a_period(engine: Engine, send: Send, shared_worker: Worker, champion: str):
    # Two Beats, or one that stutters.
    ticks = [send("tick") for _ in range(3)]
    wait_for(lambda: all(shared_worker.logged(task_id, "succeeded") for task_id in ticks))
    wait_for(lambda: scalar(engine, "SELECT count(*) FROM alertrec.job_runs WHERE finished_at IS NULL") == 0)
    scheduled = "SELECT count(*) FROM alertrec.job_runs WHERE job = :job AND period LIKE '20%'"
    assert [scalar(engine, scheduled, job=job) for job in ("training", "refresh", "cleanup")] == [1, 1, 1]


def test_cleanup_expired_deletes_what_is_past_its_retention(engine: Engine, send: Send, champion: str):
    execute(
        engine,
        """
        INSERT INTO alertrec.recommendation_lists
            (user_id, recommendation_type, model_version, generated_at, expires_at, as_of, n_items)
        SELECT user_id, 'new_user', 'long-gone', moment, moment, moment, 0
        FROM (VALUES ('left-long-ago', now() - interval '31 days'), ('left-lately', now() - interval '29 days'))
            AS lists (user_id, moment)
        """,
    )
    execute(
        engine,
        """
        INSERT INTO alertrec.alert_actions (event_id, user_id, action, occurred_at, processed_at)
        VALUES (gen_random_uuid(), 'left-long-ago', 'shown', now() - interval '3 years', now())
        """,
    )
    send("generate_recommendations", USER)
    wait_for(lambda: list_of(engine, USER))
    send("cleanup_expired")
    wait_for(lambda: list_of(engine, "left-long-ago") is None)
    assert scalar(engine, "SELECT count(*) FROM alertrec.alert_actions WHERE user_id = 'left-long-ago'") == 0
    assert list_of(engine, "left-lately") is not None
    assert list_of(engine, USER) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has loaded is asked of Linux")
def test_the_process_that_forks_has_loaded_no_library_with_threads(shared_worker: Worker):
    loaded = {Path(each.path).name for each in psutil.Process(shared_worker.process.pid).memory_maps()}
    assert [name for name in loaded if "openblas" in name or "polars" in name] == []


# --- what it survives


@pytest.mark.parametrize(
    ("name", "argument", "error"),
    [
        ("log_alert_action", {"user_id": "a-stranger", "action": "exploded"}, "DataError"),
        ("refresh_recommendations", "everything", "DataError"),
        ("generate_recommendations", "a-stranger", "AskedForNobodyError"),
    ],
    ids=["action", "scope", "user"],
)
def test_what_the_caller_got_wrong_fails_once(
    name: str, argument: object, error: str, engine: Engine, send: Send, shared_worker: Worker, champion: str
):
    task_id = send(name, argument)
    wait_for(lambda: shared_worker.logged(task_id, "raised"))
    assert shared_worker.logged(task_id, "raised", error) == 1
    assert still_works(shared_worker, engine, send)
    assert shared_worker.logged(task_id, "received") == 1
    assert shared_worker.logged(task_id, "etry") == 0
    assert "a-stranger" not in shared_worker.text()  # a log is no place for a customer


def test_a_broken_connection_to_the_database_is_tried_again(
    engine: Engine, send: Send, shared_worker: Worker, champion: str
):
    before = made_at(engine, USER)
    with held(engine):
        task_id = send("generate_recommendations", USER)
        (backend,) = wait_for(lambda: backends_that_wait(engine))
        execute(engine, "SELECT pg_terminate_backend(:pid)", pid=backend)
        wait_for(lambda: shared_worker.logged(task_id, "etry", "TransientError"))
    wait_for(lambda: renewed(engine, USER, before))


def test_a_chunk_whose_process_is_killed_is_done_by_the_next(
    engine: Engine, send: Send, shared_worker: Worker, champion: str
):
    with held(engine):
        task_id = send("refresh_recommendations")
        wait_for(lambda: chunk_is_running(engine, task_id) and backends_that_wait(engine))
        (child,) = shared_worker.children()
        child.kill()
    row = wait_for(lambda: finished_run_of(engine, task_id))
    chunks = chunks_of(engine, row["job_id"])
    assert row["status"] == "done"
    assert {chunk.status for chunk in chunks} == {"done"}
    assert sorted(chunk.attempts for chunk in chunks) == [1] * (len(chunks) - 1) + [2]
    assert incomplete_lists(engine) == 0
    assert shared_worker.children() != [child]


def test_a_worker_told_to_stop_finishes_what_it_is_at(
    engine: Engine, idle_env: Environment, idle_send: Send, champion: str, tmp_path: Path
):
    before = made_at(engine, USER)
    with worker(idle_env, tmp_path, name="test-stopped") as stopped:
        with held(engine):
            idle_send("generate_recommendations", USER)
            wait_for(lambda: backends_that_wait(engine))
            idle_send("generate_recommendations", OTHER_USER)
            stopped.process.send_signal(signal.SIGTERM)
            wait_for(lambda: stopped.logged("Warm shutdown"))
            assert stopped.process.poll() is None
        assert stopped.process.wait(timeout=60) == 0
    assert renewed(engine, USER, before)
    assert lengths(idle_env) == {"interactive": 1}  # what it had not begun waits for the next worker


def test_a_worker_comes_back_after_the_broker_dropped_it(
    engine: Engine, send: Send, shared_worker: Worker, redis_url: str, champion: str
):
    assert still_works(shared_worker, engine, send)
    with redis.Redis.from_url(redis_url) as client:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
    wait_for(lambda: shared_worker.logged("Connection to broker lost"))
    wait_for(shared_worker.answers)
    assert still_works(shared_worker, engine, send)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{ this is no JSON", "application/json"),
        (b"\xff\xfe\x00", "application/json"),
        (b"whatever", "application/x-unheard-of"),
    ],
    ids=["no JSON", "no text", "unknown type"],
)
def test_a_malformed_message_is_dropped(
    body: bytes, content_type: str, engine: Engine, send: Send, shared_worker: Worker, redis_url: str, champion: str
):
    put(redis_url, "actions", envelope(body, content_type))
    assert still_works(shared_worker, engine, send)


def test_a_pickle_is_refused_and_never_loaded(
    engine: Engine, send: Send, shared_worker: Worker, redis_url: str, champion: str, tmp_path: Path
):
    body = pickle.dumps([[Trap(tmp_path / "code has run")], {}, {}])
    put(redis_url, "actions", envelope(body, "application/x-python-serialize"))
    wait_for(lambda: shared_worker.logged("message given up", "ContentDisallowed"))
    assert still_works(shared_worker, engine, send)
    assert not (tmp_path / "code has run").exists()


def test_an_unknown_task_is_dropped(engine: Engine, send: Send, shared_worker: Worker, redis_url: str, champion: str):
    put(redis_url, "actions", envelope(b"[[], {}, {}]", "application/json").replace("process_actions", "process_fish"))
    wait_for(lambda: shared_worker.logged("message given up", "alertrec.process_fish", "unknown task"))
    assert still_works(shared_worker, engine, send)


def test_a_worker_that_breaks_down_says_so_by_its_status(idle_env: Environment, tmp_path: Path):
    # No message ends a worker, but a queue that is no queue does; who watches over processes must be able to tell.
    with worker(idle_env, tmp_path, name="test-broken") as broken, redis.Redis.from_url(broken.broker_url) as client:
        client.set("actions", "no list")
        wait_for(lambda: broken.process.poll() is not None)
    assert broken.logged("Unrecoverable error") == 1
    assert broken.process.returncode != 0


# --- what its messages hold


def test_a_list_asked_for_twice_waits_once(idle_env: Environment, idle_send: Send):
    first = idle_send("generate_recommendations", USER)
    assert idle_send("generate_recommendations", USER) == first
    assert lengths(idle_env) == {"interactive": 1}
    assert idle_send("generate_recommendations", OTHER_USER) != first
    assert lengths(idle_env) == {"interactive": 2}


def test_a_list_asked_for_after_the_work_began_is_made_again(
    engine: Engine, send: Send, shared_worker: Worker, champion: str
):
    with held(engine):
        first = send("generate_recommendations", USER)
        wait_for(lambda: backends_that_wait(engine))
        second = send("generate_recommendations", USER)
        assert second != first
        assert send("generate_recommendations", USER) == second
    wait_for(lambda: shared_worker.logged(first, "succeeded") and shared_worker.logged(second, "succeeded"))


def test_each_task_goes_to_its_own_queue_and_to_no_other(idle_env: Environment, idle_send: Send):
    sent = {
        "generate_recommendations": [USER],
        "log_alert_action": [action(USER)],
        "process_actions": [],
        "train_model": [],
        "refresh_recommendations": [],
        "refresh_chunk": [str(uuid4()), 0],
        "tick": [],
        "cleanup_expired": [],
    }
    for name, arguments in sent.items():
        idle_send(name, *arguments)
    found = {each["headers"]["task"]: queue for queue in QUEUES for each in messages(idle_env, queue)}
    assert found == QUEUE_OF
    assert sum(lengths(idle_env).values()) == len(sent)


def test_messages_are_json_with_nothing_about_customers_outside_the_body(idle_env: Environment, idle_send: Send):
    idle_send("generate_recommendations", "user-of-mine")
    idle_send("log_alert_action", action("user-of-mine", alert_rule_id="rule-of-mine"))
    for queue in ("interactive", "actions"):
        (message,) = messages(idle_env, queue)
        body = json.loads(base64.b64decode(message.pop("body")))
        assert "user-of-mine" in json.dumps(body)
        assert message["content-type"] == "application/json"
        assert "of-mine" not in json.dumps(message)


def test_the_log_of_a_worker_names_no_customer(engine: Engine, send: Send, shared_worker: Worker, champion: str):
    task_ids = [send("log_alert_action", action("a-customer-of-ours")), send("generate_recommendations", USER)]
    wait_for(lambda: all(shared_worker.logged(task_id, "succeeded") for task_id in task_ids))
    assert "a-customer-of-ours" not in shared_worker.text()
    assert USER not in shared_worker.text()


@pytest.mark.parametrize("body", [b'"no arguments"', b"[]", b"{}"])
def test_json_that_is_no_call_is_dropped(
    body: bytes, engine: Engine, send: Send, shared_worker: Worker, redis_url: str, champion: str
):
    put(redis_url, "actions", envelope(body, "application/json"))
    assert still_works(shared_worker, engine, send)
