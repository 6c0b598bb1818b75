"""Rows of jobs and their chunks: the truth about what is to be done, which a message only hints at.

Times are the database's: clocks of workers do not matter. A run is claimed by a conditional update, and every
claim counts an attempt; what a worker writes under an attempt is refused once another has claimed the run since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, RowMapping, Select, TextClause, Uuid, bindparam, func, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB

from alertrec.schedule import REFRESH, SCHEDULE
from alertrec.storage.source import UserRange
from alertrec.storage.tables import job_chunks, job_runs

PENDING = "pending"
RUNNING = "running"
DONE = "done"
FAILED = "failed"

# What was claimed this often by workers that never came back is given up: it may be what kills them.
MAX_LOST = 4


@dataclass(frozen=True)
class OpenRun:
    """A run that waits or is under way."""

    job_id: UUID
    under_way: bool
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ClaimedRun:
    """A run that this process works on; `attempt` fences what it writes, `n_lost` never came back before."""

    job_id: UUID
    attempt: int
    n_lost: int
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ClaimedChunk:
    """A chunk that this process works on; `attempt` fences what it writes, `n_lost` never came back before."""

    job_id: UUID
    chunk: int
    attempt: int
    n_lost: int
    users: UserRange
    arguments: Mapping[str, Any]


def _sql(statement: str, *json_parameters: str) -> TextClause:
    return text(statement).bindparams(*(bindparam(name, type_=JSONB) for name in json_parameters))


_INSERT_RUN = _sql(
    """
    INSERT INTO alertrec.job_runs (job_id, job, period, arguments) VALUES (:job_id, :job, :period, :arguments)
    ON CONFLICT (job, period) DO NOTHING RETURNING job_id
    """,
    "arguments",
)
_ADD_ARGUMENTS = _sql(
    """
    UPDATE alertrec.job_runs SET arguments = arguments || :arguments
    WHERE job_id = :job_id AND status = 'pending'
    """,
    "arguments",
)
_SUPERSEDE = _sql("""
    UPDATE alertrec.job_runs SET status = 'failed', finished_at = now(), error = 'superseded by ' || :job_id
    WHERE job = :job AND job_id <> CAST(:job_id AS uuid) AND status = 'pending' AND NOT arguments ? 'request'
""")
_CLAIM_RUN = _sql("""
    UPDATE alertrec.job_runs
    SET status = 'running', attempts = attempts + 1, n_lost = n_lost + (status = 'running')::int,
        started_at = coalesce(started_at, now()), heartbeat_at = now()
    WHERE job_id = (
        SELECT job_id FROM alertrec.job_runs WHERE job = :job AND finished_at IS NULL
        ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING job_id, attempts, n_lost, arguments
""")
_RELEASE_RUN = _sql("""
    UPDATE alertrec.job_runs SET status = 'pending', error = :error
    WHERE job_id = :job_id AND attempts = :attempt AND finished_at IS NULL
""")
_REPORT_PROGRESS = _sql(
    """
    UPDATE alertrec.job_runs SET heartbeat_at = now(), progress = :progress
    WHERE job_id = :job_id AND attempts = :attempt AND finished_at IS NULL
    """,
    "progress",
)
_FINISH_RUN = _sql(
    """
    UPDATE alertrec.job_runs
    SET status = :status, finished_at = now(), heartbeat_at = now(), result = :result, error = :error
    WHERE job_id = :job_id AND attempts = :attempt AND finished_at IS NULL RETURNING job_id
    """,
    "result",
)
_BEGIN_REFRESH = _sql("""
    UPDATE alertrec.job_runs SET status = 'running', started_at = now(), heartbeat_at = now()
    WHERE job_id = :job_id AND status = 'pending' RETURNING job_id
""")
# A message that the broker delivers again, since the worker that had it died, carries the same id and may go on at
# once; any other waits for the lease to run out.
_CLAIM_CHUNK = _sql("""
    UPDATE alertrec.job_chunks AS chunks
    SET status = 'running', attempts = chunks.attempts + 1, claimed_by = :claimed_by, started_at = now(),
        n_lost = chunks.n_lost + (chunks.status = 'running')::int,
        lease_until = now() + make_interval(secs => :lease_seconds)
    FROM alertrec.job_runs AS runs
    WHERE runs.job_id = chunks.job_id AND chunks.job_id = :job_id AND chunks.chunk = :chunk
        AND chunks.finished_at IS NULL AND runs.finished_at IS NULL
        AND (chunks.status = 'pending' OR chunks.lease_until < now() OR chunks.claimed_by = :claimed_by)
    RETURNING chunks.attempts, chunks.n_lost, chunks.first_user_id, chunks.last_user_id, runs.arguments
""")
_FINISH_CHUNK = _sql("""
    UPDATE alertrec.job_chunks
    SET status = :status, finished_at = now(), lease_until = NULL, error = :error
    WHERE job_id = :job_id AND chunk = :chunk AND attempts = :attempt AND finished_at IS NULL RETURNING chunk
""")
_RELEASE_CHUNK = _sql("""
    UPDATE alertrec.job_chunks SET status = 'pending', lease_until = NULL, claimed_by = NULL, error = :error
    WHERE job_id = :job_id AND chunk = :chunk AND attempts = :attempt AND finished_at IS NULL
""")
_FINISH_REFRESH = _sql("""
    UPDATE alertrec.job_runs AS runs
    SET status = CASE WHEN counted.n_failed = 0 THEN 'done' ELSE 'failed' END, finished_at = now(),
        result = jsonb_build_object('n_chunks', counted.n_chunks, 'n_failed', counted.n_failed,
                                    'n_users', counted.n_users),
        error = CASE WHEN counted.n_failed > 0 THEN counted.n_failed || ' chunks failed: ' || counted.error END
    FROM (
        SELECT count(*) AS n_chunks, count(*) FILTER (WHERE status = 'failed') AS n_failed,
            coalesce(sum(n_users) FILTER (WHERE status = 'done'), 0) AS n_users,
            count(*) FILTER (WHERE finished_at IS NULL) AS n_open, min(error) AS error
        FROM alertrec.job_chunks WHERE job_id = :job_id
    ) AS counted
    WHERE runs.job_id = :job_id AND runs.finished_at IS NULL AND runs.status = 'running' AND counted.n_open = 0
    RETURNING runs.job_id
""")
# Sent again at growing intervals: while no worker is up, a message would be sent each time and none taken. What was
# taken since it was last sent, and lost by who took it, is sent at once.
_LOST_CHUNKS = _sql("""
    UPDATE alertrec.job_chunks SET published_at = now()
    WHERE (job_id, chunk) IN (
        SELECT chunks.job_id, chunks.chunk
        FROM alertrec.job_chunks AS chunks JOIN alertrec.job_runs AS runs USING (job_id)
        WHERE chunks.finished_at IS NULL AND runs.finished_at IS NULL
            AND (chunks.lease_until IS NULL OR chunks.lease_until < now())
            AND (
                chunks.published_at IS NULL
                OR chunks.published_at < chunks.lease_until
                OR chunks.published_at < now() - greatest(
                    make_interval(secs => :after_seconds), (now() - runs.created_at) / 2
                )
            )
        ORDER BY chunks.job_id, chunks.chunk LIMIT :limit
    )
    RETURNING job_id, chunk
""")
_LOST_RUNS = _sql("""
    UPDATE alertrec.job_runs SET published_at = now()
    WHERE job_id IN (
        SELECT runs.job_id FROM alertrec.job_runs AS runs
        WHERE runs.job = :job AND runs.finished_at IS NULL
            AND (runs.heartbeat_at IS NULL OR runs.heartbeat_at < now() - make_interval(secs => :after_seconds))
            AND (
                runs.published_at IS NULL
                OR runs.published_at < runs.heartbeat_at
                OR runs.published_at < now() - greatest(
                    make_interval(secs => :after_seconds), (now() - runs.created_at) / 2
                )
            )
            AND NOT EXISTS (SELECT FROM alertrec.job_chunks AS chunks WHERE chunks.job_id = runs.job_id)
    )
    RETURNING job_id
""")
_MARK_CHUNKS_PUBLISHED = _sql("""
    UPDATE alertrec.job_chunks SET published_at = now() WHERE job_id = :job_id AND published_at IS NULL RETURNING chunk
""")
_RUNS_NOT_PUBLISHED = _sql("UPDATE alertrec.job_runs SET published_at = NULL WHERE job_id = :job_id")
_CHUNK_NOT_PUBLISHED = _sql(
    "UPDATE alertrec.job_chunks SET published_at = NULL WHERE job_id = :job_id AND chunk = :chunk"
)
_DELETE_OLD = _sql("""
    WITH gone AS (
        DELETE FROM alertrec.job_runs WHERE finished_at < now() - make_interval(days => :days) RETURNING job_id
    ), chunks AS (DELETE FROM alertrec.job_chunks USING gone WHERE job_chunks.job_id = gone.job_id)
    SELECT count(*) FROM gone
""")


def database_time(connection: Connection) -> datetime:
    """Return the database's clock, by which every moment that is stored is told."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def start_run(connection: Connection, job: str, period: str, arguments: Mapping[str, Any]) -> UUID | None:
    """Insert the run of a job for a period; None if that period has one already."""
    row = {"job_id": uuid4(), "job": job, "period": period, "arguments": dict(arguments)}
    job_id = connection.execute(_INSERT_RUN, row).scalar()
    return job_id if isinstance(job_id, UUID) else None


def ask_for_run(
    connection: Connection, job: str, arguments: Mapping[str, Any], *, request_id: str | None = None
) -> UUID:
    """Insert a run that somebody asks for, once for each `request_id`.

    The first one asked for in a period is that period's: the schedule adds no other.
    """
    asked = f"asked:{request_id or uuid4()}"
    arguments = {**arguments, "request": asked}
    earlier = select(job_runs.c.job_id).where(
        job_runs.c.job == job, job_runs.c.arguments["request"].as_string() == asked
    )
    period = SCHEDULE[job].period(database_time(connection))
    # Two deliveries of one message at once would both look before either has inserted.
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(asked, 0))))
    job_id = (
        connection.scalar(earlier)
        or start_run(connection, job, period, arguments)
        or start_run(connection, job, asked, arguments)
    )
    assert job_id is not None, "it was there, or one of the two was inserted"
    return job_id


def unfinished_run(connection: Connection, job: str) -> OpenRun | None:
    """Return the newest run of a job that waits or is under way."""
    columns = job_runs.c.job_id, job_runs.c.status, job_runs.c.arguments
    query = select(*columns).where(job_runs.c.job == job, job_runs.c.finished_at.is_(None))
    row = connection.execute(query.order_by(job_runs.c.created_at.desc()).limit(1)).first()
    return None if row is None else OpenRun(row.job_id, row.status == RUNNING, row.arguments)


def run_begun_since(connection: Connection, job: str, moment: datetime) -> OpenRun | None:
    """Return the newest run of a job that began at a moment or later, finished or not."""
    columns = job_runs.c.job_id, job_runs.c.status, job_runs.c.arguments
    query = select(*columns).where(job_runs.c.job == job, job_runs.c.started_at >= moment)
    row = connection.execute(query.order_by(job_runs.c.started_at.desc()).limit(1)).first()
    return None if row is None else OpenRun(row.job_id, row.status == RUNNING, row.arguments)


def add_arguments(connection: Connection, job_id: UUID, arguments: Mapping[str, Any]) -> None:
    """Add to what a run that still waits was asked for."""
    connection.execute(_ADD_ARGUMENTS, {"job_id": job_id, "arguments": dict(arguments)})


def supersede(connection: Connection, job: str, job_id: UUID) -> None:
    """End the runs of a job that never began, now that another one stands for them all."""
    connection.execute(_SUPERSEDE, {"job": job, "job_id": str(job_id)})


def claim_run(connection: Connection, job: str) -> ClaimedRun | None:
    """Claim the oldest unfinished run of a job, one that somebody lost included; None if there is none."""
    row = connection.execute(_CLAIM_RUN, {"job": job}).mappings().first()
    return None if row is None else ClaimedRun(row["job_id"], row["attempts"], row["n_lost"], row["arguments"])


def report_progress(connection: Connection, run: ClaimedRun, progress: Mapping[str, Any]) -> None:
    """Store how far a run is, which is its sign of life as well."""
    values = {"job_id": run.job_id, "attempt": run.attempt, "progress": dict(progress)}
    connection.execute(_REPORT_PROGRESS, values)


def release_run(connection: Connection, run: ClaimedRun, *, error: str) -> None:
    """Give a run back to be tried again."""
    connection.execute(_RELEASE_RUN, {"job_id": run.job_id, "attempt": run.attempt, "error": error})


def finish_run(
    connection: Connection, run: ClaimedRun, *, result: Mapping[str, Any] | None = None, error: str | None = None
) -> bool:
    """Finish a run, as failed where there is an error; False if another process has claimed it since."""
    values = {
        "job_id": run.job_id,
        "attempt": run.attempt,
        "status": DONE if error is None else FAILED,
        "result": None if result is None else dict(result),
        "error": error,
    }
    return connection.execute(_FINISH_RUN, values).first() is not None


def plan_chunks(connection: Connection, job_id: UUID, ranges: Select[Any]) -> int:
    """Write the chunks of a refresh; what is planned already stays. Returns their number.

    Parameters
    ----------
    ranges : select of number, first and last user and number of users, as `Source.ranges` makes it
    """
    if connection.execute(_BEGIN_REFRESH, {"job_id": job_id}).first() is not None:
        columns = ["job_id", "chunk", "first_user_id", "last_user_id", "n_users"]
        divided = ranges.subquery()
        rows = select(literal(job_id, Uuid), *divided.c)
        connection.execute(job_chunks.insert().from_select(columns, rows))
    return connection.scalar(select(func.count()).where(job_chunks.c.job_id == job_id)) or 0


def publish_chunks(connection: Connection, job_id: UUID) -> list[int]:
    """Mark a job's unpublished chunks as published, and return them for the caller to enqueue after the commit."""
    return sorted(connection.execute(_MARK_CHUNKS_PUBLISHED, {"job_id": job_id}).scalars())


def claim_chunk(
    connection: Connection, job_id: UUID, chunk: int, *, claimed_by: str, lease_seconds: float
) -> ClaimedChunk | None:
    """Claim a chunk; None where it is done, or somebody else's lease on it runs."""
    values = {"job_id": job_id, "chunk": chunk, "claimed_by": claimed_by, "lease_seconds": lease_seconds}
    row = connection.execute(_CLAIM_CHUNK, values).mappings().first()
    if row is None:
        return None
    users = UserRange(row["first_user_id"], row["last_user_id"])
    return ClaimedChunk(job_id, chunk, row["attempts"], row["n_lost"], users, row["arguments"])


def finish_chunk(connection: Connection, chunk: ClaimedChunk, *, error: str | None = None) -> bool:
    """Finish a chunk, as failed where there is an error; False if another process has claimed it since."""
    values = {**_key(chunk), "status": DONE if error is None else FAILED, "error": error}
    return connection.execute(_FINISH_CHUNK, values).first() is not None


def release_chunk(connection: Connection, chunk: ClaimedChunk, *, error: str) -> None:
    """Give a chunk back to be tried again."""
    connection.execute(_RELEASE_CHUNK, {**_key(chunk), "error": error})


def finish_refresh_if_complete(connection: Connection, job_id: UUID) -> bool:
    """Finish a refresh once none of its chunks is open; True for the one caller who finished it."""
    # Of two workers that end the last two chunks at once, each would see the other's as open. The lock lets the
    # second one count only when the first has committed; a statement of its own, since each sees its own snapshot.
    connection.execute(select(job_runs.c.job_id).where(job_runs.c.job_id == job_id).with_for_update())
    return connection.execute(_FINISH_REFRESH, {"job_id": job_id}).first() is not None


def running_refreshes(connection: Connection) -> list[UUID]:
    """Return the refreshes that are planned and not finished."""
    query = select(job_runs.c.job_id).where(job_runs.c.job == REFRESH, job_runs.c.status == RUNNING)
    return list(connection.scalars(query))


def lost_chunks(connection: Connection, *, after_seconds: float, limit: int = 10_000) -> list[tuple[UUID, int]]:
    """Mark as published, and return, the chunks that nobody works on though they were to be done by now."""
    rows = connection.execute(_LOST_CHUNKS, {"after_seconds": after_seconds, "limit": limit})
    return sorted((row.job_id, row.chunk) for row in rows)


def lost_runs(connection: Connection, job: str, *, after_seconds: float) -> list[UUID]:
    """Mark as published, and return, the runs without chunks that gave no sign of life for a while."""
    return list(connection.execute(_LOST_RUNS, {"job": job, "after_seconds": after_seconds}).scalars())


def mark_unsent(connection: Connection, job_id: UUID, chunk: int | None = None) -> None:
    """Take back that a run, or one of its chunks, was sent."""
    if chunk is None:
        connection.execute(_RUNS_NOT_PUBLISHED, {"job_id": job_id})
    else:
        connection.execute(_CHUNK_NOT_PUBLISHED, {"job_id": job_id, "chunk": chunk})


def read_run(connection: Connection, job_id: UUID) -> RowMapping | None:
    """Return a job's row with `n_chunks`, `n_chunks_done`, `n_users` and `n_users_done` of its chunks."""
    return next(iter(_runs(connection, job_id=job_id)), None)


def recent_runs(connection: Connection, limit: int = 10) -> list[RowMapping]:
    """Return the newest jobs, as `read_run` does."""
    return _runs(connection, limit=limit)


def delete_old(connection: Connection, days: int) -> int:
    """Delete jobs that finished more than `days` ago, and return how many."""
    return int(connection.execute(_DELETE_OLD, {"days": days}).scalar_one())


def _runs(connection: Connection, *, job_id: UUID | None = None, limit: int = 1) -> list[RowMapping]:
    done = job_chunks.c.status == DONE
    counted = (
        select(
            func.count().label("n_chunks"),
            func.count().filter(done).label("n_chunks_done"),
            func.coalesce(func.sum(job_chunks.c.n_users), 0).label("n_users"),
            func.coalesce(func.sum(job_chunks.c.n_users).filter(done), 0).label("n_users_done"),
            func.coalesce(func.max(job_chunks.c.attempts), 0).label("max_attempts"),
        )
        .where(job_chunks.c.job_id == job_runs.c.job_id)
        .lateral("counted")
    )
    query = select(job_runs, *counted.c).select_from(job_runs.join(counted, text("true")))
    if job_id is not None:
        query = query.where(job_runs.c.job_id == job_id)
    return list(connection.execute(query.order_by(job_runs.c.created_at.desc()).limit(limit)).mappings())


def _key(chunk: ClaimedChunk) -> dict[str, Any]:
    return {"job_id": chunk.job_id, "chunk": chunk.chunk, "attempt": chunk.attempt}
