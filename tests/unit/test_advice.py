from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alertrec.catalog import ALERT_KEYS
from alertrec.rules.advice import Advice, Change, loosen, quieten
from alertrec.rules.backtests import BackTests, Budget
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
    ledger,
    lists_of,
    rule,
    said_no,
    small_model,
    standing,
)

OFTEN = [bought(30.0, day, "Cafe") for day in range(1, 8)]  # seven, where six are allowed
SELDOM = [bought(120.0, 10 * n, f"Shop {'abc'[n - 1]}") for n in (1, 2, 3)]
NEVER = {"amount": 100_000}


def advised(
    *rows: Row, rules: list[Row], knows_window: bool = True, left: int = 18, of_a_user: int = 18, **account: Any
) -> list[Change]:
    """Return what is advised on the rules of "u", quieter ones first; `left` is for those that may be louder."""
    tests = BackTests(ledger(LONG_AGO, *rows, users=[USER | account]))
    mine = standing(tests, *rules)
    quieter = quieten(mine, of_a_rule=6, of_a_user=of_a_user, tests=tests, without=())
    spoken_of = {change.rule.alert_type for change in quieter}
    told = {int(entry) for each in mine if each.alert_type not in spoken_of for entry in each.fired}
    options: dict[str, Any] = {"of_a_rule": 6, "left": left, "told": told, "tests": tests, "without": spoken_of}
    return quieter + (loosen(mine, **options) if knows_window else [])


def said(changes: list[Change]) -> list[tuple[Advice, Any, int]]:
    """Return the advice, the parameters and how often these would have fired."""
    return [(change.advice, change.parameters, len(change.fired)) for change in changes]


def test_a_rule_that_fires_too_often_is_tightened_to_what_fits():
    assert said(advised(*OFTEN, bought(200.0), rules=[rule(LARGE, {"amount": 20})])) == [
        (Advice.TIGHTEN, {"amount": 30.0}, 1)
    ]


def test_a_rule_may_be_tightened_until_it_is_silent():
    assert said(advised(*OFTEN, rules=[rule(LARGE, {"amount": 20})])) == [(Advice.TIGHTEN, {"amount": 30.0}, 0)]


def test_what_is_advised_keeps_the_parameters_that_are_not_the_dial():
    abroad = [row | {"merchant_country": "MX"} for row in OFTEN]
    at_home = [bought(500.0, day, merchant_state="CA") for day in range(10, 20)]
    changes = advised(*abroad, *at_home, rules=[rule(AWAY, {"scope": "country", "amount": 0})])
    assert said(changes) == [(Advice.TIGHTEN, {"scope": "country", "amount": 30.0}, 0)]


def test_a_rule_that_never_fired_though_another_number_would_is_loosened():
    assert said(advised(*SELDOM, rules=[rule(LARGE, {"amount": 500})])) == [(Advice.LOOSEN, {"amount": 20.0}, 3)]


def test_a_count_stays_a_whole_number():
    three_a_day = [bought(1.0, day, None) for day in (1, 2) for _ in range(3)]
    (change,) = advised(*three_a_day, rules=[rule(VOLUME, {"count": 10})])
    assert (change.advice, change.parameters) == (Advice.LOOSEN, {"count": 2, "period": "day"})
    assert isinstance(change.parameters["count"], int)


def test_a_number_of_shops_is_loosened_to_what_the_busiest_day_passes():
    a_day = [bought(5.0, 3, f"Shop {'abc'[n]}") for n in range(3)]
    (change,) = advised(*a_day, rules=[rule(DIVERSITY, {"count": 5})])
    assert said([change]) == [(Advice.LOOSEN, {"count": 2, "period": "day"}, 1)]


def test_of_a_rule_that_a_number_beyond_the_steps_would_make_quiet_nothing_is_said():
    rows = [row | {"amount": 2e6} for row in OFTEN]  # above the highest step, a million
    assert advised(*rows, rules=[rule(LARGE, {"amount": 20})]) == []


def test_new_subscriptions_fire_at_any_percent():
    # Seven gyms begin: each fires once, as its second monthly charge is equal to its first.
    rows = [bought(20.0 + n, day + n, f"Gym {'abcdefg'[n]}") for n in range(7) for day in (40, 10)]
    assert said(advised(*rows, rules=[rule(RECURRING, {"percent": 10})])) == [(Advice.RETIRE, {"percent": 10.0}, 7)]


@pytest.mark.parametrize(
    ("alert_type", "parameters", "account"),
    [
        (LIMIT, {"percent": 70.0}, {"credit_limit": None}),
        (LIMIT, {"percent": 70.0}, {"credit_balance": None}),
        (AWAY, {"scope": "state", "amount": 0.0}, {"address_state": None, "address_country": None}),
    ],
)
def test_of_a_rule_that_cannot_fire_as_long_as_something_is_not_known_nothing_is_said(
    alert_type: str, parameters: Row, account: Row
):
    assert advised(*OFTEN, rules=[rule(alert_type, parameters)], **account) == []


@pytest.mark.parametrize(
    ("rows", "a_rule"),
    [
        (OFTEN[:6], rule(LARGE, {"amount": 20})),  # six are allowed
        (SELDOM, rule(LARGE, {"amount": 100})),
        ([bought(10.0)], rule(LARGE, {"amount": 500})),  # nothing is above the lowest step
        (OFTEN, rule(LARGE, {"amount": 50})),  # 30 would be silent too, and 20 too often
        (OFTEN, rule(LARGE, None)),  # nothing is known of it
        (SELDOM, rule(VOLUME, {"count": 2})),  # it stands at the lowest step
        (SELDOM, rule(VOLUME, {"count": 1})),  # and below it
    ],
)
def test_of_a_rule_that_fits_or_guards_against_what_did_not_happen_nothing_is_said(rows: list[Row], a_rule: Row):
    assert advised(*rows, rules=[a_rule]) == []


def test_a_rule_between_two_steps_that_keeps_the_budget_is_left_alone():
    # Six above 21, though seven above 20.
    assert advised(*OFTEN[:6], bought(20.5, 9), rules=[rule(LARGE, {"amount": 21})]) == []


def test_a_number_is_never_lowered_to_tighten_a_rule():
    # Of a limit of 1,000: up to 540 at once, then seven times to 560 and back. Above 55 % are seven, above 50 % is one,
    # above 60 % none.
    rows = [bought(540.0, 60)]
    for day in range(8, 57, 8):
        rows += [bought(20.0, day), bought(20.0, day - 1, transaction_type="REFUND")]
    (change,) = advised(*rows, rules=[rule(LIMIT, {"percent": 55})], credit_balance=540.0)
    assert (change.advice, change.parameters, len(change.fired)) == (Advice.TIGHTEN, {"percent": 60.0}, 0)


def test_a_number_is_never_raised_to_loosen_a_rule():
    # The only movement that is known passes 60 %, and not 50 %.
    rules = [rule(LIMIT, {"percent": 50})]
    assert advised(bought(100.0), rules=rules, credit_balance=650.0) == []
    assert len(BackTests(ledger(bought(100.0), users=[USER | {"credit_balance": 650.0}])).of(LIMIT).fired(0, 60.0)) == 1


def test_nothing_is_said_without_rules():
    assert advised(*OFTEN, rules=[]) == []


def test_a_short_history_does_not_say_that_a_rule_never_fires_but_may_say_that_it_does():
    assert advised(*SELDOM, rules=[rule(LARGE, {"amount": 500})], knows_window=False) == []
    changes = advised(*OFTEN, rules=[rule(LARGE, {"amount": 20})], knows_window=False)
    assert [change.advice for change in changes] == [Advice.TIGHTEN]


def test_of_two_rules_of_one_type_the_noisiest_is_spoken_of():
    rules = [rule(LARGE, {"amount": 25}, rule_id="a"), rule(LARGE, {"amount": 20}, rule_id="b")]
    (change,) = advised(*OFTEN, bought(22.0), rules=rules)
    assert (change.rule.rule_id, len(change.rule.fired)) == ("b", 8)


def test_of_two_equally_noisy_rules_of_one_type_that_of_the_lower_id_is_spoken_of():
    rules = [rule(LARGE, {"amount": 20}, rule_id="b"), rule(LARGE, {"amount": 25}, rule_id="a")]
    (change,) = advised(*OFTEN, rules=rules)
    assert change.rule.rule_id == "a"


def test_a_rule_is_not_loosened_to_tell_only_what_another_tells():
    rules = [rule(LARGE, {"amount": 100}, rule_id="a"), rule(LARGE, {"amount": 500}, rule_id="b")]
    assert advised(*SELDOM, rules=rules) == []
    (change,) = advised(*SELDOM, bought(60.0, 40, "Shop d"), rules=rules)  # above 20, of which the first says nothing
    assert (change.rule.rule_id, change.advice, change.parameters) == ("b", Advice.LOOSEN, {"amount": 20.0})


def test_rules_that_fire_too_often_together_are_tightened_to_what_the_others_leave():
    # Six above 100 and the same six, at shops of their own; eight in all are allowed: of the first, two are left.
    amounts = (120.0, 130.0, 140.0, 145.0, 160.0, 170.0)
    rows = [bought(amount, 10 * n + 1, f"Shop {'abcdef'[n]}") for n, amount in enumerate(amounts)]
    rules = [rule(LARGE, {"amount": 100}), rule(NEW, {"amount": 100})]
    assert said(advised(*rows, rules=rules, of_a_user=12)) == []
    assert said(advised(*rows, rules=rules, of_a_user=8)) == [(Advice.TIGHTEN, {"amount": 150.0}, 2)]
    # One is never silenced for what others do.
    assert said(advised(*rows, rules=rules, of_a_user=7)) == []


def test_the_noisiest_rule_comes_first():
    rules = [rule(LARGE, {"amount": 500}), rule(SPENDER, {"amount": 25}), rule(NEW, {"amount": 0})]
    # Eight weeks pass 25, each at a new shop, and four stalls are new too; above 500 is nothing, above 30 one purchase.
    rows = [bought(120.0 if week == 0 else 30.0, 7 * week + 1, f"Shop {'abcdefgh'[week]}") for week in range(8)]
    rows += [bought(1.0, day, f"Stall {'abcd'[day]}") for day in range(4)]
    changes = advised(*rows, rules=rules)
    assert [(change.rule.alert_type, len(change.rule.fired)) for change in changes] == [
        (NEW, 12),
        (SPENDER, 8),
        (LARGE, 0),
    ]


@pytest.mark.parametrize(("left", "dial", "n"), [(18, 20.0, 3), (3, 20.0, 3), (2, 150.0, 2), (1, 200.0, 1)])
def test_loosening_keeps_within_what_is_left_of_the_users_budget(left: int, dial: float, n: int):
    rows = [bought(amount, day) for day, amount in enumerate((120.0, 200.0, 300.0), start=1)]
    changes = advised(*rows, rules=[rule(LARGE, NEVER)], left=left)
    assert said(changes) == [(Advice.LOOSEN, {"amount": dial}, n)]


def test_without_anything_left_nothing_is_loosened():
    assert advised(*SELDOM, rules=[rule(LARGE, NEVER)], left=0) == []


def test_two_rules_that_are_loosened_share_what_is_left():
    # The first takes three of four. The first purchases at shops are the same three: only one is left for them.
    rows = [*SELDOM[:2], SELDOM[2] | {"amount": 400.0}]
    changes = advised(*rows, rules=[rule(LARGE, NEVER), rule(NEW, NEVER)], left=4)
    assert said(changes) == [(Advice.LOOSEN, {"amount": 20.0}, 3), (Advice.LOOSEN, {"amount": 150.0}, 1)]


def test_tightening_asks_nothing_of_the_budget():
    changes = advised(*OFTEN, bought(200.0), rules=[rule(LARGE, {"amount": 20})], left=0)
    assert said(changes) == [(Advice.TIGHTEN, {"amount": 30.0}, 1)]


# In the lists.

QUIET = replace(POLICY, max_items=8)


def changes_in(*rows: Row, rules: list[Row], **options: Any) -> list[Row]:
    options = {"policy": QUIET} | options
    items = lists_of([LONG_AGO, *rows], rules=rules, **options).items
    return [item for item in decoded(items) if item["recommendation_type"] == "change"]


def test_advice_stands_in_the_list_with_what_the_rule_does_and_what_the_other_number_would():
    (item,) = changes_in(*OFTEN, bought(200.0, 9), rules=[rule(LARGE, {"amount": 20})])
    assert item["alert_type"] == LARGE
    assert item["parameters"] == {"amount": 30.0}
    assert item["would_have_fired"]["count"] == 1
    assert item["would_have_fired"]["examples"] == [{"date": "2026-03-06", "merchant": "Cafe", "amount": 200.0}]
    change = item["change"]
    assert (change["alert_rule_id"], change["advice"], change["parameters"]) == ("r0", "tighten", {"amount": 20.0})
    assert (change["fired"]["count"], len(change["fired"]["examples"])) == (8, 3)
    assert (item["probability"], item["confidence_level"]) == (None, "high")


def test_advice_on_a_type_that_was_dismissed_is_not_given():
    rules = [rule(LARGE, {"amount": 20}), rule(SPENDER, NEVER)]
    away = said_no(("u", LARGE), ("v", SPENDER))
    rows = [*OFTEN, *(bought(15.0, 60 + hour / 24) for hour in range(3))]  # a week of which the first says nothing
    assert [item["alert_type"] for item in changes_in(*rows, rules=rules)] == [LARGE, SPENDER]
    assert [item["alert_type"] for item in changes_in(*rows, rules=rules, away=away)] == [SPENDER]


def test_a_type_that_was_dismissed_stays_so_where_the_model_does_not_know_it():
    model = small_model(alert_columns=tuple(key for key in ALERT_KEYS if key != LARGE))
    away = said_no(("u", LARGE))
    assert changes_in(*OFTEN, rules=[rule(LARGE, {"amount": 20})], away=away, model=model) == []


def test_at_most_two_rules_are_spoken_of_and_dismissed_ones_make_way():
    rules = [rule(LARGE, {"amount": 20}), rule(NEW, NEVER), rule(SPENDER, NEVER), rule(LIMIT, {"percent": 70})]
    # The limit is missing: that rule is retired; the noisy one comes first, then by their ids.
    options: dict[str, Any] = {"rules": rules, "users": [USER | {"credit_limit": None}]}
    assert sorted(item["alert_type"] for item in changes_in(*OFTEN, **options)) == sorted([LARGE, NEW])
    away = said_no(("u", NEW))
    found = changes_in(*OFTEN, away=away, **options)
    assert sorted(item["alert_type"] for item in found) == sorted([LARGE, SPENDER])


@pytest.mark.parametrize(("max_items", "n_changes"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 2)])
def test_advice_on_noise_comes_before_offers_and_other_advice_fills_what_they_leave(max_items: int, n_changes: int):
    rules = [rule(LARGE, {"amount": 20}), rule(NEW, NEVER)]
    # Nobody has any alert: two are offered, as nothing reaches the threshold; but no more than the list holds.
    policy = replace(POLICY, max_items=max_items)
    model = small_model(share_on=0.0)
    found = lists_of([LONG_AGO, *OFTEN], rules=rules, model=model, policy=policy)
    assert (found.items["recommendation_type"] == "change").sum() == n_changes
    assert found.lists["n_items"].to_list() == [min(max_items, 2 + n_changes)]


def test_a_rule_of_a_short_history_is_not_loosened_in_a_list():
    rules = [rule(LARGE, NEVER)]
    assert [item["change"]["advice"] for item in changes_in(*SELDOM, rules=rules)] == ["loosen"]
    items = decoded(lists_of(SELDOM, rules=rules, policy=QUIET).items)
    assert [item for item in items if item["recommendation_type"] == "change"] == []


def test_a_loosened_rule_and_the_offers_together_keep_the_users_budget():
    # Purchases of 100, 110, … 170 at shops of their own; four firings in all are allowed.
    rows = [bought(100.0 + 10 * n, 5 * n + 1, f"Shop {'abcdefgh'[n]}") for n in range(8)]
    policy, rules = replace(QUIET, budget=Budget(per_rule=2.0, per_user=4 / 3)), [rule(LARGE, NEVER)]
    others = said_no(*(("u", key) for key in ALERT_KEYS if key != LARGE))
    (alone,) = changes_in(*rows, rules=rules, policy=policy, away=others)
    # Above 100 are seven, above 150 two.
    assert (alone["parameters"], alone["would_have_fired"]["count"]) == ({"amount": 150.0}, 2)
    # Among offers, what they take is not for the rule.
    items = decoded(lists_of([LONG_AGO, *rows], rules=rules, policy=policy).items)
    counts = [item["would_have_fired"]["count"] for item in items if item["recommendation_type"] != "change"]
    assert sum(counts) > 2
    assert sum(item["would_have_fired"]["count"] for item in items) <= 4


def test_the_same_advice_keeps_its_identity_and_two_rules_of_one_type_differ():
    first, again = (changes_in(*OFTEN, rules=[rule(LARGE, {"amount": 20})])[0] for _ in range(2))
    assert first["recommendation_id"] == again["recommendation_id"]
    (other,) = changes_in(*OFTEN, rules=[rule(LARGE, {"amount": 20}, rule_id="other")])
    assert other["recommendation_id"] != first["recommendation_id"]
    offers = lists_of([LONG_AGO, *OFTEN], policy=QUIET).items.filter(alert_type=LARGE)
    assert first["recommendation_id"] not in offers["recommendation_id"].to_list()
