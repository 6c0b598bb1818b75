"""Small banks in real databases, and what tests ask of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, RowMapping, select, text

from alertrec import fitting
from alertrec.embedded import Servers
from alertrec.importing import import_files
from alertrec.rules.cards import CHANGE
from alertrec.sample_bank import SampleBank, make_sample_bank
from alertrec.settings import Settings
from alertrec.storage import models
from alertrec.storage.database import create_engine
from alertrec.storage.models import ModelVersion
from alertrec.storage.schema import create_source_relations, migrate
from alertrec.storage.source import Source
from alertrec.storage.tables import recommendation_lists, recommendations
from alertrec.workspace import Workspace, open_workspace

# In the past of every clock, so that no test depends on the day it runs on.
AS_OF = datetime(2025, 10, 1, tzinfo=UTC)

# Generous, since it is only reached by a test that fails.
PATIENCE_SECONDS = 20

Rows = dict[str, list[dict[str, Any]]]  # user → items, the best first


@cache
def small_bank(n_users: int = 60, days: int = 90, seed: int = 0) -> SampleBank:
    """Return a bank whose history ends at `AS_OF`."""
    return make_sample_bank(n_users, as_of=AS_OF, days=days, seed=seed)


@contextmanager
def workspace_on(database_url: str, data_dir: Path, **settings: Any) -> Iterator[Workspace]:
    """Yield a workspace as one process has it; a second one on the same arguments is another process."""
    workspace = open_workspace(replace(Settings(), database_url=database_url, data_dir=data_dir, **settings))
    try:
        yield workspace
    finally:
        workspace.engine.dispose()


@contextmanager
def own_database(running_servers: Servers, name: str) -> Iterator[str]:
    """Yield the URL of an empty database with all tables that outlives a test."""
    _administer(running_servers, f"CREATE DATABASE {name}")
    url = urlsplit(running_servers.database_url)._replace(path=f"/{name}").geturl()
    engine = create_engine(url)
    with engine.begin() as connection:
        migrate(connection)
        create_source_relations(connection, Source("public"))
    engine.dispose()
    yield url
    _administer(running_servers, f"DROP DATABASE {name} WITH (FORCE)")


def load(workspace: Workspace, bank: SampleBank, scratch: Path) -> None:
    """Import a bank through files, as a bank's own export would come."""
    names = ("users", "transactions", "alert_rules")
    files = {name: scratch / f"{name}.parquet" for name in names}
    for name, path in files.items():
        getattr(bank, name).write_parquet(path)
    with workspace.engine.begin() as connection:
        rejects = scratch / "rejects.jsonl"
        report = import_files(connection, schema="public", rejects_path=rejects, **files)
    assert report.n_rejected == 0


def train(workspace: Workspace, *, as_of: datetime = AS_OF, **arguments: Any) -> str:
    """Train a model, whatever the champion's age, and return its version."""
    fitting.request_training(workspace, force=True, as_of=as_of, **arguments)
    outcome = fitting.run_training(workspace)
    assert outcome is not None
    assert outcome.version is not None, outcome
    return outcome.version


def add_version(connection: Connection, version: str, *, created_at: datetime = AS_OF) -> None:
    """Insert the row of a model that has no files."""
    nothing: dict[str, Any] = {}
    row = ModelVersion(version, "knn", nothing, nothing, nothing, nothing, "nowhere", "0" * 64, created_at)
    models.insert_version(connection, row)


def execute(workspace: Workspace, statement: str, **parameters: Any) -> list[RowMapping]:
    """Run a statement in a transaction of its own, and return its rows."""
    with workspace.engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return list(result.mappings()) if result.returns_rows else []


def scalar(workspace: Workspace, query: str, **parameters: Any) -> Any:
    """Return the first column of the first row of a query."""
    return next(iter(execute(workspace, query, **parameters)[0].values()))


def active_users(workspace: Workspace) -> list[str]:
    """Return the ids of all active users."""
    return [row["id"] for row in execute(workspace, "SELECT id FROM users WHERE is_active ORDER BY id")]


def read_lists(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Return the rows of all lists by user."""
    with workspace.engine.connect() as connection:
        rows = connection.execute(select(recommendation_lists)).mappings()
        return {row["user_id"]: dict(row) for row in rows}


def read_items(workspace: Workspace, *, without: tuple[str, ...] = ()) -> Rows:
    """Return all recommendations by user, in the order of their ranks."""
    query = select(recommendations).order_by(recommendations.c.user_id, recommendations.c.rank)
    items: Rows = {}
    with workspace.engine.connect() as connection:
        for row in connection.execute(query).mappings():
            items.setdefault(row["user_id"], []).append({key: row[key] for key in row if key not in without})
    return items


def offers_of(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the advice on rules that the user has."""
    return [item for item in items if item["recommendation_type"] != CHANGE]


def read_offers(workspace: Workspace) -> Rows:
    """Return what is offered to each user; those with advice alone are left out."""
    offers = {user_id: offers_of(items) for user_id, items in read_items(workspace).items()}
    return {user_id: items for user_id, items in offers.items() if items}


def offered(workspace: Workspace, user_id: str) -> set[str]:
    """Return the alerts that a user is offered."""
    return {item["alert_type"] for item in offers_of(read_items(workspace).get(user_id, []))}


def log(workspace: Workspace, user_id: str, action: str, occurred_at: datetime, **fields: str) -> None:
    """Log an action as a web app on the same database does."""
    names = ", ".join(fields)
    values = ", ".join(f":{name}" for name in fields)
    execute(
        workspace,
        f"INSERT INTO alertrec.alert_actions (event_id, user_id, action, occurred_at, {names}) "  # noqa: S608  # names of our own
        f"VALUES (gen_random_uuid(), :user_id, :action, :occurred_at, {values})",
        user_id=user_id,
        action=action,
        occurred_at=occurred_at,
        **fields,
    )


class Outbox(list[tuple[Any, ...]]):
    """Takes the place of the queue: what would have been sent, as (task, *arguments)."""

    def __call__(self, task: str, *arguments: Any) -> None:
        """Take a message."""
        self.append((task, *arguments))


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Run all calls, each in a thread of its own, and return what they return."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(PATIENCE_SECONDS) for future in [pool.submit(call) for call in calls]]


@contextmanager
def in_background(call: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Start a call in a thread and yield its future; the thread has ended when the block has."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never came to hold"
        time.sleep(0.01)


def n_waiting(workspace: Workspace) -> int:
    """Return how many sessions of this database wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    n_sessions: int = scalar(workspace, query)
    return n_sessions


def _administer(running_servers: Servers, statement: str) -> None:
    engine = create_engine(running_servers.database_url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
    engine.dispose()
