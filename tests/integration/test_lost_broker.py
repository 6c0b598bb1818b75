"""The broker is lost with everything in it, or freezes: no work is lost or done twice, and no customer waits."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from sqlalchemy import Engine

from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.task_names import ACTIONS, BATCH, CONTROL, INTERACTIVE, QUEUES
from tests.integration.breakable import Breakable, own_broker
from tests.integration.processes import (
    Environment,
    Worker,
    backends_that_wait,
    connected,
    facts,
    kill,
    let_chunks_age,
    process,
    rows,
    wait_for,
    web_app,
    worker,
    writers_held,
)
from tests.integration.web_worlds import API, answered, as_user, bank, serve, variables

CHUNK_SIZE = 10
PROMISED_SECONDS = 0.1
FROZEN_SECONDS = 120
N_BEFORE, N_CLICKS = 6, 44
OFFERED = """
    SELECT user_id, recommendation_id::text, alert_type, title, natural_language_query
    FROM alertrec.recommendations WHERE recommendation_type <> 'change' ORDER BY user_id, rank
"""


@dataclass(frozen=True)
class Offer:
    """What a customer is offered first."""

    user_id: str
    recommendation_id: str
    alert_type: str
    title: str
    natural_language_query: str


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broker-lost")


@pytest.fixture(scope="module")
def broker(scratch: Path) -> Iterator[Breakable]:
    with own_broker(scratch / "broker") as broker:
        yield broker


@pytest.fixture
def settings(
    running_servers: Servers, broker: Breakable, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    base = tmp_path_factory.getbasetemp()
    with bank(running_servers, broker.url, base, tmp_path, chunk_size=CHUNK_SIZE, rate_limits=0.0) as settings:
        yield settings


@pytest.fixture
def env(settings: Settings) -> Environment:
    return {**variables(settings), "ALERTREC_LOG_FORMAT": "json"}


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    assert settings.database_url is not None
    with connected(settings.database_url) as engine:
        yield engine


@pytest.fixture
def interactive(env: Environment, tmp_path: Path) -> Iterator[Worker]:
    with worker(env, tmp_path, name="interactive", queues=[INTERACTIVE, ACTIONS, CONTROL]) as interactive:
        yield interactive


def offers(engine: Engine) -> list[Offer]:
    """Return one offer each of the customers who have one."""
    first = {row["user_id"]: row for row in reversed(rows(engine, OFFERED))}
    return [Offer(**row) for row in first.values()]


def dismiss(client: httpx.Client, settings: Settings, offer: Offer) -> float:
    """Dismiss an offer as the page does, and return how many seconds the answer took."""
    path, body = f"{API}/{offer.recommendation_id}/feedback", answered("dismissed")
    seconds, answer = timed_post(client, settings, offer, path, body)
    assert answer == {"event_id": body["event_id"], "recorded": True}
    return seconds


def take(client: httpx.Client, settings: Settings, offer: Offer) -> float:
    """Take an offer as the page does, and return how many seconds the answer took."""
    body = {name: getattr(offer, name) for name in ("recommendation_id", "title", "natural_language_query")}
    seconds, answer = timed_post(client, settings, offer, f"{API}/create-rule", {**body, "event_id": str(uuid4())})
    assert answer["rule_id"]
    return seconds


def click(number: int, client: httpx.Client, settings: Settings, offer: Offer) -> float:
    """Take or dismiss an offer by turns."""
    return (take if number % 2 else dismiss)(client, settings, offer)


def timed_post(
    client: httpx.Client, settings: Settings, offer: Offer, path: str, body: dict[str, Any]
) -> tuple[float, Any]:
    headers, started = as_user(settings, offer.user_id), time.perf_counter()
    answer = client.post(path, json=body, headers=headers)
    seconds = time.perf_counter() - started
    assert answer.status_code == 200, answer.text
    return seconds, answer.json()


@contextmanager
def browser(settings: Settings, directory: Path) -> Iterator[httpx.Client]:
    """Run a web process, and yield a client of it."""
    with serve(settings, directory) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def refresh_of(engine: Engine, task_id: str) -> Any:
    found = rows(
        engine, "SELECT * FROM alertrec.job_runs WHERE arguments ->> 'request' = :asked", asked=f"asked:{task_id}"
    )
    return found[0] if found else None


def n_running(engine: Engine) -> int:
    return len(rows(engine, "SELECT FROM alertrec.job_chunks WHERE status = 'running'"))


def n_done(engine: Engine, job_id: Any) -> int:
    return len(rows(engine, "SELECT FROM alertrec.job_chunks WHERE job_id = :id AND status = 'done'", id=job_id))


def n_unprocessed(engine: Engine) -> int:
    return len(rows(engine, "SELECT FROM alertrec.alert_actions WHERE processed_at IS NULL"))


def is_empty(url: str, *queues: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return not any(client.llen(queue) for queue in queues)


def assert_refreshed_once(engine: Engine, workers: Sequence[Worker], job_id: Any) -> None:
    """Assert that a refresh is done, each of its chunks by one attempt, and everybody has one whole, fresh list."""
    (run,) = rows(engine, "SELECT * FROM alertrec.job_runs WHERE job_id = :id", id=job_id)
    chunks = rows(engine, "SELECT * FROM alertrec.job_chunks WHERE job_id = :id", id=job_id)
    n_active = len(rows(engine, "SELECT FROM users WHERE is_active"))
    assert (run["status"], run["error"]) == ("done", None)
    assert run["result"] == {"n_chunks": len(chunks), "n_failed": 0, "n_users": n_active}
    effective = [each for each in facts(workers, "chunk_refreshed") if each["job_id"] == str(job_id)]
    assert len(effective) == len(chunks)
    stale = """
        SELECT users.id FROM users LEFT JOIN alertrec.recommendation_lists AS lists ON lists.user_id = users.id
        WHERE users.is_active AND (
            lists.generated_at IS NULL OR lists.generated_at < :since
            OR lists.n_items <> (SELECT count(*) FROM alertrec.recommendations AS items WHERE items.user_id = users.id)
        )
    """
    assert rows(engine, stale, since=run["created_at"]) == []


def assert_applied_once(engine: Engine, workers: Sequence[Worker], clicked: Sequence[Offer], *, n_events: int) -> None:
    """Assert that each event is stored and was applied once, and what was clicked on is no longer offered."""
    stored = rows(engine, "SELECT processed_at FROM alertrec.alert_actions")
    assert len(stored) == n_events
    assert all(row["processed_at"] is not None for row in stored)
    assert sum(each["n_actions"] for each in facts(workers, "actions_processed")) == n_events
    left = {(row["user_id"], row["alert_type"]) for row in rows(engine, OFFERED)}
    assert left.isdisjoint((offer.user_id, offer.alert_type) for offer in clicked)


@pytest.mark.slow
def test_a_broker_that_comes_back_empty_in_mid_refresh_loses_no_chunk_and_no_action(
    env: Environment, settings: Settings, engine: Engine, broker: Breakable, interactive: Worker, tmp_path: Path
):
    waiting = offers(engine)[:20]
    queues = worker(env, tmp_path, name="batch", queues=[BATCH], concurrency=2)
    with queues as batch, browser(settings, tmp_path) as client, web_app(env) as send:
        with writers_held(engine):
            task_id = send("refresh_recommendations")
            wait_for(lambda: n_running(engine) == 2 and len(backends_that_wait(engine)) == 2)
            for offer in waiting[:10]:
                dismiss(client, settings, offer)
            wait_for(lambda: len(backends_that_wait(engine)) == 3)
            # Whoever applies the first ones does not see these, and the messages about them are lost.
            for offer in waiting[10:]:
                dismiss(client, settings, offer)
            broker.end()
        job_id = refresh_of(engine, task_id)["job_id"]
        wait_for(lambda: n_running(engine) == 0)  # what was under way is finished without a broker
        assert n_done(engine, job_id) == 2
        assert n_unprocessed(engine) > 0
        broker.start(empty=True)
        back = time.monotonic()
        wait_for(lambda: interactive.answers() and batch.answers())
        print(f"workers are back after {time.monotonic() - back:.1f} s")
        assert is_empty(broker.url, *QUEUES)
        let_chunks_age(engine, job_id, minutes=15)
        send("tick")
        wait_for(lambda: refresh_of(engine, task_id)["finished_at"] and n_unprocessed(engine) == 0)
        print(f"all is done after {time.monotonic() - back:.1f} s")
        chunks = rows(engine, "SELECT attempts FROM alertrec.job_chunks WHERE job_id = :id", id=job_id)
        assert {row["attempts"] for row in chunks} == {1}
        assert_refreshed_once(engine, [interactive, batch], job_id)
        assert_applied_once(engine, [interactive, batch], waiting, n_events=len(waiting))


@pytest.mark.slow
def test_beat_and_new_workers_take_up_what_a_lost_broker_and_killed_workers_left(
    env: Environment, settings: Settings, engine: Engine, broker: Breakable, interactive: Worker, tmp_path: Path
):
    waiting = offers(engine)[:20]
    beat = process([sys.executable, "-m", "alertrec", "beat"], env=env, cwd=tmp_path, log=tmp_path / "beat.log")
    doomed = worker(env, tmp_path, name="doomed", queues=[BATCH], concurrency=2)
    with beat as beating, doomed as killed, browser(settings, tmp_path) as client, web_app(env) as send:
        with writers_held(engine):
            task_id = send("refresh_recommendations")
            wait_for(lambda: n_running(engine) == 2 and len(backends_that_wait(engine)) >= 2)
            broker.end()
            kill(killed)
            for offer in waiting:
                dismiss(client, settings, offer)
        job_id = refresh_of(engine, task_id)["job_id"]
        wait_for(lambda: not backends_that_wait(engine))
        assert (n_done(engine, job_id), n_running(engine)) == (0, 2)
        broker.start(empty=True)
        back = time.monotonic()
        let_chunks_age(engine, job_id, minutes=15)
        with worker(env, tmp_path, name="batch", queues=[BATCH], concurrency=2) as batch:
            wait_for(lambda: refresh_of(engine, task_id)["finished_at"] and n_unprocessed(engine) == 0, seconds=180)
            print(f"all is done after {time.monotonic() - back:.1f} s")
            chunks = rows(engine, "SELECT attempts, n_lost FROM alertrec.job_chunks WHERE job_id = :id", id=job_id)
            assert sorted(row["attempts"] for row in chunks) == [1] * (len(chunks) - 2) + [2, 2]
            assert sum(row["n_lost"] for row in chunks) == 2
            assert_refreshed_once(engine, [interactive, batch], job_id)
            assert_applied_once(engine, [interactive, batch], waiting, n_events=len(waiting))
            assert beating.poll() is None


@pytest.mark.slow
def test_while_the_broker_is_frozen_for_two_minutes_clicks_are_answered_at_once_and_applied_later(
    env: Environment, settings: Settings, engine: Engine, broker: Breakable, interactive: Worker, tmp_path: Path
):
    waiting = offers(engine)[: N_BEFORE + N_CLICKS]
    assert len(waiting) == N_BEFORE + N_CLICKS
    n_rules = len(rows(engine, "SELECT FROM alert_rules"))
    with browser(settings, tmp_path) as client, web_app(env) as send:
        before = [click(number, client, settings, offer) for number, offer in enumerate(waiting[:N_BEFORE])]
        broker.freeze()
        started, seconds = time.monotonic(), []
        for number, offer in enumerate(waiting[N_BEFORE:]):
            time.sleep(max(0.0, started + number * FROZEN_SECONDS / N_CLICKS - time.monotonic()))
            seconds.append(click(number, client, settings, offer))
            assert client.get(API, headers=as_user(settings, offer.user_id)).status_code == 200
        time.sleep(max(0.0, started + FROZEN_SECONDS - time.monotonic()))
        broker.thaw()
        thawed = time.monotonic()
        ninetieth = statistics.quantiles(seconds, n=10)[-1]
        print(f"answered before within {statistics.median(before):.3f} s, all {max(before):.3f} s")
        print(f"answered within {statistics.median(seconds):.3f} s, 90 % {ninetieth:.3f} s, all {max(seconds):.3f} s")
        wait_for(interactive.answers)
        send("tick")
        wait_for(lambda: n_unprocessed(engine) == 0)
        print(f"applied {time.monotonic() - thawed:.1f} s after the broker was back")
        wait_for(lambda: is_empty(broker.url, INTERACTIVE, ACTIONS, CONTROL))
    # A machine that is busy with other things answers late whether the broker is there or not.
    assert ninetieth < max(PROMISED_SECONDS, 3 * max(before))
    n_taken = (N_BEFORE + N_CLICKS) // 2
    assert len(rows(engine, "SELECT FROM alert_rules")) == n_rules + n_taken
    # Who takes an offer has accepted it and created a rule.
    assert_applied_once(engine, [interactive], waiting, n_events=len(waiting) + n_taken)
