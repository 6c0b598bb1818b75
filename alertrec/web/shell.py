"""What surrounds every request: headers that keep a browser safe, the most that a body may have, and counts for
Prometheus. Plain ASGI, for speed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import Request
from starlette.responses import Response

from alertrec.web.access import FORM_COOKIE
from alertrec.web.limits import MOST_BODY_BYTES, too_large

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Tell = Callable[[Request, Exception], Awaitable[Response]]

# Everything from here, nothing inline, no frames, no plug-ins.
_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
# What a customer is shown is theirs alone: no proxy and no browser keeps it.
_PRIVATE = (b"cache-control", b"no-store")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_UNKNOWN = "other"  # paths that are no route: their names come from outside


class RequestFigures:
    """Counts of requests by route, never by what stands in a path: that may be a customer."""

    def __init__(self, registry: CollectorRegistry, n_listeners: Callable[[], int]) -> None:
        self.requests = Counter(
            "alertrec_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "alertrec_http_request_seconds", "Time to answer.", ["route"], buckets=_BUCKETS, registry=registry
        )
        Gauge("alertrec_live_listeners", "Browsers that listen.", registry=registry).set_function(n_listeners)

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one request."""
        route = getattr(scope.get("route"), "path", _UNKNOWN)
        method = scope["method"] if route != _UNKNOWN and scope["method"] in _METHODS else _UNKNOWN
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)


class Shell:
    """Adds headers to every answer and counts it; refuses bodies that are too large, before they are read."""

    def __init__(self, app: App, *, figures: RequestFigures, tell: Tell) -> None:
        self._app = app
        self._figures = figures
        self._tell = tell  # what nobody foresaw is told here, so that it too is counted and has its headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, state = time.perf_counter(), scope.setdefault("state", {})
        is_static, is_started = scope["path"].startswith("/static/"), False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            is_started = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
                if not is_static and all(name != _PRIVATE[0] for name, _ in message["headers"]):
                    message["headers"].append(_PRIVATE)
                if (nonce := state.get("form_cookie")) is not None:
                    message["headers"].append((b"set-cookie", _form_cookie(nonce, scope["scheme"])))
                self._figures.count(scope, message["status"], time.perf_counter() - started)
            await send(message)

        length = _body_length(scope)
        if length > MOST_BODY_BYTES:
            response = await self._tell(Request(scope), too_large())
            await response(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, _bounded(receive), send_with_headers)
        except Exception as error:
            if is_started:
                raise
            response = await self._tell(Request(scope), error)
            await response(scope, receive, send_with_headers)


def _body_length(scope: Scope) -> int:
    """Return the length that a request says its body has; -1 where it does not say."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else -1
    return -1


def _bounded(receive: Receive) -> Receive:
    """Return a `receive` that ends a body which goes on beyond the limit."""
    n_bytes = 0

    async def receive_bounded() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > MOST_BODY_BYTES:
            raise too_large()
        return message

    return receive_bounded


def _form_cookie(nonce: str, scheme: str) -> bytes:
    cookie: SimpleCookie = SimpleCookie({FORM_COOKIE: nonce})
    cookie[FORM_COOKIE].update({"path": "/", "httponly": "true", "samesite": "Lax"})
    return (cookie[FORM_COOKIE].OutputString() + ("; Secure" if scheme == "https" else "")).encode()
