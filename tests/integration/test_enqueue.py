"""What a web process does with tasks: light to import, and bounded when the broker is away or frozen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from alertrec.embedded import Servers
from tests.integration.processes import ROOT, broker, environment, run_script

# The promise is two seconds; the rest is for a busy machine.
PROMISED_SECONDS = 8.0
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"  # a web process needs none
HEAVY = ("pandas", "sklearn", "sqlalchemy", "polars", "scipy", "numpy")

IMPORT = f"""
import json, sys
import tasks
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""

# Each call twice: the second finds what the first one left behind. With an argument, some are made before, and the
# rest waits for a line of input.
SEND = f"""
import asyncio, json, sys, time
from tasks import generate_recommendations, log_alert_action, send_async

async def sending(n_ticks):
    async def tick():
        while True:
            await asyncio.sleep(0.01)
            n_ticks.append(1)
    ticking = asyncio.create_task(tick())
    try:
        await send_async(generate_recommendations, "u")
    finally:
        ticking.cancel()

n_ticks, calls = [], []
event = {{"user_id": "u", "action": "shown"}}
if len(sys.argv) > 1:
    generate_recommendations.delay("earlier")
    log_alert_action.delay(event)
    print("sent", flush=True)
    sys.stdin.readline()
for name, call in 2 * [
    ("generate_recommendations", lambda: generate_recommendations.delay("u")),
    ("log_alert_action", lambda: log_alert_action.delay(event)),
    ("send_async", lambda: asyncio.run(sending(n_ticks))),
]:
    started = time.perf_counter()
    try:
        call()
        answer = "sent"
    except Exception as error:
        answer = type(error).__name__
    calls.append([name, answer, time.perf_counter() - started])
heavy = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps({{"calls": calls, "n_ticks": len(n_ticks), "heavy": heavy}}))
"""

WITHOUT_SETTINGS = """
import json
from tasks import generate_recommendations
try:
    generate_recommendations.delay("u")
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def sent_to(redis_url: str) -> Any:
    return run_script(SEND, env=environment(DATABASE_URL=NO_DATABASE, REDIS_URL=redis_url))


@pytest.fixture(scope="module")
def refusing() -> str:
    """The URL of a broker that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def frozen() -> Iterator[str]:
    """The URL of a broker whose kernel takes connections and bytes, and which never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


@pytest.fixture(scope="module")
def sent_to_refusing(refusing: str) -> Any:
    return sent_to(refusing)


@pytest.fixture(scope="module")
def sent_to_frozen(frozen: str) -> Any:
    return sent_to(frozen)


@contextmanager
def web_app_that_has_sent(redis_url: str) -> Iterator[subprocess.Popen[str]]:
    """A process with open connections to a broker; given a line, it makes all calls."""
    command = [sys.executable, "-c", SEND, "once before"]
    env = environment(DATABASE_URL=NO_DATABASE, REDIS_URL=redis_url)
    with subprocess.Popen(command, env=env, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as web_app:
        assert web_app.stdout is not None
        assert web_app.stdout.readline() == "sent\n"
        yield web_app


@pytest.fixture(scope="module")
def sent_to_frozen_later(running_servers: Servers) -> Any:
    """What is sent to a broker that has taken messages and then freezes."""
    with broker(running_servers) as url, redis.Redis.from_url(url) as client, web_app_that_has_sent(url) as web_app:
        server = client.info("server")["process_id"]
        os.kill(server, signal.SIGSTOP)
        try:
            answer, _ = web_app.communicate("go on\n", timeout=60)
        finally:
            os.kill(server, signal.SIGCONT)
    return json.loads(answer)


@pytest.fixture(params=["sent_to_refusing", "sent_to_frozen", "sent_to_frozen_later"])
def unavailable(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_importing_the_tasks_loads_no_heavy_library(refusing: str):
    assert run_script(IMPORT, env=environment(DATABASE_URL=NO_DATABASE, REDIS_URL=refusing)) == []


def test_every_call_says_that_the_queue_is_unavailable(unavailable: Any):
    assert [answer for _, answer, _ in unavailable["calls"]] == 6 * ["QueueUnavailableError"]


def test_no_call_takes_longer_than_promised(unavailable: Any):
    assert [call for call in unavailable["calls"] if call[2] > PROMISED_SECONDS] == []


def test_sending_loads_no_heavy_library(unavailable: Any):
    assert unavailable["heavy"] == []


def test_the_event_loop_goes_on_while_the_broker_is_frozen(sent_to_frozen: Any):
    # Two calls of 0.75 s with a tick each 10 ms make some 150; a loop that is held up has one or two.
    assert sent_to_frozen["n_ticks"] > 20


def test_a_broker_that_answers_takes_every_message(running_servers: Servers):
    with broker(running_servers) as url:
        found = sent_to(url)
        with redis.Redis.from_url(url) as client:
            queues = {queue: client.llen(queue) for queue in ("interactive", "actions")}
    assert [answer for _, answer, _ in found["calls"]] == 6 * ["sent"]
    assert queues == {"interactive": 1, "actions": 2}  # one user's list waits once, however often it is asked for


def test_a_broker_that_was_restarted_takes_the_next_message(running_servers: Servers):
    with broker(running_servers) as url, redis.Redis.from_url(url) as client, web_app_that_has_sent(url) as web_app:
        client.client_kill_filter(skipme=True)  # as a restart does
        answer, _ = web_app.communicate("go on\n", timeout=60)
    assert [answer for _, answer, _ in json.loads(answer)["calls"]] == 6 * ["sent"]


def test_a_list_that_could_not_be_asked_for_does_not_count_as_waiting(running_servers: Servers):
    # This account may leave the mark, and then no message.
    with broker(running_servers) as url, redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "half", "on", ">half", "~*", "&*", "+@all", "-lpush")
        try:
            parts = url.rpartition("@")[2]
            found = sent_to(f"redis://half:half@{parts}")
            left = client.keys("*waiting*")
        finally:
            client.execute_command("ACL", "DELUSER", "half")
    assert {answer for _, answer, _ in found["calls"]} == {"QueueUnavailableError"}
    assert left == []


def test_without_a_setting_the_variable_is_named(tmp_path: Path):
    kind, message = run_script(WITHOUT_SETTINGS, env=environment(), cwd=tmp_path)
    assert kind == "ConfigError"
    assert "ALERTREC_REDIS_URL" in message


def test_a_misspelt_setting_is_named(tmp_path: Path):
    kind, message = run_script(WITHOUT_SETTINGS, env=environment(REDISURL="redis://127.0.0.1:1/0"), cwd=tmp_path)
    assert kind == "ConfigError"
    assert "ALERTREC_REDISURL" in message
    assert "ALERTREC_REDIS_URL" in message


def test_the_embedded_broker_is_found_by_its_data_directory(running_servers: Servers, tmp_path: Path):
    """A web app on the same machine needs no setting but the directory, or none in the working directory."""
    home = tmp_path / "data"
    home.mkdir()
    access = urlsplit(running_servers.redis_url)
    remembered = {"postgres_port": 1, "postgres_password": "x"}
    remembered |= {"valkey_port": access.port, "valkey_password": access.password}
    (home / "servers.json").write_text(json.dumps(remembered))
    script = "import json; from tasks import process_actions; print(json.dumps(process_actions.delay().id))"
    with redis.Redis.from_url(running_servers.redis_url) as client:
        client.delete("actions")
        assert run_script(script, env=environment(DATA_DIR=home))
        assert client.llen("actions") == 1
        client.delete("actions")
