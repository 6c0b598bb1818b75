from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from alertrec.catalog import ALERT_KEYS, BY_KEY
from alertrec.rules.backtests import (
    BackTest,
    BackTests,
    Budget,
    days_of_budget,
    fit_steps,
    fitted_dials,
    history_days,
    knows_window,
    would_have_fired,
)
from tests.histories import AS_OF, AWAY, LARGE, LIMIT, LONG_AGO, NEW, USER, VOLUME, Row, bought, ledger

A_MICROSECOND = 1 / 86_400_000_000


def back_test(*rows: Row, alert_type: str = LARGE, **account: Any) -> BackTest:
    return BackTests(ledger(*rows, users=[USER | account])).of(alert_type)


def fitted(counts: list[int], allowed: int, first: int = 0) -> int:
    return int(fit_steps(np.array([counts]), allowed, first)[0])


@pytest.mark.parametrize(
    ("a_month", "in_the_window"),
    # In 90 days there are three months of 30.
    [(2.0, 6), (6.0, 18), (0.0, 0), (0.5, 1), (1 / 3, 1), (0.33, 0), (1.99, 5), (0.1 + 0.2, 0), (100.0, 300)],
)
def test_a_budget_of_a_month_is_three_times_that_in_ninety_days_rounded_down(a_month: float, in_the_window: int):
    assert Budget(per_rule=a_month, per_user=1.0).of_a_rule() == in_the_window
    assert Budget(per_rule=1.0, per_user=a_month).of_a_user() == in_the_window


def test_without_a_word_two_a_rule_and_six_in_all_are_allowed():
    assert (Budget().of_a_rule(), Budget().of_a_user()) == (6, 18)


@pytest.mark.parametrize(
    ("counts", "allowed", "step"),
    [
        ([9, 6, 3, 0], 6, 1),
        ([9, 6, 3, 0], 5, 2),
        ([9, 6, 3, 0], 2, 3),  # none fires once or twice: the first that is silent
        ([9, 6, 3, 0], 0, 3),
        ([9, 6, 3, 0], 9, 0),
        ([9, 8, 7, 7], 6, -1),
        ([0, 0, 0, 0], 6, 0),
        ([7, 0, 0, 0], 6, 1),  # the first that is silent, not the highest
        # Of a utilisation, a higher threshold may fire more often: what is above counts too.
        ([2, 8, 2, 1], 6, 2),
        ([0, 8, 0, 0], 6, 2),
        ([0, 0, 3, 0], 6, 2),  # at least once where that is possible
        ([0, 0, 3, 0], 2, 3),
        ([3, 0, 3, 0], 6, 0),
        ([1, 7, 0, 7], 6, -1),
    ],
)
def test_the_smallest_step_that_fires_and_above_which_all_keep_within(counts: list[int], allowed: int, step: int):
    assert fitted(counts, allowed) == step


@pytest.mark.parametrize(
    ("counts", "first", "step"),
    [
        ([5, 4, 3, 0], 1, 1),
        ([9, 8, 3, 0], 1, 2),  # the own history may raise it
        ([5, 0, 0, 0], 1, 1),  # nothing fires from there on: it is not lowered to what would
        ([5, 0, 0, 0], 3, 3),
        ([5, 0, 0, 0], 4, -1),
    ],
)
def test_no_step_below_the_first_is_tried(counts: list[int], first: int, step: int):
    assert fitted(counts, 6, first) == step


def test_each_user_has_an_allowance_and_a_first_step_of_their_own():
    counts = np.array([[9, 6, 3, 0]] * 4)
    steps = fit_steps(counts, np.array([6, 3, 9, -1]), np.array([0, 0, 2, 0]))
    assert steps.tolist() == [1, 2, 2, -1]
    assert fit_steps(counts[:0], 6).shape == (0,)


def test_of_a_large_purchase_the_fitted_step_is_worked_by_hand():
    # Purchases of 60, 70, … 140: nine above 50, seven above 75, four above 100 and none above 150.
    test = back_test(*(bought(60.0 + 10 * n, n + 1) for n in range(9)))
    counts = dict(zip(test.steps, test.counts[0].tolist(), strict=True))
    assert [counts[step] for step in (50, 75, 100, 150)] == [9, 7, 4, 0]
    assert [test.fit(0, allowed) for allowed in (9, 8, 7, 6, 4, 3, 0)] == [20, 75, 75, 100, 100, 150, 150]


def test_a_utilisation_may_fire_more_often_above_than_below():
    # Of a limit of 1,000: up to 640, then four times down to 560 and up again, so that 60 % is passed five times,
    # and 50 % once. From 70 % on nothing fires. In the end it is 44 %, so that any step can be passed again.
    rows = [bought(640.0, 20)]
    for day in (16, 12, 8, 4):
        rows += [bought(80.0, day, transaction_type="REFUND"), bought(80.0, day - 1)]
    rows.append(bought(200.0, 1, transaction_type="REFUND"))
    test = back_test(*rows, alert_type=LIMIT, credit_balance=440.0)
    counts = dict(zip(test.steps, test.counts[0].tolist(), strict=True))
    assert (counts[50], counts[60], counts[70]) == (1, 5, 0)
    # Fifty percent alone would keep within four, but sixty, above it, does not.
    assert [test.fit(0, allowed) for allowed in (5, 4, 0)] == [50, 70, 70]


@pytest.mark.parametrize(
    ("balance", "first"), [(0.0, 50), (499.0, 50), (500.0, 50), (500.01, 60), (640.0, 70), (951.0, None)]
)
def test_a_utilisation_is_not_fitted_below_the_present_one(balance: float, first: float | None):
    assert back_test(alert_type=LIMIT, credit_balance=balance).fit(0, 6) == first


def test_who_did_not_buy_in_the_window_is_not_known_however_long_ago_they_did():
    found = ledger(bought(79.5, 300), bought(60.0, 200), bought(5.0, 100, user_id="v"), bought(5.0, user_id="v"),
                   users=[USER, USER | {"id": "v"}])  # fmt: skip
    assert knows_window(found).tolist() == [False, True]


@pytest.mark.parametrize(("history", "days"), [(0, 30), (5, 30), (30, 30), (31, 31), (89, 89), (90, 90), (400, 90)])
def test_a_budget_counts_the_days_that_are_known_and_a_month_at_least(history: int, days: int):
    assert days_of_budget(history) == days
    assert Budget().of_a_rule(30) == 2
    assert Budget().of_a_user(45) == 9


@pytest.mark.parametrize(("days_ago", "is_in"), [
    (90, False), (90 - A_MICROSECOND, True), (89, True), (0, True), (90.5, False),
])  # fmt: skip
def test_the_window_begins_after_its_ninetieth_day_and_ends_with_the_moment_itself(days_ago: float, is_in: bool):
    test = back_test(bought(300.0, days_ago))
    assert len(test.fired(0, 250.0)) == is_in
    assert test.counts[0, 0] == is_in


def test_what_came_before_the_window_still_counts_for_what_happens_in_it():
    rows = [bought(30.0, 100, "Cafe"), bought(30.0, 10, "Cafe"), bought(30.0, 9, "Shop")]
    test = back_test(*rows, alert_type=NEW)
    assert test.counts[0, 0] == 1  # of the shop; the cafe was known
    # The window starts at noon of a Sunday: of its week's total of 200, the first 100 came before.
    as_of = datetime(2026, 3, 14, 12)
    before, after = datetime(2025, 12, 14, 11), datetime(2025, 12, 14, 13)
    weekly = BackTests(
        ledger(bought(100.0, transaction_date=before), bought(100.0, transaction_date=after), as_of=as_of)
    ).of("alert_high_spender")
    assert [len(weekly.fired(0, dial)) for dial in (75.0, 150.0)] == [0, 1]


def test_a_rule_of_any_number_can_be_tested_not_only_of_a_step():
    test = back_test(bought(60.0, 3), bought(61.5, 2))
    assert [len(test.fired(0, dial)) for dial in (59.99, 60.0, 61.49, 61.5)] == [2, 1, 1, 0]


def test_firings_of_one_user_are_not_those_of_another():
    users = [USER | {"id": user_id} for user_id in ("a", "b", "c")]
    found = ledger(
        bought(90.0, 3, user_id="a"), bought(80.0, 2, user_id="c"), bought(70.0, 1, user_id="a"), users=users
    )
    test = BackTests(found).of(LARGE)
    amounts = [found.amount[test.fired(user, 50.0)].tolist() for user in range(3)]
    assert amounts == [[90, 70], [], [80]]
    assert test.counts[:, 0].tolist() == [2, 0, 1]


def test_each_kind_of_rule_is_tested_once():
    tests = BackTests(ledger(LONG_AGO))
    assert tests.of(LARGE) is tests.of(LARGE, {"amount": 75.0})
    assert tests.of(AWAY) is tests.of(AWAY, {"scope": "state", "amount": 75.0})
    assert tests.of(AWAY) is not tests.of(AWAY, {"scope": "country", "amount": 75.0})


def test_scopes_are_told_apart():
    tests = BackTests(ledger(bought(50.0, merchant_state="CA"), bought(60.0, 2, merchant_country="MX")))
    scopes = ({"scope": "state", "amount": 0.0}, {"scope": "country", "amount": 0.0})
    assert [len(tests.of(AWAY, parameters).fired(0, 0.0)) for parameters in scopes] == [2, 1]


def test_examples_are_the_last_three_the_newest_first():
    found = ledger(*(bought(100.0 + day, day, f"Shop {day}") for day in (5, 1, 4, 2)))
    fired = BackTests(found).of(LARGE).fired(0, 50.0)
    assert would_have_fired(found, fired) == {
        "count": 4,
        "window_days": 90,
        "until": "2026-03-15T12:00:00+00:00",
        "examples": [
            {"date": "2026-03-14", "merchant": "Shop 1", "amount": 101.0},
            {"date": "2026-03-13", "merchant": "Shop 2", "amount": 102.0},
            {"date": "2026-03-11", "merchant": "Shop 4", "amount": 104.0},
        ],
    }


def test_without_firings_there_are_no_examples():
    found = ledger(bought(10.0))
    told = would_have_fired(found, BackTests(found).of(LARGE).fired(0, 50.0))
    assert (told["count"], told["examples"]) == (0, [])


def test_an_example_has_the_date_of_the_users_clock_and_the_name_as_it_was_given():
    rows = [bought(60.0, merchant="SQ *Café #12", transaction_date=datetime(2026, 1, 1, 3))]
    rows += [bought(70.0, merchant=None, transaction_date=datetime(2026, 1, 1, 2))]
    found = ledger(*rows, users=[USER | {"time_zone": "America/New_York"}])
    assert would_have_fired(found, BackTests(found).of(LARGE).fired(0, 50.0))["examples"] == [
        {"date": "2025-12-31", "merchant": "SQ *Café #12", "amount": 60.0},
        {"date": "2025-12-31", "merchant": None, "amount": 70.0},
    ]


@pytest.mark.parametrize(
    ("account", "can"),
    [
        ({}, {LIMIT: True, AWAY: True}),
        ({"credit_limit": None}, {LIMIT: False}),
        ({"credit_limit": 0.0}, {LIMIT: False}),
        ({"credit_balance": None}, {LIMIT: False}),
        ({"address_state": None}, {AWAY: True}),
        ({"address_country": None}, {AWAY: True}),
        ({"address_state": None, "address_country": None}, {AWAY: False}),
        ({"address_state": " ", "address_country": ""}, {AWAY: False}),
    ],
)
def test_a_rule_can_fire_where_the_account_has_what_it_watches(account: Row, can: dict[str, bool]):
    for alert_type in ALERT_KEYS:
        expected = can.get(alert_type, True) if alert_type in {LIMIT, AWAY} else True
        if alert_type in can or alert_type not in {LIMIT, AWAY}:
            assert back_test(alert_type=alert_type, **account).can_fire.tolist() == [expected]


@pytest.mark.parametrize(("days_ago", "is_long", "days"), [
    (90, True, 90), (90 - A_MICROSECOND, False, 89), (91.9, True, 91), (0.9, False, 0), (0, False, 0),
])  # fmt: skip
def test_a_history_is_long_from_ninety_days_on(days_ago: float, is_long: bool, days: int):
    found = ledger(bought(5.0, days_ago), bought(5.0, 0))
    assert knows_window(found).tolist() == [is_long]
    assert history_days(found).tolist() == [days]


def test_only_purchases_make_a_history_and_without_any_there_is_none():
    found = ledger(bought(5.0, 200, transaction_type="FEE"), users=[USER, USER | {"id": "v"}])
    assert knows_window(found).tolist() == [False, False]
    assert history_days(found).tolist() == [0, 0]


def test_dials_are_fitted_to_each_user_by_their_own_history():
    # The first buys for 60 seven times: above 50 too often, so 75. The second once for 60: the lowest amount.
    users = [USER, USER | {"id": "v"}, USER | {"id": "w"}]
    rows = [LONG_AGO, LONG_AGO | {"user_id": "v"}, bought(60.0, 89, user_id="w"), bought(60.0, user_id="v")]
    rows += [bought(60.0, day) for day in range(1, 8)]
    dials = fitted_dials(ledger(*rows, users=users), (LARGE, VOLUME), Budget())
    # One purchase a day: never more than two. Of the third, whose history is short, nothing is known.
    np.testing.assert_array_equal(dials, [[75, 2], [20, 2], [np.nan, np.nan]])


def test_dials_are_fitted_to_the_budget_of_a_rule_alone():
    rows = [LONG_AGO, *(bought(60.0, day) for day in range(1, 8))]
    assert fitted_dials(ledger(*rows), (LARGE,), Budget(per_rule=7 / 3, per_user=0.0)).tolist() == [[20]]


def test_where_no_value_keeps_within_the_budget_nothing_is_fitted():
    rows = [LONG_AGO, *(bought(2e6, day) for day in range(1, 8))]  # above the highest step, a million
    dials = fitted_dials(ledger(*rows), (LARGE, VOLUME), Budget())
    np.testing.assert_array_equal(dials, [[np.nan, 2]])


def test_columns_of_dials_are_those_that_were_asked_for():
    found = ledger(LONG_AGO, bought(60.0))
    turned = fitted_dials(found, ALERT_KEYS[::-1], Budget())
    np.testing.assert_array_equal(turned[:, ::-1], fitted_dials(found, ALERT_KEYS, Budget()))
    assert all(turned[0, ALERT_KEYS[::-1].index(key)] in BY_KEY[key].dial.steps for key in ALERT_KEYS)


def test_of_a_ledger_without_a_moment_nobody_has_a_long_history():
    found = ledger(as_of=None)
    assert history_days(found).tolist() == [0]
    assert knows_window(found).tolist() == [False]


def test_the_window_moves_with_the_moment():
    rows = [bought(60.0, 10)]
    counts = [
        BackTests(ledger(*rows, as_of=AS_OF + timedelta(days=days))).of(LARGE).counts[0, 0] for days in (0, 79, 80)
    ]
    assert counts == [1, 1, 0]
