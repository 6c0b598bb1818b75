"""What the processes of a running system log as JSON: lines of one form, with the task, the job and the model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from alertrec.embedded import Servers
from tests.integration.processes import (
    Environment,
    broker,
    database,
    environment,
    load_bank,
    process,
    run,
    wait_for,
    web_app,
    worker,
)

SECRET = "Merchant of Ann"


@pytest.fixture(scope="module")
def env(running_servers: Servers, _template: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    scratch = tmp_path_factory.mktemp("logs")
    with database(running_servers) as database_url, broker(running_servers) as redis_url:
        load_bank(database_url, scratch, n_users=60)
        yield environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=scratch / "data", LOG_FORMAT="json")


@pytest.fixture(scope="module")
def version(env: Environment, tmp_path_factory: pytest.TempPathFactory) -> str:
    done = run("train", "--local", "--json", env=env, cwd=tmp_path_factory.mktemp("train"))
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["version"])


def records(text: str) -> list[dict[str, Any]]:
    """Return all lines of a log, each of which must be an object with what every record has."""
    found = [json.loads(line) for line in text.splitlines()]
    for record in found:
        assert {"ts", "level", "logger", "message", "process"} <= record.keys(), record
    return found


def test_a_worker_logs_the_task_the_job_and_the_model(env: Environment, version: str, tmp_path: Path):
    with worker(env, tmp_path, name="json-logs") as logging, web_app(env) as send:
        refresh = send("refresh_recommendations")
        refused = send("generate_recommendations", SECRET)
        send_bodies(env)
        wait_for(lambda: logging.logged("chunk refreshed") and logging.logged(refused, "raised"))
        wait_for(lambda: logging.logged("alertrec.fish"))
        found = records(logging.text())
    planned = next(record for record in found if record.get("action") == "refresh_planned")
    assert (planned["task_id"], planned["task"]) == (refresh, "alertrec.refresh_recommendations")
    chunk = next(record for record in found if record.get("action") == "chunk_refreshed")
    assert chunk["job_id"] == planned["job_id"]
    assert chunk["model_version"] == version
    assert chunk["task"] == "alertrec.refresh_chunk"
    received = next(record for record in found if "received" in record["message"] and record["task_id"] == refresh)
    assert received["logger"] == "celery.worker.strategy"
    failed = next(record for record in found if record.get("task_id") == refused and "error_kind" in record)
    assert (failed["error_kind"], failed["level"]) == ("AskedForNobodyError", "ERROR")
    assert "base.py" in failed["traceback"][-1]
    assert SECRET not in json.dumps(found)


def send_bodies(env: Environment) -> None:
    """Send what no worker of ours can take: a body that is none, and then a task that is not known."""
    with Celery("test", broker=env["ALERTREC_REDIS_URL"], set_as_current=False) as app:
        with app.connection_for_write() as connection, connection.Producer() as producer:
            producer.publish(
                SECRET.encode(), routing_key="interactive", exchange="interactive", content_type="application/fish",
                content_encoding="utf-8",
            )  # fmt: skip
        app.send_task("alertrec.fish", (SECRET,), queue="interactive", argsrepr="(...)")


def test_beat_and_the_web_app_log_lines_of_the_same_form(env: Environment, version: str, tmp_path: Path):
    for arguments, said in ((["beat"], "beat: Starting"), (["serve", "--port", "0"], "Uvicorn running")):
        log = tmp_path / f"{arguments[0]}.log"
        with process([sys.executable, "-m", "alertrec", *arguments], env=env, cwd=tmp_path, log=log) as started:
            wait_for(lambda log=log, said=said: said in log.read_text())
            assert started.poll() is None
            lines = [line for line in log.read_text().splitlines() if not line.startswith("web app: http")]
            assert records("\n".join(lines))


def test_the_log_of_a_command_has_the_same_form(env: Environment, version: str, tmp_path: Path):
    done = run("--debug", "recommend", "user-0003", "--json", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    generated = next(r for r in records(done.stderr) if r.get("action") == "recommendations_generated")
    assert generated["n_users"] == 1
