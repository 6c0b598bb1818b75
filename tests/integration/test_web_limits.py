"""Who asks too much is told when to come back, nobody else notices, and no body is read that is too large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from alertrec import sending
from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.task_names import GENERATE_RECOMMENDATIONS
from alertrec.web import create_app
from alertrec.web.limits import MOST_BODY_BYTES, Limits
from tests.integration.web_worlds import (
    API,
    PROBLEM,
    answered,
    as_user,
    bank,
    browsing,
    problem,
    serve,
)
from tests.integration.worlds import Outbox

FACTOR = 1 / 15  # of the limits that are meant for people
LIMITS = Limits().times(FACTOR)
PREVIEW = (
    LIMITS.previews,
    "POST",
    f"{API}/preview",
    {"alert_type": "alert_large_transaction", "parameters": {"amount": 5.0}},
)
FEEDBACK = (LIMITS.feedback, "POST", f"{API}/00000000-0000-4000-8000-000000000001/feedback", answered("shown"))
RULE = (LIMITS.rules, "POST", f"{API}/create-rule", {"title": "x", "natural_language_query": "nothing that is a rule"})
OF_A_CUSTOMER = [
    (LIMITS.renewals, "POST", f"{API}/trigger-generation", None),
    (LIMITS.renewals, "GET", f"{API}?force_refresh=true", None),
    (LIMITS.explanations, "GET", f"{API}?explain=true", None),
    PREVIEW,
    FEEDBACK,
    RULE,
]
ROUTES = [f"{method} {path.removeprefix(API) or 'list'}" for _, method, path, _ in OF_A_CUSTOMER]


@pytest.fixture(scope="module")
def settings(running_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    base, data_dir = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("limits")
    with bank(running_servers, running_servers.redis_url, base, data_dir) as settings:
        yield settings


@pytest.fixture(autouse=True)
def outbox(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    outbox = Outbox()
    monkeypatch.setattr(sending, "send", lambda _workspace, task, *arguments: outbox(task, *arguments))
    return outbox


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with browsing(create_app(replace(settings, rate_limits=FACTOR))) as client:
        yield client


def too_many(answer: httpx.Response) -> None:
    assert "try again in" in problem(answer, 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def until_refused(ask: Callable[[], Awaitable[httpx.Response]], limit: float) -> list[httpx.Response]:
    """Ask until it is too much, and return all answers: more than the limit, since some comes back meanwhile."""
    answers = [await ask() for _ in range(int(limit))]
    while answers[-1].status_code != 429 and len(answers) < 3 * limit:
        answers.append(await ask())
    return answers


@pytest.mark.parametrize(("limit", "method", "path", "body"), OF_A_CUSTOMER, ids=ROUTES)
async def test_a_customer_who_asks_too_often_is_told_to_wait_and_no_other_is(
    client: httpx.AsyncClient, settings: Settings, outbox: Outbox, limit: float, method: str, path: str, body: Any
) -> None:
    def ask(user_id: str) -> Awaitable[httpx.Response]:
        return client.request(method, path, json=body, headers=as_user(settings, user_id))

    *taken, refused = await until_refused(lambda: ask("user-0001"), limit)
    assert {each.status_code for each in taken} <= {200, 404, 422}
    assert len(taken) >= limit
    too_many(refused)
    assert outbox.count((GENERATE_RECOMMENDATIONS, "user-0001")) in {0, len(taken)}
    assert (await ask("user-0002")).status_code != 429
    # Whoever may not ask more of this may still look.
    listed = await client.get(API, headers=as_user(settings, "user-0001"))
    assert listed.status_code == 200


async def test_both_ways_to_a_new_list_count_together(client: httpx.AsyncClient, settings: Settings) -> None:
    headers = as_user(settings, "user-0001")
    assert (await client.post(f"{API}/trigger-generation", headers=headers)).status_code == 200
    assert (await client.get(API, params={"force_refresh": True}, headers=headers)).status_code == 200
    too_many(await client.post(f"{API}/trigger-generation", headers=headers))


async def test_the_list_itself_has_no_limit(client: httpx.AsyncClient, settings: Settings) -> None:
    headers = as_user(settings, "user-0001")
    assert {(await client.get(API, headers=headers)).status_code for _ in range(50)} == {200}


@pytest.mark.parametrize("path", [f"{API}/categories", f"{API}/alert-types", "/"])
async def test_an_address_that_floods_what_is_open_to_all_is_told_to_wait(settings: Settings, path: str) -> None:
    app = create_app(replace(settings, rate_limits=FACTOR))
    async with browsing(app) as client:
        *taken, refused = await until_refused(lambda: client.get(path), LIMITS.anonymous)
        assert {each.status_code for each in taken} == {200}
        assert len(taken) >= LIMITS.anonymous
        too_many(refused)
        elsewhere = httpx.ASGITransport(app, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=elsewhere, base_url="http://bank.test") as other:
            assert (await other.get(path)).status_code == 200


async def test_tokens_cannot_be_tried_without_end(client: httpx.AsyncClient) -> None:
    """Before the form's own token is looked at: who tries tokens need not send it."""
    tried = [await client.post("/sign-in", data={"token": f"guess {number}"}) for number in range(5)]
    assert [each.status_code for each in tried] == [403, 403, 403, 403, 429]


# Bodies, over a real connection: what is refused there is not read.


@pytest.fixture(scope="module")
def url(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(settings, tmp_path_factory.mktemp("serve")) as url:
        yield url


def preview_of(n_bytes: int) -> bytes:
    """Return a body that is right, of as many bytes."""
    body = b'{"alert_type": "alert_large_transaction", "parameters": {"amount": 5.0}'
    return body + b" " * (n_bytes - len(body) - 1) + b"}"


@pytest.mark.parametrize(("n_bytes", "status"), [(MOST_BODY_BYTES, 200), (MOST_BODY_BYTES + 1, 413)])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "in chunks"])
def test_a_body_up_to_64_kb_is_taken(url: str, settings: Settings, n_bytes: int, status: int, is_chunked: bool) -> None:
    body = preview_of(n_bytes)
    content = iter([body[:30_000], body[30_000:]]) if is_chunked else body
    headers = as_user(settings, "user-0001") | {"content-type": "application/json"}
    answer = httpx.post(f"{url}{API}/preview", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 413:
        assert "65,536 bytes" in problem(answer, 413)
        assert "content-security-policy" in answer.headers  # like any other answer


async def test_a_large_body_is_refused_before_it_is_sent(url: str) -> None:
    """Nobody need be signed in, and no byte of it is waited for; the connection is not kept."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST {API}/create-rule HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-length: 50000000\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(20):
        answer = await reader.read()  # to the end of the connection
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert f"content-type: {PROBLEM}".encode() in answer


async def test_a_body_without_end_is_cut_off(url: str, settings: Settings) -> None:
    address, bearer = urlsplit(url), as_user(settings, "user-0001")["authorization"]
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"POST {API}/preview HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: {bearer}\r\n"
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    # One byte too many, and no last chunk: the server would wait for more.
    writer.write(head.encode() + b"%x\r\n" % (MOST_BODY_BYTES + 1) + b" " * (MOST_BODY_BYTES + 1) + b"\r\n")
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
