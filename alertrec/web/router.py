"""The router that a bank's app mounts, with the bank's own authentication."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from alertrec.runtime import remembered_settings
from alertrec.settings import Settings
from alertrec.web.customers import add_customer_routes
from alertrec.web.limits import Gates, Limits
from alertrec.web.operators import add_operator_routes
from alertrec.web.problems import ProblemRoute
from alertrec.web.resources import Web
from alertrec.web.sockets import add_socket

PREFIX = "/api"


def create_router(
    *, current_user: Callable[..., Any], admin: Callable[..., Any], settings: Settings | None = None
) -> APIRouter:
    """Return the router of `/api/alerts` and `/api/ws`.

    Parameters
    ----------
    current_user : FastAPI dependency
        Returns the id of the customer who is signed in, as it stands in `users.id`, or raises an `HTTPException`. It
        serves a socket as well: have it take a `starlette.requests.HTTPConnection`, and no `Request`.
    admin : FastAPI dependency
        Returns the id of the member of staff who is signed in, or raises an `HTTPException`.
    settings : Settings, optional
        By default those of the environment.

    Raises
    ------
    ConfigError
        If a setting is wrong, or names no servers and no embedded ones have been started.
    """
    web = Web(settings if settings is not None else remembered_settings(os.environ))
    return router_of(web, current_user=current_user, admin=admin)


def router_of(web: Web, *, current_user: Callable[..., Any], admin: Callable[..., Any]) -> APIRouter:
    """Return the router on means that the caller has."""
    # One router and not some inside each other: each would be one more to walk through for every request.
    router = APIRouter(prefix=PREFIX, route_class=ProblemRoute, lifespan=web.lifespan)
    gates = Gates(Limits().times(web.settings.rate_limits), current_user)
    add_customer_routes(router, web, current_user, gates)
    add_operator_routes(router, web, admin)
    add_socket(router, web, current_user, gates)
    return router
