from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from alertrec.catalog import BY_KEY
from alertrec.feature_engineering import FEATURES
from alertrec.rules.advice import Advice
from alertrec.rules.cards import Basis, Evidence, Fit, advice_card, offer_card
from alertrec.rules.policy import Policy
from alertrec.wording import Words
from tests.histories import (
    AWAY,
    DIVERSITY,
    LARGE,
    LIMIT,
    LONG_AGO,
    NEW,
    POLICY,
    RECURRING,
    SPENDER,
    USER,
    VOLUME,
    Row,
    bought,
    decoded,
    lists_of,
    rule,
    small_model,
)
from tests.snapshots import check_texts

GERMAN = replace(POLICY, words=Words("de_DE", "EUR"))
HARD = "\u00a0"
OWN = dict.fromkeys(FEATURES, 0.0) | {"amount_max": 1234.5, "amount_mean": 56.78, "credit_utilization": 0.704}
OWN |= {"credit_limit": 5000.0, "new_merchant_share_30d": 0.25, "daily_purchases_max": 7.0}

Rule = dict[str, float | int | str]


def fired(count: int, *examples: tuple[str, str | None, float]) -> Row:
    return {
        "count": count,
        "window_days": 90,
        "until": "2026-03-15T12:00:00+00:00",
        "examples": [{"date": day, "merchant": merchant, "amount": amount} for day, merchant, amount in examples],
    }


SILENT = fired(0)
ONCE = fired(1, ("2026-03-12", "Cafe", 1412.5))
TWICE = fired(2, ("2026-03-12", "Cafe", 1412.5), ("2026-02-01", None, 99.0))


def evidence(kind: str = "ml_hybrid", **other: Any) -> Evidence:
    known: Row = {
        "probability": 0.75,
        "low": 0.6,
        "high": 0.9,
        "cohort_count": 0,
        "cohort_size": 0,
        "n_customers": 100,
        "features": {},
    }
    return Evidence(kind=kind, **(known | other))


def fit(
    parameters: Rule, times: Row = SILENT, *, n_known: int = 0, basis: Basis = "own_history", history_days: int = 120
) -> Fit:
    return Fit(parameters, times, n_known, basis, history_days)


def offered(
    alert_type: str = LARGE,
    parameters: Rule | None = None,
    times: Row = SILENT,
    *,
    seen: Evidence | None = None,
    policy: Policy = POLICY,
    **how: Any,
) -> Row:
    how = {"parameters": parameters or {"amount": 500.0}, "times": times} | how
    return offer_card(BY_KEY[alert_type], seen or evidence(), fit(**how), policy)


def advised(
    advice: Advice,
    now: Rule,
    fired_now: Row,
    then: Rule,
    times: Row,
    *,
    alert_type: str = LARGE,
    policy: Policy = POLICY,
) -> Row:
    return advice_card(BY_KEY[alert_type], advice, now, fired_now, fit(then, times), policy)


# Offers.


def test_an_offer_says_what_the_customer_spends_what_others_do_and_what_it_would_have_done():
    seen = evidence(features=OWN, cohort_count=34, cohort_size=50)
    card = offered(LARGE, {"amount": 750.0}, TWICE, seen=seen, n_known=1)
    assert card["title"] == "Purchases over $750"
    assert card["description"] == "Tells you about any single purchase of more than $750."
    assert card["natural_language_query"] == "Alert me about any purchase over $750"
    assert card["reasoning"] == (
        "Your largest purchase was $1,234.50; the average of your purchases is $56.78. "
        "34 of the 50 customers most like you have this alert on. "
        "It would have fired twice in the last 90 days, last on Mar 12, 2026 (Cafe, $1,412.50). "
        "Other alerts, yours or in this list, would have told you of 1 of these as well."
    )
    assert card["reasons"] == [
        {"kind": "model", "probability": 0.75, "low": 0.6, "high": 0.9},
        {
            "kind": "similar_users",
            "n_with_alert": 34,
            "n_customers": 50,
            "share": 0.68,
            "sentence": "34 of the 50 customers most like you have this alert on",
        },
        {"kind": "own_spending", "amount_max": 1234.5, "amount_mean": 56.78},
        {
            "kind": "fit",
            "basis": "own_history",
            "history_days": 120,
            "n_fired": 2,
            "n_known": 1,
            "budget_per_rule": 2.0,
            "budget_per_user": 6.0,
        },
    ]


def test_an_offer_is_written_as_the_banks_customers_write():
    card = offered(LARGE, {"amount": 7500.0}, TWICE, seen=evidence(features=OWN), policy=GERMAN)
    assert card["title"] == f"Purchases over 7.500{HARD}€"
    assert card["natural_language_query"] == f"Alert me about any purchase over 7.500{HARD}€"
    assert card["reasoning"] == (
        f"Your largest purchase was 1.234,50{HARD}€; the average of your purchases is 56,78{HARD}€. "
        f"It would have fired twice in the last 90 days, last on 12.03.2026 (Cafe, 1.412,50{HARD}€)."
    )


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (SILENT, "It would not have fired in the last 90 days."),
        (ONCE, "It would have fired once in the last 90 days, on Mar 12, 2026 (Cafe, $1,412.50)."),
        (TWICE, "It would have fired twice in the last 90 days, last on Mar 12, 2026 (Cafe, $1,412.50)."),
        (
            fired(1, ("2026-03-12", None, 99.0)),
            "It would have fired once in the last 90 days, on Mar 12, 2026 ($99).",
        ),
        (fired(1, ("2026-03-12", "", 99.0)), "It would have fired once in the last 90 days, on Mar 12, 2026 ($99)."),
    ],
)
def test_an_offer_says_how_often_it_would_have_fired_and_when_last(times: Row, said: str):
    assert offered(times=times)["reasoning"] == said


@pytest.mark.parametrize(
    ("basis", "said"),
    [
        ("own_history", ""),
        ("similar_users", " Its amount is what fits customers like you, until more of your own purchases are known."),
        ("population", " Its amount is what fits most customers, until more of your own purchases are known."),
        ("catalogue", " Its amount is a common one, until more of your own purchases are known."),
    ],
)
def test_an_offer_says_whose_history_gave_its_number(basis: Basis, said: str):
    card = offered(basis=basis, history_days=30)
    assert card["reasoning"] == f"It would not have fired since your first purchase, 30 days ago.{said}"
    assert (card["reasons"][-1]["basis"], card["reasons"][-1]["history_days"]) == (basis, 30)


@pytest.mark.parametrize(
    ("alert_type", "parameters", "number"),
    [
        (LARGE, {"amount": 500.0}, "amount"),
        (VOLUME, {"count": 5, "period": "day"}, "number"),
        (LIMIT, {"percent": 70.0}, "percentage"),
    ],
)
def test_a_number_is_called_what_it_is(alert_type: str, parameters: Rule, number: str):
    card = offered(alert_type, parameters, basis="catalogue", history_days=0)
    assert card["reasoning"] == f"Its {number} is a common one, until more of your own purchases are known."


@pytest.mark.parametrize(
    ("times", "n_known", "said"),
    [
        (ONCE, 1, "Other alerts, yours or in this list, would have told you of that as well."),
        (TWICE, 2, "Other alerts, yours or in this list, would have told you of 2 of these as well."),
        (TWICE, 0, None),
    ],
)
def test_an_offer_says_what_other_alerts_tell_as_well(times: Row, n_known: int, said: str | None):
    reasoning = offered(times=times, n_known=n_known)["reasoning"]
    assert reasoning.endswith(said) if said else "other alerts" not in reasoning


@pytest.mark.parametrize(("n_customers", "told"), [(20, True), (19, False)])
def test_fewer_than_twenty_customers_are_not_spoken_of(n_customers: int, told: bool):
    card = offered(seen=evidence("new_user", n_customers=n_customers), basis="population", history_days=0)
    assert ("of customers have this alert on" in card["reasoning"]) == told


@pytest.mark.parametrize(
    ("history_days", "window"),
    [(0, "since your first purchase"), (1, "since your first purchase"), (5, "since your first purchase, 5 days ago"),
     (89, "since your first purchase, 89 days ago"), (90, "in the last 90 days")],
)  # fmt: skip
def test_of_a_short_history_the_days_that_are_known_are_told(history_days: int, window: str):
    reasoning = offered(times=ONCE, history_days=history_days)["reasoning"]
    assert reasoning == f"It would have fired once {window}, on Mar 12, 2026 (Cafe, $1,412.50)."


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Corner\n  Cafe\u202e", "Corner Cafe"),
        ("A" * 41, "A" * 39 + "…"),
        ("A" * 40, "A" * 40),
        ("\x00 ", None),
        (None, None),
    ],
)
def test_the_name_of_a_merchant_stays_on_its_line_and_is_not_too_long(name: str | None, said: str | None):
    reasoning = offered(times=fired(1, ("2026-03-12", name, 99.0)))["reasoning"]
    assert reasoning.endswith(f"({said}, $99)." if said else "($99).")


def test_of_what_a_customer_has_none_nothing_is_said():
    card = offered(RECURRING, {"percent": 10.0}, seen=evidence(features=OWN | {"recurring_charge_count": 0.0}))
    assert card["reasoning"] == "It would not have fired in the last 90 days."


def test_a_new_customer_hears_what_customers_have():
    card = offered(seen=evidence("new_user", probability=0.456), basis="population", history_days=0)
    assert card["reasoning"] == (
        "46% of customers have this alert on. "
        "Its amount is what fits most customers, until more of your own purchases are known."
    )
    assert card["reasons"][0]["kind"] == "popularity"


def test_a_customer_with_alerts_alone_hears_that_it_goes_with_them():
    reasoning = offered(seen=evidence("ml_default"), basis="catalogue", history_days=0)["reasoning"]
    assert reasoning.startswith("It goes together with the alerts that you have. Its amount is a common one")


@pytest.mark.parametrize(
    ("count", "size", "said"),
    [
        (20, 20, "All of the 20 customers most like you have this alert on. "),
        (1, 20, "1 of the 20 customers most like you has this alert on. "),
        (0, 20, ""),
        (19, 19, ""),
    ],
)
def test_few_similar_customers_are_not_spoken_of_nor_is_nobody(count: int, size: int, said: str):
    card = offered(seen=evidence(cohort_count=count, cohort_size=size))
    assert card["reasoning"] == f"{said}It would not have fired in the last 90 days."
    assert len(card["reasons"]) == (3 if size >= 20 else 2)


@pytest.mark.parametrize(
    ("low", "probability", "times", "n_known", "confidence", "priority"),
    # The threshold is 0.4.
    [
        (0.4, 0.5, ONCE, 0, "high", "high"),
        (0.4, 0.5, TWICE, 1, "high", "high"),  # half is not most
        (0.4, 0.5, TWICE, 2, "high", "medium"),
        (0.4, 0.5, ONCE, 1, "high", "medium"),
        (0.4, 0.5, SILENT, 0, "high", "medium"),
        (0.3, 0.4, ONCE, 0, "medium", "medium"),
        (0.3, 0.4, SILENT, 0, "medium", "low"),
        (0.3, 0.39, ONCE, 0, "low", "low"),
        (0.3, 0.39, SILENT, 0, "low", "low"),  # there is nothing lower
    ],
)
def test_priority_is_confidence_less_for_what_tells_nothing_or_nothing_new(
    low: float, probability: float, times: Row, n_known: int, confidence: str, priority: str
):
    card = offered(times=times, n_known=n_known, seen=evidence(low=low, probability=probability))
    assert (card["confidence_level"], card["priority"]) == (confidence, priority)


@pytest.mark.parametrize(
    ("alert_type", "parameters", "title", "query"),
    [
        (NEW, {"amount": 0.0}, "First purchase at a merchant", "Notify me when I make a purchase from a new merchant"),
        (
            NEW,
            {"amount": 250.0},
            "First purchase at a merchant, over $250",
            "Notify me when I make a purchase from a new merchant for more than $250",
        ),
        (
            AWAY,
            {"scope": "country", "amount": 0.0},
            "Purchases outside your home country",
            "Alert me if a transaction happens outside my home country",
        ),
        (
            AWAY,
            {"scope": "state", "amount": 1500.0},
            "Purchases outside your home state over $1,500",
            "Alert me if a transaction happens outside my home state for more than $1,500",
        ),
        (
            RECURRING,
            {"percent": 12.5},
            "Recurring charges that are new, or rise by more than 12.5%",
            "Alert me if a recurring charge is new or increases by more than 12.5%",
        ),
        (
            DIVERSITY,
            {"count": 5, "period": "day"},
            "More than 5 different shops in a day",
            "Alert me if I shop at over 5 different merchants in one day",
        ),
    ],
)
def test_titles_and_texts_hold_the_parameters(alert_type: str, parameters: Rule, title: str, query: str):
    card = offered(alert_type, parameters)
    assert (card["title"], card["natural_language_query"]) == (title, query)


# Advice.


def test_a_rule_to_tighten_is_named_with_what_it_does_and_what_another_number_would():
    card = advised(Advice.TIGHTEN, {"amount": 20.0}, fired(8), {"amount": 1000.0}, ONCE)
    assert card["title"] == "Fewer alerts: Purchases over $1,000"
    assert card["description"] == "Tells you about any single purchase of more than $1,000."
    assert card["natural_language_query"] == "Alert me about any purchase over $1,000"
    assert card["reasoning"] == (
        "Your alert “Alert me about any purchase over $20” would have fired 8 times in the last 90 days. "
        "Above $1,000 it would have fired once in the last 90 days, on Mar 12, 2026 (Cafe, $1,412.50)."
    )
    assert card["reasons"][0] == {"kind": "change", "advice": "tighten", "n_fired": 8, "parameters": {"amount": 20.0}}
    assert (card["recommendation_type"], card["probability"], card["confidence_level"]) == ("change", None, "high")


def test_a_rule_may_be_tightened_into_silence():
    reasoning = advised(Advice.TIGHTEN, {"amount": 20.0}, fired(8), {"amount": 1000.0}, SILENT)["reasoning"]
    assert reasoning.endswith(" Above $1,000 it would not have fired in the last 90 days.")


def test_a_rule_to_loosen_is_named_with_what_another_number_would_do():
    now, then = {"count": 10, "period": "day"}, {"count": 3, "period": "day"}
    card = advised(Advice.LOOSEN, now, SILENT, then, TWICE, alert_type=VOLUME)
    assert card["title"] == "An alert that speaks up: More than 3 purchases in a day"
    assert card["reasoning"] == (
        "Your alert “Alert me if I make more than 10 transactions in a day” would never have fired in the last 90 "
        "days. "
        "Above 3 it would have fired twice in the last 90 days, last on Mar 12, 2026 (Cafe, $1,412.50)."
    )


def test_a_rule_to_retire_that_is_noisy_is_named_with_what_it_does():
    now: Rule = {"percent": 10.0}
    card = advised(Advice.RETIRE, now, fired(7), now, fired(7), alert_type=RECURRING, policy=GERMAN)
    assert card["title"] == f"Switch off: Recurring charges that are new, or rise by more than 10{HARD}%"
    assert card["reasoning"] == (
        f"Your alert “Alert me if a recurring charge is new or increases by more than 10{HARD}%” would have fired 7 "
        "times in the last 90 days. No percentage would make it quiet."
    )


def test_a_rule_that_means_any_amount_is_named_without_one():
    reasoning = advised(Advice.TIGHTEN, {"amount": 0.0}, fired(9), {"amount": 50.0}, SILENT, alert_type=NEW)[
        "reasoning"
    ]
    assert (
        "“Notify me when I make a purchase from a new merchant” would have fired 9 times in the last 90 days. Above $50"
        in reasoning
    )


def test_a_rule_may_be_loosened_until_it_means_any_amount():
    card = advised(Advice.LOOSEN, {"amount": 900.0}, SILENT, {"amount": 0.0}, ONCE, alert_type=NEW)
    assert card["title"] == "An alert that speaks up: First purchase at a merchant"
    assert " With any amount it would have fired once in the last 90 days, " in card["reasoning"]
    assert card["natural_language_query"] == "Notify me when I make a purchase from a new merchant"


def test_a_rule_that_fires_once_is_not_said_to_fire_times():
    assert (
        "” would have fired once in the last 90 days."
        in advised(Advice.RETIRE, {"amount": 20.0}, ONCE, {"amount": 20.0}, ONCE)["reasoning"]
    )


@pytest.mark.parametrize(
    ("advice", "n_now", "priority"),
    # Six are allowed: twice that is twelve.
    [
        (Advice.TIGHTEN, 7, "medium"),
        (Advice.TIGHTEN, 12, "medium"),
        (Advice.TIGHTEN, 13, "high"),
        (Advice.RETIRE, 12, "medium"),
        (Advice.RETIRE, 13, "high"),
        (Advice.RETIRE, 0, "low"),
        (Advice.LOOSEN, 0, "low"),
    ],
)
def test_advice_is_as_urgent_as_the_rule_is_noisy(advice: Advice, n_now: int, priority: str):
    assert advised(advice, {"amount": 20.0}, fired(n_now), {"amount": 50.0}, SILENT)["priority"] == priority


# Lists: every sentence from the snapshot.

# Thirteen purchases at shops of their own, three of them above 2,500.
NOISY = [bought(2100.5 + n + 2000 * (n < 3), 3 * n + 1, f"Shop {'abcdefghijklm'[n]} 7") for n in range(13)]
RICH = [
    *NOISY,
    *(bought(9.99, day, "Streamly") for day in (70, 40, 10)),
    *(bought(4.0, 5, None) for _ in range(4)),
    bought(75.25, 6, "Hotel (Mexico) 24", merchant_country="MX"),
    bought(12.0, 4, None, transaction_type="FEE"),
]
BANKS: dict[str, Row] = {
    "a rich history": {"rows": [LONG_AGO, *RICH], "users": [USER | {"credit_balance": 900.0, "credit_limit": 1e4}]},
    "a short history": {"rows": RICH},
    "one purchase": {"rows": [bought(60.0, 1.5)]},
    "nothing": {"rows": []},
    "nothing but a rule": {"rows": [], "rules": [rule(NEW, {"amount": 0})]},
    "noisy rules": {
        "rows": [LONG_AGO, *RICH],
        "rules": [rule(LARGE, {"amount": 20}), rule(NEW, {"amount": 0}), rule(AWAY, {"scope": "state", "amount": 1e4})],
    },
    "silent rules": {
        "rows": [LONG_AGO, *RICH[-6:]],
        "rules": [rule(VOLUME, {"count": 10}), rule(LIMIT, {"percent": 70})],
        "users": [USER | {"credit_limit": None}],
    },
    "rules that cover offers": {
        "rows": [LONG_AGO, *NOISY[:2]],
        "rules": [rule(LARGE, {"amount": 20})],
    },
    "a rule that no number makes quiet": {
        "rows": [LONG_AGO, *(bought(20.0 + n, day + n, f"Gym {'abcdefg'[n]}") for n in range(7) for day in (40, 10))],
        "rules": [rule(RECURRING, {"percent": 10})],
    },
}
MODELS = {
    "catalogue": small_model(),
    "population": small_model(population={LARGE: 1500.0, VOLUME: 4.0, AWAY: 0.0}),
    "similar": small_model(dials={LARGE: 1500.0, VOLUME: 4.0}, population={SPENDER: 2500.0}),
    "rare": small_model(share_on=0.04),
    "few": small_model(15),
}


def items_of(bank: str, model: str = "catalogue", words: Words = POLICY.words) -> list[Row]:
    policy = replace(POLICY, threshold=0.0, max_items=8, words=words)
    return decoded(lists_of(**BANKS[bank], model=MODELS[model], policy=policy).items)


@pytest.mark.parametrize("words", [Words(), Words("de_DE", "EUR"), Words("fr_FR", "CHF")], ids=lambda each: each.locale)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("bank", BANKS)
def test_every_number_in_every_sentence_is_of_the_stored_snapshot(bank: str, model: str, words: Words):
    items = items_of(bank, model, words)
    assert items
    for item in items:
        check_texts(item, words)


def test_the_banks_show_every_kind_of_item():
    items = [item for bank in BANKS for model in MODELS for item in items_of(bank, model)]
    assert {item["change"]["advice"] for item in items if item["change"]} == {"tighten", "loosen", "retire"}
    assert {item["recommendation_type"] for item in items} == {
        "change", "ml_collaborative_filtering", "ml_default", "new_user",
    }  # fmt: skip
    fits = [item["reasons"][-1] for item in items]
    assert {fit["basis"] for fit in fits} == {"own_history", "similar_users", "population", "catalogue"}
    assert {min(fit["n_fired"], 2) for fit in fits} == {0, 1, 2}
    assert any(fit["n_known"] for fit in fits)
    assert {example["merchant"] is None for item in items for example in item["would_have_fired"]["examples"]} == {
        True,
        False,
    }


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("title", "$1,501"),
        ("description", "$1,501"),
        ("natural_language_query", "$1,501"),
        ("reasoning", "It would have fired 9 times"),
        ("reasoning", "(Somebody Else, $12)"),
        ("reasoning", "Somebody Else"),
    ],
)
def test_a_text_that_says_something_else_is_found_out(name: str, wrong: str):
    item = next(each for each in items_of("a rich history") if each["alert_type"] == LARGE)
    check_texts(item, Words())
    with pytest.raises(AssertionError):
        check_texts(item | {name: f"{item[name]} {wrong}"}, Words())


@pytest.mark.parametrize("bank", ["a rich history", "noisy rules"])
def test_a_snapshot_that_says_something_else_is_found_out(bank: str):
    item = next(each for each in items_of(bank) if each["alert_type"] == LARGE)

    def spoilt(*path: Any, to: Any) -> Row:
        changed = deepcopy(item)
        part = changed
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = to
        return changed

    wrong = [
        spoilt("parameters", "amount", to=1234.0),
        spoilt("would_have_fired", "count", to=5),
        spoilt("would_have_fired", "window_days", to=30),
        spoilt("would_have_fired", "examples", 0, "amount", to=1.0),
        spoilt("would_have_fired", "examples", 0, "merchant", to="Somebody Else"),
        spoilt("would_have_fired", "examples", 0, "date", to="2026-01-01"),
        spoilt("reasons", -1, "n_fired", to=5),
    ]
    if item["change"]:
        wrong += [spoilt("change", "fired", "count", to=99), spoilt("change", "parameters", "amount", to=21.0)]
        wrong += [spoilt("change", "advice", to="loosen"), spoilt("reasons", 0, "n_fired", to=99)]
    else:
        wrong += [spoilt("reasons", 0, "low", to=1.0), spoilt("probability", to=0.123)]
        wrong += [spoilt("reasons", 1, "n_with_alert", to=24), spoilt("reasons", 2, "amount_max", to=1.0)]
    for each in wrong:
        with pytest.raises(AssertionError):
            check_texts(each, Words())


def test_what_fired_on_the_first_day_is_told_before_what_other_alerts_know_of_it():
    # A first purchase, half a day ago, was also one away from home.
    rows, rules = [bought(60.0, 0.5, merchant_state="CA")], [rule(NEW, {"amount": 0})]
    policy = replace(POLICY, threshold=0.0, max_items=8)
    items = decoded(lists_of(rows, rules=rules, policy=policy).items)
    (away,) = (item for item in items if item["alert_type"] == AWAY)
    assert away["would_have_fired"]["count"] == 1
    assert "It would have fired once since your first purchase, on Mar 15, 2026 (Cafe, $60)." in away["reasoning"]
    for item in items:
        check_texts(item, policy.words)
