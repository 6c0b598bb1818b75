"""Tokens, the secret that signs them, and the tokens of forms; nothing of it needs a server."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from fastapi import HTTPException, Request, Response
from starlette.websockets import WebSocket

from alertrec.settings import Settings
from alertrec.web.access import Access, Session, Viewer, sign_token, web_secret

SECRET = "a secret of the tests, of more than 32 characters"
ACCESS = Access(SECRET)
SESSION = Session(Viewer("u-0001"), time.time() + 86_400)
CLAIMS: dict[str, Any] = {"sub": "u-0001", "aud": "alertrec", "exp": time.time() + 86_400}


def signed(secret: str = SECRET, algorithm: str = "HS256", **changed: Any) -> str:
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


def named(token: str) -> Viewer | None:
    session = ACCESS.read_token(token)
    return session.viewer if session is not None else None


def cookie_of(session: Session) -> str:
    """Return the cookie that a browser keeps once somebody has signed in."""
    response = Response()
    ACCESS.start_session(response, session, is_secure=False)
    return response.headers["set-cookie"].partition(";")[0]


def part(value: Any) -> str:
    written = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(written.encode()).rstrip(b"=").decode()


def request(method: str = "GET", *, cookie: str = "", **headers: str) -> Request:
    given = {"host": "bank.test", **({"cookie": cookie} if cookie else {}), **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
    scope = {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw, "state": {}}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    return Request(scope, receive)


def socket(**headers: str) -> WebSocket:
    raw = [(name.encode(), value.encode()) for name, value in {"host": "bank.test", **headers}.items()]

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is sent or received before the socket is accepted")

    scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": raw, "state": {}}
    return WebSocket(scope, nothing, nothing)


@pytest.mark.parametrize("viewer", [Viewer("u-0001"), Viewer("ada", is_admin=True), Viewer("š' OR 1=1 --/ü")])
def test_a_token_names_whom_it_was_signed_for(viewer: Viewer):
    assert named(sign_token(SECRET, viewer)) == viewer


def test_a_bank_may_make_tokens_with_any_library():
    assert named(signed()) == Viewer("u-0001")
    assert named(signed(admin=True)) == Viewer("u-0001", is_admin=True)
    assert named(signed(aud=["alertrec", "other"])) == Viewer("u-0001")


@pytest.mark.parametrize("admin", ["true", 1, [True], {"is": True}, None, False])
def test_only_true_makes_staff(admin: Any):
    assert named(signed(admin=admin)) == Viewer("u-0001")


HEADER, BODY, SIGNATURE = signed().split(".")
NONE, STAFF = part({"alg": "none", "typ": "JWT"}), part(CLAIMS | {"admin": True})
REFUSED = {
    "expired": signed(exp=time.time() - 1),
    "without an end": signed(exp=None),
    "of nobody": signed(sub=None),
    "of an empty id": signed(sub=""),
    "of an id with NUL": signed(sub="u-0001\x00"),
    "of an id that is no text UTF-8 can hold": signed(sub="\ud800"),
    "for somebody else": signed(aud="another app"),
    "for anybody": signed(aud=None),
    "not yet valid": signed(nbf=time.time() + 80_000),
    "of another secret": signed(secret="another secret, of more than 32 characters"),
    "of an empty secret": f"{HEADER}.{BODY}." + part(""),
    "of another algorithm": signed(secret=SECRET * 2, algorithm="HS512"),
    "of the right secret, but another algorithm": signed(algorithm="HS384"),
    "unsigned": jwt.encode(CLAIMS, None, algorithm="none"),
    "said to be unsigned": f"{NONE}.{BODY}.{SIGNATURE}",
    "said to be unsigned, and so it is": f"{NONE}.{STAFF}.",
    "said to be unsigned, in capitals": f"{part({'alg': 'NONE', 'typ': 'JWT'})}.{STAFF}.",
    "altered": f"{HEADER}.{STAFF}.{SIGNATURE}",
    "cut": signed()[:-5],
    "without its signature": f"{HEADER}.{BODY}.",
    "with a critical extension": jwt.encode(CLAIMS, SECRET, algorithm="HS256", headers={"crit": ["b64"], "b64": False}),
    "with another header's signature": f"{part({'alg': 'HS256', 'typ': 'JWT', 'x': 1})}.{BODY}.{SIGNATURE}",
    "empty": "",
    "two dots": "..",
    "four parts": f"{signed()}.{SIGNATURE}",
    "no base64": "!.!.!",
    "no JSON": f"{part('{')}.{BODY}.{SIGNATURE}",
    "no object": f"{part([])}.{BODY}.{SIGNATURE}",
    "Latin": "é.é.é",
    "a header too deep": f"{part('[' * 5_000)}.{BODY}.{SIGNATURE}",
    "a body too deep": f"{HEADER}.{part('[' * 5_000)}.{SIGNATURE}",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_token_that_is_not_ours_names_nobody(kind: str):
    assert ACCESS.read_token(REFUSED[kind]) is None


def test_each_token_ends_when_it_says(monkeypatch: pytest.MonkeyPatch):
    token = sign_token(SECRET, Viewer("u-0001"), seconds=0.05)
    assert ACCESS.read_token(sign_token(SECRET, Viewer("u-0001"), seconds=60)) is not None
    time.sleep(1.05)  # ends are whole seconds to some
    assert ACCESS.read_token(token) is None


def test_the_secret_is_made_once_and_nobody_else_reads_it(tmp_path: Path):
    settings = replace(Settings(), data_dir=tmp_path / "not yet there")
    secret = web_secret(settings)
    assert len(secret) >= 32
    assert web_secret(settings) == secret
    (path,) = settings.data_dir.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert web_secret(replace(settings, data_dir=tmp_path / "elsewhere")) != secret


def test_the_secret_that_is_set_is_taken_and_not_stored(tmp_path: Path):
    assert web_secret(replace(Settings(), data_dir=tmp_path, web_secret=SECRET)) == SECRET
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_at_once_agree_on_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Threads share a process id, from which the name of the scratch file is made; as processes, each has its own.
    monkeypatch.setattr("alertrec.generated_secrets.os.getpid", threading.get_ident)
    settings, found = replace(Settings(), data_dir=tmp_path), set()
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.add(web_secret(settings))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["web_secret"]


def test_a_token_comes_by_the_header_or_by_the_cookie():
    token = sign_token(SECRET, Viewer("u-0001"))
    assert ACCESS.viewer(request(authorization=f"Bearer {token}")) == Viewer("u-0001")
    assert ACCESS.viewer(request(authorization=f"bearer {token}")) == Viewer("u-0001")
    assert ACCESS.viewer(request(cookie=cookie_of(SESSION))) == Viewer("u-0001")
    assert ACCESS.viewer(request(authorization=token)) is None
    assert ACCESS.viewer(request(cookie=f"other={token}")) is None
    assert ACCESS.viewer(request()) is None


def test_a_header_that_is_wrong_is_not_made_good_by_a_cookie():
    assert ACCESS.viewer(request(authorization="Bearer wrong", cookie=cookie_of(SESSION))) is None


def test_the_cookie_of_a_session_is_no_token_and_a_token_no_session():
    cookie = cookie_of(SESSION).partition("=")[2]
    assert ACCESS.viewer(request(authorization=f"Bearer {cookie}")) is None
    assert ACCESS.read_token(cookie) is None  # as which it could be signed in with again, and again
    assert ACCESS.viewer(request(cookie=f"alertrec_session={sign_token(SECRET, Viewer('u-0001'))}")) is None


def test_a_session_ends_with_the_token_that_it_began_with():
    soon = time.time() + 60
    cookie = cookie_of(replace(SESSION, expires=soon)).partition("=")[2]
    assert jwt.decode(cookie, SECRET, algorithms=["HS256"], audience="alertrec session")["exp"] <= soon + 1


def test_a_token_that_is_too_long_is_not_looked_at():
    assert ACCESS.read_token(signed(padding="x" * 5_000)) is None


async def refused(connection: Any) -> int:
    with pytest.raises(HTTPException) as refusal:
        await ACCESS.require(connection)
    return refusal.value.status_code


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_changes_something_asks_more_of_a_browser_than_its_cookie(method: str):
    session = cookie_of(SESSION)
    page = request(cookie="alertrec_form=nonce")
    csrf = ACCESS.csrf_token(page)
    assert await refused(request(method, cookie=session)) == 403
    assert await refused(request(method, cookie=session, x_csrf_token=csrf)) == 403
    assert await refused(request(method, cookie=f"{session}; alertrec_form=nonce")) == 403
    assert await refused(request(method, cookie=f"{session}; alertrec_form=nonce", x_csrf_token="")) == 403
    assert await refused(request(method, cookie=f"{session}; alertrec_form=nonce", x_csrf_token="é")) == 403
    assert await refused(request(method, cookie=f"{session}; alertrec_form=another", x_csrf_token=csrf)) == 403
    good = request(method, cookie=f"{session}; alertrec_form=nonce", x_csrf_token=csrf)
    assert await ACCESS.require(good) == Viewer("u-0001")


async def test_a_token_in_a_header_needs_no_form():
    authorization = f"Bearer {sign_token(SECRET, Viewer('u-0001'))}"
    assert await ACCESS.require(request("POST", authorization=authorization)) == Viewer("u-0001")


@pytest.mark.parametrize("authorization", ["Basic dTpw", "", "Negotiate x", "Digest x"])
async def test_what_a_browser_adds_by_itself_does_not_replace_the_token_of_a_form(authorization: str):
    session = cookie_of(SESSION)
    assert await refused(request("POST", cookie=session, authorization=authorization)) == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "http://bank.test.evil.test", "http://bank.test:81", "null", "", None, "bank.test"]
)
async def test_a_socket_that_another_site_opened_is_refused(origin: str | None):
    session = cookie_of(SESSION)
    assert await refused(socket(cookie=session, **({} if origin is None else {"origin": origin}))) == 403


async def test_a_socket_that_a_page_of_ours_opened_is_let_in():
    session = cookie_of(SESSION)
    assert await ACCESS.require(socket(cookie=session, origin="http://bank.test")) == Viewer("u-0001")


async def test_nobody_who_is_not_signed_in_is_let_in():
    assert await refused(request()) == 401
    assert await refused(socket(origin="http://bank.test")) == 401
