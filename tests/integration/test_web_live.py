"""Two web processes and a worker on real servers: what one is asked for, the other one tells of."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from alertrec.announcing import channel_of
from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.simulation import Customer
from alertrec.web import create_app
from alertrec.web import customers as customers_module
from alertrec.web.access import web_secret
from alertrec.web.live import Hub
from alertrec.workspace import Workspace
from tests.integration.processes import broker, wait_for, worker
from tests.integration.web_worlds import (
    API,
    answered,
    as_admin,
    as_user,
    bank,
    browsing,
    free_port,
    metric,
    old_body,
    problem,
    serve,
    serving,
    token,
    valkey,
    variables,
    workspace_of,
)
from tests.integration.worlds import execute, offers_of, read_items, read_lists, scalar

PATIENCE = 20
LARGE = "alert_large_transaction"


@dataclass(frozen=True)
class Site:
    """A bank that two web processes serve."""

    settings: Settings
    one: str
    other: str


@pytest.fixture(scope="module")
def settings(running_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    base, data_dir = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("live")
    with broker(running_servers) as redis_url, bank(running_servers, redis_url, base, data_dir) as settings:
        yield replace(settings, chunk_size=20)


@pytest.fixture(scope="module")
def site(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with (
        serve(settings, directory) as one,
        serve(settings, directory) as other,
        worker(variables(settings), directory, name="test-web"),
    ):
        yield Site(settings, one, other)


@pytest.fixture(scope="module")
def workspace(settings: Settings) -> Iterator[Workspace]:
    with workspace_of(settings) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def customers(workspace: Workspace) -> list[str]:
    """Those who are offered to be told of large purchases; each test takes its own, for lists are renewed."""
    return [
        user_id
        for user_id, items in read_items(workspace).items()
        if LARGE in {item["alert_type"] for item in offers_of(items)}
    ]


@asynccontextmanager
async def streaming(url: str, settings: Settings, user_id: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Listen as a browser does, and yield what is told, once the server listens for it."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client,
        client.stream("GET", f"{API}/stream", headers=as_user(settings, user_id)) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in answer.headers["cache-control"]
        lines = answer.aiter_lines()
        assert await anext(lines) == ": connected"
        yield events(lines)


async def events(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
    kind = None
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            assert kind == "recommendations_ready"
            yield json.loads(value)


async def told(events: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    return await asyncio.wait_for(anext(events), PATIENCE)


def opened(url: str, user_id: str, headers: dict[str, str] | None = None, origin: str | None = None) -> connect:
    address = f"{url.replace('http', 'ws')}/api/ws/recommendations/{user_id}"
    return connect(address, additional_headers=headers or {}, origin=origin, proxy=None)


async def received(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))
    return message


async def ask(url: str, method: str, path: str, headers: dict[str, str], body: Any = None, **params: Any) -> Any:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        answer = await client.request(method, path, headers=headers, json=body, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until(condition: Any) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := await condition()):
        assert time.monotonic() < deadline, "the condition never came to hold"
        await asyncio.sleep(0.05)
    return answer


def n_listeners(url: str) -> float:
    return metric(httpx.get(f"{url}/metrics").text, "alertrec_live_listeners")


async def test_a_list_that_a_worker_wrote_is_told_to_its_customer_and_to_nobody_else(site: Site, customers: list[str]):
    (user_id, neighbour), settings = customers[:2], site.settings
    async with (
        streaming(site.one, settings, user_id) as mine,
        streaming(site.one, settings, neighbour) as theirs,
        opened(site.one, user_id, as_user(settings, user_id)) as my_socket,
        opened(site.other, user_id, as_user(settings, user_id)) as my_other_socket,
        opened(site.one, neighbour, as_user(settings, neighbour)) as their_socket,
    ):
        before = await ask(site.one, "GET", API, as_user(settings, user_id))
        await ask(site.other, "POST", f"{API}/trigger-generation", as_user(settings, user_id))
        messages = [await told(mine), await received(my_socket), await received(my_other_socket)]
        after = await ask(site.one, "GET", API, as_user(settings, user_id))
        assert after["generated_at"] > before["generated_at"]
        for message in messages:
            assert set(message) == {"type", "user_id", "recommendations", "timestamp"}
            assert (message["type"], message["user_id"]) == ("recommendations_ready", user_id)
            assert message["recommendations"] == after["recommendations"]
            assert datetime.fromisoformat(message["timestamp"]).tzinfo is not None
        # The first that the neighbour is told is what is said to them now.
        now = datetime.now(UTC)
        await ask(site.other, "POST", f"{API}/test-websocket", as_admin(settings), user_id=neighbour)
        for message in (await told(theirs), await received(their_socket)):
            assert message["user_id"] == neighbour
            assert datetime.fromisoformat(message["timestamp"]) > now
            assert user_id not in json.dumps(message)


@pytest.mark.parametrize("why", ["missing", "expired"])
async def test_who_has_no_current_list_is_told_as_soon_as_a_worker_has_made_it(
    site: Site, workspace: Workspace, customers: list[str], why: str
):
    settings = site.settings
    user_id = customers[2] if why == "expired" else "newcomer"
    execute(
        workspace,
        "UPDATE alertrec.recommendation_lists SET expires_at = now() WHERE user_id = :user_id",
        user_id=user_id,
    )
    async with streaming(site.other, settings, user_id) as mine:
        first = await ask(site.one, "GET", API, as_user(settings, user_id))
        assert first["is_placeholder"]
        message = await told(mine)
    second = await ask(site.one, "GET", API, as_user(settings, user_id))
    assert not second["is_placeholder"]
    assert second["recommendations"] == message["recommendations"] != []


async def test_what_was_taken_leaves_the_list_and_the_page_learns_of_it(
    site: Site, workspace: Workspace, customers: list[str]
):
    user_id, settings = customers[3], site.settings
    me = as_user(settings, user_id)
    items = (await ask(site.one, "GET", API, me))["recommendations"]
    item = next(item for item in offers_of(items) if item["alert_type"] == LARGE)
    async with streaming(site.one, settings, user_id) as mine:
        body = {**old_body(item), "recommendation_id": item["recommendation_id"]}
        created = await ask(site.other, "POST", f"{API}/create-rule", me, body)
        message = await told(mine)
    assert LARGE not in {each["alert_type"] for each in offers_of(message["recommendations"])}
    assert scalar(workspace, "SELECT is_active FROM alert_rules WHERE id = :id", id=created["rule_id"])
    after = (await ask(site.one, "GET", API, me))["recommendations"]
    assert after == message["recommendations"]


async def test_what_was_dismissed_leaves_the_list_and_the_page_learns_of_it(site: Site, customers: list[str]):
    user_id, settings = customers[4], site.settings
    me = as_user(settings, user_id)
    item = (await ask(site.one, "GET", API, me))["recommendations"][0]
    async with opened(site.one, user_id, me) as socket:
        path = f"{API}/{item['recommendation_id']}/feedback"
        assert (await ask(site.other, "POST", path, me, answered("dismissed")))["recorded"]
        message = await received(socket)
    assert item["recommendation_id"] not in json.dumps(message)


class Willing(random.Random):
    """Does whatever may be done."""

    def random(self) -> float:
        return 0.0


def test_a_made_up_customer_looks_and_answers(site: Site, workspace: Workspace, customers: list[str]):
    # Advice does not outlast the list that it stands in, and each answer brings a new one.
    user_id = next(each for each in customers[11:] if offers_of(items := read_items(workspace)[each]) == items)
    items = read_items(workspace)[user_id]
    with closing(Customer(site.one, web_secret(site.settings), user_id, Willing())) as customer:
        customer.visit()
    query = "SELECT recommendation_id, action FROM alertrec.alert_actions WHERE user_id = :user_id"
    logged = execute(workspace, query, user_id=user_id)
    seen = {row["recommendation_id"] for row in logged if row["action"] == "shown"}
    assert seen == {item["recommendation_id"] for item in items[:4]}
    assert {row["recommendation_id"] for row in logged if row["action"] == "accepted"} == seen


async def test_sockets_are_opened_to_their_customer_alone(site: Site, customers: list[str]):
    (user_id, neighbour), settings = customers[:2], site.settings
    cookie = {"cookie": f"alertrec_session={token(settings, user_id, audience='alertrec session')}"}
    expired = {"authorization": f"Bearer {token(settings, user_id, seconds=-1)}"}
    for headers, origin, status in (
        ({}, None, 401),
        (expired, None, 401),
        ({"authorization": "Bearer nothing"}, None, 401),
        (as_user(settings, neighbour), None, 403),
        (as_admin(settings), None, 403),
        (cookie, None, 403),
        (cookie, "https://evil.test", 403),
        (cookie, "null", 403),
        (cookie | {"authorization": "Basic dTpw"}, "https://evil.test", 403),
        (cookie | {"host": "evil.test"}, "http://bank.test", 403),
    ):
        with pytest.raises(InvalidStatus) as refusal:
            async with opened(site.one, user_id, headers, origin):
                pass
        assert refusal.value.response.status_code == status, (headers, origin)
    async with opened(site.one, user_id, cookie, site.one) as socket:
        await ask(site.other, "POST", f"{API}/test-websocket", as_admin(settings), user_id=user_id)
        assert (await received(socket))["user_id"] == user_id


async def test_what_a_client_says_on_its_socket_means_nothing(site: Site, customers: list[str]):
    user_id, settings = customers[5], site.settings
    async with opened(site.one, user_id, as_user(settings, user_id)) as socket:
        for message in ("ping", b"\xff\x00", "x" * 100_000, json.dumps({"user_id": customers[6]})):
            await socket.send(message)
        await ask(site.other, "POST", f"{API}/test-websocket", as_admin(settings), user_id=user_id)
        assert (await received(socket))["user_id"] == user_id


async def test_who_goes_away_is_forgotten(site: Site, customers: list[str]):
    settings = site.settings
    await until_quiet(site.one)
    async with (
        streaming(site.one, settings, customers[7]),
        streaming(site.one, settings, customers[7]),
        opened(site.one, customers[8], as_user(settings, customers[8])) as socket,
    ):
        assert n_listeners(site.one) == 3
        socket.transport.abort()  # as a phone that lost its network
        await until(lambda: asyncio.to_thread(lambda: n_listeners(site.one) == 2))
    await until_quiet(site.one)


async def until_quiet(url: str) -> None:
    await until(lambda: asyncio.to_thread(lambda: n_listeners(url) == 0))


async def test_figures_are_those_of_all_processes(site: Site, customers: list[str]):
    settings = site.settings

    async def figures(url: str) -> Any:
        return (await ask(url, "GET", f"{API}/metrics", as_admin(settings)))["metrics"]

    await figures(site.one)
    n_before = (await figures(site.other))["total_requests"]
    for url, n_requests in ((site.one, 7), (site.other, 5)):
        for _ in range(n_requests):
            await ask(url, "GET", API, as_user(settings, customers[9]))

    async def are_counted() -> bool:
        both = [await figures(url) for url in (site.one, site.other)]
        # What others asked for before may have been counted since as well.
        return all(each["total_requests"] >= n_before + 12 for each in both)

    await until(are_counted)
    found = await figures(site.one)
    assert found == await figures(site.other) | {"thread_pool_usage": found["thread_pool_usage"]}
    assert found["success_rate"] == 1.0
    assert sum(found["recommendation_types"].values()) == found["total_requests"]


async def test_a_refresh_of_everybody_and_a_cleanup_are_followed_to_their_end(site: Site, workspace: Workspace):
    staff = as_admin(site.settings)
    before = read_lists(workspace)
    started = await ask(site.one, "POST", f"{API}/generate-all", staff)

    async def finished(job_id: str) -> Any:
        job = await ask(site.other, "GET", f"{API}/jobs/{job_id}", staff)
        assert job["status"] in {"pending", "processing", "completed"}, job
        return job if job["status"] == "completed" else None

    job = await until(lambda: finished(started["job_id"]))
    assert (job["job_type"], job["error"]) == ("all_users", None)
    assert job["result"]["n_users"] == started["total_users"] == job["done"] == job["total"]
    after = read_lists(workspace)
    assert len(after) == started["total_users"]
    assert all(after[user_id]["generated_at"] > before[user_id]["generated_at"] for user_id in before)
    execute(
        workspace,
        "INSERT INTO alertrec.recommendation_lists (user_id, recommendation_type, model_version, generated_at, "
        "expires_at, as_of, n_items) VALUES ('left', 'ml_hybrid', 'm', '2020-01-01', '2020-01-02', '2020-01-01', 0)",
    )
    started = await ask(site.one, "POST", f"{API}/cleanup", staff)
    job = await until(lambda: finished(started["job_id"]))
    assert job["job_type"] == "cleanup_expired"
    assert "left" not in read_lists(workspace)


async def test_listening_goes_on_after_a_restart_of_the_broker_and_ends_with_the_process(
    settings: Settings, customers: list[str], tmp_path: Path
):
    user_id, port = customers[10], free_port()
    own = replace(settings, redis_url=f"redis://127.0.0.1:{port}/0", data_dir=tmp_path)
    first = valkey(port, tmp_path / "valkey-1.log")
    first.__enter__()
    with serving(own, tmp_path) as (url, web_process):
        async with streaming(url, own, user_id) as mine, opened(url, user_id, as_user(own, user_id)) as socket:
            await asyncio.to_thread(announce, own, user_id)
            assert (await told(mine))["user_id"] == (await received(socket))["user_id"] == user_id
            first.__exit__(None, None, None)
            # Nobody goes on as if they heard something.
            with pytest.raises(StopAsyncIteration):
                await told(mine)
            with pytest.raises(ConnectionClosed):
                await received(socket)
        assert (await ask(url, "GET", API, as_user(own, user_id)))["user_id"] == user_id
        async with httpx.AsyncClient(base_url=url) as client:
            problem(await client.get(f"{API}/stream", headers=as_user(own, user_id)), 503)
        with valkey(port, tmp_path / "valkey-2.log"):
            await asyncio.to_thread(announce, own, user_id)  # it listens again
            async with streaming(url, own, user_id) as mine, opened(url, user_id, as_user(own, user_id)) as socket:
                await asyncio.to_thread(announce, own, user_id)
                assert (await told(mine))["user_id"] == (await received(socket))["user_id"] == user_id
                started = time.monotonic()
                web_process.terminate()
                with pytest.raises((StopAsyncIteration, httpx.RemoteProtocolError)):  # it may be cut
                    await told(mine)
                with pytest.raises(ConnectionClosed):
                    await received(socket)
                assert await asyncio.to_thread(web_process.wait, PATIENCE) in {0, -15}
                assert time.monotonic() - started < 20


async def test_a_stream_ends_after_a_while_so_that_it_is_asked_again_who_listens(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(customers_module, "STREAM_SECONDS", 0.3)
    async with browsing(create_app(settings)) as client:
        while (await client.get(f"{API}/stream", headers=as_user(settings, "user-0001"))).status_code == 503:
            await asyncio.sleep(0.01)  # it begins to listen
        # Without an end of its own, this would never be answered: the client waits for all of it.
        answer = await client.get(f"{API}/stream", headers=as_user(settings, "user-0001"))
        assert answer.text.startswith(": connected")


def announce(settings: Settings, user_id: str) -> None:
    """Say what a worker says, once the process listens."""
    assert settings.redis_url is not None
    with redis.Redis.from_url(settings.redis_url) as client:
        message = json.dumps({"user_ids": [user_id]})
        wait_for(lambda: client.publish(channel_of(settings.redis_url or ""), message))


NO_ANNOUNCEMENTS = [
    b"",
    b"{",
    b"\xff",
    b"[]",
    b"null",
    b'{"user_ids": 7}',
    b'{"user_ids": [7, null, {}]}',
    b"[" * 50_000,
]


@pytest.mark.parametrize("message", NO_ANNOUNCEMENTS, ids=lambda message: ascii(message)[:30])
async def test_what_is_no_announcement_is_passed_over(redis_url: str, message: bytes):
    hub = Hub(redis_url)
    hub.start()
    while not hub.is_live:
        await asyncio.sleep(0.01)
    with hub.listening("u") as signal, redis.Redis.from_url(redis_url) as client:
        assert client.publish(channel_of(redis_url), message) == 1
        client.publish(channel_of(redis_url), json.dumps({"user_ids": ["u"]}))
        heard, _ = await asyncio.wait([asyncio.create_task(signal.wait())], timeout=2)
    # An error of JSON's depth that reaches pytest makes Python itself stumble over the traceback.
    problems = await asyncio.gather(hub.stop(), return_exceptions=True)
    assert (len(heard), [type(each) for each in problems]) == (1, [type(None)])


async def test_without_the_broker_nobody_is_left_to_listen_to_nothing(redis_url: str):
    hub = Hub("redis://127.0.0.1:1/0")
    hub.start()
    with hub.listening("u") as signal:
        assert await hub.wait(signal, 0.2) is False  # nothing came
        hub.is_live = True
        waiting = asyncio.create_task(hub.wait(signal, PATIENCE))
        await asyncio.sleep(0)
        hub._lose()
        assert await asyncio.wait_for(waiting, PATIENCE) is False
    await hub.stop()


async def test_who_listens_twice_is_told_twice_and_who_left_is_not(redis_url: str):
    hub = Hub(redis_url)
    with hub.listening("u") as first, hub.listening("v") as other:
        with hub.listening("u") as second:
            assert hub.n_listeners == 3
            hub._tell(["u"])
            assert (first.is_set(), second.is_set(), other.is_set()) == (True, True, False)
        assert hub.n_listeners == 2
    assert hub.n_listeners == 0
