"""The app that runs alone: the router, pages for customers and staff, health, and sign-in by signed tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from alertrec import tracing
from alertrec.errors import AlertrecError
from alertrec.settings import Settings
from alertrec.web.access import Access, web_secret
from alertrec.web.dashboard import create_dashboard
from alertrec.web.health import health_router
from alertrec.web.limits import Limits
from alertrec.web.pages import page_router
from alertrec.web.problems import phrase_of, problem_of, status_and_detail
from alertrec.web.rendering import render
from alertrec.web.resources import Web
from alertrec.web.router import PREFIX, router_of
from alertrec.web.shell import RequestFigures, Shell

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class SampleUser:
    """A made-up customer of a demo, as whom everybody may sign in."""

    user_id: str
    label: str


def create_app(
    settings: Settings,
    *,
    sample_users: Sequence[SampleUser] = (),
    flower_url: str | None = None,
) -> FastAPI:
    """Return the app.

    Parameters
    ----------
    sample_users : sequence
        Of a demo. With any, everybody who reaches the app may sign in as one of them, and as the operator.

    Raises
    ------
    ConfigError
        If the settings name no servers.
    """
    web, access = Web(settings), Access(web_secret(settings))
    registry = CollectorRegistry()
    app = FastAPI(
        title="alertrec",
        summary="The few alert rules worth offering each bank customer now.",
        version=version("alertrec"),
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to wherever the Host header says
        telemetry=tracing.for_fastapi(),
        lifespan=_traced,
        exception_handlers=dict.fromkeys((AlertrecError, HTTPException, RequestValidationError), _tell),
    )
    app.state.access = access
    app.include_router(router_of(web, current_user=access.current_user, admin=access.admin))
    app.include_router(health_router(web, registry))
    app.include_router(page_router(access, sample_users, Limits().times(settings.rate_limits)), include_in_schema=False)
    app.include_router(
        create_dashboard(lambda: web.workspace, access.admin, lambda: flower_url), include_in_schema=False
    )
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(Shell, figures=RequestFigures(registry, lambda: web.hub.n_listeners), tell=_tell)
    return app


@asynccontextmanager
async def _traced(_: FastAPI) -> AsyncIterator[None]:
    yield
    await asyncio.to_thread(tracing.stop)


async def _tell(request: Request, error: Exception) -> Response:
    """Tell of an error: a program as JSON, a person as a page; who is not signed in is asked to."""
    if "text/html" not in request.headers.get("accept", "") or request.url.path.startswith(PREFIX):
        return problem_of(error)
    status, detail = status_and_detail(error)
    if status == HTTPStatus.UNAUTHORIZED:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER)
    return render(request, "problem.html.j2", status, title=phrase_of(status), detail=detail)
