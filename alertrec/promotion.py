"""Which stored model serves: promote one, roll back to the one before, see whether it has aged."""

from __future__ import annotations

import logging
from datetime import timedelta

from sqlalchemy import Connection

from alertrec.errors import DataError, NoChampionError
from alertrec.storage import jobs, models
from alertrec.storage.models import ModelVersion
from alertrec.workspace import Workspace

logger = logging.getLogger(__name__)


def promote(workspace: Workspace, version: str, *, promoted_by: str) -> None:
    """Make a version the champion, once its files have been checked.

    Raises
    ------
    DataError, ModelStoreError
        If there is no such version; if it is not as it was saved.
    """
    with workspace.engine.begin() as connection:
        model = models.find(connection, version)
        if model is None:
            raise DataError(f"there is no model {version!r}; `alertrec models list` shows which there are")
        workspace.champions.load(model)
        models.promote(connection, version, promoted_by=promoted_by)
    logger.info("model promoted", extra={"action": "model_promoted", "model_version": version})


def roll_back(workspace: Workspace, *, promoted_by: str) -> str:
    """Make the champion before the present one champion again, and return its version.

    The present one is not gone back to by a second rollback; `promote` can still name it.

    Raises
    ------
    NoChampionError, DataError, ModelStoreError
        If there is no champion; none before it; or that one is not as it was saved.
    """
    with workspace.engine.begin() as connection:
        present = models.champion(connection)
        if present is None:
            raise NoChampionError
        earlier = [each for each in models.promoted_before(connection, present.version) if _is_before(each, present)]
        if not earlier:
            raise DataError(f"no model was champion before {present.version}; there is nothing to roll back to")
        workspace.champions.load(earlier[0])
        models.roll_back(connection, present.version, earlier[0].version)
    facts = {"model_version": earlier[0].version, "promoted_by": promoted_by}
    logger.info("model rolled back", extra={"action": "model_rolled_back", **facts})
    return earlier[0].version


def is_due(connection: Connection, days: float) -> bool:
    """Return whether there is no champion, or the last training, serving or refused, is at least `days` ago."""
    last = models.newest(connection)
    if models.champion(connection) is None or last is None:
        return True
    return jobs.database_time(connection) - last.created_at >= timedelta(days=days)


def _is_before(one: ModelVersion, other: ModelVersion) -> bool:
    assert one.promoted_at is not None
    assert other.promoted_at is not None
    return one.promoted_at < other.promoted_at
