"""Keeping lists fresh: one user now, some users at once, everybody by chunks."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from alertrec.errors import (
    DataError,
    ModelStoreError,
    NoChampionError,
    TransientError,
    UnknownUserError,
    reason_of,
)
from alertrec.explanation import Explanation
from alertrec.feature_engineering import build_user_features
from alertrec.labels import enabled_matrix
from alertrec.lists import Edition, Lists, build_lists
from alertrec.live import brought_forward
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.cards import CHANGE
from alertrec.schedule import REFRESH
from alertrec.storage import jobs, models
from alertrec.storage.database import transient_errors
from alertrec.storage.jobs import ClaimedChunk
from alertrec.storage.lists import delete_list, read_items, read_list, write_lists
from alertrec.storage.source import UserData, UserRange, Users
from alertrec.task_names import REFRESH_CHUNK
from alertrec.workspace import Champion, Enqueue, Workspace

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # step, done, of

ALL_USERS = "all"
# Longer than the hard limit of the task, so that a chunk that is worked on is never claimed by another worker.
CHUNK_LEASE_SECONDS = 660


def generate_recommendations(workspace: Workspace, user_id: str, *, as_of: datetime | None = None) -> bool:
    """Renew the list of one user.

    Parameters
    ----------
    as_of : datetime, optional
        What is known of the user later is not looked at. By default now.

    Returns
    -------
    bool
        False if a newer list was there, or the user is not active and has none.

    Raises
    ------
    UnknownUserError, NoChampionError, TransientError
    """
    started = time.perf_counter()
    with transient_errors("a user's list was made"), workspace.engine.begin() as connection:
        active = workspace.source.is_active(connection, user_id)
        if active is None:
            raise UnknownUserError(user_id)
        if not active:
            delete_list(connection, user_id)
            return False
        written = renew_lists(workspace, connection, UserRange(user_id, user_id), as_of=as_of)
    workspace.announce(written)
    _log("recommendations_generated", n_users=len(written), seconds=time.perf_counter() - started)
    return bool(written)


def renew_lists(workspace: Workspace, connection: Connection, users: Users, *, as_of: datetime | None) -> list[str]:
    """Renew the lists of some users in the caller's transaction, and return whose were written, to be announced."""
    champion = workspace.champions.current(connection)
    if as_of is None:
        live = workspace.live.model(connection, workspace.source, champion.version, champion.model)
        champion = replace(champion, model=live)
    # The moment before reading: of two lists, the one whose data were read later is the newer one.
    generated_at = jobs.database_time(connection)
    as_of = as_of or generated_at
    data = workspace.source.read(connection, users, as_of=as_of, rest=workspace.rest(generated_at))
    return write_lists(connection, _lists_of(workspace, champion, data, as_of=as_of, generated_at=generated_at))


def explain_list(workspace: Workspace, user_id: str) -> dict[str, Explanation]:
    """Explain each offer in the list of a user, by the model that made it and as of that moment.

    Raises
    ------
    DataError
        If the user has no list, or the model that made it is no longer kept.
    ModelStoreError, TransientError
    """
    with transient_errors("a list was explained"), workspace.engine.connect() as connection:
        row = read_list(connection, user_id)
        if row is None:
            raise DataError(f"user {user_id!r} has no list to explain; `alertrec recommend` makes one")
        model = _model_of(workspace, connection, row["model_version"], is_live=row["as_of"] == row["generated_at"])
        data = workspace.source.read(connection, UserRange(user_id, user_id), as_of=row["as_of"])
        alert_types = [
            item["alert_type"]
            for item in read_items(connection, user_id)
            if item["recommendation_type"] != CHANGE  # advice on a rule rests on its firings, and on no model
        ]
    features = build_user_features(data.users, data.transactions, as_of=row["as_of"])
    enabled = enabled_matrix([user_id], data.rules, model.alert_columns)
    return {alert_type: model.explain(features, enabled, alert_type) for alert_type in alert_types}


def request_refresh(
    workspace: Workspace, *, scope: str = ALL_USERS, as_of: datetime | None = None, request_id: str | None = None
) -> UUID:
    """Ask for a refresh of everybody's list, and return its job; `plan_refresh` sets it going.

    Parameters
    ----------
    request_id : str, optional
        Names the message that asks; delivered twice, it asks once.

    Raises
    ------
    DataError, NoChampionError
        If the scope is not one that can be refreshed; if there is no model yet to refresh with.
    """
    if scope != ALL_USERS:
        raise DataError(f"the scope of a refresh is {ALL_USERS!r}, not {scope!r}")
    with transient_errors("a refresh was asked for"), workspace.engine.begin() as connection:
        if models.champion(connection) is None:
            raise NoChampionError
        arguments = {"scope": scope, "as_of": as_of.isoformat() if as_of else None}
        return jobs.ask_for_run(connection, REFRESH, arguments, request_id=request_id)


def plan_refresh(workspace: Workspace, job_id: UUID, enqueue: Enqueue) -> int:
    """Write the chunks of a refresh and enqueue them. Planned already, nothing happens: what was lost, a tick finds.

    Returns
    -------
    int
        The number of chunks.
    """
    with transient_errors("a refresh was planned"), workspace.engine.begin() as connection:
        n_chunks = jobs.plan_chunks(connection, job_id, workspace.source.ranges(workspace.settings.chunk_size))
        jobs.finish_refresh_if_complete(connection, job_id)
        unpublished = jobs.publish_chunks(connection, job_id)
    # After the commit: a worker that is quicker than we are must find the rows.
    for chunk in unpublished:
        enqueue(REFRESH_CHUNK, str(job_id), chunk)
    _log("refresh_planned", job_id=str(job_id), n_chunks=n_chunks)
    return n_chunks


def refresh_chunk(workspace: Workspace, job_id: UUID, chunk: int, *, claimed_by: str) -> int | None:
    """Renew the lists of one chunk of a refresh.

    Parameters
    ----------
    claimed_by : str
        Names the message that asks for it: delivered again, it may go on where its first worker died.

    Returns
    -------
    int or None
        Users whose list was written; None where the chunk is done or in other hands.

    Raises
    ------
    TransientError
        If the database failed; the chunk waits to be tried again.
    AlertrecError
        If the chunk cannot be done; it is marked as failed, with the reason.
    """
    started = time.perf_counter()
    with transient_errors("a chunk was claimed"), workspace.engine.begin() as connection:
        claim = jobs.claim_chunk(connection, job_id, chunk, claimed_by=claimed_by, lease_seconds=CHUNK_LEASE_SECONDS)
        if claim is None:
            return None
        if claim.n_lost >= jobs.MAX_LOST:
            _give_up(connection, claim)
            return None
    n_users = _refresh_claimed(workspace, claim)
    if n_users is not None:
        _log("chunk_refreshed", job_id=str(job_id), n_users=n_users, seconds=time.perf_counter() - started)
    return n_users


def refresh_locally(
    workspace: Workspace, *, as_of: datetime | None = None, progress: Progress = lambda *_: None
) -> UUID:
    """Refresh everybody in this process, and return the job; the same rows and the same code as on workers.

    A chunk that fails does not stop the others; the job tells of it.
    """
    job_id = request_refresh(workspace, as_of=as_of)
    chunks: list[int] = []
    plan_refresh(workspace, job_id, lambda _task, _job_id, chunk: chunks.append(chunk))
    for done, chunk in enumerate(chunks):
        progress("refreshing", done, len(chunks))
        try:
            refresh_chunk(workspace, job_id, chunk, claimed_by=f"local:{job_id}")
        except TransientError:
            raise
        except Exception:
            logger.exception("a chunk failed", extra={"action": "chunk_failed", "job_id": str(job_id)})
    return job_id


def _model_of(workspace: Workspace, connection: Connection, version: str, *, is_live: bool) -> AlertRecommenderModel:
    """Return the model that made a list."""
    stored = models.find(connection, version)
    if stored is None:
        raise DataError(f"model {version!r}, which made the list, is no longer kept; `alertrec recommend` renews it")
    model = workspace.champions.load(stored)
    return brought_forward(connection, workspace.source, model) if is_live else model


def _refresh_claimed(workspace: Workspace, claim: ClaimedChunk) -> int | None:
    as_of = claim.arguments.get("as_of")
    try:
        with transient_errors("a chunk was refreshed"), workspace.engine.begin() as connection:
            moment = datetime.fromisoformat(as_of) if as_of else None
            written = renew_lists(workspace, connection, claim.users, as_of=moment)
            if not jobs.finish_chunk(connection, claim):
                connection.rollback()  # claimed by another worker since, who writes these lists as well
                return None
            jobs.finish_refresh_if_complete(connection, claim.job_id)
    except TransientError as error:
        _release(workspace, claim, str(error))
        raise
    except ModelStoreError as error:
        # Out of reach for this worker, it may not be for the next one, or in a minute.
        _release(workspace, claim, str(error))
        raise TransientError(f"no model can be read: {error}") from error
    except Exception as error:
        _fail(workspace, claim, error)
        raise
    workspace.announce(written)
    return len(written)


def _release(workspace: Workspace, claim: ClaimedChunk, reason: str) -> None:
    """Give the chunk back if the database lets us; else its lease will."""
    with (
        contextlib.suppress(TransientError),
        transient_errors("a chunk was given back"),
        workspace.engine.begin() as connection,
    ):
        jobs.release_chunk(connection, claim, error=reason)


def _fail(workspace: Workspace, claim: ClaimedChunk, error: Exception) -> None:
    """Mark the chunk as failed."""
    with transient_errors("a chunk was marked as failed"), workspace.engine.begin() as connection:
        jobs.finish_chunk(connection, claim, error=reason_of(error))
        jobs.finish_refresh_if_complete(connection, claim.job_id)


def _give_up(connection: Connection, claim: ClaimedChunk) -> None:
    reason = f"given up after {claim.n_lost} attempts that never came back"
    jobs.finish_chunk(connection, claim, error=reason)
    jobs.finish_refresh_if_complete(connection, claim.job_id)
    _log("chunk_given_up", job_id=str(claim.job_id), n_attempts=claim.attempt)


def _lists_of(
    workspace: Workspace, champion: Champion, data: UserData, *, as_of: datetime, generated_at: datetime
) -> Lists:
    edition = Edition(champion.version, as_of=as_of, generated_at=generated_at, policy=workspace.policy)
    return build_lists(data.users, data.transactions, data.rules, data.away, model=champion.model, edition=edition)


def _log(action: str, **facts: Any) -> None:
    logger.info(action.replace("_", " "), extra={"action": action, **facts})
