"""The promised functions around training, for web apps with an `AsyncSession`; `python -m alertrec.training` trains.

They read the settings from the environment as every entry point does, so that a session and the workers agree on the
model store. Work that takes seconds runs in a thread, on a connection of its own to the session's database: it sees
what has been committed, and the event loop goes on.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from alertrec.errors import DataError, TransientError
from alertrec.runtime import opened
from alertrec.settings import Settings

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from alertrec.recommender import AlertRecommenderModel
    from alertrec.workspace import Workspace

DAYS_THRESHOLD = 7


async def train_model(
    session: AsyncSession, n_neighbors: int = 5, use_real_alerts: bool = True
) -> AlertRecommenderModel:
    """Train on what the session's database holds, and return the model; it is champion if it passed the gates.

    Parameters
    ----------
    use_real_alerts : bool
        Learn from the alerts that users have; where nobody has any, or with False, from rules of thumb.

    Raises
    ------
    DataError
        If there are under 10 users with purchases, or 100 purchases.
    TransientError
        If another training is under way.
    """
    workspace = workspace_of(session)
    try:
        return await asyncio.to_thread(_train, workspace, n_neighbors=n_neighbors, use_real_alerts=use_real_alerts)
    finally:
        workspace.engine.dispose()


async def retrain_model(session: AsyncSession, n_neighbors: int = 5) -> AlertRecommenderModel:
    """Train again, from the alerts that users have; see `train_model`."""
    return await train_model(session, n_neighbors=n_neighbors, use_real_alerts=True)


async def log_user_alert_action(
    session: AsyncSession,
    user_id: str,
    alert_rule_id: str,
    action: str,
    *,
    event_id: UUID | None = None,
    alert_type: str | None = None,
    recommendation_id: UUID | None = None,
    occurred_at: datetime | None = None,
) -> None:
    """Log what a user did, in the session's own transaction: it is kept if and only if the change itself is.

    Parameters
    ----------
    action : str
        `created`, `enabled`, `disabled`, `deleted`; or of a recommendation `shown`, `expanded`, `accepted`,
        `dismissed`, `snoozed`.
    event_id : UUID, optional
        The same one is logged once, however often the call is made.

    Raises
    ------
    DataError
        Naming the argument that cannot be used.
    """
    from alertrec.actions import parse_action
    from alertrec.storage.actions import insert_action

    event = {
        "user_id": user_id,
        "alert_rule_id": alert_rule_id,
        "action": action,
        "alert_type": alert_type,
        "event_id": str(event_id) if event_id else None,
        "recommendation_id": str(recommendation_id) if recommendation_id else None,
        "occurred_at": occurred_at.isoformat() if occurred_at else None,
    }
    await session.execute(insert_action(parse_action(event)))


def should_retrain_model(days_threshold: int = DAYS_THRESHOLD) -> bool:
    """Return whether there is no champion yet, or the last training is `days_threshold` days ago or longer."""
    from alertrec.promotion import is_due

    with opened(Settings.from_env(os.environ)) as workspace, workspace.engine.connect() as connection:
        return is_due(connection, days_threshold)


def workspace_of(session: AsyncSession) -> Workspace:
    """Return a workspace on the database of a session; the caller disposes its engine."""
    from alertrec.workspace import open_workspace

    url = session.get_bind().engine.url.set(drivername="postgresql")
    settings = Settings.from_env(os.environ)
    return open_workspace(replace(settings, database_url=url.render_as_string(hide_password=False)))


def _train(workspace: Workspace, *, n_neighbors: int, use_real_alerts: bool) -> AlertRecommenderModel:
    from alertrec import fitting
    from alertrec.storage import models

    fitting.request_training(workspace, force=True, n_neighbors=n_neighbors, use_real_alerts=use_real_alerts)
    outcome = fitting.run_training(workspace)
    if outcome is None:
        raise TransientError("another training is under way; try again when it has finished")
    if outcome.version is None:
        raise DataError(outcome.error or outcome.skipped or "the training ended without a model")
    with workspace.engine.connect() as connection:
        stored = models.find(connection, outcome.version)
    assert stored is not None, "it was inserted in the transaction that ended the training"
    return workspace.champions.load(stored)


if __name__ == "__main__":
    from alertrec.cli import main

    main(["train", "--local", "--force"])
