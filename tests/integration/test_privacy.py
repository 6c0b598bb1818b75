"""A real run for a customer whose id, merchant and amount are found nowhere else: no log, header, label or page tells.

What must hold them does: the tables, the bodies of messages, the customer's own answers.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx
import pytest
import redis
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.task_names import QUEUES
from alertrec.workspace import Workspace
from tests.integration.processes import broker, process, run, wait_for, web_app, worker
from tests.integration.web_worlds import (
    API,
    answered,
    as_admin,
    as_user,
    bank,
    free_port,
    serving,
    token,
    variables,
    workspace_of,
)
from tests.integration.worlds import execute

OTHER = "user-0003"
USER, MERCHANT, AMOUNT = "zq-marker-user-8147", "Quixotry Haberdashers", "7391.57"
MARKERS = (USER, MERCHANT, AMOUNT, quote(MERCHANT), MERCHANT.lower(), "quixotry", "739157")
PASSWORD = "of-Flower-in-this-test"
LARGE = "alert_large_transaction"


def told(text: str) -> list[str]:
    """Return the lines that tell of the customer."""
    return [line[:400] for line in text.splitlines() if any(marker in line for marker in MARKERS)]


@pytest.fixture
def settings(running_servers: Servers, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    base = tmp_path_factory.getbasetemp()
    with broker(running_servers) as url, bank(running_servers, url, base, tmp_path) as settings:
        yield settings


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    with workspace_of(settings) as workspace:
        execute(workspace, f"INSERT INTO users (id, is_active, created_at) VALUES ('{USER}', true, now())")  # noqa: S608  # names of ours
        execute(
            workspace,
            f"INSERT INTO transactions "  # noqa: S608
            f"(id, user_id, amount, merchant_name, merchant_category, transaction_date, status) "
            f"SELECT '{USER}-' || day, '{USER}', {AMOUNT}, '{MERCHANT}', 'shopping', now() - day * interval '1 day', "
            f"'settled' FROM generate_series(1, 40) AS day",
        )
        yield workspace


def headers_of_waiting_messages(url: str) -> str:
    """Return all that a message says beside its body."""
    with redis.Redis.from_url(url) as client:
        messages = [json.loads(each) for queue in QUEUES for each in client.lrange(queue, 0, -1)]
    assert messages
    assert any(USER in base64.b64decode(each["body"]).decode() for each in messages)  # the test sees what there is
    return "\n".join(json.dumps(each["headers"]) + json.dumps(each["properties"]) for each in messages)


def browser(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60)


class Customer:
    """Does what a customer may do, and what they may not, and keeps the headers of all answers."""

    def __init__(self, client: httpx.Client, settings: Settings) -> None:
        client.headers.update(as_user(settings, USER))
        self.client, self.settings, self.headers = client, settings, ""

    def ask(self, method: str, path: str, status: int, **options: Any) -> httpx.Response:
        answer = self.client.request(method, path, **options)
        assert answer.status_code == status, answer.text
        self.headers += "\n".join(f"{name}: {value}" for name, value in answer.headers.items()) + "\n"
        return answer

    def do_everything(self) -> None:
        rule = {"alert_type": LARGE, "parameters": {"amount": float(AMOUNT)}}
        wish = {"title": MERCHANT, "natural_language_query": f"Alert me about any purchase over ${AMOUNT}"}
        self.ask("GET", API, 200)
        self.ask("GET", API, 200, params={"force_refresh": True, "explain": True})
        self.ask("POST", f"{API}/trigger-generation", 200)
        self.ask("POST", f"{API}/preview", 200, json=rule)
        self.ask("POST", f"{API}/create-rule", 200, json={**wish, **rule})
        self.ask("POST", f"{API}/{uuid4()}/feedback", 404, json=answered("dismissed"))
        self.ask("POST", f"{API}/preview", 422, json={"alert_type": MERCHANT, "parameters": {MERCHANT: USER}})
        self.ask("GET", f"/{USER}/{MERCHANT}", 404)
        self.ask("GET", f"{API}/jobs/{USER}", 403)
        self.ask("GET", f"/dashboard/users/{USER}", 403)
        self.ask("POST", "/sign-in", 403, data={"token": token(self.settings, USER), "user_id": USER})
        self.ask("POST", f"{API}/trigger-generation", 401, headers={"authorization": f"Bearer {USER}"})
        self.ask("GET", f"/dashboard/users/{USER}", 200, headers=as_admin(self.settings))

    def listen(self, url: str) -> None:
        """Open a socket of one's own, and try another's, who is named in the address as well."""
        address, mine = url.replace("http", "ws", 1) + "/api/ws/recommendations/", as_user(self.settings, USER)
        with connect(address + USER, additional_headers=mine):
            pass
        with pytest.raises(InvalidStatus), connect(address + USER, additional_headers=as_user(self.settings, OTHER)):
            pass


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_log_header_label_or_page_tells_of_a_customer(
    settings: Settings, workspace: Workspace, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, log_format: str
) -> None:
    env = {**variables(settings), "ALERTREC_FLOWER_PASSWORD": PASSWORD}
    with serving(settings, tmp_path) as (url, _), web_app(env) as send, browser(url) as client:
        customer = Customer(client, settings)
        customer.do_everything()
        customer.listen(url)
        event = {"event_id": str(uuid4()), "user_id": USER, "action": "disabled", "alert_rule_id": MERCHANT}
        send("log_alert_action", event)
        send("log_alert_action", {**event, "event_id": MERCHANT, "action": USER})  # which is refused
        send("generate_recommendations", USER)
        assert told(headers_of_waiting_messages(settings.redis_url or "")) == []

        port = free_port()
        flower = [sys.executable, "-m", "alertrec", "flower", "--port", str(port)]
        log = tmp_path / "flower.log"
        with process(flower, env=env, cwd=tmp_path, log=log) as started, browser(f"http://127.0.0.1:{port}") as pages:
            pages.auth = ("alertrec", PASSWORD)
            wait_for(lambda: is_up(pages), seconds=30 if started.poll() is None else 0)
            with worker({**env, "ALERTREC_LOG_FORMAT": log_format}, tmp_path, name="privacy") as working:
                wait_for(lambda: execute(workspace, _LISTED), seconds=40)
                # What nobody foresaw, here and there: errors of a database love to say with which values.
                nobody = "ADD CONSTRAINT nobody CHECK (user_id = 'nobody') NOT VALID"
                execute(workspace, f"ALTER TABLE alertrec.recommendation_lists {nobody}")
                send("generate_recommendations", USER)
                wait_for(lambda: working.logged("CheckViolation") or working.logged("IntegrityError"))
                execute(workspace, "ALTER TABLE alert_rules RENAME COLUMN user_id TO of_user")
                send("generate_recommendations", USER)
                send("process_actions")
                assert customer.client.post(f"{API}/create-rule", json=_WISH).status_code == 500
                wait_for(lambda: working.logged("TaskFailedError") or working.logged("ProgrammingError"))
                wait_for(lambda: USER not in waiting(settings))
                seen = {path: pages.get(path).text for path in _PAGES}
                tasks = json.loads(seen["/api/tasks"])
                assert {each["name"] for each in tasks.values()} >= {"alertrec.generate_recommendations"}
                seen |= {each: pages.get(f"/task/{each}").text for each in tasks}
            status = run("--debug", "status", env=env, cwd=tmp_path)
        seen |= {"status": status.stdout + status.stderr, "headers": customer.headers}
        seen["metrics"] = customer.client.get("/metrics").text
    logs = [*tmp_path.rglob("*.log"), *tmp_path_factory.getbasetemp().glob("servers*/logs/*.log")]
    assert {"flower", "privacy", "postgres", "valkey"} <= {path.stem for path in logs}
    seen |= {path.name: path.read_text(errors="replace") for path in logs}
    assert {name: found for name, text in seen.items() if (found := told(text))} == {}
    password = urlsplit(settings.redis_url or "").password or "none"
    secrets = (password, settings.web_secret or "", urlsplit(settings.database_url or "").password or "none", PASSWORD)
    assert [name for name, text in seen.items() if any(each in text for each in secrets)] == []


_LISTED = f"SELECT 1 FROM alertrec.recommendation_lists WHERE user_id = '{USER}'"  # noqa: S608  # a name of ours
_WISH = {"title": MERCHANT, "natural_language_query": f"Alert me about any purchase over ${AMOUNT}"}
_PAGES = ("/api/tasks", "/api/workers?refresh=1", "/api/queues/length", "/tasks", "/workers", "/broker", "/metrics")


def is_up(pages: httpx.Client) -> bool:
    try:
        return pages.get("/workers").status_code == 200
    except httpx.TransportError:
        return False


def waiting(settings: Settings) -> str:
    with redis.Redis.from_url(settings.redis_url or "") as client:
        bodies = [json.loads(each)["body"] for queue in QUEUES for each in client.lrange(queue, 0, -1)]
    return "".join(base64.b64decode(each).decode() for each in bodies)
