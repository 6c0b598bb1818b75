"""The way between workers and the broker is cut or goes silent: they consume again, and nothing is done twice."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from kombu import Connection
from kombu.simple import SimpleQueue
from sqlalchemy import Engine

from alertrec.announcing import channel_of
from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.storage.database import driver_connection
from tasks.transport import CheckedTransport
from tests.integration.breakable import Breakable, own_broker
from tests.integration.messages import deliver_again
from tests.integration.processes import (
    Send,
    Worker,
    backends_that_wait,
    connected,
    facts,
    rows,
    wait_for,
    web_app,
    worker,
    writers_held,
)
from tests.integration.web_worlds import API, as_user, bank, serve, variables
from tests.proxy import Proxy, proxy_to

PROMISED_SECONDS = 60
USER = "user-0003"


@dataclass(frozen=True)
class Scene:
    """A worker that reaches its broker through a proxy, and who sends to the broker directly."""

    engine: Engine
    proxy: Proxy
    worker: Worker
    send: Send
    redis_url: str


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Breakable]:
    with own_broker(tmp_path_factory.mktemp("half-open")) as broker:
        yield broker


@pytest.fixture
def settings(
    running_servers: Servers, broker: Breakable, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    with bank(running_servers, broker.url, tmp_path_factory.getbasetemp(), tmp_path, chunk_size=1000) as settings:
        yield settings


@pytest.fixture
def scene(settings: Settings, broker: Breakable, tmp_path: Path) -> Iterator[Scene]:
    assert settings.database_url is not None
    direct = {**variables(settings), "ALERTREC_LOG_FORMAT": "json"}
    with proxy_to(broker.url) as (proxy, through_proxy), connected(settings.database_url) as engine:
        env = {**direct, "ALERTREC_REDIS_URL": through_proxy}
        with worker(env, tmp_path, name="behind", concurrency=3) as behind, web_app(direct) as send:
            yield Scene(engine, proxy, replace(behind, broker_url=broker.url), send, broker.url)


def n_applied(scene: Scene) -> int:
    return sum(each["n_actions"] for each in facts([scene.worker], "actions_processed"))


def versions(engine: Engine) -> dict[str, Any]:
    return {row["user_id"]: row["generated_at"] for row in rows(engine, "SELECT * FROM alertrec.recommendation_lists")}


def log_actions(scene: Scene, n_actions: int) -> None:
    """Log actions as a web app that shares the database does, and send the hint that there are some."""
    rows(
        scene.engine,
        """
        INSERT INTO alertrec.alert_actions (event_id, user_id, action, occurred_at)
        SELECT gen_random_uuid(), id, 'accepted', now() FROM users WHERE is_active ORDER BY id LIMIT :n_actions
        """,
        n_actions=n_actions,
    )
    scene.send("process_actions")


def begin_refresh_and_actions(scene: Scene) -> None:
    """Have a chunk and ten actions under way, and return when both are about to write lists."""
    scene.send("refresh_recommendations")
    wait_for(lambda: len(backends_that_wait(scene.engine)) == 1)
    log_actions(scene, 10)
    wait_for(lambda: len(backends_that_wait(scene.engine)) == 2)


def consumes_again(scene: Scene) -> bool:
    """Send something that can only be done anew, and return whether it was done within some seconds."""
    before = versions(scene.engine)[USER]
    scene.send("generate_recommendations", USER)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if versions(scene.engine)[USER] > before:
            return True
        time.sleep(0.05)
    with redis.Redis.from_url(scene.redis_url) as client:
        client.delete(f"alertrec.generate_recommendations:waiting:{USER}")  # whoever asks again is not the same
    return False


def assert_done_once(scene: Scene, *, n_actions: int) -> None:
    """Assert that the chunk and the actions had one effect each, however often their messages came."""
    run, *_ = rows(scene.engine, "SELECT * FROM alertrec.job_runs WHERE job = 'refresh' ORDER BY created_at DESC")
    (chunk,) = rows(scene.engine, "SELECT * FROM alertrec.job_chunks WHERE job_id = :id", id=run["job_id"])
    print(f"attempts at the chunk: {chunk['attempts']}")
    assert (run["status"], chunk["status"]) == ("done", "done")
    assert run["result"] == {"n_chunks": 1, "n_failed": 0, "n_users": chunk["n_users"]}
    assert len(facts([scene.worker], "chunk_refreshed")) == 1
    assert n_applied(scene) == n_actions
    assert rows(scene.engine, "SELECT FROM alertrec.alert_actions WHERE processed_at IS NULL") == []
    assert rows(scene.engine, "SELECT FROM alertrec.dead_letters") == []


def let_messages_come_back(scene: Scene) -> None:
    """Have the broker deliver again what was never acknowledged, and wait until it is."""
    print(f"{deliver_again(scene.redis_url)} messages come back")
    with redis.Redis.from_url(scene.redis_url) as client:
        wait_for(lambda: client.hlen("unacked") == 0)


def half_open(scene: Scene) -> None:
    """Have both sides believe in connections that are dead, while new ones would do."""
    scene.proxy.go_silent()
    log_actions(scene, 5)  # the broker hands this message to the dead connection, or keeps it
    scene.proxy.speak()


def half_open_until_noticed(scene: Scene) -> None:
    """Do the same, and have new connections be dead as well until one is tried."""
    scene.proxy.go_silent()
    n_links = scene.proxy.n_links
    log_actions(scene, 5)
    wait_for(lambda: scene.proxy.n_links > n_links)
    scene.proxy.speak()


def reset(scene: Scene) -> None:
    """Break the connections, and let them be made anew at once: unfinished work is handed out a second time."""
    scene.proxy.reset()
    wait_for(lambda: rows(scene.engine, "SELECT FROM alertrec.job_chunks WHERE status = 'running' AND attempts = 2"))
    log_actions(scene, 5)


def break_for_a_second(scene: Scene) -> None:
    """Break the connections, and refuse new ones for a second."""
    scene.proxy.refuse()
    scene.proxy.reset()
    log_actions(scene, 5)
    time.sleep(1.0)
    scene.proxy.accept()


def break_what_is_published_first(scene: Scene) -> None:
    """Do the same, and have the worker notice by another connection than that on which it waits for messages."""
    scene.proxy.refuse()
    with redis.Redis.from_url(scene.redis_url) as client:
        assert client.client_kill_filter(_type="pubsub") >= 1
    scene.proxy.reset()
    log_actions(scene, 5)
    scene.proxy.accept()


@pytest.mark.slow
@pytest.mark.parametrize(
    "cut", [half_open, half_open_until_noticed, reset, break_for_a_second, break_what_is_published_first]
)
def test_a_worker_whose_connections_are_cut_in_mid_task_consumes_again_and_does_nothing_twice(
    scene: Scene, cut: Callable[[Scene], None]
):
    before = versions(scene.engine)
    with writers_held(scene.engine):
        begin_refresh_and_actions(scene)
        cut(scene)
        back = time.monotonic()
    wait_for(lambda: facts([scene.worker], "chunk_refreshed") and n_applied(scene) >= 10)  # what was under way
    wait_for(lambda: consumes_again(scene))
    seconds = time.monotonic() - back
    print(f"{cut.__name__}: consumes again after {seconds:.1f} s")
    assert seconds < PROMISED_SECONDS
    after = versions(scene.engine)
    assert all(after[user_id] > before[user_id] for user_id in before)
    scene.send("tick")
    wait_for(lambda: n_applied(scene) >= 15)
    let_messages_come_back(scene)
    assert_done_once(scene, n_actions=15)


@pytest.mark.slow
def test_a_web_process_whose_connection_to_the_broker_was_half_open_hears_again_what_is_announced(
    settings: Settings, broker: Breakable, tmp_path: Path
):
    with proxy_to(broker.url) as (proxy, through_proxy), redis.Redis.from_url(broker.url) as client:
        behind = replace(settings, redis_url=through_proxy, rate_limits=0.0)  # asked very often, whether it hears
        with serve(behind, tmp_path) as url, httpx.Client(base_url=url, headers=as_user(settings, USER)) as web:
            wait_for(lambda: hears(web))
            proxy.go_silent()
            wait_for(lambda: not hears(web))
            assert web.get(API).json()["user_id"] == USER
            proxy.speak()
            back = time.monotonic()
            wait_for(lambda: hears(web))
            seconds = time.monotonic() - back
            print(f"hears again after {seconds:.1f} s")
            assert client.pubsub_numsub(channel_of(broker.url))[0][1] >= 1
    assert seconds < PROMISED_SECONDS


def hears(web: httpx.Client) -> bool:
    """Return whether a browser may listen."""
    with web.stream("GET", f"{API}/stream") as answer:
        assert answer.status_code in {200, 503}
        return answer.status_code == 200


@pytest.mark.parametrize("how", ["ack", "requeue"])
def test_a_message_that_could_not_be_acknowledged_keeps_no_other_from_its_place(broker: Breakable, how: str):
    # By its class: kombu remembers what stood for `redis` when it was first used in this process.
    options = {"transport": CheckedTransport, "transport_options": {"socket_timeout": 0.5}}
    with proxy_to(broker.url) as (proxy, through), Connection(through, **options) as connection:
        channel = connection.default_channel
        channel.basic_qos(0, 1, False)
        with SimpleQueue(channel, f"half-open-{how}") as queue:
            queue.put([[], {}, {}], headers={"task": "alertrec.tick", "id": str(uuid4())})
            message = queue.get(timeout=10)
            assert not channel.qos.can_consume()
            proxy.go_silent()
            with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
                message.ack() if how == "ack" else message.requeue()
            assert channel.qos.can_consume()
            proxy.speak()


@pytest.mark.skipif(sys.platform != "linux", reason="how long a connection is waited for is asked of Linux")
def test_a_connection_to_the_database_that_went_dead_is_given_up_within_a_minute(running_servers: Servers):
    with (
        connected(running_servers.database_url) as engine,
        engine.connect() as connection,
        socket.socket(fileno=os.dup(driver_connection(connection).fileno())) as beneath,
    ):
        assert beneath.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        tcp = {
            name: beneath.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
            for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
        }
    assert tcp["KEEPIDLE"] + tcp["KEEPINTVL"] * tcp["KEEPCNT"] <= PROMISED_SECONDS
    assert 0 < tcp["USER_TIMEOUT"] <= PROMISED_SECONDS * 1000
