"""Whoever can write to the broker ends no worker, has no other code run, and keeps nothing from being delivered."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis

from alertrec.embedded import Servers
from tests.integration.messages import envelope, letters_of, put
from tests.integration.processes import Environment, Worker, broker, connected, database, environment, wait_for
from tests.integration.processes import worker as started_worker

SECRET = "Jane Doe"


@pytest.fixture(scope="module")
def env(running_servers: Servers, _template: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    home = tmp_path_factory.mktemp("hostile")
    with database(running_servers) as database_url, broker(running_servers) as url:
        yield environment(DATABASE_URL=database_url, REDIS_URL=url, DATA_DIR=home / "data")


@pytest.fixture(scope="module")
def worker(env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with started_worker(env, tmp_path_factory.mktemp("worker"), name="test-hostile") as started:
        yield started


def reasons(env: Environment) -> list[str]:
    with connected(env["ALERTREC_DATABASE_URL"]) as engine:
        return [row["reason"] for row in letters_of(engine)]


@pytest.mark.parametrize(
    "body", ["[]", "{}", "no JSON", '{"body": 1, "properties": {}}', "7", '{"properties": []}', "[" * 100_000]
)
@pytest.mark.parametrize("exchange", ["celery.pidbox"])
def test_what_is_published_to_all_workers_ends_none(env: Environment, worker: Worker, exchange: str, body: str):
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        number = urlsplit(env["ALERTREC_REDIS_URL"]).path.strip("/")
        assert client.publish(f"/{number}.{exchange}", body) >= 1
    wait_for(worker.answers)
    assert worker.process.poll() is None
    assert worker.logged("Unrecoverable") == 0
    assert worker.logged("onnection to broker lost") == 0


@pytest.mark.parametrize("task", ["celery.accumulate", "celery.map", "celery.backend_cleanup"])
def test_celerys_own_tasks_are_refused(env: Environment, worker: Worker, task: str):
    put(env, "interactive", envelope(task, [SECRET], id=task))
    wait_for(lambda: worker.logged("message given up", task))
    assert worker.logged(task, "received") == 0
    assert SECRET not in worker.text()


def test_what_cannot_be_delivered_again_keeps_nothing_else_from_it(env: Environment, worker: Worker):
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        for tag, message in (
            ("poison-1", "no JSON"),
            ("poison-2", "[1]"),
            ("poison-3", '[{"a": 1}, "", "interactive"]'),
        ):
            client.hset("unacked", tag, message)
            client.zadd("unacked_index", {tag: 0.0})
        wait_for(lambda: client.hlen("unacked") == 0 and client.zcard("unacked_index") == 0)
    assert worker.logged("Error in timer") == 0
    assert [reason for reason in reasons(env) if "unacknowledged" in reason]
    assert worker.answers()
