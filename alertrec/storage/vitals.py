"""What tells whether the promises are kept, by the database's clock; each query looks at a bounded number of rows.

Jobs and chunks are read through the indexes of what is unfinished, and otherwise of the last day only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from alertrec.storage.dead_letters import UNKNOWN_USER
from alertrec.storage.models import CHAMPION
from alertrec.task_names import LOG_ALERT_ACTION

# Nobody waits longer for figures; a database that is too busy to give them in time is in danger itself.
STATEMENT_TIMEOUT = "2s"


def bound_statements(connection: Connection) -> None:
    """Have each further statement of this transaction fail after `STATEMENT_TIMEOUT`."""
    connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"))


def read_work(connection: Connection, *, lease_grace_seconds: float) -> Mapping[str, Any]:
    """Return how the work of jobs goes.

    Returns
    -------
    row
        `expired_leases`: chunks whose lease ran out longer ago than the grace, and that nobody took up.
        `oldest_waiting_job_seconds`: for how long a job that has no chunks has given no sign of life, or waits to begin
        though no other of its kind is under way; 0 where there is none.
        `retries_last_day`: how often chunks and jobs of the last day were begun again.
        `failed_chunks_last_day`, `failed_jobs_last_day`: those that no later job of the same kind has made good.
        `last_refresh_hours`: since the last refresh that reached everybody began; NULL if none did.
        `model_age_days`, `champion_age_days`: since these were trained; NULL where there is none.
    """
    values = {"grace": lease_grace_seconds, "champion": CHAMPION}
    return connection.execute(_WORK, values).one()._asdict()


def count_dead_letters(connection: Connection) -> int | None:
    """Return how many messages were given up within the last day; None in a database that keeps no record of them.

    Left out are those of which nothing was lost: that asked for a user that is not known, and that ended while a
    server was away: their work stands in the tables, or is asked for again. That of an event is not.
    """
    if connection.scalar(text("SELECT to_regclass('alertrec.dead_letters')")) is None:
        return None
    query = """
        SELECT count(*) FROM alertrec.dead_letters
        WHERE recorded_at > now() - interval '1 day' AND reason <> :unknown_user
            AND (reason !~ '^(Transient|QueueUnavailable)Error ' OR task = :of_events)
    """
    return int(connection.scalar(text(query), {"unknown_user": UNKNOWN_USER, "of_events": LOG_ALERT_ACTION}) or 0)


_WORK = text("""
    WITH recent AS MATERIALIZED (
        SELECT job_id, job, status, error, attempts, EXISTS (
            SELECT FROM alertrec.job_runs AS later
            WHERE later.job = runs.job AND later.status = 'done' AND later.created_at > runs.created_at
        ) AS made_good
        FROM alertrec.job_runs AS runs
        WHERE finished_at IS NULL OR finished_at > now() - interval '1 day'
    ), chunks AS MATERIALIZED (
        SELECT recent.made_good, chunks.status, chunks.attempts, chunks.finished_at, chunks.lease_until
        FROM recent JOIN alertrec.job_chunks AS chunks USING (job_id)
    ), silent AS (
        SELECT coalesce(heartbeat_at, created_at) AS since
        FROM alertrec.job_runs AS runs
        WHERE finished_at IS NULL
            AND NOT EXISTS (SELECT FROM alertrec.job_chunks AS parts WHERE parts.job_id = runs.job_id)
            AND (status = 'running' OR NOT EXISTS (
                SELECT FROM alertrec.job_runs AS other
                WHERE other.job = runs.job AND other.finished_at IS NULL AND other.status = 'running'
            ))
    )
    SELECT
        (
            SELECT count(*) FROM chunks
            WHERE finished_at IS NULL AND lease_until < now() - make_interval(secs => :grace)
        ) AS expired_leases,
        (
            SELECT CAST(coalesce(extract(epoch FROM now() - min(since)), 0) AS double precision) FROM silent
        ) AS oldest_waiting_job_seconds,
        (SELECT coalesce(sum(greatest(attempts - 1, 0)), 0) FROM recent)
            + (SELECT coalesce(sum(greatest(attempts - 1, 0)), 0) FROM chunks) AS retries_last_day,
        (SELECT count(*) FROM chunks WHERE status = 'failed' AND NOT made_good) AS failed_chunks_last_day,
        (
            SELECT count(*) FROM recent
            WHERE status = 'failed' AND NOT made_good
                AND coalesce(error, '') NOT LIKE 'superseded by %'
        ) AS failed_jobs_last_day,
        (
            SELECT CAST(extract(epoch FROM now() - max(started_at)) AS double precision) / 3600
            FROM alertrec.job_runs WHERE job = 'refresh' AND status = 'done'
        ) AS last_refresh_hours,
        (
            SELECT CAST(extract(epoch FROM now() - max(created_at)) AS double precision) / 86400
            FROM alertrec.model_versions
        ) AS model_age_days,
        (
            SELECT CAST(extract(epoch FROM now() - created_at) AS double precision) / 86400
            FROM alertrec.model_versions WHERE alias = :champion
        ) AS champion_age_days
""")
