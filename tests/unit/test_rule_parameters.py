from __future__ import annotations

import json
import math

import numpy as np
import pytest

from alertrec.catalog import ALERT_TYPES, BY_KEY, AlertType
from alertrec.detectors import DETECTORS
from alertrec.detectors.parameters import _CHOICES, checked
from alertrec.errors import DataError
from alertrec.rules.texts import from_text, parameters_of

SPENDER, VOLUME, DIVERSITY, LIMIT, LARGE, MERCHANT, LOCATION, SUBSCRIPTION = BY_KEY
each_type = pytest.mark.parametrize("entry", ALERT_TYPES, ids=lambda entry: entry.key)
WEEK, DAY = {"period": "week"}, {"period": "day"}


@pytest.mark.parametrize(
    ("alert_type", "given", "complete"),
    [
        (SPENDER, {"amount": 250}, {"amount": 250.0, "period": "week"}),
        (VOLUME, {"count": 10.0, "period": "day"}, {"count": 10, "period": "day"}),
        (DIVERSITY, {"count": 1}, {"count": 1, "period": "day"}),
        (LIMIT, {"percent": 120}, {"percent": 120.0}),
        (LARGE, {"amount": 0.01}, {"amount": 0.01}),
        (LARGE, {"amount": 1e14}, {"amount": 1e14}),
        (MERCHANT, {}, {"amount": 0.0}),
        (MERCHANT, {"amount": 412.57}, {"amount": 412.57}),
        (LOCATION, {}, {"scope": "state", "amount": 0.0}),
        (LOCATION, {"amount": 20, "scope": "country"}, {"scope": "country", "amount": 20.0}),
        (SUBSCRIPTION, {"percent": 12.5}, {"percent": 12.5}),
        (LARGE, {"amount": np.float64(5)}, {"amount": 5.0}),
        (VOLUME, {"count": np.int64(5)}, {"count": 5, "period": "day"}),
    ],
)
def test_parameters_are_completed_and_put_into_the_promised_types(alert_type, given, complete):
    found = checked(alert_type, given)
    assert found == complete
    assert [type(found[key]) for key in complete] == [type(value) for value in complete.values()]
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("value", [-1, -0.01, True, False, "5", "250.00", None, [5], {}, math.nan, math.inf, 10**400])
@each_type
def test_what_is_no_number_of_the_dial_is_refused(entry: AlertType, value: object):
    with pytest.raises(DataError, match=f"{entry.key}: {entry.dial.name} is .*; expected .*, such as"):
        checked(entry.key, {entry.dial.name: value})


@pytest.mark.parametrize(
    ("alert_type", "parameters", "message"),
    [
        (SPENDER, {"amount": 0}, "amount is 0; expected an amount .*, above 0"),
        (LARGE, {"amount": 0}, "amount is 0; expected an amount .*, above 0"),
        (LARGE, {"amount": 1.001}, "amount is 1.001; .*at most two decimals"),
        (LARGE, {"amount": 1.0001e14}, "at most 100,000,000,000,000"),
        (VOLUME, {"count": 2.5}, "count is 2.5; expected a whole number of at least 1, such as 10"),
        (VOLUME, {"count": 0}, "count is 0; expected a whole number of at least 1"),
        (LIMIT, {"percent": 0}, "percent is 0; expected a number above 0, such as 70.0"),
        (LIMIT, {}, "no 'percent'; expected a number above 0, such as 70.0"),
        (SPENDER, {"period": "week"}, "no 'amount'"),
        (SPENDER, {"amount": 5, "period": "month"}, "period is 'month'; expected 'week'"),
        (VOLUME, {"count": 5, "period": "week"}, "period is 'week'; expected 'day'"),
        (LOCATION, {"scope": "city"}, "scope is 'city'; expected 'state' or 'country'"),
        (LOCATION, {"scope": ["state"]}, "expected 'state' or 'country'"),
        (LARGE, {"amount": 5, "period": "day"}, "unknown parameter 'period'; expected no other than amount"),
        (LOCATION, {"Scope": "state"}, "unknown parameter 'Scope'; expected no other than scope, amount"),
        (LARGE, {5: 5}, "unknown parameter 5"),
        ("alert_weather", {"amount": 5}, f"unknown alert type 'alert_weather'; expected one of {SPENDER}"),
    ],
)
def test_a_refusal_says_the_type_what_came_and_what_is_expected(alert_type, parameters, message):
    with pytest.raises(DataError, match=message) as error:
        checked(alert_type, parameters)
    assert alert_type in str(error.value)


def test_minus_nothing_is_nothing():
    assert math.copysign(1, checked(MERCHANT, {"amount": -0.0})["amount"]) == 1


@each_type
def test_the_catalogue_holds_only_what_is_understood_here(entry: AlertType):
    assert checked(entry.key, entry.parameters) == entry.parameters
    assert entry.dial.name in {"amount", "count", "percent"}
    for key, value in entry.parameters.items():
        assert key == entry.dial.name or value in _CHOICES.get(key, (value,))


def test_what_is_optional_has_a_default_and_every_detector_exists():
    assert {entry.detector for entry in ALERT_TYPES} <= set(DETECTORS)
    optional = {entry.key for entry in ALERT_TYPES if entry.dial.is_optional}
    assert optional == {"alert_new_merchant", "alert_location_based", "alert_subscription_monitoring"}


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("more than $1,200 a week", 1200),
        ("my weekly total passes 1.200,50 €", 1200.5),
        ("my weekly total passes 1 200,50\u00a0€", 1200.5),
        ("my weekly total passes CHF 1’200.50", 1200.5),
        ("over USD 250 in a week", 250),
        ("over 250USD per week", 250),
        ("over 250 dollars in one week", 250),
        ("over Rs. 5,00,000 each week", 500_000),
        ("over ₹12,34,567.5 each week", 1_234_567.5),
        ("over 1.234.567 € each week", 1_234_567),
        ("over $500 weekly", 500),
        ("over $.50 within 1 week", 0.5),
        ("over $0.500 a week", 0.5),
        ("MORE THAN $2.5K A WEEK", 2500),
        ("more than five hundred dollars a week", 500),
        ("more than a thousand euros a week", 1000),
        ("my spending exceeds 300", 300),
        ("weeks of 1.5 million yen or more", 1_500_000),
    ],
)
def test_amounts_are_read_as_people_write_them(text: str, amount: float):
    assert from_text(SPENDER, text) == {"amount": amount} | WEEK


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I spend too much",
        "My spending exceeds my monthly budget",
        "monthly budget of $2000",
        "more than $2000 per month",
        "more than $50 a day",
        "more than $900 in two weeks",
        "more than $900 in 2 weeks",
        "more than $900 every other week",
        "more than $90 on a weekend",
        "between $50 and $100 a week",
        "less than $50 a week",
        "spending drops by $50 a week",
        "70% of my weekly budget",
        "more than 1,2,3 a week",
        "more than $0 a week",
        "more than $1.2345 a week",
        "more than $900 at 7-Eleven in a week",
        "week 37",
    ],
)
def test_a_text_that_cannot_be_tested_gives_nothing(text: str):
    assert from_text(SPENDER, text) is None


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("more than 11 transactions", 11),
        ("more than five transactions in one day", 5),
        ("5 or more purchases in a day", 4),
        ("5 purchases or more in a day", 4),
        ("at least five purchases a day", 4),
        ("5+ purchases a day", 4),
        ("when my purchases reach 12 in a day", 11),
        ("no fewer than 12 charges a day", 11),
        ("more than one purchase on the same day", 1),
        ("more than a dozen purchases daily", 12),
        ("MORE THAN THE 12 PURCHASES OF A DAY", 12),
        ("more than 1,000 purchases a day", 1000),
    ],
)
def test_counts_fire_above_their_number(text: str, count: int):
    assert from_text(VOLUME, text) == {"count": count} | DAY
    assert from_text(DIVERSITY, text) == {"count": count} | DAY


@pytest.mark.parametrize(
    "text",
    [
        "too many transactions",
        "at least one purchase a day",
        "5 or more charges within an hour",
        "more than 3 purchases in 24 hours",
        "more than 3 purchases in 24h",
        "more than 3 purchases over $50 in a day",
        "more than 2.5 purchases a day",
        "20% more purchases in a day",
        "fewer than 3 purchases a day",
        "any one purchase in one day",
    ],
)
def test_counts_that_cannot_be_tested_give_nothing(text: str):
    assert from_text(VOLUME, text) is None


@pytest.mark.parametrize(
    ("alert_type", "text", "percent"),
    [
        (LIMIT, "utilization over 70%", 70),
        (LIMIT, "70 percent of my limit", 70),
        (LIMIT, "80 per cent of my limit", 80),
        (LIMIT, "utilisation above 12,5 %", 12.5),
        (LIMIT, "utilisation above 85", 85),
        (LIMIT, "utilisation above 120%", 120),
        (LIMIT, "my balance is near my credit limit", None),
        (LIMIT, "my balance exceeds 4000 of my credit limit", None),
        (LIMIT, "utilisation above 0.8", None),
        (LIMIT, "more than $3000 of my credit limit", None),
        (LIMIT, "less than 20% of my credit limit remains", None),
        (SUBSCRIPTION, "a recurring charge increases by more than 35%", 35),
        (SUBSCRIPTION, "the monthly fee rises by ten percent", 10),
        (SUBSCRIPTION, "any new recurring subscription charge", 10),
        (SUBSCRIPTION, "a recurring charge of more than $20", None),
    ],
)
def test_percents_are_read_and_only_subscriptions_need_none(alert_type: str, text: str, percent: float | None):
    assert from_text(alert_type, text) == (None if percent is None else {"percent": percent})


@pytest.mark.parametrize(
    ("alert_type", "text", "amount"),
    [
        (LARGE, "any one purchase over $500 on my card ending in 1234", 500),
        (LARGE, "purchases over 50", 50),
        (LARGE, "a ＄５００ purchase", 500),
        (LARGE, "large purchases", None),
        (LARGE, "any purchase at 7-Eleven", None),
        (LARGE, "purchases of 3D prints", None),
        (LARGE, "purchases under $5", None),
        (MERCHANT, "1st purchase at a new shop", 0),
        (MERCHANT, "a shop that I have not used for 90 days", 0),
        (MERCHANT, "a new merchant for more than $49.99", 49.99),
        (MERCHANT, "one of my new merchants", 0),
        (MERCHANT, "two new merchants", None),
    ],
)
def test_an_amount_is_needed_unless_any_will_do(alert_type: str, text: str, amount: float | None):
    assert from_text(alert_type, text) == (None if amount is None else {"amount": amount})


@pytest.mark.parametrize(
    ("text", "scope", "amount"),
    [
        ("outside my home state", "state", 0),
        ("in another state for more than $25", "state", 25),
        ("away from home", "state", 0),
        ("outside my state or country", "state", 0),
        ("in another COUNTRY", "country", 0),
        ("used abroad", "country", 0),
        ("international purchases over 100 EUR", "country", 100),
        ("overseas", "country", 0),
        ("foreign transactions", "country", 0),
        ("outside the United States", "country", 0),
    ],
)
def test_the_scope_is_the_country_where_the_text_says_so(text: str, scope: str, amount: float):
    assert from_text(LOCATION, text) == {"scope": scope, "amount": amount}


def test_a_word_that_only_looks_like_a_number_is_no_accident():
    # With a dotted capital i; it matches where case is ignored.
    assert from_text(VOLUME, "more than F\u0130VE purchases") is None


def test_a_text_of_a_book_is_no_rule():
    assert from_text(LARGE, "over $5" + " " * 993) == {"amount": 5.0}
    assert from_text(LARGE, "over $5" + " " * 994) is None


def test_what_is_returned_is_the_callers_own():
    from_text(LARGE, "over $77")["amount"] = 1.0
    assert from_text(LARGE, "over $77") == {"amount": 77.0}


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ({"amount": 40}, {"amount": 40.0}),
        ('{"amount": 40}', {"amount": 40.0}),
        ({"amount": 40, "colour": "red"}, {"amount": 77.0}),
        ({"amount": "40"}, {"amount": 77.0}),
        ({}, {"amount": 77.0}),
        (None, {"amount": 77.0}),
        ("", {"amount": 77.0}),
        ("[40]", {"amount": 77.0}),
        ("{amount", {"amount": 77.0}),
        ('{"amount": NaN}', {"amount": 77.0}),
        ("[" * 100_000, {"amount": 77.0}),
        (40, {"amount": 77.0}),
    ],
)
def test_stored_parameters_win_if_they_are_any(stored: object, found: object):
    assert parameters_of(MERCHANT, stored, "over $77") == found


def test_without_stored_parameters_and_text_there_are_none():
    assert parameters_of(LOCATION, {}, None) is None
    assert parameters_of(LARGE, {"amount": 0}, "large purchases") is None
    assert parameters_of("alert_weather", {"amount": 5}, "over $5") is None
    assert parameters_of(LARGE, {"amount": 5}, None) == {"amount": 5.0}
