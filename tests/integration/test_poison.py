"""Messages that no worker should run: recorded, never executed, and no worker ends of them."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import redis

from alertrec.embedded import Servers
from tests.integration.messages import CALL, envelope, letters_of, n_runs_of, put, sealed
from tests.integration.processes import Environment, Worker, broker, connected, database, environment, wait_for
from tests.integration.processes import worker as started_worker

SECRET = "Jane Doe"  # what stands in bodies, and nowhere else
MEGABYTE = 1024**2
FIFTY_MB = 50 * MEGABYTE


class Trap:
    """Loaded from a pickle, it makes a directory: code has run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def body(content: object, content_type: str = "application/json", task: str = "tests.live", **headers: object) -> str:
    """Return a message with a body of this kind, whose id is its content type or task."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return json.dumps(sealed(raw, content_type, task=task, **{"id": str(uuid4()), **headers}))


def compressed() -> str:
    message = sealed(CALL, task="tests.live", id=str(uuid4()), compression="application/x-gzip")
    bomb = zlib.compress(b"[[" + b" " * FIFTY_MB + b'"bomb"], {}, {}]')
    return json.dumps({**message, "body": b64encode(bomb).decode()})


# message → the reason that is recorded. Each would run `tests.live`, were it run.
POISON: Mapping[str, tuple[str | bytes, str]] = {
    "unknown task": (envelope("alertrec.process_fish", [SECRET]), "an unknown task"),
    "no JSON": (f"not even an envelope, {SECRET}", "a message that is no JSON"),
    "no text": (b"\xff\xfe\x00", "a message that is no JSON"),
    "deep": (b"[" * 200_000, "a message that is no JSON (RecursionError)"),
    "no envelope": (json.dumps([SECRET]), "a message that is no envelope"),
    "nothing": ("{}", "an envelope without headers"),
    "bare": (json.dumps({"headers": {"task": "tests.live", "id": "m1"}}), "an envelope without properties"),
    "old protocol": (json.dumps({"body": "", "task": "tests.live", "id": "m1", "args": ["x"]}), "an envelope without"),
    "retries": (envelope("tests.live", ["x"], retries=-1000), "an envelope whose header retries"),
    "limits": (envelope("tests.live", ["x"], timelimit="long"), "an envelope whose header timelimit"),
    "task": (envelope({"a": "dictionary"}, ["x"]), "an envelope whose header task"),
    "eta": (envelope("tests.live", ["x"], eta="tomorrow"), "a message that cannot be read (InvalidTaskError)"),
    "expires": (envelope("tests.live", ["x"], expires="never"), "a message that cannot be read (InvalidTaskError)"),
    "body no JSON": (body(f"{{ {SECRET}".encode()), "a message that cannot be read (DecodeError)"),
    "body no text": (body(b"\xff\xfe\x00"), "a message that cannot be read (DecodeError)"),
    "body deep": (body(b"[" * 100_000), "a message that cannot be read ("),
    "no call": (body(SECRET), "a body that is no call of a task"),
    "no call either": (body([SECRET]), "a body that is no call of a task"),
    "no list": (body([SECRET, {}, {}]), "a body that is no call of a task"),
    "no names": (body([["x"], SECRET, {}]), "a body that is no call of a task"),
    "brings others": (
        body([["x"], {}, {"callbacks": [{"task": "tests.live", "args": [SECRET]}]}]),
        "a call that brings further calls with it",
    ),
    "pickle": (body(pickle.dumps([["x"], {}, {}]), "application/x-python-serialize"), "a body of a type that is not"),
    "unheard-of": (body(CALL, "application/x-unheard-of"), "a body of a type that is not taken (ContentDisallowed)"),
    "one argument more": (envelope("tests.live", ["x", SECRET]), "arguments that this version's task does not take"),
    "one argument less": (envelope("tests.live"), "arguments that this version's task does not take"),
    "another name": (body([["x"], {"scope": SECRET}, {}]), "arguments that this version's task does not take (1 by"),
    "a large body": (envelope("tests.live", ["x" * 300_000]), "a body of 3000"),
    "compressed": (compressed(), "an envelope with the header compression"),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared_database_url(running_servers: Servers, _template: None) -> Iterator[str]:
    with database(running_servers) as url:
        yield url


@pytest.fixture(scope="module")
def env(
    running_servers: Servers, shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    with broker(running_servers) as url:
        home = tmp_path_factory.mktemp("poisoned")
        yield environment(DATABASE_URL=shared_database_url, REDIS_URL=url, DATA_DIR=home / "data")


@pytest.fixture(scope="module")
def worker(env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    scratch = tmp_path_factory.mktemp("worker")
    with started_worker(env, scratch, name="test-poison", module="tests.integration.deadly_tasks") as started:
        yield started


def run_after(env: Environment, worker: Worker, name: str) -> None:
    """Wait until a call that was put behind all else has been run, by the worker that was there before."""
    put(env, "actions", envelope("tests.live", [name]))
    wait_for(lambda: n_runs_of(env, f"live:{name}") or worker.process.poll() is not None)
    assert worker.process.poll() is None, worker.text()


@pytest.mark.parametrize("kind", POISON)
def test_it_is_recorded_and_the_worker_lives(env: Environment, shared_database_url: str, worker: Worker, kind: str):
    message, reason = POISON[kind]
    with connected(shared_database_url) as engine:
        before = len(letters_of(engine))
        put(env, "actions", message)
        run_after(env, worker, kind)
        new = letters_of(engine)[before:]
    assert [(row["queue"], row["n_runs"]) for row in new] == [("actions", 0)]
    assert new[0]["reason"].startswith(reason)
    assert SECRET not in str(new)


def test_none_of_it_was_run_or_stays(env: Environment, worker: Worker):
    for number, (message, _) in enumerate(POISON.values()):
        put(env, "actions", message)
        run_after(env, worker, f"again {number}")
    assert [n_runs_of(env, f"live:{name}") for name in ("x", "x" * 300_000, "bomb", SECRET)] == [0] * 4
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        wait_for(lambda: client.hlen("unacked") == 0)
        assert client.llen("actions") == 0


def test_a_pickle_is_never_loaded(env: Environment, worker: Worker, tmp_path: Path):
    trap = Trap(tmp_path / "code has run")
    put(env, "actions", body(pickle.dumps([[trap], {}, {}]), "application/x-python-serialize"))
    put(env, "actions", body(pickle.dumps(trap)))
    put(env, "actions", pickle.dumps(trap))
    run_after(env, worker, "trap")
    assert not trap.path.exists()


def test_a_payload_of_fifty_megabytes_is_recorded_and_leaves_no_trace_in_memory(
    env: Environment, shared_database_url: str, worker: Worker
):
    run_after(env, worker, "small")
    parent = psutil.Process(worker.process.pid)
    before = parent.memory_info().rss
    for number in range(3):
        put(env, "actions", envelope("tests.live", ["x" * FIFTY_MB]))
        run_after(env, worker, f"large {number}")
    after = parent.memory_info().rss
    with connected(shared_database_url) as engine:
        large = [row["reason"] for row in letters_of(engine) if row["reason"].startswith("a message of 6990")]
    print(f"{before / MEGABYTE:.0f} MB before, {after / MEGABYTE:.0f} MB after")
    assert len(large) == 3
    assert after - before < FIFTY_MB


def test_no_log_shows_what_was_in_it(worker: Worker):
    assert SECRET not in worker.text()
    assert "xxxx" not in worker.text()
