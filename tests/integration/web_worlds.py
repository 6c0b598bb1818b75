"""Banks that the web app serves: a database a test, made from one that was trained once, the app, and who asks it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
from fastapi import FastAPI
from psycopg.sql import SQL, Identifier

from alertrec import service
from alertrec.embedded import Servers
from alertrec.sample_bank import make_sample_bank
from alertrec.settings import Settings
from alertrec.web.access import Viewer, sign_token, web_secret
from alertrec.workspace import Workspace
from tests.integration.processes import Environment, environment, process, wait_for
from tests.integration.worlds import PATIENCE_SECONDS, execute, load, own_database, train, workspace_on

API = "/api/alerts/recommendations"
PROBLEM = "application/problem+json"
N_USERS = 60
SECRET = "a secret of the tests, of more than 32 characters"
# Two seconds are the promise for who asks while a server is away; the rest is for a busy machine. Without the bounds
# that keep it, it would take for ever.
PROMISED_SECONDS = 8.0
_REFUSING = 1  # a port on which nothing listens

_numbers = count()


@dataclass(frozen=True)
class _Template:
    database: str
    model_store: str


@cache
def _template(running: Servers, base: Path) -> _Template:
    """Make, once a session, a bank with a champion and everybody's list, to be copied."""
    scratch = base / "web-bank"
    scratch.mkdir()
    name = "alertrec_web_template"
    made = own_database(running, name)
    url = made.__enter__()  # it goes with the servers
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with workspace_on(url, scratch, threshold=0.05) as workspace:
        load(workspace, make_sample_bank(N_USERS, as_of=midnight, days=60), scratch)
        train(workspace, as_of=midnight)
        service.refresh_locally(workspace)
        # Somebody who is known, and of whom nothing else is.
        execute(workspace, "INSERT INTO users (id, is_active, created_at) VALUES ('newcomer', true, now())")
        execute(workspace, "INSERT INTO users (id, is_active, created_at) VALUES ('gone', false, now())")
    return _Template(name, str(scratch / "models"))


@contextmanager
def bank(running: Servers, redis_url: str, base: Path, data_dir: Path, **settings: Any) -> Iterator[Settings]:
    """Yield the settings of a bank of one's own: 60 users, a champion and a list for each who is active."""
    template = _template(running, base)
    name = Identifier(f"alertrec_web_{next(_numbers)}")
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(name, Identifier(template.database)))
        try:
            yield replace(
                Settings(),
                database_url=urlsplit(running.database_url)._replace(path=f"/{name._obj[0]}").geturl(),
                redis_url=redis_url,
                data_dir=data_dir,
                model_store=template.model_store,
                web_secret=SECRET,
                threshold=0.05,
                **settings,
            )
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@contextmanager
def workspace_of(settings: Settings) -> Iterator[Workspace]:
    """Yield the means of another process of the same bank."""
    from alertrec.workspace import open_workspace

    workspace = open_workspace(settings)
    try:
        yield workspace
    finally:
        workspace.engine.dispose()


@asynccontextmanager
async def browsing(app: FastAPI, *, base_url: str = "http://bank.test") -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an app that runs in this process; what nobody foresaw is an answer of 500, as over a socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with running(app), httpx.AsyncClient(transport=transport, base_url=base_url, timeout=30) as client:
        yield client


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    """Run an app between its start and its stop; one that does not stop fails the test instead of holding it up."""
    lifespan = app.router.lifespan_context(app)
    await lifespan.__aenter__()
    try:
        yield
    finally:
        stopping = asyncio.ensure_future(lifespan.__aexit__(None, None, None))
        _, pending = await asyncio.wait([stopping], timeout=PATIENCE_SECONDS)
        stopping.cancel()
        assert not pending, "the app does not stop"


def token(settings: Settings, user_id: str, *, is_admin: bool = False, seconds: float = 600, **options: str) -> str:
    return sign_token(web_secret(settings), Viewer(user_id, is_admin=is_admin), seconds=seconds, **options)


def as_user(settings: Settings, user_id: str) -> dict[str, str]:
    """Return the headers of a customer who is signed in."""
    return {"authorization": f"Bearer {token(settings, user_id)}"}


def as_admin(settings: Settings) -> dict[str, str]:
    """Return the headers of a member of staff who is signed in."""
    return {"authorization": f"Bearer {token(settings, 'ada', is_admin=True)}"}


def problem(answer: httpx.Response, status: int) -> str:
    """Assert that an answer tells of an error as it should, and return what it tells."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    told = answer.json()
    assert set(told) == {"type", "title", "status", "detail"}
    assert told["status"] == status
    return str(told["detail"])


def without_database(settings: Settings) -> Settings:
    return replace(settings, database_url=f"postgresql://nobody@127.0.0.1:{_REFUSING}/none")


def without_broker(settings: Settings) -> Settings:
    return replace(settings, redis_url=f"redis://127.0.0.1:{_REFUSING}/0")


def variables(settings: Settings) -> Environment:
    """Return the environment of a process with these settings."""
    names = ("database_url", "redis_url", "data_dir", "model_store", "web_secret", "threshold", "chunk_size")
    return environment(**{name.upper(): getattr(settings, name) for name in (*names, "rate_limits")})


@contextmanager
def serve(settings: Settings, cwd: Path) -> Iterator[str]:
    """Run `alertrec serve`, and yield its address."""
    with serving(settings, cwd) as (url, _):
        yield url


@contextmanager
def serving(settings: Settings, cwd: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `alertrec serve`, and yield its address and its process."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", cwd / f"serve-{port}.log"
    command = [sys.executable, "-m", "alertrec", "serve", "--port", str(port)]
    with process(command, env=variables(settings), cwd=cwd, log=log) as started:

        def is_up() -> bool:
            assert started.poll() is None, log.read_text()
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{url}/health/live").status_code == 200
            return False

        wait_for(is_up)
        yield url, started


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def valkey(port: int, log: Path) -> Iterator[None]:
    """Run a Valkey of one's own on a port, which keeps nothing."""
    from alertrec.embedded import binaries

    command = [str(binaries.valkey()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp"]  # noqa: S108  # it writes nothing there
    with process(command, env={}, cwd=log.parent, log=log):

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            return False

        wait_for(answers)
        yield


def metric(text: str, name: str) -> float:
    """Return one figure of a page for Prometheus."""
    return next(float(line.split()[-1]) for line in metric_lines(text) if line.split()[0] == name)


def metric_lines(text: str) -> list[str]:
    """Return the figures of a page for Prometheus, without what explains them."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def old_body(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what clients of the earlier system send of an item."""
    names = ("title", "description", "natural_language_query", "category", "priority", "reasoning")
    return {name: item[name] for name in names}


def state(workspace: Workspace) -> Any:
    """Return all rules and all that was logged."""
    return [
        execute(workspace, f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608  # names of our own
        for table in ("alert_rules", "alertrec.alert_actions")
    ]


def answered(action: str, **changed: Any) -> dict[str, Any]:
    """Return what a page sends of what a customer did with a card."""
    return {"event_id": str(uuid4()), "action": action, **changed}


@contextmanager
def took_at_most(seconds: float) -> Iterator[None]:
    started = time.perf_counter()
    yield
    taken = time.perf_counter() - started
    assert taken <= seconds, f"it took {taken:.2f} s"


def nobody_knows() -> str:
    """Return an id that is nobody's."""
    return f"nobody-{secrets.token_hex(4)}"
