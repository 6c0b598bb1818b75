"""`BackgroundRecommendationService`, as web apps of the earlier system call it."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from alertrec.errors import ConfigError
from alertrec.runtime import opened
from alertrec.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from alertrec.workspace import Workspace


class BackgroundRecommendationService:
    """Generates and reads lists without a worker, from async code.

    Parameters
    ----------
    use_ml_model : bool
        Only True: this release recommends by a trained model.

    Raises
    ------
    ConfigError
        If `use_ml_model` is False.
    """

    def __init__(self, use_ml_model: bool = True) -> None:
        if not use_ml_model:
            raise ConfigError("this release has no language-model recommender; pass use_ml_model=True")
        # Opened at first use and kept: a connection pool and a loaded model serve all calls.
        self._resources = ExitStack()
        self._workspace: Workspace | None = None
        self._opening = threading.Lock()

    def close(self) -> None:
        """Give back what was opened; the next call opens it again."""
        self._workspace = None
        self._resources.close()

    def _open(self) -> Workspace:
        with self._opening:
            if self._workspace is None:
                self._workspace = self._resources.enter_context(opened(Settings.from_env(os.environ)))
            return self._workspace

    async def generate_recommendations_for_user(self, user_id: str) -> dict[str, Any]:
        """Renew the list of one user, and return `{status, user_id, recommendation_type, recommendation_count,
        generated_at}`.

        Raises
        ------
        UnknownUserError, NoChampionError, TransientError
        """
        return await asyncio.to_thread(lambda: _generate(self._open(), user_id))

    async def get_cached_recommendations(self, user_id: str, session: AsyncSession) -> dict[str, Any] | None:
        """Return `{user_id, recommendation_type, recommendations, generated_at}`; None without a current list."""
        from alertrec.storage.lists import current_list, items_of

        row = (await session.execute(current_list(user_id))).mappings().first()
        if row is None:
            return None
        items = (await session.execute(items_of(user_id))).mappings().all()
        return {
            "user_id": user_id,
            "recommendation_type": row["recommendation_type"],
            "recommendations": [dict(item) for item in items],
            "generated_at": row["generated_at"].isoformat(),
        }

    async def generate_recommendations_for_all_users(self) -> dict[str, Any]:
        """Renew everybody's list, and return `{status, total_users, success_count, error_count, job_id}`."""
        return await asyncio.to_thread(lambda: _generate_all(self._open()))

    async def clean_expired_recommendations(self) -> dict[str, Any]:
        """Delete what is past its retention, and return `{status, deleted_count}`."""
        return await asyncio.to_thread(lambda: _clean(self._open()))


def _generate(workspace: Workspace, user_id: str) -> dict[str, Any]:
    from alertrec import service
    from alertrec.storage.lists import read_list

    service.generate_recommendations(workspace, user_id)
    with workspace.engine.connect() as connection:
        row = read_list(connection, user_id)
    return {
        "status": "success",
        "user_id": user_id,
        "recommendation_type": row["recommendation_type"] if row else None,
        "recommendation_count": row["n_items"] if row else 0,
        "generated_at": row["generated_at"].isoformat() if row else None,
    }


def _generate_all(workspace: Workspace) -> dict[str, Any]:
    from alertrec import service
    from alertrec.storage import jobs

    job_id = service.refresh_locally(workspace)
    with workspace.engine.connect() as connection:
        run = jobs.read_run(connection, job_id)
    assert run is not None, "it has just been finished"
    total, done = int(run["n_users"]), int(run["n_users_done"])
    return {
        "status": "completed" if run["error"] is None else "failed",
        "total_users": total,
        "success_count": done,
        "error_count": total - done,
        "job_id": str(job_id),
    }


def _clean(workspace: Workspace) -> dict[str, Any]:
    from alertrec import upkeep

    return {"status": "success", "deleted_count": upkeep.clean_up(workspace)["lists"]}
