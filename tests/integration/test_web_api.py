"""The API on a real database: what customers and staff are answered, what is written, what they are told instead."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from starlette.requests import HTTPConnection

from alertrec import actions, sending, service
from alertrec.catalog import ALERT_KEYS, ALERT_TYPES, BY_KEY
from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.task_names import CLEANUP_EXPIRED, GENERATE_RECOMMENDATIONS, PROCESS_ACTIONS, REFRESH_RECOMMENDATIONS
from alertrec.user_story import user_story
from alertrec.web import create_app, create_router
from alertrec.web.live import Hub
from alertrec.web.reading import ListReader
from alertrec.workspace import Workspace
from tests.integration.web_worlds import (
    API,
    PROMISED_SECONDS,
    answered,
    as_admin,
    as_user,
    bank,
    browsing,
    nobody_knows,
    old_body,
    problem,
    serve,
    state,
    took_at_most,
    without_broker,
    without_database,
    workspace_of,
)
from tests.integration.worlds import (
    Outbox,
    execute,
    log,
    offered,
    offers_of,
    read_items,
    read_lists,
    scalar,
)

LARGE = "alert_large_transaction"
CREATE = f"{API}/create-rule"
ITEM_FIELDS = {
    "recommendation_id", "alert_type", "recommendation_type", "title", "description", "natural_language_query",
    "category", "priority", "reasoning", "probability", "confidence_level", "parameters", "would_have_fired", "reasons",
    "change", "model_version", "experiment", "variant", "expires_at",
}  # fmt: skip
LIST_FIELDS = {
    *("user_id", "recommendation_type", "recommendations", "generated_at", "expires_at", "is_placeholder", "message"),
}


@pytest.fixture
def settings(
    running_servers: Servers, redis_url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    with bank(running_servers, redis_url, tmp_path_factory.getbasetemp(), tmp_path) as settings:
        yield settings


@pytest.fixture
def workspace(settings: Settings) -> Iterator[Workspace]:
    """Another process of the bank: a worker, or its own web app."""
    with workspace_of(settings) as workspace:
        yield workspace


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """What the app sends to workers; real ones are at work in `test_web_live.py`."""
    outbox = Outbox()
    monkeypatch.setattr(sending, "send", lambda _workspace, task, *arguments: outbox(task, *arguments))
    return outbox


@pytest.fixture
async def client(settings: Settings, outbox: Outbox) -> AsyncIterator[httpx.AsyncClient]:
    async with browsing(create_app(settings)) as client:
        yield client


@pytest.fixture
def user_id(workspace: Workspace) -> str:
    """A customer who is offered to be told of large purchases, and has rules."""
    return holder_of(workspace, lambda item: item["alert_type"] == LARGE and item["recommendation_type"] != "change")[0]


@pytest.fixture
def offer(workspace: Workspace, user_id: str) -> dict[str, Any]:
    return next(item for item in read_items(workspace)[user_id] if item["alert_type"] == LARGE)


@pytest.fixture
def adviser(workspace: Workspace) -> tuple[str, dict[str, Any]]:
    """A customer with advice on a rule, and the advice: its number is to be raised."""
    return holder_of(
        workspace,
        lambda item: item["recommendation_type"] == "change" and set(item["change"]["parameters"]) == {"amount"},
    )


def holder_of(workspace: Workspace, wanted: Any) -> tuple[str, dict[str, Any]]:
    """Return the first customer with an item that is wanted, and the item."""
    return next((user_id, item) for user_id, items in read_items(workspace).items() for item in items if wanted(item))


def rules_of(workspace: Workspace, user_id: str) -> dict[str, Mapping[str, Any]]:
    rows = execute(workspace, "SELECT * FROM alert_rules WHERE user_id = :user_id", user_id=user_id)
    return {row["id"]: dict(row) for row in rows}


def logged(workspace: Workspace, user_id: str) -> list[Mapping[str, Any]]:
    query = "SELECT * FROM alertrec.alert_actions WHERE user_id = :user_id ORDER BY occurred_at"
    return list(execute(workspace, query, user_id=user_id))


def forget_list(workspace: Workspace, user_id: str) -> None:
    for table in ("recommendations", "recommendation_lists"):
        execute(workspace, f"DELETE FROM alertrec.{table} WHERE user_id = :user_id", user_id=user_id)  # noqa: S608  # likewise


# The list


async def test_the_answer_is_what_stands_in_the_tables(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    items, lists = read_items(workspace), read_lists(workspace)
    assert len(lists) > 50
    for user_id, row in lists.items():
        answer = (await client.get(API, headers=as_user(settings, user_id))).json()
        assert set(answer) == LIST_FIELDS
        assert (answer["user_id"], answer["recommendation_type"]) == (user_id, row["recommendation_type"])
        assert (answer["is_placeholder"], answer["message"]) == (False, None)
        for name in ("generated_at", "expires_at"):
            assert datetime.fromisoformat(answer[name]) == row[name]
        assert len(answer["recommendations"]) == row["n_items"] > 0
        for item, stored in zip(answer["recommendations"], items[user_id], strict=True):
            assert set(item) == ITEM_FIELDS
            told = {
                **item,
                "recommendation_id": UUID(item["recommendation_id"]),
                "expires_at": datetime.fromisoformat(item["expires_at"]),
            }
            assert told == {name: stored[name] for name in ITEM_FIELDS}


async def test_categories_are_the_promised_five_and_public(client: httpx.AsyncClient):
    categories = (await client.get(f"{API}/categories")).json()["categories"]
    assert set(categories) == {
        *("fraud_protection", "spending_threshold", "location_based", "subscription_monitoring"),
        "merchant_monitoring",
    }
    assert sum(map(len, categories.values())) == len(ALERT_TYPES)
    assert "Alert me about any purchase over $500" in categories["fraud_protection"]


async def test_alert_types_tell_which_thresholds_may_be_chosen(client: httpx.AsyncClient):
    answer = (await client.get(f"{API}/alert-types")).json()
    assert (answer["currency"], answer["locale"]) == ("USD", "en-US")
    assert list(answer["alert_types"]) == list(ALERT_KEYS)
    for key, told in answer["alert_types"].items():
        dial = BY_KEY[key].dial
        assert told["dial"] == {"name": dial.name, "steps": list(dial.steps), "is_optional": dial.is_optional}


async def test_who_has_no_list_gets_starters_while_it_is_made_and_then_the_list(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, outbox: Outbox
):
    answer = (await client.get(API, headers=as_user(settings, "newcomer"))).json()
    assert set(answer) == LIST_FIELDS
    assert (answer["is_placeholder"], answer["recommendation_type"]) == (True, "placeholder")
    assert "are being made" in answer["message"]
    assert len(answer["recommendations"]) == 4
    for item in answer["recommendations"]:
        assert set(item) == ITEM_FIELDS
        assert (item["recommendation_id"], item["probability"]) == (None, None)
        assert old_body(item).keys() <= {name for name, value in item.items() if value}
    assert outbox == [(GENERATE_RECOMMENDATIONS, "newcomer")]
    assert service.generate_recommendations(workspace, "newcomer")
    answer = (await client.get(API, headers=as_user(settings, "newcomer"))).json()
    assert (answer["is_placeholder"], answer["recommendation_type"]) == (False, "new_user")
    assert len(outbox) == 1


async def test_starters_are_the_most_popular_of_what_a_user_lacks_and_has_not_refused(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    popular = [
        row["alert_type"]
        for row in execute(
            workspace,
            "SELECT alert_type, count(DISTINCT user_id) FROM alert_rules WHERE is_active GROUP BY 1 ORDER BY 2 DESC",
        )
    ]
    first, second, third, *_ = popular
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, alert_type, is_active) VALUES ('r', 'newcomer', :first, true)",
        first=first,
    )
    log(workspace, "newcomer", "dismissed", datetime.now(UTC), alert_type=third)
    items = (await client.get(API, headers=as_user(settings, "newcomer"))).json()["recommendations"]
    assert items[0]["alert_type"] == second
    assert not {first, third} & {item["alert_type"] for item in items}


async def test_a_list_that_has_expired_is_not_shown_any_more(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, outbox: Outbox
):
    execute(workspace, "UPDATE alertrec.recommendation_lists SET expires_at = now() WHERE user_id = :id", id=user_id)
    answer = (await client.get(API, headers=as_user(settings, user_id))).json()
    assert answer["is_placeholder"]
    assert outbox == [(GENERATE_RECOMMENDATIONS, user_id)]


async def test_who_is_not_active_is_offered_nothing(client: httpx.AsyncClient, settings: Settings, outbox: Outbox):
    answer = (await client.get(API, headers=as_user(settings, "gone"))).json()
    assert (answer["recommendations"], answer["is_placeholder"], answer["message"]) == ([], False, None)
    assert outbox == []


async def test_a_user_who_is_not_known_is_a_problem_and_no_failure(client: httpx.AsyncClient, settings: Settings):
    nobody = as_user(settings, nobody_knows())
    for method, path, body in (
        ("GET", API, None),
        ("POST", f"{API}/trigger-generation", None),
        ("POST", f"{API}/preview", {"alert_type": LARGE, "parameters": {"amount": 5.0}}),
        ("POST", CREATE, {"title": "x", "natural_language_query": "Alert me about any purchase over $5"}),
    ):
        assert "is not known" in problem(await client.request(method, path, headers=nobody, json=body), 404), path
    assert "not made to this user" in problem(
        await client.post(f"{API}/{uuid4()}/feedback", headers=nobody, json=answered("shown")), 404
    )


async def test_force_refresh_has_the_list_renewed_and_answers_with_the_present_one(
    client: httpx.AsyncClient, settings: Settings, user_id: str, outbox: Outbox
):
    present = (await client.get(API, headers=as_user(settings, user_id))).json()
    answer = (await client.get(API, headers=as_user(settings, user_id), params={"force_refresh": True})).json()
    assert "being renewed" in answer["message"]
    assert answer | {"message": None} == present
    assert outbox == [(GENERATE_RECOMMENDATIONS, user_id)]


async def test_trigger_generation_sends_the_signed_in_customer(
    client: httpx.AsyncClient, settings: Settings, user_id: str, outbox: Outbox
):
    answer = (await client.post(f"{API}/trigger-generation", headers=as_user(settings, user_id))).json()
    assert set(answer) == {"message", "user_id", "result"}
    assert (answer["user_id"], answer["result"]) == (user_id, {"status": "queued"})
    assert outbox == [(GENERATE_RECOMMENDATIONS, user_id)]


async def test_explained_an_offer_tells_contributions_that_sum_and_advice_none(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any]
):
    user_id, _ = adviser
    answer = (await client.get(API, headers=as_user(settings, user_id), params={"explain": True})).json()
    expected = service.explain_list(workspace, user_id)
    assert len(expected) > 0
    for item in answer["recommendations"]:
        if item["recommendation_type"] == "change":
            assert item["explanation"] is None
            continue
        explanation = item["explanation"]
        assert explanation == json.loads(json.dumps(expected[item["alert_type"]].to_json()))
        assert explanation["probability"] == pytest.approx(item["probability"], abs=1e-9)
        total = explanation["base"] + sum(each["value"] for each in explanation["contributions"])
        assert total == pytest.approx(explanation["log_odds"], abs=1e-6)


async def test_a_path_that_is_none_and_a_method_that_is_not_served_are_problems(client: httpx.AsyncClient):
    problem(await client.get("/api/alerts/nothing"), 404)
    problem(await client.delete(API), 405)


# Servers that are away


async def test_without_the_database_nothing_fails_but_says_so(settings: Settings, outbox: Outbox):
    async with browsing(create_app(without_database(settings))) as client:
        user, admin = as_user(settings, "user-0001"), as_admin(settings)
        wish = {"title": "x", "natural_language_query": "Alert me about any purchase over $5"}
        for method, path, headers, body in (
            ("GET", API, user, None),
            ("POST", CREATE, user, wish),
            ("POST", f"{API}/preview", user, {"alert_type": LARGE, "parameters": {"amount": 5.0}}),
            ("POST", f"{API}/{uuid4()}/feedback", user, answered("shown")),
            ("POST", f"{API}/trigger-generation", user, None),
            ("POST", f"{API}/generate-all", admin, None),
            ("POST", f"{API}/cleanup", admin, None),
            ("GET", f"{API}/jobs/{uuid4()}", admin, None),
            ("GET", f"{API}/models", admin, None),
            ("POST", f"{API}/models/rollback", admin, None),
            ("POST", f"{API}/models/m/promote", admin, None),
        ):
            answer = await client.request(method, path, headers=headers, json=body)
            assert "try again" in problem(answer, 503), path
            assert int(answer.headers["retry-after"]) > 0
        assert (await client.get(f"{API}/categories")).status_code == 200
        assert (await client.get("/health/live")).status_code == 200
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["checks"]["broker"]) == (503, "ok")
        assert ready.json()["checks"]["database"] != "ok"
        assert outbox == []


async def test_a_restart_of_the_database_costs_no_answer(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str
):
    assert (await client.get(API, headers=as_user(settings, user_id))).status_code == 200
    assert (await client.get(API, headers=as_user(settings, "newcomer"))).status_code == 200
    cut_connections(settings)
    assert (await client.get(API, headers=as_user(settings, user_id))).status_code == 200
    assert (await client.get(API, headers=as_user(settings, "newcomer"))).status_code == 200


def cut_connections(settings: Settings) -> None:
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def frozen() -> Iterator[str]:
    """Yield the URL of a broker whose kernel takes connections and bytes, and which never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


@pytest.mark.parametrize("broker", ["away", "frozen"])
def test_without_the_broker_lists_and_starters_are_answered_in_time_and_the_rest_says_so(
    settings: Settings, tmp_path: Path, broker: str, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    with frozen() as url:
        broken = replace(settings, redis_url=url) if broker == "frozen" else without_broker(settings)
        with serve(broken, tmp_path) as server, httpx.Client(base_url=server, timeout=30) as client:
            for _ in range(2):  # the second finds what the first left behind
                with took_at_most(PROMISED_SECONDS):
                    answer = client.get(API, headers=as_user(settings, user_id)).json()
                assert (answer["user_id"], answer["is_placeholder"]) == (user_id, False)
                with took_at_most(PROMISED_SECONDS):
                    answer = client.get(API, headers=as_user(settings, "newcomer")).json()
                assert answer["is_placeholder"]
                assert "will be made" in answer["message"]
                with took_at_most(PROMISED_SECONDS):
                    refused = client.post(f"{API}/trigger-generation", headers=as_user(settings, user_id))
                problem(refused, 503)
                assert int(refused.headers["retry-after"]) > 0
            with took_at_most(PROMISED_SECONDS):
                created = client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer))
            assert created.json()["rule_id"] in rules_of(workspace, user_id)
            assert client.get("/health/ready").status_code == 200
            with took_at_most(2 * PROMISED_SECONDS):
                metrics = client.get(f"{API}/metrics", headers=as_admin(settings))
            problem(metrics, 503)


# Taking a recommendation


def taken(item: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """Return what a page sends when a customer takes an item."""
    return {
        **old_body(item),
        "recommendation_id": str(item["recommendation_id"]),
        "event_id": str(uuid4()),
        **changed,
    }


async def test_a_rule_is_created_as_the_customer_changed_it_and_logged(
    client: httpx.AsyncClient,
    settings: Settings,
    workspace: Workspace,
    user_id: str,
    offer: dict[str, Any],
    outbox: Outbox,
):
    before = rules_of(workspace, user_id)
    body = taken(offer, parameters={"amount": 333.0})
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=body)).json()
    assert set(answer) == {"message", "rule_id", "rule_name", "recommendation_used"}
    assert answer["rule_name"] == "Purchases over $333"
    assert answer["recommendation_used"]["parameters"] == {"amount": 333.0}
    assert answer["recommendation_used"]["recommendation_id"] == body["recommendation_id"]
    (rule_id,) = rules_of(workspace, user_id).keys() - before.keys()
    rule = rules_of(workspace, user_id)[rule_id]
    assert rule_id == answer["rule_id"]
    assert (rule["alert_type"], rule["parameters"], rule["is_active"]) == (LARGE, {"amount": 333.0}, True)
    assert rule["natural_language_query"] == "Alert me about any purchase over $333"
    accepted, created = logged(workspace, user_id)
    assert {accepted["action"], created["action"]} == {"accepted", "created"}
    for row in (accepted, created):
        assert (row["alert_rule_id"], row["alert_type"]) == (rule_id, LARGE)
        assert (row["recommendation_id"], row["probability"]) == (offer["recommendation_id"], offer["probability"])
        assert row["model_version"] == offer["model_version"]
    assert outbox == [(PROCESS_ACTIONS,)]


async def test_a_rule_that_is_taken_as_offered_says_what_was_offered(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer))).json()
    rule = rules_of(workspace, user_id)[answer["rule_id"]]
    assert rule["parameters"] == offer["parameters"]
    assert rule["natural_language_query"] == offer["natural_language_query"]
    assert answer["rule_name"] == offer["title"]


async def test_the_rule_and_what_is_logged_of_it_are_written_together_or_not_at_all(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    execute(
        workspace,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$",
    )
    execute(
        workspace,
        "CREATE TRIGGER refuse BEFORE INSERT ON alertrec.alert_actions FOR EACH ROW "
        "WHEN (NEW.action = 'created') EXECUTE FUNCTION refuse()",
    )
    before = state(workspace)
    answer = await client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer))
    problem(answer, 500)
    assert user_id not in answer.text
    assert state(workspace) == before
    execute(workspace, "DROP TRIGGER refuse ON alertrec.alert_actions")
    assert (await client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer))).status_code == 200


async def test_one_click_creates_one_rule_however_often_it_arrives(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    before = len(rules_of(workspace, user_id))
    body = taken(offer)
    clicks = [client.post(CREATE, headers=as_user(settings, user_id), json=body) for _ in range(12)]
    answers = [answer.json() for answer in await asyncio.gather(*clicks)]
    assert len({answer["rule_id"] for answer in answers}) == 1
    assert actions.process_actions(workspace) == 2  # and the list is another one since
    again = (await client.post(CREATE, headers=as_user(settings, user_id), json=body)).json()
    assert again["rule_id"] == answers[0]["rule_id"]
    assert len(rules_of(workspace, user_id)) == before + 1
    assert sorted(row["action"] for row in logged(workspace, user_id)) == ["accepted", "created"]


async def test_two_clicks_on_one_recommendation_create_one_rule(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    before = len(rules_of(workspace, user_id))
    clicks = [client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer)) for _ in range(6)]
    answers = [answer.json() for answer in await asyncio.gather(*clicks)]
    assert len({answer["rule_id"] for answer in answers}) == 1
    assert len(rules_of(workspace, user_id)) == before + 1
    assert sorted(row["action"] for row in logged(workspace, user_id)) == ["accepted", "created"]
    execute(workspace, "UPDATE alert_rules SET is_active = false WHERE id = :id", id=answers[0]["rule_id"])
    another = (await client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer))).json()
    assert another["rule_id"] != answers[0]["rule_id"]  # they want it again


async def test_a_click_that_arrives_again_is_answered_by_the_rule_that_stands(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    body = taken(offer, parameters={"amount": 150.0})
    first = (await client.post(CREATE, headers=as_user(settings, user_id), json=body)).json()
    again = await client.post(CREATE, headers=as_user(settings, user_id), json=body | {"parameters": {"amount": 900.0}})
    assert again.json()["rule_id"] == first["rule_id"]
    assert again.json()["recommendation_used"]["parameters"] == {"amount": 150.0}
    execute(workspace, "UPDATE alert_rules SET is_active = false WHERE id = :id", id=first["rule_id"])
    off = await client.post(CREATE, headers=as_user(settings, user_id), json=body)
    assert (off.json()["rule_id"], off.json()["message"]) == (first["rule_id"], "The rule is off.")


async def test_clients_of_the_earlier_system_that_send_twice_create_one_rule(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    wish = {"title": "Big ones", "natural_language_query": "Tell me about any purchase over $4321"}
    answers = [
        (await client.post(CREATE, headers=as_user(settings, "newcomer"), json=wish)).json()["rule_id"]
        for _ in range(2)
    ]
    assert len(set(answers)) == 1


async def test_words_of_another_thing_do_not_say_what_a_recommendation_is_about(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    body = taken(offer, natural_language_query="Notify me when my total spending exceeds $77 in a week")
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=body)).json()
    rule = rules_of(workspace, user_id)[answer["rule_id"]]
    assert (rule["alert_type"], rule["parameters"]) == (LARGE, offer["parameters"])
    assert rule["natural_language_query"] == offer["natural_language_query"]


async def test_an_account_that_is_not_active_has_no_rules_created(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    execute(workspace, "UPDATE users SET is_active = false WHERE id = :id", id=user_id)
    before = state(workspace)
    assert "not active" in problem(
        await client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer)), 422
    )
    assert state(workspace) == before


async def test_one_event_id_of_two_customers_is_two_clicks(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    body = taken(offer)
    wish = {name: body[name] for name in ("title", "natural_language_query", "event_id")}
    answers = [
        (await client.post(CREATE, headers=as_user(settings, each), json=wish)).json() for each in (user_id, "newcomer")
    ]
    assert answers[0]["rule_id"] != answers[1]["rule_id"]
    assert answers[1]["rule_id"] in rules_of(workspace, "newcomer")


async def test_clients_of_the_earlier_system_send_the_texts_alone(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=old_body(offer))).json()
    assert set(answer) == {"message", "rule_id", "rule_name", "recommendation_used"}
    assert old_body(answer["recommendation_used"]) == old_body(offer)
    rule = rules_of(workspace, user_id)[answer["rule_id"]]
    assert (rule["alert_type"], rule["parameters"]) == (LARGE, offer["parameters"])
    assert {row["action"] for row in logged(workspace, user_id)} == {"accepted", "created"}
    assert {row["recommendation_id"] for row in logged(workspace, user_id)} == {offer["recommendation_id"]}


async def test_a_rule_of_the_customers_own_words_is_created_and_nothing_is_said_to_be_accepted(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    wish = {"title": "Mine", "natural_language_query": "Tell me about any purchase over $1,200"}
    answer = (await client.post(CREATE, headers=as_user(settings, "newcomer"), json=wish)).json()
    (rule,) = rules_of(workspace, "newcomer").values()
    assert (rule["id"], rule["alert_type"], rule["parameters"]) == (answer["rule_id"], LARGE, {"amount": 1200.0})
    assert rule["natural_language_query"] == wish["natural_language_query"]
    assert answer["rule_name"] == "Mine"
    assert [row["action"] for row in logged(workspace, "newcomer")] == ["created"]


async def test_words_that_do_not_say_what_is_watched_are_refused_with_the_remedy(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    before = state(workspace)
    wish = {"title": "x", "natural_language_query": "Good morning"}
    detail = problem(await client.post(CREATE, headers=as_user(settings, "newcomer"), json=wish), 422)
    assert "alert_type" in detail
    assert LARGE in detail
    assert state(workspace) == before


async def test_a_type_that_is_not_the_recommendations_is_refused(
    client: httpx.AsyncClient, settings: Settings, user_id: str, offer: dict[str, Any]
):
    wish = taken(offer, alert_type="alert_new_merchant")
    assert LARGE in problem(await client.post(CREATE, headers=as_user(settings, user_id), json=wish), 422)


async def test_what_was_taken_leaves_the_list(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    assert LARGE in offered(workspace, user_id)
    await client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer))
    actions.process_actions(workspace)
    items = (await client.get(API, headers=as_user(settings, user_id))).json()["recommendations"]
    assert items
    assert LARGE not in {item["alert_type"] for item in offers_of(items)}


async def test_a_list_that_was_replaced_since_the_card_was_shown_hinders_nothing(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str, offer: dict[str, Any]
):
    shown = answered("shown")
    path = f"{API}/{offer['recommendation_id']}/feedback"
    assert (await client.post(path, headers=as_user(settings, user_id), json=shown)).status_code == 200
    forget_list(workspace, user_id)
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=taken(offer))).json()
    assert rules_of(workspace, user_id)[answer["rule_id"]]["parameters"] == offer["parameters"]


async def test_somebody_elses_recommendation_cannot_be_taken(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, offer: dict[str, Any], adviser: tuple[str, Any]
):
    before = state(workspace)
    for item in (offer, adviser[1]):
        refused = await client.post(CREATE, headers=as_user(settings, "newcomer"), json=taken(item))
        assert "not made to this user" in problem(refused, 404)
    assert state(workspace) == before


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"amount": -5}, "an amount"),
        ({"amount": 0}, "above 0"),
        ({"amount": 1.005}, "two decimals"),
        ({"amount": 1e15}, "at most"),
        ({"amount": "250"}, "an amount"),
        ({"amount": True}, ""),
        ({"amount": None}, ""),
        ({"amount": [1]}, ""),
        ({"amout": 5}, "no other than amount"),
        ({"amount": 5, "scope": "state"}, "no other than amount"),
        ({}, "no 'amount'"),
        ([], ""),
        ("amount", ""),
        ({"amount": 10**400}, ""),
    ],
    ids=repr,
)
async def test_parameters_that_a_rule_cannot_have_are_refused_with_what_is_expected(
    client: httpx.AsyncClient,
    settings: Settings,
    workspace: Workspace,
    user_id: str,
    offer: dict[str, Any],
    parameters: Any,
    expected: str,
):
    before = state(workspace)
    wish = taken(offer, parameters=parameters)
    detail = problem(await client.post(CREATE, headers=as_user(settings, user_id), json=wish), 422)
    assert expected in detail
    assert state(workspace) == before


# Taking advice


async def test_taken_advice_alters_the_customers_own_rule(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any]
):
    user_id, item = adviser
    before = rules_of(workspace, user_id)
    rule_id = item["change"]["alert_rule_id"]
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=taken(item))).json()
    assert (answer["rule_id"], answer["message"]) == (rule_id, "The rule is on.")
    after = rules_of(workspace, user_id)
    assert after.keys() == before.keys()
    assert after[rule_id]["parameters"] == item["parameters"] != before[rule_id]["parameters"]
    entry = BY_KEY[item["alert_type"]]
    words = workspace.policy.words.fill(entry.query_for(item["parameters"]), item["parameters"])
    assert after[rule_id]["natural_language_query"] == words
    assert after[rule_id]["updated_at"] > before[rule_id]["updated_at"]
    assert {key: rule for key, rule in after.items() if key != rule_id} == {
        key: rule for key, rule in before.items() if key != rule_id
    }
    assert {row["action"] for row in logged(workspace, user_id)} == {"accepted", "enabled"}
    assert {row["alert_rule_id"] for row in logged(workspace, user_id)} == {rule_id}
    actions.process_actions(workspace)
    assert str(item["recommendation_id"]) not in (await client.get(API, headers=as_user(settings, user_id))).text


@pytest.mark.parametrize("advice", ["tighten", "loosen"])
async def test_advice_is_taken_with_the_number_that_the_customer_chose(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any], advice: str
):
    user_id, item = adviser
    advise(workspace, item, advice)
    wish = taken(item, parameters={"amount": 4321.0})
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=wish)).json()
    rule = rules_of(workspace, user_id)[item["change"]["alert_rule_id"]]
    assert (rule["parameters"], rule["is_active"]) == ({"amount": 4321.0}, True)
    assert "$4,321" in rule["natural_language_query"]
    assert "$4,321" in answer["rule_name"]


async def test_advice_to_switch_a_rule_off_switches_it_off(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any]
):
    user_id, item = adviser
    advise(workspace, item, "retire")
    before = rules_of(workspace, user_id)
    rule_id = item["change"]["alert_rule_id"]
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=taken(item))).json()
    assert (answer["rule_id"], answer["message"]) == (rule_id, "The rule is off.")
    after = rules_of(workspace, user_id)
    assert after.keys() == before.keys()
    assert not after[rule_id]["is_active"]
    assert after[rule_id]["parameters"] == before[rule_id]["parameters"]
    assert {row["action"] for row in logged(workspace, user_id)} == {"accepted", "disabled"}


async def test_advice_on_a_rule_that_is_gone_is_refused(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any]
):
    user_id, item = adviser
    execute(workspace, "DELETE FROM alert_rules WHERE id = :id", id=item["change"]["alert_rule_id"])
    before = state(workspace)
    refused = await client.post(CREATE, headers=as_user(settings, user_id), json=taken(item))
    assert "read it again" in problem(refused, 409)
    assert state(workspace) == before


@pytest.mark.parametrize("change", ["is_active = false", "parameters = '{\"amount\": 777}'"])
async def test_advice_on_a_rule_that_the_customer_has_changed_since_is_refused(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any], change: str
):
    user_id, item = adviser
    execute(workspace, f"UPDATE alert_rules SET {change} WHERE id = :id", id=item["change"]["alert_rule_id"])  # noqa: S608  # words of our own
    before = state(workspace)
    problem(await client.post(CREATE, headers=as_user(settings, user_id), json=taken(item)), 409)
    assert state(workspace) == before


async def test_clients_of_the_earlier_system_follow_advice_by_its_texts(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any]
):
    user_id, item = adviser
    before = rules_of(workspace, user_id)
    answer = (await client.post(CREATE, headers=as_user(settings, user_id), json=old_body(item))).json()
    assert answer["rule_id"] == item["change"]["alert_rule_id"]
    after = rules_of(workspace, user_id)
    assert after.keys() == before.keys()
    assert after[answer["rule_id"]]["parameters"] == item["parameters"]


async def test_advice_that_names_somebody_elses_rule_leaves_that_rule_alone(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any]
):
    user_id, item = adviser
    execute(
        workspace,
        "UPDATE alert_rules SET user_id = 'newcomer' WHERE id = :id",
        id=item["change"]["alert_rule_id"],
    )
    before = state(workspace)
    problem(await client.post(CREATE, headers=as_user(settings, user_id), json=taken(item)), 409)
    assert state(workspace) == before


async def test_advice_that_arrives_twice_creates_no_rule(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any]
):
    user_id, item = adviser
    body, before = taken(item), rules_of(workspace, user_id)
    first = (await client.post(CREATE, headers=as_user(settings, user_id), json=body)).json()
    actions.process_actions(workspace)  # the advice has left the list
    again = await client.post(CREATE, headers=as_user(settings, user_id), json=body)
    assert rules_of(workspace, user_id).keys() == before.keys()
    assert again.json()["rule_id"] == first["rule_id"]
    assert len(logged(workspace, user_id)) == 2


async def test_advice_that_was_shown_and_is_no_longer_given_creates_no_rule(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, adviser: tuple[str, Any]
):
    user_id, item = adviser
    path = f"{API}/{item['recommendation_id']}/feedback"
    assert (await client.post(path, headers=as_user(settings, user_id), json=answered("shown"))).status_code == 200
    forget_list(workspace, user_id)
    before = rules_of(workspace, user_id)
    await client.post(CREATE, headers=as_user(settings, user_id), json=taken(item))
    assert rules_of(workspace, user_id).keys() == before.keys()


def advise(workspace: Workspace, item: dict[str, Any], advice: str) -> None:
    """Have an item say something else of its rule, as a small bank seldom brings about."""
    item["change"] = {**item["change"], "advice": advice}
    statement = text("UPDATE alertrec.recommendations SET change = :change WHERE recommendation_id = :id")
    with workspace.engine.begin() as connection:
        connection.execute(
            statement.bindparams(bindparam("change", type_=JSONB)),
            {"change": item["change"], "id": item["recommendation_id"]},
        )


# Answers to recommendations


@pytest.mark.parametrize("action", ["shown", "expanded", "accepted", "dismissed", "snoozed"])
async def test_an_answer_is_logged_once(
    client: httpx.AsyncClient,
    settings: Settings,
    workspace: Workspace,
    user_id: str,
    offer: dict[str, Any],
    action: str,
):
    path, body = f"{API}/{offer['recommendation_id']}/feedback", answered(action)
    sent = [client.post(path, headers=as_user(settings, user_id), json=body) for _ in range(4)]
    answers = [answer.json() for answer in await asyncio.gather(*sent)]
    assert sorted(answer["recorded"] for answer in answers) == [False, False, False, True]
    assert {answer["event_id"] for answer in answers} == {body["event_id"]}
    (row,) = logged(workspace, user_id)
    assert (str(row["event_id"]), row["action"], row["alert_type"]) == (body["event_id"], action, LARGE)
    assert (row["recommendation_id"], row["probability"]) == (offer["recommendation_id"], offer["probability"])


@pytest.mark.parametrize("action", ["dismissed", "snoozed"])
async def test_what_was_refused_leaves_the_list_until_it_is_due(
    client: httpx.AsyncClient,
    settings: Settings,
    workspace: Workspace,
    user_id: str,
    offer: dict[str, Any],
    action: str,
):
    due = datetime.now(UTC) + timedelta(hours=1)
    path = f"{API}/{offer['recommendation_id']}/feedback"
    await client.post(path, headers=as_user(settings, user_id), json=answered(action, due_at=due.isoformat()))
    assert logged(workspace, user_id)[0]["due_at"] == due
    assert actions.process_actions(workspace) == 1
    items = (await client.get(API, headers=as_user(settings, user_id))).json()["recommendations"]
    assert items
    assert LARGE not in {item["alert_type"] for item in items}
    execute(workspace, "UPDATE alertrec.alert_actions SET due_at = now() - interval '1 second'")
    service.generate_recommendations(workspace, user_id)
    assert LARGE in offered(workspace, user_id)


async def test_somebody_elses_recommendation_cannot_be_answered(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, offer: dict[str, Any]
):
    for recommendation_id in (offer["recommendation_id"], uuid4()):
        path = f"{API}/{recommendation_id}/feedback"
        refused = await client.post(path, headers=as_user(settings, "newcomer"), json=answered("dismissed"))
        assert "not made to this user" in problem(refused, 404)
    assert state(workspace)[1] == []


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ],
)
@pytest.mark.parametrize("field", ["occurred_at", "due_at"])
async def test_a_moment_far_away_hinders_nobody(
    client: httpx.AsyncClient,
    settings: Settings,
    workspace: Workspace,
    user_id: str,
    offer: dict[str, Any],
    field: str,
    moment: str,
):
    path = f"{API}/{offer['recommendation_id']}/feedback"
    body = answered("dismissed", **{field: moment})
    answer = await client.post(path, headers=as_user(settings, user_id), json=body)
    assert answer.status_code in {200, 422}, answer.text
    if answer.status_code == 422:
        problem(answer, 422)
    actions.process_actions(workspace)
    service.generate_recommendations(workspace, user_id)
    user_story(workspace, user_id)
    assert (await client.get(API, headers=as_user(settings, user_id))).status_code == 200


# A look at what a rule would have done

PREVIEW = {"alert_type": LARGE, "parameters": {"amount": 5.0}}


async def test_a_preview_tells_what_the_list_tells_of_the_same_rule(
    client: httpx.AsyncClient, settings: Settings, user_id: str, offer: dict[str, Any], workspace: Workspace
):
    before = state(workspace)
    body = {"alert_type": LARGE, "parameters": offer["parameters"]}
    answer = (await client.post(f"{API}/preview", headers=as_user(settings, user_id), json=body)).json()
    told = answer["would_have_fired"]
    assert told["count"] == offer["would_have_fired"]["count"] == len(answer["dates"])
    assert told["examples"] == offer["would_have_fired"]["examples"]
    assert (
        old_body(offer).items()
        >= {name: answer[name] for name in ("title", "description", "natural_language_query")}.items()
    )
    lower = {"alert_type": LARGE, "parameters": {"amount": 1.0}}
    more = (await client.post(f"{API}/preview", headers=as_user(settings, user_id), json=lower)).json()
    assert more["would_have_fired"]["count"] > told["count"]
    assert state(workspace) == before


async def test_a_preview_of_parameters_that_a_rule_cannot_have_is_refused(
    client: httpx.AsyncClient, settings: Settings, user_id: str
):
    for parameters in ({"amount": -1}, {}, {"count": 3}, {"amount": True}):
        body = {"alert_type": LARGE, "parameters": parameters}
        problem(await client.post(f"{API}/preview", headers=as_user(settings, user_id), json=body), 422)


@pytest.mark.parametrize("user_id", ["newcomer", "gone"])
async def test_a_preview_for_who_has_bought_nothing_tells_of_nothing(
    client: httpx.AsyncClient, settings: Settings, user_id: str
):
    answer = await client.post(f"{API}/preview", headers=as_user(settings, user_id), json=PREVIEW)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["would_have_fired"]["count"], answer.json()["dates"]) == (0, [])


# What staff asks for


async def test_a_refresh_of_everybody_is_a_job_that_can_be_followed(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, outbox: Outbox
):
    answer = (await client.post(f"{API}/generate-all", headers=as_admin(settings))).json()
    assert {"status", "total_users", "success_count", "error_count", "message"} < set(answer)
    n_active = scalar(workspace, "SELECT count(*) FROM users WHERE is_active")
    assert (answer["total_users"], answer["success_count"], answer["error_count"]) == (n_active, 0, 0)
    job_id = answer["job_id"]
    assert outbox == [(REFRESH_RECOMMENDATIONS, "all", job_id)]
    job = (await client.get(f"{API}/jobs/{job_id}", headers=as_admin(settings))).json()
    assert set(job) >= {"job_id", "job_type", "user_id", "status", "result", "error", "created_at"}
    assert (job["job_id"], job["job_type"], job["status"]) == (job_id, "all_users", "pending")
    again = (await client.post(f"{API}/cleanup", headers=as_admin(settings))).json()
    assert set(again) == {"job_id", "status", "message"}
    assert outbox[-1] == (CLEANUP_EXPIRED, again["job_id"])
    job = (await client.get(f"{API}/jobs/{again['job_id']}", headers=as_admin(settings))).json()
    assert (job["job_type"], job["status"]) == ("cleanup_expired", "pending")


async def test_a_job_that_failed_tells_why(client: httpx.AsyncClient, settings: Settings, workspace: Workspace):
    job_id = uuid4()
    execute(
        workspace,
        "INSERT INTO alertrec.job_runs (job_id, job, period, status, error, finished_at) "
        "VALUES (:id, 'training', 'p', 'failed', 'too few users', now())",
        id=job_id,
    )
    job = (await client.get(f"{API}/jobs/{job_id}", headers=as_admin(settings))).json()
    assert (job["job_type"], job["status"], job["error"]) == ("training", "failed", "too few users")


async def test_a_job_that_is_not_there_is_a_problem(client: httpx.AsyncClient, settings: Settings):
    problem(await client.get(f"{API}/jobs/{uuid4()}", headers=as_admin(settings)), 404)


async def test_without_a_champion_a_refresh_is_refused_and_customers_get_starters(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, outbox: Outbox
):
    execute(workspace, "DELETE FROM alertrec.model_versions")
    assert "alertrec train" in problem(await client.post(f"{API}/generate-all", headers=as_admin(settings)), 409)
    problem(await client.post(f"{API}/models/rollback", headers=as_admin(settings)), 409)
    assert outbox == []
    assert (await client.get(API, headers=as_user(settings, "newcomer"))).json()["is_placeholder"]


async def test_models_are_told_and_promoted_and_rolled_back(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace
):
    models = (await client.get(f"{API}/models", headers=as_admin(settings))).json()["models"]
    (champion,) = models
    assert champion["alias"] == "champion"
    promoted = await client.post(f"{API}/models/{champion['version']}/promote", headers=as_admin(settings))
    assert promoted.json()["version"] == champion["version"]
    assert scalar(workspace, "SELECT promoted_by FROM alertrec.model_versions") == "ada"
    refused = await client.post(f"{API}/models/rollback", headers=as_admin(settings))
    assert "nothing to roll back to" in problem(refused, 422)


async def test_figures_tell_how_lists_were_asked_for(
    client: httpx.AsyncClient, settings: Settings, workspace: Workspace, user_id: str
):
    path = f"{API}/metrics"
    empty = (await client.get(path, headers=as_admin(settings))).json()
    assert set(empty) == {"time_range_minutes", "metrics", "generated_at"}
    assert (empty["time_range_minutes"], empty["metrics"]["total_requests"]) == (60, 0)
    assert set(empty["metrics"]) == {
        *("total_requests", "success_rate", "avg_duration", "thread_pool_usage", "cache_hit_rate"),
        "recommendation_types",
    }
    for each in (user_id, user_id, "newcomer", nobody_knows()):
        await client.get(API, headers=as_user(settings, each))
    answer = (await client.get(path, headers=as_admin(settings), params={"last_n_minutes": 5})).json()
    figures = answer["metrics"]
    kind = read_lists(workspace)[user_id]["recommendation_type"]
    assert (answer["time_range_minutes"], figures["total_requests"]) == (5, 4)
    assert figures["recommendation_types"] == {kind: 2, "placeholder": 1}
    assert figures["success_rate"] == pytest.approx(0.75)  # nobody was answered 404
    assert figures["cache_hit_rate"] == pytest.approx(0.5)
    assert 0 < figures["avg_duration"] < 10


# Within a bank's own app


async def test_the_router_serves_a_bank_by_the_banks_own_authentication(
    settings: Settings, outbox: Outbox, workspace: Workspace, user_id: str
):
    async def who(connection: HTTPConnection) -> str:
        if (found := connection.headers.get("x-user")) is None:
            raise HTTPException(401, "the bank knows you not")
        return found

    async def nobody(connection: HTTPConnection) -> str:
        raise HTTPException(403, "the bank has no staff")

    app = FastAPI()
    app.include_router(create_router(current_user=who, admin=nobody, settings=settings))

    @app.get("/own")
    def own() -> Annotated[str, "the bank's own"]:
        raise HTTPException(418, "as the bank says it")

    async with browsing(app) as client:
        answer = await client.get(API, headers={"x-user": user_id})
        assert answer.json()["user_id"] == user_id
        assert problem(await client.get(API), 401) == "the bank knows you not"
        assert problem(await client.post(f"{API}/generate-all"), 403) == "the bank has no staff"
        problem(await client.get(API, headers={"x-user": nobody_knows()}), 404)
        problem(await client.post(CREATE, headers={"x-user": user_id}, json={}), 422)
        theirs = await client.get("/own")
        assert (theirs.status_code, theirs.json()) == (418, {"detail": "as the bank says it"})


# Starting and stopping


async def test_a_process_that_is_stopped_as_it_starts_stops(redis_url: str):
    for n_steps in range(50):  # whatever it waits for just then
        hub = Hub(redis_url)
        hub.start()
        for _ in range(n_steps):
            await asyncio.sleep(0)
        stopping = asyncio.create_task(hub.stop())
        _, pending = await asyncio.wait([stopping], timeout=3)
        if pending:
            assert hub._task is not None
            hub._task.cancel()
            await stopping
        assert not pending, f"it went on after step {n_steps}"


# Many at once


class SlowReader(ListReader):
    """Reads from a database that answers all queries at one moment."""

    def __init__(self) -> None:
        super().__init__("postgresql://nobody@127.0.0.1:1/none")
        self.asked: list[list[str]] = []
        self.moment = asyncio.Event()

    async def _query(self, user_ids: list[str]) -> dict[str, str]:
        self.asked.append(user_ids)
        await self.moment.wait()
        return {user_id: f"list of {user_id}" for user_id in user_ids if user_id != "none"}


async def test_requests_that_arrive_while_queries_are_under_way_are_answered_together():
    reader = SlowReader()
    reading = [asyncio.create_task(reader.read(user_id)) for user_id in ("a", "none")]
    await asyncio.sleep(0.01)
    late = [asyncio.create_task(reader.read(user_id)) for user_id in ("c", "d", "c")]
    await asyncio.sleep(0.01)
    reader.moment.set()
    found = await asyncio.wait_for(asyncio.gather(*reading, *late), 1)
    assert found == ["list of a", None, "list of c", "list of d", "list of c"]
    assert sum(map(len, reader.asked)) == 4


async def test_who_asks_at_the_moment_at_which_all_queries_end_is_answered_as_well():
    reader = SlowReader()

    async def late() -> str | None:
        await reader.moment.wait()
        return await reader.read("late")

    first = asyncio.create_task(reader.read("a"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(reader.read("b"))
    await asyncio.sleep(0.01)
    third = asyncio.create_task(late())
    await asyncio.sleep(0.01)
    assert reader.asked == [["a"], ["b"]]
    reader.moment.set()
    assert await asyncio.wait_for(asyncio.gather(first, second, third), 1) == ["list of a", "list of b", "list of late"]


async def test_who_goes_away_takes_nobody_elses_answer_along():
    reader = SlowReader()
    goes, stays = (asyncio.create_task(reader.read("a")) for _ in range(2))
    await asyncio.sleep(0.01)
    goes.cancel()
    reader.moment.set()
    assert await asyncio.wait_for(stays, 1) == "list of a"


@pytest.mark.parametrize("strange", ["\ud800", "a\x00b", "x" * 100_000])
async def test_an_id_that_no_database_can_hold_spoils_nobody_elses_answer(
    settings: Settings, workspace: Workspace, strange: str
):
    reader = ListReader(settings.database_url or "")
    user_ids = sorted(read_lists(workspace))[:20]
    await reader.open()
    try:
        asked = [reader.read(user_id) for user_id in (*user_ids[:10], strange, *user_ids[10:])]
        found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    finally:
        await reader.close()
    found.pop(10)
    assert [json.loads(str(each))["user_id"] for each in found] == user_ids
