"""What only the bank's own staff may ask for: work on everybody's lists, jobs, figures, models."""

# No `from __future__ import annotations`: FastAPI evaluates the annotations, and a dependency is a local name here.

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Path, Query
from sqlalchemy import RowMapping

from alertrec import promotion
from alertrec.errors import TransientError
from alertrec.schedule import CLEANUP, REFRESH, TRAINING
from alertrec.service import ALL_USERS, request_refresh
from alertrec.storage import jobs, models
from alertrec.storage.database import transient_errors
from alertrec.storage.models import ModelVersion
from alertrec.task_names import CLEANUP_EXPIRED, REFRESH_RECOMMENDATIONS
from alertrec.watching import state_of
from alertrec.web.problems import responses
from alertrec.web.resources import Web
from alertrec.web.shapes import (
    Champion,
    Job,
    JobStarted,
    Key,
    Metrics,
    Models,
    ModelShape,
    RefreshStarted,
    SocketTest,
)
from alertrec.web.usage import MAX_MINUTES

_JOB_TYPES: dict[str, Any] = {REFRESH: "all_users", CLEANUP: "cleanup_expired", TRAINING: "training"}
_STATUSES: dict[str, Any] = {
    jobs.PENDING: "pending",
    jobs.RUNNING: "processing",
    jobs.DONE: "completed",
    jobs.FAILED: "failed",
}


def add_operator_routes(router: APIRouter, web: Web, admin: Any) -> None:
    """Add the routes of the bank's staff."""
    staff = Annotated[str, Depends(admin)]
    refused = responses(401, 403, 503)
    version = Annotated[Key, Path(description="As `GET models` names it.")]

    @router.post("/alerts/recommendations/generate-all", responses={**refused, **responses(409)})
    def generate_all(admin_id: staff) -> RefreshStarted:
        """Have everybody's list renewed."""
        del admin_id
        job_id = request_refresh(web.workspace)
        with transient_errors("users were counted"), web.workspace.engine.connect() as connection:
            n_users = web.workspace.source.n_active(connection)
        web.send_if_possible(REFRESH_RECOMMENDATIONS, ALL_USERS, str(job_id))  # it stands in the table
        message = f"The lists of {n_users:,} users are being renewed."
        return RefreshStarted(
            status="pending", total_users=n_users, success_count=0, error_count=0, message=message, job_id=job_id
        )

    @router.post("/alerts/recommendations/cleanup", responses=refused)
    def clean_up(admin_id: staff) -> JobStarted:
        """Have what is past its retention deleted."""
        del admin_id
        with transient_errors("a cleanup was asked for"), web.workspace.engine.begin() as connection:
            job_id = jobs.ask_for_run(connection, CLEANUP, {})
        web.send_if_possible(CLEANUP_EXPIRED, str(job_id))  # it stands in the table
        return JobStarted(job_id=job_id, status="pending", message="What is past its retention is being deleted.")

    @router.get("/alerts/recommendations/jobs/{job_id}", responses={**refused, **responses(404, 422)})
    def get_job(admin_id: staff, job_id: UUID) -> Job:
        """Return how a job is doing."""
        del admin_id
        with transient_errors("a job was read"), web.workspace.engine.connect() as connection:
            row = jobs.read_run(connection, job_id)
        if row is None:
            raise HTTPException(404, "there is no such job; finished ones are kept for 90 days")
        return _job(row)

    @router.get("/alerts/recommendations/metrics", responses={**refused, **responses(422)})
    async def get_metrics(admin_id: staff, last_n_minutes: Annotated[int, Query(ge=1, le=MAX_MINUTES)] = 60) -> Metrics:
        """Return how lists were asked for, of all web processes together. `avg_duration` is in seconds;
        `cache_hit_rate` is the share that was answered with a current list.
        """
        del admin_id
        figures = await web.usage.read(last_n_minutes)
        figures["thread_pool_usage"] = _pool_usage(web)
        return Metrics(time_range_minutes=last_n_minutes, metrics=figures, generated_at=datetime.now(UTC))

    @router.post("/alerts/recommendations/test-websocket", responses={**refused, **responses(422)})
    def test_websocket(admin_id: staff, user_id: Annotated[Key, Query()]) -> SocketTest:
        """Announce to whoever listens as a user that their list was written."""
        del admin_id
        if not web.workspace.announce([user_id]):
            raise TransientError("the broker did not take the announcement")
        return SocketTest(status="sent", message="Whoever listens as this user is told.", user_id=user_id)

    @router.get("/alerts/recommendations/models", responses=refused)
    def get_models(admin_id: staff) -> Models:
        """Return the models that are kept, the newest first."""
        del admin_id
        with transient_errors("models were read"), web.workspace.engine.connect() as connection:
            return Models(models=[_model(each) for each in models.all_versions(connection)])

    @router.post("/alerts/recommendations/models/rollback", responses={**refused, **responses(409, 422)})
    def roll_back(admin_id: staff) -> Champion:
        """Make the champion before the present one champion again."""
        with transient_errors("a model was rolled back"):
            restored = promotion.roll_back(web.workspace, promoted_by=admin_id)
        return Champion(version=restored, message="It serves again.")

    @router.post("/alerts/recommendations/models/{version}/promote", responses={**refused, **responses(422)})
    def promote(admin_id: staff, version: version) -> Champion:
        """Make a model the champion, once its files have been checked."""
        with transient_errors("a model was promoted"):
            promotion.promote(web.workspace, version, promoted_by=admin_id)
        return Champion(version=version, message="It serves now.")


def _job(row: RowMapping) -> Job:
    state = state_of(row)
    return Job(
        job_id=row["job_id"],
        job_type=_JOB_TYPES[row["job"]],
        user_id=None,
        status=_STATUSES[row["status"]],
        step=state.step,
        done=state.done,
        total=state.total,
        result=row["result"],
        error=row["error"],
        created_at=row["created_at"],
    )


def _model(model: ModelVersion) -> ModelShape:
    return ModelShape.model_validate(model, from_attributes=True)


def _pool_usage(web: Web) -> float:
    """Return the share of this process's database connections that are in use."""
    pool: Any = web.workspace.engine.pool
    return min(1.0, float(pool.checkedout() / pool.size()))
