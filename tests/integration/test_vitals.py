"""The vitals on real servers: each promise that is in danger is told by its own figure, and servers that are away."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import redis

from alertrec.settings import Settings
from alertrec.storage import models
from alertrec.task_names import LAST_TICK, LAST_TICK_KEPT_SECONDS, QUEUES
from alertrec.vitals import NAMES, Vital, read_vitals
from alertrec.web.app import create_app
from alertrec.workspace import Workspace, open_workspace
from tests.integration.web_worlds import (
    PROMISED_SECONDS,
    browsing,
    metric,
    metric_lines,
    took_at_most,
    without_broker,
    without_database,
)
from tests.integration.worlds import add_version, execute, in_background, wait_until

OF_BROKER = {"queue_length", "unacked_messages", "last_tick_seconds"}
REFRESH, LATER = uuid4(), uuid4()


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return replace(
        Settings(), database_url=database_url, redis_url=redis_url, data_dir=tmp_path, web_secret="secret " * 6
    )


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    """A bank in no danger: a champion of yesterday, ten current lists, a tick just now."""
    workspace = open_workspace(settings)
    now = datetime.now(UTC)
    with workspace.engine.begin() as connection:
        add_version(connection, "m1", created_at=now - timedelta(days=1))
        models.promote(connection, "m1", promoted_by="me")
    execute(
        workspace,
        "INSERT INTO alertrec.recommendation_lists SELECT 'ann-' || n, 'ml', 'm1', now(), now() + interval '1 day',"
        " now(), 0 FROM generate_series(1, 10) AS n",
    )
    add_job(workspace, REFRESH, ago="1 hour", status="done", started="1 hour")
    broker(settings).set(LAST_TICK, "", ex=LAST_TICK_KEPT_SECONDS)
    yield workspace
    workspace.engine.dispose()


def broker(settings: Settings) -> redis.Redis:
    assert settings.redis_url is not None
    return redis.Redis.from_url(settings.redis_url)


def add_job(
    workspace: Workspace,
    job_id: UUID,
    *,
    ago: str,
    status: str,
    job: str = "refresh",
    started: str | None = None,
    error: str | None = None,
    attempts: int = 0,
) -> None:
    """Insert a job that was asked for a while ago, and finished, if it did, just now."""
    execute(
        workspace,
        "INSERT INTO alertrec.job_runs (job_id, job, period, status, error, attempts, created_at, started_at,"
        " finished_at) VALUES (:job_id, :job, :period, :status, :error, :attempts, now() - CAST(:ago AS interval),"
        " now() - CAST(:started AS interval), CASE WHEN :status IN ('done', 'failed') THEN now() END)",
        job_id=job_id, job=job, period=str(job_id), status=status, ago=ago, started=started, error=error,
        attempts=attempts,
    )  # fmt: skip


def add_chunk(workspace: Workspace, job_id: UUID, *, status: str, lease: str | None = None, attempts: int = 1) -> None:
    """Insert the only chunk of a job; a lease is told by how long ago it ran out."""
    execute(
        workspace,
        "INSERT INTO alertrec.job_chunks (job_id, chunk, first_user_id, last_user_id, n_users, status, attempts,"
        " lease_until, finished_at) VALUES (:job_id, 0, 'a', 'b', 1, :status, :attempts,"
        " now() - CAST(:lease AS interval), CASE WHEN :status IN ('done', 'failed') THEN now() END)",
        job_id=job_id, status=status, lease=lease, attempts=attempts,
    )  # fmt: skip


def add_action(workspace: Workspace, ago: str) -> None:
    execute(
        workspace,
        "INSERT INTO alertrec.alert_actions (event_id, user_id, action, occurred_at, recorded_at) VALUES"
        " (gen_random_uuid(), 'ann-1', 'created', now(), now() - CAST(:ago AS interval))",
        ago=ago,
    )


def in_danger(workspace: Workspace) -> dict[str, float | None]:
    return {vital.name: vital.value for vital in read_vitals(workspace) if vital.is_in_danger}


def value_of(workspace: Workspace, name: str) -> float | None:
    return next(vital.value for vital in read_vitals(workspace) if vital.name == name)


def test_a_bank_at_rest_is_in_no_danger(workspace: Workspace):
    vitals = read_vitals(workspace)
    assert list(dict.fromkeys(vital.name for vital in vitals)) == list(NAMES)
    assert in_danger(workspace) == {}
    values = {vital.name: vital.value for vital in vitals}
    aged = {name: values.pop(name) for name in ("last_refresh_hours", "model_age_days", "champion_age_days")}
    assert aged == pytest.approx({"last_refresh_hours": 1, "model_age_days": 1, "champion_age_days": 1}, abs=0.05)
    assert values.pop("last_tick_seconds") == pytest.approx(0, abs=20)
    assert values == dict.fromkeys(values, 0)
    assert [vital.queue for vital in vitals if vital.name == "queue_length"] == list(QUEUES)


def test_work_that_waits_too_long(workspace: Workspace):
    add_job(workspace, LATER, ago="3 hours", status="running")
    add_chunk(workspace, LATER, status="pending")
    add_action(workspace, "9 min")
    add_job(workspace, uuid4(), ago="59 min", status="pending", job="training")
    assert in_danger(workspace) == {}
    execute(workspace, "UPDATE alertrec.job_runs SET created_at = created_at - interval '2 hours'")
    add_action(workspace, "11 min")
    assert in_danger(workspace) == pytest.approx(
        {
            "oldest_waiting_chunk_seconds": 5 * 3600,
            "oldest_waiting_action_seconds": 660,
            "oldest_waiting_job_seconds": 2 * 3600 + 59 * 60,
        },
        abs=20,
    )


def test_a_training_waits_behind_the_one_that_is_under_way_and_gives_signs_of_life(workspace: Workspace):
    add_job(workspace, LATER, ago="3 hours", status="running", job="training")
    add_job(workspace, uuid4(), ago="2 hours", status="pending", job="training")
    execute(workspace, "UPDATE alertrec.job_runs SET heartbeat_at = now() - interval '10 min' WHERE status = 'running'")
    assert value_of(workspace, "oldest_waiting_job_seconds") == pytest.approx(600, abs=20)


def test_a_lease_that_ran_out_is_in_danger_once_nobody_takes_the_chunk_up(workspace: Workspace):
    add_job(workspace, LATER, ago="1 hour", status="running")
    add_chunk(workspace, LATER, status="running", lease="2 min")
    assert in_danger(workspace) == {}
    execute(workspace, "UPDATE alertrec.job_chunks SET lease_until = lease_until - interval '2 min'")
    assert in_danger(workspace) == {"expired_leases": 1}


def test_what_failed_is_in_danger_until_a_later_one_makes_it_good(workspace: Workspace):
    add_job(workspace, LATER, ago="30 min", status="failed", error="1 chunks failed", attempts=3)
    add_chunk(workspace, LATER, status="failed", attempts=100)
    add_job(workspace, uuid4(), ago="30 min", status="failed", error=f"superseded by {LATER}", job="cleanup")
    assert in_danger(workspace) == {
        "retries_last_day": 2 + 99,
        "failed_chunks_last_day": 1,
        "failed_jobs_last_day": 1,
    }
    add_job(workspace, uuid4(), ago="10 min", status="running")
    assert in_danger(workspace).keys() == {"retries_last_day", "failed_chunks_last_day", "failed_jobs_last_day"}
    add_job(workspace, uuid4(), ago="1 min", status="done", started="1 min")
    assert in_danger(workspace) == {"retries_last_day": 101}
    execute(
        workspace,
        "UPDATE alertrec.job_runs SET finished_at = now() - interval '25 hours' WHERE job_id = :job_id",
        job_id=LATER,
    )
    assert in_danger(workspace) == {}


def test_lists_and_models_that_grow_old(workspace: Workspace):
    execute(workspace, "UPDATE alertrec.job_runs SET started_at = started_at - interval '30 hours'")
    execute(workspace, "UPDATE alertrec.model_versions SET created_at = created_at - interval '14 days'")
    execute(
        workspace, "UPDATE alertrec.recommendation_lists SET expires_at = now() WHERE user_id IN ('ann-1', 'ann-2')"
    )
    assert in_danger(workspace) == pytest.approx(
        {"expired_lists_share": 0.2, "last_refresh_hours": 31, "model_age_days": 15}, abs=0.01
    )
    with workspace.engine.begin() as connection:
        add_version(connection, "m2", created_at=datetime.now(UTC))  # that did not beat the champion
    assert value_of(workspace, "model_age_days") == pytest.approx(0, abs=0.01)
    execute(workspace, "UPDATE alertrec.model_versions SET alias = NULL")
    assert in_danger(workspace).keys() == {"expired_lists_share", "last_refresh_hours", "champion_missing"}


def test_messages_that_were_given_up(workspace: Workspace):
    execute(workspace, "DROP TABLE IF EXISTS alertrec.dead_letters")
    assert value_of(workspace, "dead_letters_last_day") is None
    assert in_danger(workspace) == {}
    execute(workspace, "CREATE TABLE alertrec.dead_letters (recorded_at timestamptz, task text, reason text)")
    nothing_lost = ["asked for a user that is not known", "TransientError at database.py:1"]
    lost = [("alertrec.log_alert_action", "TransientError at database.py:1"), (None, "a message that is no JSON")]
    insert = "INSERT INTO alertrec.dead_letters VALUES (now() - make_interval(hours => :hours), :task, :reason)"
    for reason in nothing_lost:
        execute(workspace, insert, hours=0, task="alertrec.refresh_chunk", reason=reason)
    execute(workspace, insert, hours=0, task="alertrec.tick", reason="QueueUnavailableError at base.py:1")
    assert in_danger(workspace) == {}
    for task, reason in lost:
        execute(workspace, insert, hours=0, task=task, reason=reason)
        execute(workspace, insert, hours=25, task=task, reason=reason)
    assert in_danger(workspace) == {"dead_letters_last_day": 2}


def test_what_the_broker_tells(workspace: Workspace, settings: Settings):
    client = broker(settings)
    client.rpush("control", *range(11))
    client.rpush("batch", *range(11))
    client.hset("unacked", mapping={str(number): "" for number in range(1001)})
    client.set(LAST_TICK, "whatever it holds", ex=LAST_TICK_KEPT_SECONDS - 200)
    found = [vital for vital in read_vitals(workspace) if vital.is_in_danger]
    assert [(vital.name, vital.queue) for vital in found] == [
        ("queue_length", "control"), ("unacked_messages", None), ("last_tick_seconds", None),
    ]  # fmt: skip
    assert [vital.value for vital in found] == pytest.approx([11, 1001, 200], abs=20)
    client.set(LAST_TICK, "set by somebody else")
    assert in_danger(workspace)["last_tick_seconds"] is None
    client.delete(LAST_TICK)
    assert in_danger(workspace)["last_tick_seconds"] is None


def away(vitals: tuple[Vital, ...]) -> set[str]:
    missing = {vital.name for vital in vitals if vital.is_missing}
    assert missing == {vital.name for vital in vitals if vital.is_in_danger}
    return missing


def test_without_the_broker_what_it_has_is_not_known(workspace: Workspace, settings: Settings):
    assert away(read_vitals(replace(workspace, settings=without_broker(settings)))) == OF_BROKER


def test_a_broker_that_is_frozen_is_given_up(workspace: Workspace, settings: Settings):
    with socket.create_server(("127.0.0.1", 0)) as frozen, took_at_most(PROMISED_SECONDS):
        url = f"redis://127.0.0.1:{frozen.getsockname()[1]}/0"
        assert away(read_vitals(replace(workspace, settings=replace(settings, redis_url=url)))) == OF_BROKER


def test_without_the_database_what_it_has_is_not_known(workspace: Workspace, settings: Settings):
    without = open_workspace(without_database(settings))
    assert away(read_vitals(without)) == set(NAMES) - OF_BROKER


async def test_prometheus_gets_what_is_known(workspace: Workspace, settings: Settings):
    broker(settings).rpush("batch", "message")
    add_action(workspace, "11 min")
    async with browsing(create_app(settings)) as client:
        page = (await client.get("/metrics")).text
    told = {line.split()[0].split("{")[0] for line in metric_lines(page)}
    assert {f"alertrec_{name}" for name in NAMES} <= told
    assert metric(page, 'alertrec_queue_length{queue="batch"}') == 1
    assert metric(page, "alertrec_oldest_waiting_action_seconds") == pytest.approx(660, abs=20)
    dangers = {line for line in metric_lines(page) if line.startswith("alertrec_in_danger") and line.endswith(" 1.0")}
    assert dangers == {'alertrec_in_danger{vital="oldest_waiting_action_seconds"} 1.0'}
    assert len([line for line in metric_lines(page) if line.startswith("alertrec_in_danger")]) == len(NAMES)
    assert "ann" not in "\n".join(metric_lines(page))


async def test_a_scrape_outlives_both_servers(settings: Settings):
    async with browsing(create_app(without_broker(without_database(settings)))) as client:
        page: httpx.Response = await client.get("/metrics")
    assert page.status_code == 200
    assert all(metric(page.text, f'alertrec_in_danger{{vital="{name}"}}') == 1 for name in NAMES)
    assert "\nalertrec_expired_leases " not in page.text


def test_a_database_that_is_too_busy_is_given_up(workspace: Workspace):
    # The lock goes before the thread is waited for, or a reading without a limit would hang the test.
    with workspace.engine.connect() as connection:
        connection.exec_driver_sql("LOCK TABLE alertrec.job_runs IN ACCESS EXCLUSIVE MODE")
        with in_background(lambda: read_vitals(workspace)) as reading:
            try:
                wait_until(reading.done)
            finally:
                connection.rollback()
        assert away(reading.result()) == set(NAMES) - OF_BROKER
