from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alertrec.catalog import ALERT_KEYS
from alertrec.rules.backtests import BackTests, Budget
from alertrec.rules.offers import Offer, Room, choose_offers
from alertrec.rules.policy import Policy
from alertrec.rules.standing import StandingRule
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
    ledger,
    rule,
    standing,
)

# Two purchases of 100 at two shops, and three small ones of one day at no merchant.
SHOPPING = [bought(100.0, 20, "Cafe"), bought(100.0, 10, "Shop"), *(bought(1.0, 5, None) for _ in range(3))]


def offered(
    probabilities: Mapping[str, float],
    *rows: Row,
    rules: tuple[Row, ...] = (),
    exclude: frozenset[str] = frozenset(),
    first: Mapping[str, float] | None = None,
    policy: Policy = POLICY,
    **account: Any,
) -> list[Offer]:
    """Return the offers to "u", whose history is long, of these alert types; of others nothing is known."""
    tests = BackTests(ledger(LONG_AGO, *rows, users=[USER | account]))
    table = np.array([[probabilities.get(key, np.nan) for key in ALERT_KEYS]])
    (offers,) = choose_offers(
        table,
        np.array([[key in exclude for key in ALERT_KEYS]]),
        alert_types=ALERT_KEYS,
        rooms=[room(standing(tests, *rules), policy)],
        first_dials=np.array([[(first or {}).get(key, np.nan) for key in ALERT_KEYS]]),
        tests=tests,
        threshold=policy.threshold,
    )
    return offers


def room(rules: list[StandingRule], policy: Policy = POLICY) -> Room:
    """Return what rules leave that are taken as they are."""
    fired = [int(entry) for each in rules for entry in each.fired]
    left = max(0, policy.budget.of_a_user() - len(fired))
    return Room(policy.max_items, of_a_rule=policy.budget.of_a_rule(), left=left, told=set(fired))


def types(offers: list[Offer]) -> list[str]:
    return [ALERT_KEYS[offer.alert] for offer in offers]


def n_fired(offers: list[Offer]) -> list[int]:
    return [len(offer.fired) for offer in offers]


def test_alerts_are_offered_from_the_threshold_on():
    assert types(offered({LARGE: 0.4, VOLUME: 0.39, NEW: 0.9})) == [NEW, LARGE]


def test_where_nothing_reaches_the_threshold_the_two_most_probable_are_offered():
    assert types(offered({LARGE: 0.1, VOLUME: 0.3, NEW: 0.2})) == [VOLUME, NEW]


def test_what_cannot_be_offered_is_replaced_by_the_next():
    # Without a limit there is no utilisation to watch; of the others none reaches 0.4, so the best two come.
    offers = offered({LIMIT: 0.9, LARGE: 0.3, NEW: 0.2, VOLUME: 0.1}, credit_limit=None)
    assert types(offers) == [LARGE, NEW]


def test_no_more_are_offered_than_a_list_holds():
    sure = dict.fromkeys(ALERT_KEYS, 0.5)
    assert len(offered(sure, policy=replace(POLICY, max_items=2))) == 2
    assert len(offered(sure, policy=replace(POLICY, max_items=8))) == 8


def test_what_is_excluded_or_unknown_is_never_offered():
    assert types(offered({LARGE: 0.9, NEW: 0.8}, exclude=frozenset({LARGE}))) == [NEW]
    assert offered({}) == []


def test_of_equal_value_the_earlier_type_comes_first():
    assert types(offered({NEW: 0.5, LARGE: 0.5, VOLUME: 0.5})) == [VOLUME, LARGE, NEW]


def test_an_alert_whose_firings_a_rule_of_the_user_covers_is_worth_half():
    # The rule tells of both purchases of 100, and so does the first purchase at a shop: 0.8 / 2. More than two
    # purchases a day fires at the third small one, of which nothing else tells: 0.5.
    offers = offered({NEW: 0.8, VOLUME: 0.5}, *SHOPPING, rules=(rule(LARGE, {"amount": 50}),))
    assert types(offers) == [VOLUME, NEW]
    assert [offer.value for offer in offers] == [0.5, pytest.approx(0.4)]
    assert [offer.n_known for offer in offers] == [0, 2]
    assert n_fired(offers) == [1, 2]


def test_an_alert_that_an_offer_before_it_covers_is_worth_half():
    # Any purchase above 20 are both of 100, which the first purchase at a shop tells too.
    offers = offered({LARGE: 0.9, NEW: 0.8, VOLUME: 0.5}, *SHOPPING)
    assert types(offers) == [LARGE, VOLUME, NEW]
    assert [offer.value for offer in offers] == [0.9, 0.5, pytest.approx(0.4)]


def test_an_alert_that_is_half_known_loses_a_quarter():
    # Above 100 the rule tells of the purchase of 150 alone, which is one of the two shops.
    rows = [bought(100.0, 20, "Cafe"), bought(150.0, 10, "Shop")]
    (offer,) = offered({NEW: 0.8}, *rows, rules=(rule(LARGE, {"amount": 100}),))
    assert (offer.n_known, len(offer.fired), offer.value) == (1, 2, pytest.approx(0.6))


def test_a_silent_alert_is_worth_its_probability():
    (offer,) = offered({DIVERSITY: 0.8}, *SHOPPING, rules=(rule(LARGE, {"amount": 50}),))
    assert (len(offer.fired), offer.n_known, offer.value) == (0, 0, 0.8)


def test_candidates_are_judged_by_probability_and_only_their_order_is_one_of_value():
    # Half of 0.7 is less than the threshold, and less than the 0.41 that no longer fits into a list of two.
    offers = offered(
        {NEW: 0.7, VOLUME: 0.6, LIMIT: 0.41},
        *SHOPPING,
        rules=(rule(LARGE, {"amount": 50}),),
        policy=replace(POLICY, max_items=2),
    )
    assert types(offers) == [VOLUME, NEW]


def test_an_offer_has_the_parameters_that_fit_its_user():
    # Purchases at seven shops, six of them above 50.
    rows = [bought(50.0 if n == 0 else 60.0 + n, 10 * n + 1, f"Shop {'abcdefg'[n]}") for n in range(7)]
    (offer,) = offered({LARGE: 0.9}, *rows)
    assert offer.parameters == {"amount": 50.0}
    assert len(offer.fired) == 6
    (offer,) = offered({SPENDER: 0.9}, *rows)
    assert offer.parameters == {"amount": 50.0, "period": "week"}  # at most one a week
    (offer,) = offered({VOLUME: 0.9}, *rows)
    assert offer.parameters == {"count": 2, "period": "day"}
    assert isinstance(offer.parameters["count"], int)


def eighteen(n_large: int = 0) -> list[Row]:
    """Return eighteen purchases at shops of their own, one a day; the last ones of 200, the others of 30."""
    return [bought(200.0 if n < n_large else 30.0, n + 1, f"Shop {'abcdefghijklmnopqr'[n]}") for n in range(18)]


def test_rules_that_use_the_whole_budget_leave_silent_offers_only():
    offers = offered({NEW: 0.9, VOLUME: 0.8}, *eighteen(), rules=(rule(LARGE, {"amount": 20}),))
    assert types(offers) == [NEW, VOLUME]
    assert n_fired(offers) == [0, 0]
    assert offers[0].parameters == {"amount": 30.0}


def test_rules_that_use_more_than_the_budget_leave_no_less_than_nothing():
    rules = tuple(rule(LARGE, {"amount": 20}) for _ in range(2))
    assert n_fired(offered({NEW: 0.9}, *eighteen(), rules=rules)) == [0]


def test_what_rules_leave_is_for_the_set_and_not_for_each_offer():
    # Sixteen of the rule leave two: above 30, the two of 200 are new shops. Then nothing is left, and the total of a
    # week must stay silent.
    rows = eighteen(n_large=2)[:16]
    offers = offered({NEW: 0.9, SPENDER: 0.4}, *rows, rules=(rule(LARGE, {"amount": 20}),))
    assert types(offers) == [NEW, SPENDER]
    assert n_fired(offers) == [2, 0]
    assert offers[0].parameters == {"amount": 30.0}
    # The last days, with both of 200, are of the week from Monday, 9 March: 2 · 200 + 4 · 30 = 520.
    assert offers[1].parameters == {"amount": 750.0, "period": "week"}


def test_all_offers_together_keep_within_the_users_budget():
    policy = replace(POLICY, budget=Budget(per_rule=2.0, per_user=8 / 3), max_items=8)
    offers = offered(dict.fromkeys(ALERT_KEYS, 0.9), *eighteen(n_large=4), policy=policy)
    assert sum(n_fired(offers)) <= 8
    assert max(n_fired(offers)) <= 6


def test_an_alert_for_which_no_parameter_keeps_the_budget_is_not_offered():
    # Seven purchases of two million, above the highest step; never two on one day.
    rows = [bought(2e6, day) for day in range(1, 8)]
    assert types(offered({LARGE: 0.9, VOLUME: 0.5}, *rows)) == [VOLUME]
    assert types(offered({LARGE: 0.9, VOLUME: 0.5}, *rows[:6])) == [LARGE, VOLUME]


def test_an_alert_that_does_not_fit_what_the_rules_leave_makes_way_for_the_next():
    # The rule uses all eighteen; a purchase of two million fires any step.
    rows, policy = [*eighteen()[:17], bought(2e6, 25)], replace(POLICY, max_items=1)
    assert types(offered({LARGE: 0.9, VOLUME: 0.5}, *rows, policy=policy)) == [LARGE]
    rules = (rule(NEW, {"amount": 0}),)
    assert types(offered({LARGE: 0.9, VOLUME: 0.5}, *rows, rules=rules, policy=policy)) == [VOLUME]


def test_an_alert_that_no_longer_fits_what_the_offers_before_it_leave_is_not_offered():
    # One purchase of two million fires both at any step; one firing in all is allowed.
    policy = replace(POLICY, budget=Budget(per_rule=2.0, per_user=1 / 3))
    offers = offered({LARGE: 0.9, SPENDER: 0.8, VOLUME: 0.7}, bought(2e6), policy=policy)
    assert types(offers) == [LARGE, VOLUME]


@pytest.mark.parametrize(
    ("alert_type", "account", "is_offered"),
    [
        (LIMIT, {}, True),
        (LIMIT, {"credit_limit": None}, False),
        (LIMIT, {"credit_limit": 0.0}, False),
        (LIMIT, {"credit_balance": None}, False),
        (AWAY, {}, True),
        (AWAY, {"address_state": None, "address_country": None}, False),
        (AWAY, {"address_state": " ", "address_country": ""}, False),
    ],
)
def test_an_alert_that_cannot_fire_is_not_offered(alert_type: str, account: Row, is_offered: bool):
    assert types(offered({alert_type: 0.9}, **account)) == [alert_type] * is_offered


@pytest.mark.parametrize(
    ("account", "scope", "fired"),
    [
        ({}, "state", 2),
        ({"address_country": None}, "state", 2),
        ({"address_state": None}, "country", 1),
        ({"address_state": " "}, "country", 1),
    ],
)
def test_away_from_home_watches_the_narrowest_place_that_is_known(account: Row, scope: str, fired: int):
    rows = [bought(50.0, 3, merchant_state="CA"), bought(50.0, 2, merchant_state="BC", merchant_country="CA")]
    (offer,) = offered({AWAY: 0.9}, *rows, **account)
    assert offer.parameters == {"scope": scope, "amount": 0.0}
    assert len(offer.fired) == fired


def test_nothing_below_the_first_dial_is_offered():
    rows = [bought(100.0, day) for day in (3, 2, 1)]
    (offer,) = offered({LARGE: 0.9}, *rows, first={LARGE: 500.0})
    assert (offer.parameters, len(offer.fired)) == ({"amount": 500.0}, 0)


def test_an_own_history_may_raise_the_first_dial():
    rows = [bought(600.0, day) for day in range(1, 8)]  # seven times above 500: too often
    (offer,) = offered({LARGE: 0.9}, *rows, first={LARGE: 500.0})
    assert (offer.parameters, len(offer.fired)) == ({"amount": 750.0}, 0)


def test_a_new_recurring_charge_is_offered_within_the_budget():
    rows = [bought(10.0, day, "Gym") for day in (70, 40, 10)]
    (offer,) = offered({RECURRING: 0.9}, *rows)
    # Monthly, and early at its second charge already: one firing, whatever the percent.
    assert (offer.parameters, len(offer.fired)) == ({"percent": 5.0}, 1)


def test_a_utilisation_that_is_passed_already_is_not_offered():
    # 720 of 1,000: above 70 % it could fire only after a fall; it passed 50 on the way.
    rows = [bought(250.0, 3)]
    (offer,) = offered({LIMIT: 0.9}, *rows, credit_balance=720.0)
    assert (offer.parameters, len(offer.fired)) == ({"percent": 75.0}, 0)
    assert offered({LIMIT: 0.9}, *rows, credit_balance=960.0) == []
    (offer,) = offered({LIMIT: 0.9}, *rows, credit_balance=700.0)
    assert offer.parameters == {"percent": 70.0}


def test_each_user_has_offers_by_their_own_history_and_rules():
    users = [USER, USER | {"id": "v", "credit_limit": None}, USER | {"id": "w"}]
    rows = [LONG_AGO, *SHOPPING, *(row | {"user_id": "v", "amount": 300.0} for row in SHOPPING)]
    tests = BackTests(ledger(*rows, users=users))
    offers = choose_offers(
        np.full((3, 2), 0.5),
        np.array([[False, False], [False, False], [True, False]]),
        alert_types=(LARGE, LIMIT),
        rooms=[room(standing(tests, rule(LARGE, {"amount": 20}))), room([]), room([])],
        first_dials=np.full((3, 2), np.nan),
        tests=tests,
        threshold=POLICY.threshold,
    )
    assert [[(offer.alert, len(offer.fired)) for offer in each] for each in offers] == [
        [(1, 0), (0, 2)],  # the rule tells of both large purchases already
        [(0, 5)],  # without a limit
        [(1, 0)],
    ]
