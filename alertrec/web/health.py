"""For load balancers, orchestrators and Prometheus: does the process live, can it serve, what does it do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from sqlalchemy import text

from alertrec.runtime import require_schema
from alertrec.web.resources import Web
from alertrec.web.shapes import Readiness

logger = logging.getLogger(__name__)


def health_router(web: Web, registry: CollectorRegistry) -> APIRouter:
    """Return the routes; they tell of no customer, and are open."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/health/ready",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Lists cannot be read"}},
        summary="Lists can be read",
    )
    def ready() -> Response:
        """Answer 200 where lists can be read. Without the broker they can: what needs it says so by itself."""
        checks = {"database": _check(lambda: _database(web)), "broker": _check(lambda: _broker(web))}
        status = 200 if checks["database"] == "ok" else 503
        return JSONResponse({"status": "ok" if status == 200 else "unavailable", "checks": checks}, status)

    @router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _check(check: Callable[[], Any]) -> str:
    try:
        check()
    except Exception as error:  # whatever is wrong, the answer is no; its words may name hosts, and go to the log
        logger.warning("a check failed: %s", error, extra={"action": "check_failed"})
        return type(error).__name__
    return "ok"


def _database(web: Web) -> None:
    require_schema(web.workspace)
    with web.workspace.engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM alertrec.recommendation_lists LIMIT 1"))


def _broker(web: Web) -> None:
    from alertrec.doctor import queue_lengths

    queue_lengths(web.settings)
