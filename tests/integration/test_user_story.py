"""One customer, as support sees them, and what a rule would have done for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from alertrec import service
from alertrec.detectors import firings
from alertrec.errors import DataError, UnknownUserError
from alertrec.user_story import Answer, DaySpending, Firing, preview, user_story
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    active_users,
    execute,
    load,
    log,
    read_items,
    read_lists,
    read_offers,
    small_bank,
    train,
    workspace_on,
)

NOW = datetime(2025, 10, 1, 2, tzinfo=UTC)
HIGH, LARGE, LIMIT = "alert_high_spender", "alert_large_transaction", "alert_near_credit_limit"


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, tmp_path) as workspace:
        yield workspace


@pytest.fixture
def served(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace whose users all have a list."""
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    service.refresh_locally(workspace, as_of=AS_OF)
    return workspace


@pytest.fixture
def ann(workspace: Workspace) -> str:
    """A user in New York, where it is still 30 September."""
    execute(
        workspace,
        "INSERT INTO users (id, credit_limit, credit_balance, address_state, address_country, time_zone)"
        " VALUES ('ann', 5000, 1250.5, 'NY', 'US', 'America/New_York'), ('bob', NULL, NULL, NULL, NULL, NULL)",
    )
    return "ann"


def buy(workspace: Workspace, user_id: str, amount: float, at: datetime, merchant: str = "Cafe", **fields: str) -> None:
    kind, status = fields.get("kind", "PURCHASE"), fields.get("status", "SETTLED")
    execute(
        workspace,
        "INSERT INTO transactions (id, user_id, amount, merchant_name, transaction_date, transaction_type, status)"
        " VALUES (gen_random_uuid(), :user_id, :amount, :merchant, :at, :kind, :status)",
        user_id=user_id, amount=amount, merchant=merchant, at=at, kind=kind, status=status,
    )  # fmt: skip


def add_rule(workspace: Workspace, rule_id: str, alert_type: str | None, text: str | None, stored: str | None) -> None:
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, alert_type, natural_language_query, parameters, created_at, updated_at)"
        " VALUES (:rule_id, 'ann', :alert_type, :text, CAST(:stored AS jsonb), :at, :at)",
        rule_id=rule_id, alert_type=alert_type, text=text, stored=stored, at=NOW - timedelta(days=200),
    )  # fmt: skip


@pytest.mark.parametrize("user_id", ["nobody", "", "a\x00b"])
def test_a_user_who_is_not_there_is_unknown(workspace: Workspace, ann: str, user_id: str):
    with pytest.raises(UnknownUserError):
        user_story(workspace, user_id)
    with pytest.raises(UnknownUserError):
        preview(workspace, user_id, LARGE, {"amount": 100})


def test_of_a_user_without_anything_the_story_is_empty(workspace: Workspace, ann: str):
    story = user_story(workspace, "bob", now=NOW)
    assert (story.user_id, story.is_active) == ("bob", True)
    assert story.facts == {
        "credit_limit": None, "credit_balance": None, "home_state": None, "home_country": None, "time_zone": None,
        "n_purchases": 0, "total_spending": 0.0,
    }  # fmt: skip
    assert (len(story.spending), story.spending[-1]) == (90, DaySpending(date(2025, 10, 1), 0.0, 0))
    assert (story.rules, story.stored_list, story.answers) == ((), None, ())


def test_spending_is_purchases_by_the_days_of_the_user(workspace: Workspace, ann: str):
    # In New York, four hours behind UTC, now is 22:00 on 30 September; the first of the 90 days is 3 July.
    buy(workspace, ann, 10.1, datetime(2025, 10, 1, 1, 0, tzinfo=UTC))  # 30 September, 21:00
    buy(workspace, ann, 20.2, datetime(2025, 9, 30, 4, 0, tzinfo=UTC), status="PENDING")  # the same day, 00:00
    buy(workspace, ann, 40.0, datetime(2025, 9, 30, 3, 59, tzinfo=UTC))  # 29 September, 23:59
    buy(workspace, ann, 80.0, datetime(2025, 7, 3, 4, 0, tzinfo=UTC))  # 3 July, 00:00
    buy(workspace, ann, 160.0, datetime(2025, 7, 3, 3, 59, tzinfo=UTC))  # 2 July
    buy(workspace, ann, 320.0, datetime(2025, 9, 30, 12, tzinfo=UTC), kind="REFUND")
    buy(workspace, ann, 640.0, datetime(2025, 9, 30, 12, tzinfo=UTC), status="DECLINED")
    buy(workspace, ann, 1280.0, NOW + timedelta(seconds=1))
    buy(workspace, "bob", 2560.0, datetime(2025, 9, 30, 12, tzinfo=UTC))
    story = user_story(workspace, ann, now=NOW)
    days = {each.day: each for each in story.spending}
    assert list(days) == [date(2025, 7, 3) + timedelta(days=number) for number in range(90)]
    assert {day: each for day, each in days.items() if each.n_purchases or each.amount} == {
        date(2025, 9, 30): DaySpending(date(2025, 9, 30), 30.3, 2),  # exact, which 10.1 + 20.2 in floats is not
        date(2025, 9, 29): DaySpending(date(2025, 9, 29), 40.0, 1),
        date(2025, 7, 3): DaySpending(date(2025, 7, 3), 80.0, 1),
    }
    assert story.facts == {
        "credit_limit": 5000.0, "credit_balance": 1250.5, "home_state": "NY", "home_country": "US",
        "time_zone": "America/New_York", "n_purchases": 4, "total_spending": 150.3,
    }  # fmt: skip


def test_rules_tell_when_they_fired(workspace: Workspace, ann: str):
    buy(workspace, ann, 100.0, datetime(2025, 9, 1, 12, tzinfo=UTC))
    buy(workspace, ann, 100.01, datetime(2025, 9, 2, 3, tzinfo=UTC), "Jewel\n ler")  # the day before, in New York
    buy(workspace, ann, 300.0, datetime(2025, 9, 20, 12, tzinfo=UTC), "Airline")
    add_rule(workspace, "r1", LARGE, "Tell me of much", '{"amount": 100}')
    add_rule(workspace, "r2", None, "Alert me about any purchase over $250", None)
    add_rule(workspace, "r3", LARGE, "Tell me of what is odd", None)
    add_rule(workspace, "r4", HIGH, None, None)
    stories = user_story(workspace, ann, now=NOW).rules
    assert [(each.rule_id, each.alert_type, each.title, each.parameters) for each in stories] == [
        ("r1", LARGE, "Purchases over $100", {"amount": 100.0}),
        ("r2", LARGE, "Purchases over $250", {"amount": 250.0}),
        ("r3", LARGE, "Tell me of what is odd", None),
        ("r4", HIGH, "High spender", None),
    ]
    jeweller, airline = Firing(date(2025, 9, 1), "Jewel ler", 100.01), Firing(date(2025, 9, 20), "Airline", 300.0)
    assert [each.fired for each in stories] == [(jeweller, airline), (airline,), (), ()]
    assert [each.text for each in stories][::3] == ["Tell me of much", None]


def test_the_list_and_the_last_twenty_answers_are_told(served: Workspace):
    user_id, items = next((user_id, items) for user_id, items in read_items(served).items() if len(items) > 1)
    for number in range(25):
        log(served, user_id, "dismissed" if number % 2 else "shown", AS_OF - timedelta(days=number), alert_type=HIGH)
    log(served, user_id, "shown", AS_OF + timedelta(days=1), alert_type=HIGH)
    other = next(each for each in active_users(served) if each != user_id)
    log(served, other, "shown", AS_OF, alert_type=HIGH)
    story = user_story(served, user_id, now=AS_OF)
    assert story.answers == tuple(
        Answer(AS_OF - timedelta(days=number), "dismissed" if number % 2 else "shown", HIGH) for number in range(20)
    )
    row = read_lists(served)[user_id]
    assert story.stored_list is not None
    assert [dict(item) for item in story.stored_list.items] == items
    assert {name: row[name] for name in ("recommendation_type", "generated_at", "expires_at", "model_version")} == {
        name: value for name, value in story.stored_list.__dict__.items() if name != "items"
    }


def test_a_user_who_is_not_active_has_a_story_without_facts(workspace: Workspace, ann: str):
    buy(workspace, ann, 300.0, datetime(2025, 9, 20, 12, tzinfo=UTC))
    add_rule(workspace, "r1", LARGE, None, '{"amount": 100}')
    execute(workspace, "UPDATE users SET is_active = false")
    story = user_story(workspace, ann, now=NOW)
    assert not story.is_active
    assert (story.facts["credit_limit"], story.facts["n_purchases"]) == (None, 1)
    assert [len(rule.fired) for rule in story.rules] == [1]
    assert preview(workspace, ann, LARGE, {"amount": 100}, now=NOW).would_have_fired["count"] == 1


def test_a_preview_tells_what_would_have_happened(workspace: Workspace, ann: str):
    for day in (1, 5, 9, 13):
        buy(workspace, ann, 100.0 * day, datetime(2025, 9, day, 3, tzinfo=UTC))  # in New York, the day before
    buy(workspace, ann, 5000.0, NOW - timedelta(days=90))  # no longer in the window, which is open at its beginning
    found = preview(workspace, ann, LARGE, {"amount": 100}, now=NOW)
    assert (found.alert_type, found.parameters) == (LARGE, {"amount": 100.0})
    assert preview(workspace, ann, HIGH, {"amount": 100}, now=NOW).parameters == {"amount": 100.0, "period": "week"}
    assert found.title == "Purchases over $100"
    assert found.description == "Tells you about any single purchase of more than $100."
    assert found.natural_language_query == "Alert me about any purchase over $100"
    assert found.dates == (date(2025, 9, 4), date(2025, 9, 8), date(2025, 9, 12))  # 100 is not over 100
    assert found.would_have_fired == {
        "count": 3,
        "window_days": 90,
        "until": "2025-10-01T02:00:00+00:00",
        "examples": [
            {"date": "2025-09-12", "merchant": "Cafe", "amount": 1300.0},
            {"date": "2025-09-08", "merchant": "Cafe", "amount": 900.0},
            {"date": "2025-09-04", "merchant": "Cafe", "amount": 500.0},
        ],
    }


def test_a_preview_without_firings_and_without_purchases(workspace: Workspace, ann: str):
    for user_id in (ann, "bob"):
        for alert_type, parameters in ((LARGE, {"amount": 100}), (LIMIT, {"percent": 70})):
            found = preview(workspace, user_id, alert_type, parameters, now=NOW)
            assert (found.dates, found.would_have_fired["count"], found.would_have_fired["examples"]) == ((), 0, [])


def test_a_preview_is_made_up_to_now(workspace: Workspace, ann: str):
    buy(workspace, ann, 300.0, datetime.now(UTC) - timedelta(days=1))
    buy(workspace, ann, 300.0, datetime.now(UTC) + timedelta(days=1))
    assert preview(workspace, ann, LARGE, {"amount": 100}).would_have_fired["count"] == 1


def test_a_preview_of_what_is_offered_is_what_the_list_says(served: Workspace):
    n_seen = 0
    for user_id, offers in list(read_offers(served).items())[:20]:
        for offer in offers:
            found = preview(served, user_id, offer["alert_type"], offer["parameters"], now=AS_OF)
            names = ("parameters", "title", "description", "natural_language_query", "would_have_fired")
            assert {name: getattr(found, name) for name in names} == {name: offer[name] for name in names}
            assert len(found.dates) == found.would_have_fired["count"]
            n_seen += bool(found.dates)
    assert n_seen > 5


def test_a_preview_agrees_with_the_detectors(served: Workspace):
    bank, n_seen = small_bank(), 0
    since = (AS_OF - timedelta(days=90)).replace(tzinfo=None)
    rules: list[tuple[str, dict[str, Any]]] = [
        (LARGE, {"amount": 50}), (HIGH, {"amount": 300}), ("alert_high_tx_volume", {"count": 2}),
        ("alert_new_merchant", {"amount": 0}), ("alert_location_based", {"scope": "country"}),
    ]  # fmt: skip
    users = bank.users.filter("is_active")
    for alert_type, parameters in rules:
        fired = firings(alert_type, parameters, users, bank.transactions, as_of=AS_OF)
        for user_id in users["id"][:5]:
            mine = fired.filter((fired["user_id"] == user_id) & (fired["at"] > since))
            found = preview(served, user_id, alert_type, parameters, now=AS_OF)
            assert found.would_have_fired["count"] == mine.height
            n_seen += mine.height
    assert n_seen > 50


@pytest.mark.parametrize(
    ("alert_type", "parameters"),
    [
        ("alert_of_no_kind", {"amount": 100}),
        (LARGE, {}),
        (LARGE, {"amount": "100"}),
        (LARGE, {"amount": -1}),
        (LARGE, {"amount": 100, "colour": "blue"}),
        (LIMIT, {"percent": float("nan")}),
    ],
)
def test_a_rule_that_cannot_be_is_refused(workspace: Workspace, ann: str, alert_type: str, parameters: dict[str, Any]):
    with pytest.raises(DataError):
        preview(workspace, ann, alert_type, parameters)
