"""Is everything there that the system needs, and what is to be done where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from alertrec.errors import ModelStoreError, NoChampionError, first_line
from alertrec.settings import Settings
from alertrec.task_names import QUEUES
from alertrec.vitals import BEAT_SILENT_SECONDS, read_broker
from alertrec.workspace import Workspace

__all__ = ["BEAT_SILENT_SECONDS", "Finding", "examine", "last_tick", "queue_lengths", "workers"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; `remedy` says what to do where it is not ok."""

    check: str
    ok: bool
    found: str
    remedy: str = ""


class _FailedError(Exception):
    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, remedy)
        self.found, self.remedy = found, remedy


def examine(workspace: Workspace) -> Iterator[Finding]:
    """Yield a finding for each thing that the system needs; one that fails does not stop the next."""
    checks: list[tuple[str, Callable[[Workspace], str]]] = [
        ("database", _database),
        ("migrations", _migrations),
        ("source relations", _source),
        ("broker", _broker),
        ("model", _model),
        ("worker", _worker),
        ("beat", _beat),
    ]
    for name, check in checks:
        try:
            yield Finding(name, ok=True, found=check(workspace))
        except _FailedError as failure:
            yield Finding(name, ok=False, found=failure.found, remedy=failure.remedy)
        except Exception as error:  # whatever is wrong is a finding
            yield Finding(
                name, ok=False, found=first_line(error), remedy="see the finding of the server it needs above"
            )


def queue_lengths(settings: Settings) -> Mapping[str, int]:
    """Return how many messages wait in each queue."""
    assert settings.redis_url is not None
    return read_broker(settings.redis_url).queue_lengths


def workers(settings: Settings) -> list[str]:
    """Return the names of the workers that answer within a second."""
    from alertrec.sending import celery_app

    replies = celery_app(settings).control.ping(timeout=1.0) or []
    return sorted(name for reply in replies for name in reply)


def last_tick(settings: Settings) -> datetime | None:
    """Return when the last tick ran; None if none did within the last day."""
    assert settings.redis_url is not None
    age = read_broker(settings.redis_url).tick_age
    return None if age is None else datetime.now(UTC) - timedelta(seconds=age)


def _database(workspace: Workspace) -> str:
    from sqlalchemy import text

    try:
        with workspace.engine.connect() as connection:
            version = int(str(connection.scalar(text("SHOW server_version_num"))))
    except Exception as error:
        raise _FailedError(first_line(error), "check ALERTREC_DATABASE_URL and that the server is up") from error
    if version < 140_000:
        raise _FailedError(f"PostgreSQL {version // 10_000}", "PostgreSQL 14 or newer is needed")
    return f"PostgreSQL {version // 10_000}.{version % 10_000}"


def _migrations(workspace: Workspace) -> str:
    from alertrec.storage.schema import current_revision, newest_revision

    with workspace.engine.connect() as connection:
        found, needed = current_revision(connection), newest_revision()
    if found != needed:
        raise _FailedError(f"revision {found}, {needed} is needed", "run `alertrec migrate`")
    return f"revision {found}"


def _source(workspace: Workspace) -> str:
    from alertrec.storage.schema import source_faults

    with workspace.engine.connect() as connection:
        faults = source_faults(connection, workspace.source)
    if faults:
        found = "; ".join(f"{name}: {', '.join(each)}" for name, each in faults.items())
        remedy = f"create tables or views of these names and columns in the schema {workspace.settings.source_schema}"
        raise _FailedError(found, f"{remedy} (docs/import.md lists them), or set ALERTREC_SOURCE_SCHEMA")
    return "users, transactions, alert_rules"


def _broker(workspace: Workspace) -> str:
    try:
        info = _redis(workspace.settings).info("server")
    except Exception as error:
        raise _FailedError(first_line(error), "check ALERTREC_REDIS_URL and that the server is up") from error
    return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"


def _model(workspace: Workspace) -> str:
    from alertrec.storage import models

    with workspace.engine.connect() as connection:
        champion = models.champion(connection)
    if champion is None:
        raise _FailedError(str(NoChampionError()), "run `alertrec train`")
    try:
        workspace.champions.load(champion)
    except ModelStoreError as error:
        remedy = "run `alertrec models rollback`, or `alertrec train --force` for a new one"
        raise _FailedError(str(error), remedy) from error
    return f"{champion.version}, {champion.algorithm}, {champion.data_counts['n_users']:,} users"


def _worker(workspace: Workspace) -> str:
    from alertrec.sending import celery_app

    queues_of = celery_app(workspace.settings).control.inspect(timeout=1.0).active_queues() or {}
    if not queues_of:
        raise _FailedError("no worker answers", "start workers with `alertrec up` or `alertrec worker`")
    names = ", ".join(sorted(queues_of))
    served = {queue["name"] for queues in queues_of.values() for queue in queues}
    if idle := [queue for queue in QUEUES if queue not in served]:
        remedy = f"start one: alertrec worker --queues {','.join(idle)}"
        raise _FailedError(f"{names}; no worker takes from {', '.join(idle)}", remedy)
    return names


def _beat(workspace: Workspace) -> str:
    assert workspace.settings.redis_url is not None  # a workspace has both servers
    age = read_broker(workspace.settings.redis_url).tick_age
    if age is None or age > BEAT_SILENT_SECONDS:
        found = (
            "no tick yet; the first one comes a minute after the start"
            if age is None
            else f"the last tick was {age:.0f} s ago"
        )
        remedy = "start Beat with `alertrec up` or `alertrec beat`, and a worker for the queue `control`"
        raise _FailedError(found, remedy)
    return f"the last tick was {age:.0f} s ago"


def _redis(settings: Settings) -> Any:
    import redis

    assert settings.redis_url is not None
    return redis.Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2, decode_responses=True)
