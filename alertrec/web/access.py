"""Who is it, when alertrec runs alone: signed tokens, sessions of a browser, and forms that nobody else can send.

A bank that mounts the router brings its own authentication, and needs none of this.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import jwt
from fastapi import HTTPException, Request, Response
from starlette.requests import HTTPConnection
from starlette.status import HTTP_401_UNAUTHORIZED, HTTP_403_FORBIDDEN

from alertrec.generated_secrets import remembered_secret
from alertrec.settings import Settings

SESSION_COOKIE = "alertrec_session"
FORM_COOKIE = "alertrec_form"
CSRF_FIELD = "csrf_token"
CSRF_HEADER = "x-csrf-token"
SESSION_SECONDS = 8 * 3600

_ALGORITHM = "HS256"
_AUDIENCE = "alertrec"
_SESSION_AUDIENCE = "alertrec session"  # of a browser; it opens no other one, and does not outlast its token
_LONGEST_TOKEN = 4_096
_SAFE = {"GET", "HEAD", "OPTIONS"}
_TOKENS_KEPT = 10_000
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Viewer:
    """Who looks: a customer by their id, or somebody of the bank's who may see everything."""

    user_id: str
    is_admin: bool = False


@dataclass(frozen=True)
class Session:
    """Who it is, and until when (seconds since 1970) that holds."""

    viewer: Viewer
    expires: float


def web_secret(settings: Settings) -> str:
    """Return the secret that signs tokens and forms, made and remembered in the data directory where none is set."""
    if settings.web_secret is not None:
        return settings.web_secret
    return remembered_secret(settings.data_dir / "web_secret", 48)


def sign_token(secret: str, viewer: Viewer, *, seconds: float = SESSION_SECONDS, audience: str = _AUDIENCE) -> str:
    """Return a token (JWT, HS256) that says who somebody is, for a while.

    A bank may make the same with any library: claims `sub` (the user's id), `aud` ("alertrec"), `exp`, and
    `admin` (true) for its own staff.
    """
    claims = {"sub": viewer.user_id, "aud": audience, "exp": time.time() + seconds}
    return jwt.encode(claims | ({"admin": True} if viewer.is_admin else {}), secret, algorithm=_ALGORITHM)


class Access:
    """Tells who a request comes from, by a bearer token or the cookie of a session."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        # A browser sends the same token with every request, and checking one takes as long as reading a list. What is
        # refused is an exception, and is not kept.
        self._checked = lru_cache(maxsize=_TOKENS_KEPT)(self._check)

    def read_token(self, token: str, *, audience: str = _AUDIENCE) -> Session | None:
        """Return whom a token names; None where it is not ours, altered, of another audience, or has expired."""
        if len(token) > _LONGEST_TOKEN:
            return None
        try:
            session = self._checked(token, audience)
        except (jwt.InvalidTokenError, UnicodeEncodeError):
            return None
        return session if time.time() < session.expires else None

    def _check(self, token: str, audience: str) -> Session:
        options: Any = {"require": ["exp", "sub", "aud"]}
        claims = jwt.decode(token, self._secret, algorithms=[_ALGORITHM], audience=audience, options=options)
        user_id = claims["sub"]
        user_id.encode()  # a text that no database can hold is nobody's id
        if not user_id or "\x00" in user_id:
            raise jwt.InvalidTokenError("an empty id, or one that no database can hold")
        return Session(Viewer(user_id, is_admin=claims.get("admin") is True), float(claims["exp"]))

    def viewer(self, connection: HTTPConnection) -> Viewer | None:
        """Return who it is, without asking what they may do."""
        bearer, cookie = _bearer_token(connection), connection.cookies.get(SESSION_COOKIE)
        if bearer is not None:
            session = self.read_token(bearer)
        else:
            session = self.read_token(cookie, audience=_SESSION_AUDIENCE) if cookie else None
        return session.viewer if session is not None else None

    async def require(self, connection: HTTPConnection) -> Viewer:
        """Return who it is.

        Raises
        ------
        HTTPException
            401 where nobody is signed in; 403 where a browser was made to send the request by another site.
        """
        viewer = self.viewer(connection)
        if viewer is None:
            raise HTTPException(HTTP_401_UNAUTHORIZED, "sign in, or send a bearer token that is valid", _CHALLENGE)
        if _bearer_token(connection) is None:  # a browser adds a cookie by itself, and no token
            await self._refuse_other_sites(connection)
        connection.state.viewer = viewer
        return viewer

    async def current_user(self, connection: HTTPConnection) -> str:
        """Return the id of the customer who is signed in; a dependency."""
        return (await self.require(connection)).user_id

    async def admin(self, connection: HTTPConnection) -> str:
        """Return the id of the member of staff who is signed in; a dependency. 403 for customers."""
        viewer = await self.require(connection)
        if not viewer.is_admin:
            raise HTTPException(HTTP_403_FORBIDDEN, "this is for the bank's own staff")
        return viewer.user_id

    async def check_form(self, request: Request) -> None:
        """Refuse a form, or a request of a script, that does not carry the token of a page of ours; a dependency."""
        expected = self._csrf_token(request.cookies.get(FORM_COOKIE, ""))
        given = request.headers.get(CSRF_HEADER)
        if given is None and "form" in request.headers.get("content-type", ""):
            field = (await request.form()).get(CSRF_FIELD)
            given = field if isinstance(field, str) else None
        if FORM_COOKIE not in request.cookies or not hmac.compare_digest((given or "").encode(), expected.encode()):
            raise HTTPException(HTTP_403_FORBIDDEN, "the form has expired; load the page again and repeat")

    def csrf_token(self, request: Request) -> str:
        """Return the token that forms of this browser carry; a browser that is new gets its cookie with the answer."""
        nonce = request.cookies.get(FORM_COOKIE)
        if nonce is None:
            nonce = getattr(request.state, "form_cookie", None) or secrets.token_urlsafe(24)
            request.state.form_cookie = nonce
        return self._csrf_token(nonce)

    def start_session(self, response: Response, session: Session, *, is_secure: bool) -> None:
        """Sign a browser in, for no longer than the token holds with which somebody came."""
        seconds = min(session.expires - time.time(), SESSION_SECONDS)
        token = sign_token(self._secret, session.viewer, seconds=seconds, audience=_SESSION_AUDIENCE)
        options: dict[str, Any] = {"max_age": int(seconds), "secure": is_secure}
        response.set_cookie(SESSION_COOKIE, token, httponly=True, samesite="lax", **options)

    def end_session(self, response: Response) -> None:
        """Sign a browser out."""
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="lax")

    async def _refuse_other_sites(self, connection: HTTPConnection) -> None:
        if isinstance(connection, Request):
            if connection.method not in _SAFE:
                await self.check_form(connection)
        elif _host_of(connection.headers.get("origin", "")) != connection.headers.get("host"):
            # A socket has no form to carry a token; but browsers always say where it was opened from.
            raise HTTPException(HTTP_403_FORBIDDEN, "the socket was opened by another site")

    def _csrf_token(self, nonce: str) -> str:
        return hmac.new(self._secret.encode(), f"form:{nonce}".encode(), hashlib.sha256).hexdigest()


def _bearer_token(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token if token and scheme.lower() == "bearer" else None


def _host_of(origin: str) -> str:
    return urlsplit(origin).netloc


async def check_csrf(request: Request) -> None:
    """Refuse a form that does not carry the token of a page of ours; a dependency of pages."""
    access: Access = request.app.state.access
    await access.check_form(request)


def csrf_token(request: Request) -> str:
    """Return the token that the forms of a page carry."""
    access: Access = request.app.state.access
    return access.csrf_token(request)
