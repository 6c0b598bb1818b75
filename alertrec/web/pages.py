"""The customer's page, and signing in and out."""

# No `from __future__ import annotations`: FastAPI evaluates the annotations.

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER, HTTP_401_UNAUTHORIZED

from alertrec.web.access import SESSION_SECONDS, Access, Session, Viewer, check_csrf
from alertrec.web.limits import Limits, each_address
from alertrec.web.rendering import render

OPERATOR = "operator"  # as whom the staff of a sample bank signs in


def page_router(access: Access, sample_users: Sequence[Any], limits: Limits) -> APIRouter:
    """Return the routes.

    Parameters
    ----------
    sample_users : sequence of `SampleUser`
        As whom everybody may sign in, and as the operator; empty but in a demo.
    """
    router = APIRouter()
    known = {each.user_id for each in sample_users} | ({OPERATOR} if sample_users else set())

    def sign_in_page(request: Request, *, error: str | None = None) -> Response:
        status = 200 if error is None else HTTP_401_UNAUTHORIZED
        return render(request, "sign_in.html.j2", status, sample_users=sample_users, error=error)

    @router.get("/", dependencies=[each_address(limits.anonymous)])
    def home(request: Request) -> Response:
        viewer = access.viewer(request)
        if viewer is None:
            return sign_in_page(request)
        request.state.viewer = viewer
        if viewer.is_admin:
            return RedirectResponse("/dashboard", HTTP_303_SEE_OTHER)
        return render(request, "panel.html.j2")

    @router.post("/sign-in", dependencies=[each_address(limits.sign_ins), Depends(check_csrf)])
    def sign_in(request: Request, token: Annotated[str, Form()] = "", user_id: Annotated[str, Form()] = "") -> Response:
        session = access.read_token(token.strip())
        if user_id in known:
            session = Session(Viewer(user_id, is_admin=user_id == OPERATOR), time.time() + SESSION_SECONDS)
        if session is None:
            return sign_in_page(request, error="That token is not valid, or it has expired; ask for a new one.")
        response = RedirectResponse("/", HTTP_303_SEE_OTHER)
        access.start_session(response, session, is_secure=request.url.scheme == "https")
        return response

    @router.post("/sign-out", dependencies=[Depends(check_csrf)])
    def sign_out() -> Response:
        response = RedirectResponse("/", HTTP_303_SEE_OTHER)
        access.end_session(response)
        return response

    return router
