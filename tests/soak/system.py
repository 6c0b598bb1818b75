"""The whole system, on servers of its own: workers whose processes are soon replaced, Beat and the web app."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import redis
from sqlalchemy import Engine, text

from alertrec.embedded import servers
from alertrec.settings import Settings
from alertrec.storage.schema import create_source_relations, migrate
from alertrec.storage.source import Source
from alertrec.task_names import ACTIONS, BATCH, CONTROL, INTERACTIVE, TRAINING
from tests.integration.processes import Environment, Send, connected, load_bank, process, wait_for, web_app, worker
from tests.integration.web_worlds import SECRET, serving, variables
from tests.soak.recycling import TASKS

N_USERS, CHUNK_SIZE = 200, 50
# name → queues, processes, and tasks after which a process is replaced
WORKERS = {
    "interactive": ([INTERACTIVE, ACTIONS, CONTROL], 2, 40),
    "batch": ([BATCH], 2, 10),
    "training": ([TRAINING], 1, 2),
}


@dataclass(frozen=True)
class System:
    """What runs: its servers, its processes by name, and how to reach them."""

    settings: Settings
    env: Environment
    engine: Engine
    broker: redis.Redis
    send: Send
    url: str
    processes: Mapping[str, subprocess.Popen[bytes]]


@contextmanager
def running_system(scratch: Path) -> Iterator[System]:
    """Start everything on a small bank with a champion and everybody's list, and stop it afterwards."""
    home = scratch / "servers"
    with servers(home) as own:
        settings = replace(
            Settings(),
            database_url=own.database_url,
            redis_url=own.redis_url,
            data_dir=scratch / "data",
            model_store=str(scratch / "data" / "models"),
            web_secret=SECRET,
            chunk_size=CHUNK_SIZE,
        )
        with connected(own.database_url) as engine, redis.Redis.from_url(own.redis_url) as broker:
            with engine.begin() as connection:
                migrate(connection)
                create_source_relations(connection, Source("public"))
            load_bank(own.database_url, scratch, n_users=N_USERS)
            with _processes(settings, scratch, engine, broker) as system:
                _make_lists(system)
                yield system
        # Run by root, the database's files lie elsewhere; they go once the directory that they belong to has gone.
        shutil.rmtree(home)


@contextmanager
def _processes(settings: Settings, scratch: Path, engine: Engine, broker: redis.Redis) -> Iterator[System]:
    env = variables(settings)
    beat = [sys.executable, "-m", "alertrec", "beat"]
    with ExitStack() as stack:
        processes = {}
        for name, (queues, n_processes, n_tasks) in WORKERS.items():
            started = worker(
                {**env, TASKS: str(n_tasks)},
                scratch,
                name=name,
                queues=queues,
                concurrency=n_processes,
                module="tests.soak.recycling",
            )
            processes[name] = stack.enter_context(started).process
        processes["beat"] = stack.enter_context(process(beat, env=env, cwd=scratch, log=scratch / "beat.log"))
        url, processes["web"] = stack.enter_context(serving(settings, scratch))
        send = stack.enter_context(web_app(env))
        yield System(settings, env, engine, broker, send, url, processes)


def _make_lists(system: System) -> None:
    system.send("train_model", True)
    wait_for(lambda: scalar(system.engine, "SELECT count(*) FROM alertrec.model_versions WHERE alias = 'champion'"))
    system.send("refresh_recommendations")
    wait_for(lambda: n_wrong_lists(system.engine) == 0)


def scalar(engine: Engine, query: str, **values: object) -> int:
    """Return the number that a query asks for."""
    with engine.connect() as connection:
        return int(connection.scalar(text(query), values) or 0)


def n_wrong_lists(engine: Engine) -> int:
    """Return how many active users have no list, or one that lacks items."""
    return scalar(
        engine,
        """
        SELECT count(*) FROM users LEFT JOIN alertrec.recommendation_lists AS lists ON lists.user_id = users.id
        WHERE users.is_active AND lists.n_items IS DISTINCT FROM
            (SELECT count(*) FROM alertrec.recommendations AS items WHERE items.user_id = users.id)
        """,
    )
