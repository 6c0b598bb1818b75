"""The tick of each minute, and the nightly tidying.

The tick starts what is due, once a period, and finds in the tables what was lost on the way. Whatever happens to
the broker, to Beat or to a worker, the next tick brings the work back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from alertrec.errors import QueueUnavailableError, reason_of
from alertrec.schedule import CLEANUP, REFRESH, SCHEDULE, TRAINING
from alertrec.service import ALL_USERS
from alertrec.storage import actions, dead_letters, jobs, lists, locks, models
from alertrec.storage.database import transient_errors
from alertrec.storage.jobs import ClaimedRun
from alertrec.task_names import (
    CLEANUP_EXPIRED,
    PROCESS_ACTIONS,
    REFRESH_CHUNK,
    REFRESH_RECOMMENDATIONS,
    TRAIN_MODEL,
)
from alertrec.workspace import Enqueue, Workspace

logger = logging.getLogger(__name__)

_Message = tuple[UUID, int | None, tuple[Any, ...]]  # job, chunk if it is for one, task and arguments

# A message that waits longer than this in its queue is sent again by the next tick; that costs a look at the table, no
# more. Less than the minute between ticks: what was lost right after one is brought back within two minutes.
LOST_AFTER_SECONDS = 55

KEEP_EXPIRED_LISTS_DAYS = 30
KEEP_JOBS_DAYS = 90
KEEP_DEAD_LETTERS_DAYS = 90
KEEP_ACTIONS_DAYS = 2 * 365
KEEP_MODELS = 10


def tick(workspace: Workspace, enqueue: Enqueue) -> None:
    """Start what is due and send again what was lost."""
    with transient_errors("the schedule was looked at"), workspace.engine.begin() as connection:
        _start_due(connection)
        lost_runs = {job: jobs.lost_runs(connection, job, after_seconds=LOST_AFTER_SECONDS) for job in SCHEDULE}
        lost_chunks = jobs.lost_chunks(connection, after_seconds=LOST_AFTER_SECONDS)
        actions.wake_due(connection, timedelta(days=workspace.settings.snoozed_days))
        n_actions = actions.count_unprocessed(connection)
        for job_id in jobs.running_refreshes(connection):
            jobs.finish_refresh_if_complete(connection, job_id)
    messages = [
        *((job_id, None, (REFRESH_RECOMMENDATIONS, ALL_USERS, str(job_id))) for job_id in lost_runs[REFRESH]),
        # Positions of a message, not of a function.
        *((job_id, None, (TRAIN_MODEL, False, str(job_id))) for job_id in lost_runs[TRAINING]),
        *((job_id, None, (CLEANUP_EXPIRED, str(job_id))) for job_id in lost_runs[CLEANUP]),
        *((job_id, chunk, (REFRESH_CHUNK, str(job_id), chunk)) for job_id, chunk in lost_chunks),
    ]
    _send(workspace, enqueue, messages)
    if n_actions:
        enqueue(PROCESS_ACTIONS)
    if messages:
        logger.info("work sent", extra={"action": "work_sent", "n_sent": len(messages)})


def _send(workspace: Workspace, enqueue: Enqueue, messages: Sequence[_Message]) -> None:
    for n_sent, (_, _, message) in enumerate(messages):
        try:
            enqueue(*message)
        except QueueUnavailableError:
            # For the next tick: counted as sent, old work would wait for much longer than that.
            with transient_errors("work was marked as unsent"), workspace.engine.begin() as connection:
                for job_id, chunk, _ in messages[n_sent:]:
                    jobs.mark_unsent(connection, job_id, chunk)
            raise


def clean_up(workspace: Workspace) -> dict[str, int]:
    """Delete what is past its retention, and return how much of each kind."""
    with transient_errors("old rows were deleted"), workspace.engine.begin() as connection:
        deleted = {
            "lists": lists.delete_expired(connection, KEEP_EXPIRED_LISTS_DAYS),
            "actions": actions.delete_old(connection, KEEP_ACTIONS_DAYS),
            "jobs": jobs.delete_old(connection, KEEP_JOBS_DAYS),
            "dead_letters": dead_letters.delete_old(connection, KEEP_DEAD_LETTERS_DAYS),
        }
    deleted["models"] = _delete_old_models(workspace)
    logger.info("cleaned up", extra={"action": "cleaned_up", **deleted})
    return deleted


def run_cleanup(workspace: Workspace) -> dict[str, int]:
    """Clean up, under the job's row where one waits, and return how much of each kind was deleted.

    Nothing, where another process is at it: one that takes long is sent again meanwhile.
    """
    with transient_errors("the lock of the cleanup was held"), locks.alone(workspace.engine, locks.CLEANUP) as is_alone:
        return _clean_up_alone(workspace) if is_alone else {}


def _clean_up_alone(workspace: Workspace) -> dict[str, int]:
    with transient_errors("a cleanup was claimed"), workspace.engine.begin() as connection:
        run = jobs.claim_run(connection, CLEANUP)
    if run is None:
        return clean_up(workspace)
    if run.n_lost >= jobs.MAX_LOST:
        _finish_cleanup(workspace, run, error=f"given up after {run.n_lost} attempts that never came back")
        return {}
    try:
        deleted = clean_up(workspace)
    except Exception as error:
        _finish_cleanup(workspace, run, error=reason_of(error))
        raise
    _finish_cleanup(workspace, run, result=deleted)
    return deleted


def _finish_cleanup(
    workspace: Workspace, run: ClaimedRun, *, result: Mapping[str, int] | None = None, error: str | None = None
) -> None:
    with transient_errors("a cleanup was finished"), workspace.engine.begin() as connection:
        jobs.finish_run(connection, run, result=result, error=error)


def _start_due(connection: Connection) -> None:
    now = jobs.database_time(connection)
    has_champion = models.champion(connection) is not None
    for job, due in SCHEDULE.items():
        if job == REFRESH and not has_champion:
            continue  # there is nothing to refresh with before the first training
        if started := jobs.start_run(connection, job, due.period(now), {}):
            # After a long outage, the work is done once and not once for each period that was missed.
            jobs.supersede(connection, job, started)


def _delete_old_models(workspace: Workspace) -> int:
    """Keep the newest models, the champion and the one to roll back to."""
    with workspace.engine.connect() as connection:
        versions = models.all_versions(connection)
        kept = {each.version for each in versions[:KEEP_MODELS]}
        kept |= {each.version for each in versions if each.alias is not None}
        kept |= {each.version for each in models.promoted_before(connection)[:2]}
    old = [each.version for each in versions if each.version not in kept]
    for version in old:
        # The row goes first: files without a row harm nobody, a row without files would be refused as damaged.
        with workspace.engine.begin() as connection:
            removed = models.delete_version(connection, version)
        if removed:  # else it was promoted meanwhile
            workspace.store.delete(version)
    return len(old)
