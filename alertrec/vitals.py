"""Are the promises kept: one definition of the figures that `alertrec status`, Prometheus and the alarms show.

Each has a limit beyond which a promise is in danger; `docs/operations.md` has a paragraph for each under "Alarms".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from alertrec.errors import first_line
from alertrec.settings import Settings
from alertrec.storage import vitals as queries
from alertrec.storage.database import transient_errors
from alertrec.storage.engagement import read_freshness
from alertrec.task_names import (
    ACTIONS,
    BATCH,
    CONTROL,
    INTERACTIVE,
    LAST_TICK,
    LAST_TICK_KEPT_SECONDS,
    QUEUES,
    TRAINING,
)
from alertrec.workspace import Workspace

logger = logging.getLogger(__name__)

# The refresh begins at four in the morning and is to be through by eight, when customers look.
WAITING_CHUNK_SECONDS = 4 * 3600
# Applied at once, or by the tick of the next minute: after ten ticks, nobody does.
WAITING_ACTION_SECONDS = 600
# No step of a training is silent for so long, and no job waits so long for a worker of its queue.
WAITING_JOB_SECONDS = 3600
# A lease that ran out is found by the tick of the next minute, two minutes after its last message at the latest; what
# is older is not being brought back.
LEASE_GRACE_SECONDS = 180
# A restart of a server costs each process of the fleet one retry; more is no accident.
RETRIES = 100
# The tick comes each minute; after three, Beat or the worker that does its ticks is gone.
BEAT_SILENT_SECONDS = 180
# A worker on four cores does some hundred lists or actions a second, so that these wait for ten seconds. A chunk is
# 2,000 users: ten thousand are 20 million. Trainings are joined, and ticks done at once: ten wait as many minutes.
QUEUE_LIMITS = {INTERACTIVE: 1_000, ACTIONS: 1_000, BATCH: 10_000, TRAINING: 100, CONTROL: 10}
# A process holds two messages at most, so that this many need 500 processes; else tasks wait for another try.
UNACKED = 1_000
# Everybody's list is renewed before it expires. Those that do are of users who left, and are deleted a month later.
EXPIRED_SHARE = 0.1
# Daily, with six hours for the work; lists expire after 48.
REFRESH_HOURS = 30.0
# One training may fail, the next one is due.
TRAININGS = 2

_BROKER_TIMEOUT_SECONDS = 0.75
_UNACKED_KEY = "unacked"  # kombu's: what workers have taken and not yet acknowledged


@dataclass(frozen=True)
class Vital:
    """One figure, and the limit beyond which a promise is in danger.

    Attributes
    ----------
    value : float or None
        None where there is nothing to measure, or where it could not be read.
    limit : float or None
        None of a figure that endangers nothing by itself.
    queue : str or None
        Which queue it is about, of figures that each queue has.
    is_missing : bool
        Whether the value should be there and is not, since the server that has it is away.
    """

    name: str
    value: float | None
    limit: float | None
    unit: str
    meaning: str
    queue: str | None = None
    is_missing: bool = False

    @property
    def is_in_danger(self) -> bool:
        """Whether the limit is exceeded, or nobody knows."""
        return self.is_missing or (self.value is not None and self.limit is not None and self.value > self.limit)


@dataclass(frozen=True)
class Broker:
    """What the broker tells: messages in each queue, those taken and not acknowledged, seconds since the last tick."""

    queue_lengths: Mapping[str, int]
    unacked: int
    tick_age: float | None  # None if none ran within the last day


# What is known of each before it is read.
_IN_DATABASE = (
    Vital(
        "oldest_waiting_chunk_seconds", None, WAITING_CHUNK_SECONDS, "s", "since the oldest unfinished refresh began"
    ),
    Vital("oldest_waiting_action_seconds", None, WAITING_ACTION_SECONDS, "s", "since the oldest unapplied action"),
    Vital("oldest_waiting_job_seconds", None, WAITING_JOB_SECONDS, "s", "since a job waits, or gave a sign of life"),
    Vital("expired_leases", None, 0, "chunks", "lost by their workers, and taken up by nobody"),
    Vital("retries_last_day", None, RETRIES, "attempts", "of chunks and jobs, beyond the first"),
    Vital("failed_chunks_last_day", None, 0, "chunks", "failed, and not made good by a later refresh"),
    Vital("failed_jobs_last_day", None, 0, "jobs", "failed, and not made good by a later one"),
    Vital("dead_letters_last_day", None, 0, "messages", "given up or refused"),
    Vital("expired_lists_share", None, EXPIRED_SHARE, "of lists", "expired, and shown to nobody"),
    Vital("last_refresh_hours", None, REFRESH_HOURS, "h", "since the last refresh that reached everybody began"),
    Vital("model_age_days", None, None, "days", "since a model was last trained, champion or not"),
    Vital("champion_missing", None, 0, "", "1 where no model serves"),
    Vital("champion_age_days", None, None, "days", "since the model that serves was trained"),
)
_QUEUE_LENGTH = Vital("queue_length", None, None, "messages", "waiting for a worker")
_UNACKED = Vital("unacked_messages", None, UNACKED, "messages", "taken by workers, and not yet acknowledged")
_LAST_TICK = Vital("last_tick_seconds", None, BEAT_SILENT_SECONDS, "s", "since the tick of each minute last ran")

NAMES = tuple(vital.name for vital in (*_IN_DATABASE, _QUEUE_LENGTH, _UNACKED, _LAST_TICK))


def read_vitals(workspace: Workspace) -> tuple[Vital, ...]:
    """Return all figures; those of a server that is away are missing, and in danger. Never raises for such."""
    return (*_database_vitals(workspace), *_broker_vitals(workspace.settings))


def unknown_vitals(settings: Settings) -> tuple[Vital, ...]:
    """Return all figures as missing: what is told while nobody knows."""
    return (*_missing_in_database(settings), *_of_broker(None))


def read_broker(redis_url: str) -> Broker:
    """Ask the broker, within two seconds.

    Raises
    ------
    redis.RedisError
        If it does not answer.
    """
    timeouts = {"socket_timeout": _BROKER_TIMEOUT_SECONDS, "socket_connect_timeout": _BROKER_TIMEOUT_SECONDS}
    with (
        redis.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), decode_responses=True, **timeouts) as client,
        client.pipeline(transaction=False) as pipeline,
    ):
        for queue in QUEUES:
            pipeline.llen(queue)
        pipeline.hlen(_UNACKED_KEY)
        pipeline.pttl(LAST_TICK)
        *lengths, unacked, milliseconds_left = pipeline.execute()
    return Broker(
        queue_lengths=dict(zip(QUEUES, lengths, strict=True)),
        unacked=unacked,
        # Negative where there is none, or one that somebody else has set.
        tick_age=LAST_TICK_KEPT_SECONDS - milliseconds_left / 1000 if milliseconds_left >= 0 else None,
    )


def _database_vitals(workspace: Workspace) -> Iterator[Vital]:
    try:
        figures = _read_database(workspace)
    except Exception as error:  # whatever is wrong with it, a schema of another release included, nobody knows
        logger.warning("vitals of the database are missing: %s", first_line(error), extra={"action": "vitals_missing"})
        yield from _missing_in_database(workspace.settings)
        return
    for vital in _with_limits(workspace.settings):
        yield replace(vital, value=figures[vital.name])


def _read_database(workspace: Workspace) -> dict[str, float | None]:
    snoozed = timedelta(days=workspace.settings.snoozed_days)
    with transient_errors("vitals were read"), workspace.engine.connect() as connection:
        queries.bound_statements(connection)
        freshness = read_freshness(connection, snoozed=snoozed)
        work = queries.read_work(connection, lease_grace_seconds=LEASE_GRACE_SECONDS)
        n_dead_letters = queries.count_dead_letters(connection)
    n_expired, n_current = freshness["lists_expired"], freshness["lists_current"]
    return {
        # Where nothing waits, the wait is none; what never was has no age.
        "oldest_waiting_chunk_seconds": freshness["oldest_chunk_seconds"] or 0.0,
        "oldest_waiting_action_seconds": freshness["oldest_action_seconds"] or 0.0,
        "dead_letters_last_day": n_dead_letters,
        "expired_lists_share": n_expired / (n_expired + n_current) if n_expired else 0.0,
        "champion_missing": float(work["champion_age_days"] is None),
        **work,
    }


def _broker_vitals(settings: Settings) -> Iterator[Vital]:
    found = None
    try:
        if settings.redis_url is not None:
            found = read_broker(settings.redis_url)
    except (redis.RedisError, OSError) as error:
        logger.warning("vitals of the broker are missing: %s", first_line(error), extra={"action": "vitals_missing"})
    yield from _of_broker(found)


def _of_broker(found: Broker | None) -> Iterator[Vital]:
    is_away = found is None
    for queue in QUEUES:
        length = found.queue_lengths[queue] if found else None
        yield replace(_QUEUE_LENGTH, value=length, limit=QUEUE_LIMITS[queue], queue=queue, is_missing=is_away)
    yield replace(_UNACKED, value=found.unacked if found else None, is_missing=is_away)
    age = found.tick_age if found else None
    yield replace(_LAST_TICK, value=age, is_missing=age is None)


def _missing_in_database(settings: Settings) -> Iterator[Vital]:
    for vital in _with_limits(settings):
        yield replace(vital, is_missing=True)


def _with_limits(settings: Settings) -> Iterator[Vital]:
    for vital in _IN_DATABASE:
        # Of the newest model and not of the champion, which stays for as long as no other beats it.
        is_age = vital.name == "model_age_days"
        yield replace(vital, limit=TRAININGS * settings.retrain_days) if is_age else vital
