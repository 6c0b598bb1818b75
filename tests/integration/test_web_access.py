"""Who may see what: every route, every kind of visitor, and nothing of one customer in what another is answered."""

from __future__ import annotations

import asyncio
import base64
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from alertrec import sending
from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.web import create_app
from alertrec.web.app import SampleUser
from alertrec.workspace import Workspace
from tests.integration.web_worlds import (
    API,
    SECRET,
    answered,
    as_admin,
    as_user,
    bank,
    browsing,
    metric_lines,
    old_body,
    problem,
    state,
    token,
    workspace_of,
)
from tests.integration.worlds import Outbox, execute, read_items

ID, JOB = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
PUBLIC, CUSTOMER, STAFF, FORM, SOCKET = "public", "customer", "staff", "form", "socket"
# A route that is new fails `test_every_route_stands_in_the_table` until it is said here who may use it.
ROUTES = {
    ("GET", API): CUSTOMER,
    ("GET", f"{API}/stream"): CUSTOMER,
    ("POST", f"{API}/create-rule"): CUSTOMER,
    ("POST", f"{API}/preview"): CUSTOMER,
    ("POST", f"{API}/{{recommendation_id}}/feedback"): CUSTOMER,
    ("POST", f"{API}/trigger-generation"): CUSTOMER,
    ("GET", f"{API}/categories"): PUBLIC,
    ("GET", f"{API}/alert-types"): PUBLIC,
    ("POST", f"{API}/generate-all"): STAFF,
    ("POST", f"{API}/cleanup"): STAFF,
    ("GET", f"{API}/jobs/{{job_id}}"): STAFF,
    ("GET", f"{API}/metrics"): STAFF,
    ("POST", f"{API}/test-websocket"): STAFF,
    ("GET", f"{API}/models"): STAFF,
    ("POST", f"{API}/models/rollback"): STAFF,
    ("POST", f"{API}/models/{{version}}/promote"): STAFF,
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("GET", "/"): PUBLIC,  # the page for signing in
    ("POST", "/sign-in"): FORM,
    ("POST", "/sign-out"): FORM,
    ("MOUNT", "/static"): PUBLIC,
    ("SOCKET", "/api/ws/recommendations/{user_id}"): SOCKET,  # see `test_web_live.py`
}
BODIES = {
    f"{API}/create-rule": {"title": "x", "natural_language_query": "Alert me about any purchase over $5"},
    f"{API}/preview": {"alert_type": "alert_large_transaction", "parameters": {"amount": 5.0}},
    f"{API}/{{recommendation_id}}/feedback": {"event_id": ID, "action": "shown"},
}
UNSAFE = [route for route in ROUTES if route[0] == "POST" and ROUTES[route] in {CUSTOMER, STAFF}]


@pytest.fixture(scope="module")
def settings(running_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A bank for all tests of this module; those that write to it say so."""
    base, data_dir = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("access")
    with bank(running_servers, running_servers.redis_url, base, data_dir) as settings:
        yield settings


@pytest.fixture(scope="module")
def workspace(settings: Settings) -> Iterator[Workspace]:
    with workspace_of(settings) as workspace:
        yield workspace


@pytest.fixture(autouse=True)
def _nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox()
    monkeypatch.setattr(sending, "send", lambda _workspace, task, *arguments: outbox(task, *arguments))


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with browsing(app) as client:
        yield client


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    """Return method and path of all that an app serves, documented or not."""
    found = set()
    for route in iter_route_contexts(app.routes):
        if route.methods is not None:
            found |= {(method, route.path) for method in route.methods - {"HEAD"}}
        else:
            found.add(("MOUNT" if isinstance(route.original_route, Mount) else "SOCKET", route.path))
    return found


def concrete(path: str) -> str:
    known = {"recommendation_id": ID, "job_id": JOB, "version": "m-1", "user_id": "user-0001", "user_id:path": "u"}
    return re.sub(r"{([^}]*)}", lambda match: known[match[1]], path)


async def ask(
    client: httpx.AsyncClient, route: tuple[str, str], headers: dict[str, str] | None = None
) -> httpx.Response:
    method, path = route
    return await client.request(method, concrete(path), headers=headers, json=BODIES.get(path))


def guarded(app: FastAPI) -> list[tuple[str, str]]:
    """Return the routes that not everybody may use, those of the dashboard included."""
    dashboard = [route for route in routes_of(app) if route[1].startswith("/dashboard")]
    assert dashboard
    return sorted([*dashboard, *(route for route, who in ROUTES.items() if who in {CUSTOMER, STAFF})])


def test_every_route_stands_in_the_table(app: FastAPI):
    found = {route for route in routes_of(app) if not route[1].startswith("/dashboard")}  # all of which is for staff
    assert found == set(ROUTES)
    documented = {(method.upper(), path) for path, each in app.openapi()["paths"].items() for method in each}
    assert documented <= set(ROUTES)


async def test_who_is_not_signed_in_is_let_in_nowhere(client: httpx.AsyncClient, app: FastAPI):
    for route in guarded(app):
        answer = await ask(client, route)
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer", route
        assert "allow-origin" not in str(answer.headers)


async def test_what_is_public_tells_of_no_customer(client: httpx.AsyncClient, settings: Settings):
    for route, who in ROUTES.items():
        if who == PUBLIC and route[0] == "GET":
            for headers in ({}, as_user(settings, "user-0001")):
                if route == ("GET", "/") and headers:
                    continue
                answer = await ask(client, route, headers)
                assert answer.status_code == 200, route
                assert "user-0" not in answer.text


async def test_customers_are_not_let_in_where_staff_works(client: httpx.AsyncClient, settings: Settings, app: FastAPI):
    for route in guarded(app):
        if ROUTES.get(route) != CUSTOMER:
            problem(await ask(client, route, as_user(settings, "user-0001")), 403)


async def test_staff_is_let_in_where_it_works(client: httpx.AsyncClient, settings: Settings):
    for route, who in ROUTES.items():
        if who == STAFF and "models" not in route[1]:
            answer = await ask(client, route, as_admin(settings))
            assert answer.status_code in {200, 404, 422}, (route, answer.text)


def strange_tokens() -> dict[str, str]:
    good: dict[str, Any] = {"sub": "user-0001", "aud": "alertrec", "exp": 4e9, "admin": True}
    header, body, signature = jwt.encode(good, SECRET, algorithm="HS256").split(".")
    deep = base64.urlsafe_b64encode(b"[" * 5_000).rstrip(b"=").decode()
    return {
        "expired": jwt.encode(good | {"exp": 1}, SECRET, algorithm="HS256"),
        "altered": f"{header}.{body[:-2]}AA.{signature}",
        "for another audience": jwt.encode(good | {"aud": "another"}, SECRET, algorithm="HS256"),
        "unsigned": jwt.encode(good, None, algorithm="none"),
        "of another secret": jwt.encode(good, "x" * 40, algorithm="HS256"),
        "of another algorithm": jwt.encode(good, SECRET * 2, algorithm="HS512"),
        "without an end": jwt.encode({"sub": "user-0001", "aud": "alertrec"}, SECRET, algorithm="HS256"),
        "of nobody": jwt.encode(good | {"sub": ""}, SECRET, algorithm="HS256"),
        "no token": "nothing",
        "too deep": f"{deep}.{body}.{signature}",
    }


@pytest.mark.parametrize("kind", strange_tokens())
async def test_a_token_that_is_not_good_lets_nobody_in(client: httpx.AsyncClient, app: FastAPI, kind: str):
    given = strange_tokens()[kind]
    for headers in ({"authorization": f"Bearer {given}"}, {"cookie": f"alertrec_session={given}"}):
        for route in guarded(app):
            problem(await ask(client, route, headers), 401)


@pytest.mark.parametrize("user_id", ["\ud800", "x" * 100_000])
async def test_a_token_of_an_id_that_no_database_can_hold_is_refused_and_spoils_nobody_elses_answer(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str
):
    others = sorted(read_items(workspace))[:10]
    strange = client.get(API, headers=as_user(settings, user_id))
    answers = await asyncio.wait_for(
        asyncio.gather(strange, *(client.get(API, headers=as_user(settings, other)) for other in others)), 10
    )
    assert answers[0].status_code in {401, 404}
    assert [answer.json().get("user_id") for answer in answers[1:]] == others


# One customer and another


def marks_of(workspace: Workspace, user_id: str) -> set[str]:
    """Return what gives a customer away: ids, and merchants, days and amounts that are theirs alone."""
    rows = execute(workspace, "SELECT * FROM transactions")
    mine = [row for row in rows if row["user_id"] == user_id]
    others = [row for row in rows if row["user_id"] != user_id]
    marks = {user_id}
    marks |= {str(item["recommendation_id"]) for item in read_items(workspace).get(user_id, [])}
    marks |= {row["id"] for row in execute(workspace, "SELECT id FROM alert_rules WHERE user_id = :id", id=user_id)}
    marks |= {row["merchant_name"] for row in mine} - {row["merchant_name"] for row in others} - {None}
    marks |= {f"{row['amount']:.2f}" for row in mine} - {f"{row['amount']:.2f}" for row in others}
    return marks


def tells(answer: httpx.Response, marks: set[str]) -> set[str]:
    text = f"{answer.headers}{answer.text}"
    return {mark for mark in marks if re.search(rf"(?<![\w.]){re.escape(mark)}(?![\w])", text)}


async def test_nothing_of_one_customer_stands_in_what_another_is_answered(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    items = read_items(workspace)
    first, second = [user_id for user_id in items if any(item["change"] for item in items[user_id])][:2]
    marks = marks_of(workspace, second) - marks_of(workspace, first)
    assert len(marks) > 20
    own = await client.get(API, headers=as_user(settings, second))
    assert len(tells(own, marks)) > 5  # the marks would be seen
    me, before = as_user(settings, first), state(workspace)
    for path in (API, f"{API}?explain=true", f"{API}?force_refresh=true", f"{API}?user_id={second}", "/"):
        answer = await client.get(path, headers=me)
        assert answer.status_code == 200
        assert tells(answer, marks - {second}) == set(), path
        assert second not in answer.text
    for item in items[second]:
        theirs = {"recommendation_id": str(item["recommendation_id"]), "event_id": str(uuid4())}
        for path, body in (
            (f"{API}/create-rule", old_body(item) | theirs),
            (f"{API}/{item['recommendation_id']}/feedback", answered("dismissed")),
        ):
            answer = await client.post(path, headers=me, json=body)
            problem(answer, 404)
            assert tells(answer, marks) <= {theirs["recommendation_id"]}  # which came with the request
        wish = {"alert_type": item["alert_type"], "parameters": item["parameters"], "user_id": second}
        answer = await client.post(f"{API}/preview", headers=me, json=wish)
        assert answer.status_code == 200
        assert (
            tells(answer, marks - {f"{value:.2f}" for value in item["parameters"].values() if value != str(value)})
            == set()
        )
    answer = await client.post(f"{API}/trigger-generation", headers=me, params={"user_id": second})
    assert answer.json()["user_id"] == first
    assert state(workspace) == before


async def test_many_who_ask_at_once_each_get_their_own_list(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    items = read_items(workspace)
    user_ids = sorted(items)[:50]
    headers = {user_id: as_user(settings, user_id) for user_id in user_ids}
    asked = [*user_ids * 10]
    random.Random(0).shuffle(asked)  # noqa: S311  # no secret
    answers = await asyncio.gather(*(client.get(API, headers=headers[user_id]) for user_id in asked))
    assert len(answers) == 500
    for user_id, answer in zip(asked, answers, strict=True):
        told = answer.json()
        assert told["user_id"] == user_id
        assert [item["recommendation_id"] for item in told["recommendations"]] == [
            str(item["recommendation_id"]) for item in items[user_id]
        ]


# Browsers


def csrf_of(page: httpx.Response) -> str:
    found = re.search(r'name="csrf-token" content="([0-9a-f]{64})"', page.text)
    assert found, page.text[:500]
    return found[1]


async def sign_in(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
    csrf = csrf_of(await client.get("/"))
    return await client.post("/sign-in", data={"csrf_token": csrf, **fields})


async def test_a_browser_signs_in_with_a_token_and_out_again(client: httpx.AsyncClient, settings: Settings):
    answer = await sign_in(client, token=f" {token(settings, 'user-0001')} ")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = next(each for each in answer.headers.get_list("set-cookie") if each.startswith("alertrec_session="))
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert (await client.get(API)).json()["user_id"] == "user-0001"
    csrf = csrf_of(await client.get("/"))
    answer = await client.post("/sign-out", data={"csrf_token": csrf})
    assert answer.status_code == 303
    problem(await client.get(API), 401)


async def test_over_tls_cookies_do_not_travel_without(settings: Settings):
    async with browsing(create_app(settings), base_url="https://bank.test") as client:
        page = await client.get("/")
        answer = await client.post(
            "/sign-in", data={"csrf_token": csrf_of(page), "token": token(settings, "user-0001")}
        )
        for cookie in (*page.headers.get_list("set-cookie"), *answer.headers.get_list("set-cookie")):
            assert "Secure" in cookie.split("; ")


@pytest.mark.parametrize("given", ["", "nothing", "operator", *list(strange_tokens().values())[:4]])
async def test_a_browser_with_a_token_that_is_not_good_is_not_signed_in(client: httpx.AsyncClient, given: str):
    answer = await sign_in(client, token=given)
    assert answer.status_code == 401
    assert "not valid" in answer.text
    problem(await client.get(API), 401)


@pytest.mark.parametrize("user_id", ["operator", "user-0001", "ada"])
async def test_without_sample_users_nobody_signs_in_by_a_name(client: httpx.AsyncClient, user_id: str):
    assert (await sign_in(client, user_id=user_id)).status_code == 401
    problem(await client.get(API), 401)


async def test_with_sample_users_everybody_signs_in_as_one_of_them_or_as_the_operator(settings: Settings):
    app = create_app(settings, sample_users=[SampleUser("user-0001", "A customer")])
    async with browsing(app) as client:
        assert (await sign_in(client, user_id="user-0002")).status_code == 401
        assert (await sign_in(client, user_id="user-0001")).status_code == 303
        assert (await client.get(API)).json()["user_id"] == "user-0001"
        problem(await client.get(f"{API}/models"), 403)
        assert (await sign_in(client, user_id="operator")).status_code == 303
        assert (await client.get(f"{API}/models")).status_code == 200


async def test_forms_of_other_sites_change_nothing(client: httpx.AsyncClient, settings: Settings, app: FastAPI):
    await sign_in(client, token=token(settings, "user-0001", is_admin=True))
    dashboard = [route for route in routes_of(app) if route[0] == "POST" and route[1].startswith("/dashboard")]
    for route in [*UNSAFE, *dashboard, ("POST", "/sign-in"), ("POST", "/sign-out")]:
        problem(await ask(client, route), 403)
        problem(await ask(client, route, {"x-csrf-token": ""}), 403)
        problem(await ask(client, route, {"x-csrf-token": "0" * 64}), 403)
        # Browsers may know a password of a proxy before us, and send it without being asked.
        problem(await ask(client, route, {"authorization": "Basic dTpw"}), 403)


async def test_scripts_of_our_pages_may_do_what_the_customer_may(client: httpx.AsyncClient, settings: Settings):
    await sign_in(client, token=token(settings, "user-0001"))
    headers = {"x-csrf-token": csrf_of(await client.get("/"))}
    for route in UNSAFE:
        answer = await ask(client, route, headers)
        if ROUTES[route] == STAFF:
            problem(answer, 403)
        else:
            assert answer.status_code in {200, 404}, (route, answer.text)


async def test_the_token_of_another_browsers_page_is_refused(
    client: httpx.AsyncClient, settings: Settings, app: FastAPI
):
    await sign_in(client, token=token(settings, "user-0001"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bank.test") as another:
        theirs = csrf_of(await another.get("/"))
    refused = await client.post(f"{API}/trigger-generation", headers={"x-csrf-token": theirs})
    problem(refused, 403)
    problem(await client.post("/sign-out", data={"csrf_token": theirs}), 403)


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--c\r\n"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=csrf_token\r\n\r\nx\r\n--b--",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="csrf_token"; filename="x"\r\n\r\nx\r\n--b--\r\n',
        ),
        ("application/x-www-form-urlencoded", b"csrf_token=%ff%00&token=%00"),
        ("application/x-www-form-urlencoded", b"&" * 5_000),
        ("application/x-www-form-urlencoded", b"a=b&" * 5_000),
        ("text/form", b"\xff"),
        ("application/json", b"{"),
    ],
)
async def test_forms_that_are_none_are_refused(client: httpx.AsyncClient, content_type: str, content: bytes):
    await client.get("/")
    answer = await client.post("/sign-in", headers={"content-type": content_type}, content=content)
    assert answer.status_code in {400, 403, 413, 422}, answer.text
    problem(answer, answer.status_code)


# What every answer carries


async def test_every_answer_keeps_browsers_safe_errors_too(
    client: httpx.AsyncClient, settings: Settings, app: FastAPI, workspace: Workspace
):
    answers = [
        await ask(client, route) for route in routes_of(app) if route[0] in {"GET", "POST"} and "stream" not in route[1]
    ]
    answers += [await ask(client, ("GET", API), as_user(settings, "user-0001"))]
    answers += [await client.get("/nowhere"), await client.get("/static/none.css"), await client.delete(API)]
    answers += [await client.post(f"{API}/create-rule", headers=as_user(settings, "user-0001"), content=b"{")]
    assert {200, 401, 403, 404, 405, 422} <= {answer.status_code for answer in answers}
    for answer in answers:
        assert_safe(answer)


async def test_an_answer_that_nobody_foresaw_keeps_browsers_safe_as_well(
    running_servers: Servers, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    base = tmp_path_factory.getbasetemp()
    with bank(running_servers, running_servers.redis_url, base, tmp_path) as settings:
        with workspace_of(settings) as workspace:
            execute(workspace, "DROP TABLE alertrec.alert_actions")
        async with browsing(create_app(settings)) as client:
            answer = await client.post(
                f"{API}/create-rule", headers=as_user(settings, "user-0001"), json=BODIES[f"{API}/create-rule"]
            )
            detail = problem(answer, 500)
            assert "alert_actions" not in detail
            assert_safe(answer)
            counted = (await client.get("/metrics")).text
            assert [line for line in counted.splitlines() if "create-rule" in line and 'status="500"' in line]


def assert_safe(answer: httpx.Response) -> None:
    about = f"{answer.request.method} {answer.request.url.path}: {answer.status_code}"
    headers = answer.headers
    policy = headers.get("content-security-policy", "")
    for part in ("default-src 'self'", "object-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy, about
    assert "unsafe" not in policy
    assert headers.get("x-content-type-options") == "nosniff", about
    if not answer.request.url.path.startswith("/static/"):
        assert headers.get_list("cache-control") == ["no-store"], about


async def test_figures_for_prometheus_name_no_customer(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    user_ids = sorted(read_items(workspace))[:5]
    for user_id in user_ids:
        item = str(read_items(workspace)[user_id][0]["recommendation_id"])
        for method, path in (
            ("GET", API),
            ("GET", f"{API}/{user_id}"),
            ("GET", f"/{user_id}"),
            ("POST", f"{API}/{item}/feedback"),
            ("POST", f"{API}/{user_id}/feedback"),
            ("GET", f"/dashboard/users/{user_id}"),
            ("GET", f"/static/{user_id}"),
        ):
            await client.request(method, path, headers=as_user(settings, user_id))
            await client.request(method, path, headers=as_admin(settings))
    text = (await client.get("/metrics")).text
    labels = [part for line in metric_lines(text) for part in re.findall(r'"([^"]*)"', line)]
    assert API in labels
    assert not [label for label in labels if re.search(r"user.?\d|[0-9a-f]{8}-", label.lower())]
    assert len(Counter(labels)) < 60


async def test_figures_for_prometheus_hold_no_word_that_a_visitor_makes_up(client: httpx.AsyncClient):
    for method, path in (("MADEUP", API), ("MADEUP", "/made-up"), ("MADEUP", "/static/made-up"), ("GET", "/made-up")):
        await client.request(method, path)
    text = "\n".join(metric_lines((await client.get("/metrics")).text)).lower()
    assert "made-up" not in text
    assert "madeup" not in text


async def test_a_token_of_another_secret_opens_nothing(client: httpx.AsyncClient, settings: Settings):
    other = replace(settings, web_secret="another secret of the tests, long enough")
    problem(await client.get(API, headers=as_user(other, "user-0001")), 401)
