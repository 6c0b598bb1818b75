"""The slow rules that the fast ones are held against: cases worked by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from tests import rule_oracle
from tests.rule_oracle import History, Row, Stream

AS_OF = datetime(2026, 3, 15, 12)  # a Sunday
USER: Row = {
    "id": "u",
    "credit_limit": 1000.0,
    "credit_balance": 0.0,
    "address_state": "NY",
    "address_country": "US",
    "time_zone": None,
}

SPENDER, VOLUME, DIVERSITY, LIMIT, LARGE, NEW, AWAY, RECURRING = (
    "alert_high_spender",
    "alert_high_tx_volume",
    "alert_high_merchant_diversity",
    "alert_near_credit_limit",
    "alert_large_transaction",
    "alert_new_merchant",
    "alert_location_based",
    "alert_subscription_monitoring",
)


def row(at: datetime | str | None, amount: float | None = 10.0, merchant: str | None = "Cafe", **other: Any) -> Row:
    """Return a purchase at home."""
    return {
        "user_id": "u",
        "amount": amount,
        "merchant_name": merchant,
        "merchant_state": "NY",
        "merchant_country": "US",
        "transaction_date": datetime.fromisoformat(at) if isinstance(at, str) else at,
        "transaction_type": "PURCHASE",
        "status": "SETTLED",
    } | other


def bounds(alert_type: str, rows: list[Row], user: Row = USER, scope: str | None = None) -> list[tuple[Any, Any]]:
    return [(event.low, event.high) for event in rule_oracle.events(alert_type, user, rows, AS_OF, scope)]


def fired(alert_type: str, parameters: dict[str, Any], rows: list[Row], user: Row = USER) -> list[int]:
    """Return the places, among the rows, of those at which the rule fires."""
    found = rule_oracle.firings(alert_type, parameters, user, rows, AS_OF)
    return [next(place for place, each in enumerate(rows) if each is row) for row in found]


def charges(*days_and_amounts: tuple[int, float], merchant: str = "Streamly", first: str = "2025-01-01") -> list[Row]:
    """Return charges at noon, so many days after the first day."""
    start = datetime.fromisoformat(first) + timedelta(hours=12)
    return [row(start + timedelta(days=day), amount, merchant) for day, amount in days_and_amounts]


def rises(*days_and_amounts: tuple[int, float]) -> dict[int, Any]:
    """Return the upper bound of each event by its charge's day; an unrelated purchase lies 400 days before."""
    rows = [*charges((-400, 3.0), merchant="Elsewhere", first="2024-06-01"), *charges(*days_and_amounts)]
    rows[0]["transaction_date"] = rows[1]["transaction_date"] - timedelta(days=400)
    start = rows[1]["transaction_date"]
    return {
        (event.at - start).days: event.high for event in rule_oracle.events(RECURRING, USER, rows, datetime(2027, 1, 1))
    }


def stream(*days_and_amounts: tuple[int, float], as_of: datetime = AS_OF) -> tuple[str, str, int] | None:
    """Return the frequency, the state and the number of charges of the only stream."""
    found: list[Stream] = rule_oracle.streams(USER, charges(*days_and_amounts), as_of)
    assert len(found) <= 1
    return (found[0].frequency, found[0].state, len(found[0].charges)) if found else None


def test_the_total_of_a_week_fires_at_the_purchase_that_passes_the_threshold():
    # Monday 2 March 2026: 60. Wednesday: 60 + 40 = 100. Sunday: 100.01. Monday 9 March: a new week, 150.
    rows = [
        row("2026-03-02T10:00", 60.0),
        row("2026-03-04", 40.0),
        row("2026-03-08T23:59", 0.01),
        row("2026-03-09", 150.0),
    ]
    assert bounds(SPENDER, rows) == [(0, 60), (60, 100), (100, Decimal("100.01")), (0, 150)]
    assert fired(SPENDER, {"amount": 100.0, "period": "week"}, rows) == [2, 3]  # at 100 exactly it does not
    assert fired(SPENDER, {"amount": 99.99, "period": "week"}, rows) == [1, 3]


def test_totals_are_exact():
    # 0.1 + 0.1 + 0.1 is 0.3, though not in floats, where it is above.
    rows = [row(f"2026-03-02T1{hour}:00", 0.1) for hour in range(3)]
    assert bounds(SPENDER, rows)[-1] == (Decimal("0.2"), Decimal("0.3"))
    assert fired(SPENDER, {"amount": 0.3}, rows) == []


def test_a_week_goes_on_over_new_year():
    # Wednesday 31 December 2025 and Thursday 1 January 2026 are both of the ISO week 2026-W01.
    rows = [row("2025-12-31T20:00", 30.0), row("2026-01-01T08:00", 30.0), row("2026-01-05", 30.0)]
    assert bounds(SPENDER, rows) == [(0, 30), (30, 60), (0, 30)]


def test_days_are_the_users_own():
    # 04:30 UTC is 23:30 of the day before in New York, 05:30 is 00:30.
    rows = [row("2026-01-10T23:00"), row("2026-01-11T04:30"), row("2026-01-11T05:30")]
    new_york = USER | {"time_zone": "America/New_York"}
    assert bounds(VOLUME, rows) == [(0, 1), (0, 1), (1, 2)]
    assert bounds(VOLUME, rows, new_york) == [(0, 1), (1, 2), (0, 1)]
    # 11 January 2026 is a Sunday: in New York the last purchase is of it, all three are of one week.
    assert [high for _, high in bounds(SPENDER, rows, new_york)] == [10, 20, 30]


def test_the_day_on_which_the_clock_is_put_forward_has_23_hours():
    # 8 March 2026: New York goes from UTC-5 to UTC-4 at 07:00 UTC, so its day is from 05:00 to 04:00 UTC.
    rows = [row("2026-03-08T04:59"), row("2026-03-08T05:00"), row("2026-03-09T03:59"), row("2026-03-09T04:00")]
    assert bounds(VOLUME, rows, USER | {"time_zone": "America/New_York"}) == [(0, 1), (0, 1), (1, 2), (0, 1)]


def test_the_day_on_which_the_clock_is_put_back_has_25_hours():
    # 2 November 2025: from UTC-4 to UTC-5, from 04:00 to 05:00 UTC of the next day.
    rows = [row("2025-11-02T03:59"), row("2025-11-02T04:00"), row("2025-11-03T04:59"), row("2025-11-03T05:00")]
    assert bounds(VOLUME, rows, USER | {"time_zone": "America/New_York"}) == [(0, 1), (0, 1), (1, 2), (0, 1)]


@pytest.mark.parametrize("name", [None, "", "Mars/Olympus", "America", "../etc/passwd", "america/new_york "])
def test_a_zone_that_is_not_known_is_utc(name: str | None):
    rows = [row("2026-01-10T23:59"), row("2026-01-11T00:00")]
    assert bounds(VOLUME, rows, USER | {"time_zone": name}) == [(0, 1), (0, 1)]


def test_users_without_a_column_of_zones_are_in_utc():
    user = {name: value for name, value in USER.items() if name != "time_zone"}
    assert bounds(VOLUME, [row("2026-01-10T23:59"), row("2026-01-11T00:00")], user) == [(0, 1), (0, 1)]


def test_more_than_a_number_of_purchases_fires_once_a_day():
    rows = [row(f"2026-03-02T0{hour}:00") for hour in range(5)]
    assert fired(VOLUME, {"count": 3, "period": "day"}, rows) == [3]
    assert fired(VOLUME, {"count": 5, "period": "day"}, rows) == []


def test_a_merchant_counts_once_a_day_and_one_without_name_not_at_all():
    names = ["Cafe", "Books", "Cafe", None, " ", "Fuel"]
    rows = [row(f"2026-03-02T0{hour}:00", 10.0, name) for hour, name in enumerate(names)]
    rows.append(row("2026-03-03", 10.0, "Cafe"))
    assert bounds(DIVERSITY, rows) == [(0, 1), (1, 2), (2, 3), (0, 1)]
    assert fired(DIVERSITY, {"count": 2, "period": "day"}, rows) == [5]


def test_what_counts():
    counted = [
        row("2026-03-02T01:00", status="pending"),
        row("2026-03-02T02:00", status="Approved"),
        row("2026-03-02T03:00", status=None, transaction_type=None),
        row("2026-03-02T04:00", transaction_type="purchase", amount=1e14),
    ]
    left_out = [
        *(row("2026-03-02T05:00", status=status) for status in ("DECLINED", "cancelled", "REVERSED", "?", "")),
        *(row("2026-03-02T05:00", transaction_type=kind) for kind in ("REFUND", "FEE", "TRANSFER", "?", "")),
        *(row("2026-03-02T05:00", amount) for amount in (None, 0.0, -5.0, float("nan"), float("inf"), 1.1e14)),
        row("2026-03-02T05:00", user_id="other"),
        row("2026-03-02T05:00", user_id=None),
        row(None),
        row(AS_OF + timedelta(microseconds=1)),
    ]
    assert fired(LARGE, {"amount": 0.0}, left_out + counted) == list(range(len(left_out), len(left_out) + 4))


def test_a_row_dated_as_of_counts():
    assert fired(LARGE, {"amount": 0.0}, [row(AS_OF)]) == [0]


def test_of_several_rows_with_one_id_the_first_counts():
    # The first of "a" is declined, that of "b" has no date, that of "c" lies after as_of.
    rows = [
        row("2026-03-02T01:00", id="a", status="DECLINED"),
        row("2026-03-02T02:00", id="a"),
        row(None, id="b"),
        row("2026-03-02T03:00", id="b"),
        row("2026-03-20", id="c"),
        row("2026-03-02T05:00", id="c"),
        row("2026-03-02T04:00", id="c"),
        row("2026-03-02T06:00", id=None),
        row("2026-03-02T06:00", id=None),
    ]
    assert fired(LARGE, {"amount": 0.0}, rows) == [3, 5, 7, 7 + 1]


def test_identical_twins_are_two_transactions():
    rows = [row("2026-03-02"), row("2026-03-02"), row("2026-03-02", id="a"), row("2026-03-02", id="b")]
    assert bounds(VOLUME, rows) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert bounds(SPENDER, rows)[-1] == (30, 40)


def test_rows_of_one_instant_go_by_merchant_amount_and_type():
    # Null first, then by code points: "Z" before "a". Then the amount, then the type.
    at = "2026-03-02T10:00"
    rows = [row(at, 5.0, "a"), row(at, 7.0, "Z"), row(at, 6.0, "Z"), row(at, 9.0, None)]
    assert bounds(SPENDER, rows) == [(0, 9), (9, 15), (15, 22), (22, 27)]
    # FEE before PURCHASE: the balance of 100 was 0, then 50 with the fee, then 100.
    rows = [row(at, 50.0), row(at, 50.0, transaction_type="fee")]
    user = USER | {"credit_balance": 100.0}
    assert fired(LIMIT, {"percent": 0.0}, rows, user) == [1]
    assert fired(LIMIT, {"percent": 5.0}, rows, user) == [0]
    # Of fees of 20 and of 10, the one of 10 is first, with whatever sign: 70, 80, 100.
    fees = [row(at, -20.0, transaction_type="FEE"), row(at, 10.0, transaction_type="FEE")]
    assert bounds(LIMIT, fees, user) == [(7, 8), (8, 10)]
    last = rule_oracle.would_have_fired(LIMIT, {"percent": 8.0}, user, fees, AS_OF)["examples"]
    assert [example["amount"] for example in last] == [20.0]


def test_utilization_is_walked_back_from_the_balance():
    # Backwards from 300: a purchase of 200 (100 before), a payment of 500 (600 before), a fee of 50 (550 before),
    # a purchase of 550 (0 before).
    user = USER | {"credit_balance": 300.0}
    rows = [
        row("2026-01-01", 550.0),
        row("2026-01-02", -50.0, transaction_type="FEE"),
        row("2026-01-03", 500.0, transaction_type="payment"),
        row("2026-01-04", 200.0),
        row("2026-01-05", 900.0, transaction_type="TRANSFER"),
        row("2026-01-06", 900.0, status="DECLINED"),
    ]
    assert bounds(LIMIT, rows, user) == [(0, 55), (55, 60), (10, 30)]
    assert fired(LIMIT, {"percent": 55.0}, rows, user) == [1]  # at 55 % exactly the first does not
    assert fired(LIMIT, {"percent": 29.99}, rows, user) == [0, 3]
    assert fired(LIMIT, {"percent": 60.0}, rows, user) == []


def test_utilization_is_not_known_before_a_balance_that_cannot_be():
    # From 100: a purchase of 40 (60 before), a refund of 30 (90 before), a purchase of 100 (-10 before: unknown),
    # so what lies before it is unknown too, though 200 - 10 would be above zero.
    user = USER | {"credit_balance": 100.0}
    rows = [
        row("2026-01-01", 20.0),
        row("2026-01-02", 200.0, transaction_type="PAYMENT"),
        row("2026-01-03", 100.0),
        row("2026-01-04", 30.0, transaction_type="REFUND"),
        row("2026-01-05", 40.0),
    ]
    assert bounds(LIMIT, rows, user) == [(6, 10)]
    # With 90 instead of 100: 0 before it, 200 before the payment, 180 before the first.
    rows[2]["amount"] = 90.0
    assert bounds(LIMIT, rows, user) == [(18, 20), (0, 9), (6, 10)]


@pytest.mark.parametrize(
    "account",
    [{"credit_limit": each} for each in (None, 0.0, 0.009, -5.0, float("inf"), float("nan"))]
    + [{"credit_balance": each} for each in (None, float("inf"), float("nan"))],
)
def test_utilization_needs_a_limit_and_a_balance(account: Row):
    assert bounds(LIMIT, [row("2026-01-01")], USER | {"credit_balance": 500.0} | account) == []


def test_a_credit_on_the_account_is_no_utilization_but_what_was_before_a_payment_is():
    # From -200: a payment of 500 (300 before), a purchase of 300 (0 before).
    rows = [row("2026-01-01", 300.0), row("2026-01-02", 500.0, transaction_type="DEPOSIT")]
    assert bounds(LIMIT, rows, USER | {"credit_balance": -200.0}) == [(0, 30)]
    assert bounds(LIMIT, rows[:1], USER | {"credit_balance": -200.0}) == []


def test_utilization_is_a_fraction():
    rows = [row("2026-01-01", 100.0)]
    assert bounds(LIMIT, rows, USER | {"credit_limit": 300.0, "credit_balance": 200.0}) == [
        (Fraction(100, 3), Fraction(200, 3))
    ]


def test_a_large_purchase_is_above_the_threshold_not_at_it():
    rows = [row("2026-03-02", 499.99), row("2026-03-03", 500.0), row("2026-03-04", 500.01)]
    assert fired(LARGE, {"amount": 500.0}, rows) == [2]
    assert bounds(LARGE, rows)[0] == (None, Decimal("499.99"))


def test_a_merchant_is_new_once_and_judged_by_its_first_purchase():
    rows = [
        row("2024-01-01", 5.0, "Cafe"),
        row("2026-03-03", 100.0, "Cafe"),
        row("2026-03-04", 20.0, "Books"),
        row("2026-03-02", 30.0, "Books", status="DECLINED"),
        row("2026-03-05", 99.0, None),
    ]
    assert fired(NEW, {"amount": 0.0}, rows) == [0, 2]
    assert fired(NEW, {"amount": 5.0}, rows) == [2]
    assert fired(NEW, {"amount": 20.0}, rows) == []


def test_away_is_what_is_known_to_be_elsewhere():
    places = [
        ("NY", "US"),
        (" ny ", "us"),
        ("CA", "US"),
        (None, "US"),
        ("CA", None),
        (None, "MX"),
        ("NY", "MX"),
        ("", ""),
    ]
    rows = [
        row(f"2026-03-02T0{hour}:00", 50.0, merchant_state=state, merchant_country=country)
        for hour, (state, country) in enumerate(places)
    ]
    assert fired(AWAY, {"scope": "country", "amount": 0.0}, rows) == [5, 6]
    assert fired(AWAY, {"scope": "state", "amount": 0.0}, rows) == [2, 4, 5, 6]
    assert fired(AWAY, {"scope": "state", "amount": 50.0}, rows) == []
    stateless = USER | {"address_state": " "}
    assert fired(AWAY, {"scope": "state", "amount": 0.0}, rows, stateless) == [5, 6]
    nowhere = stateless | {"address_country": None}
    assert fired(AWAY, {"scope": "state", "amount": 0.0}, rows, nowhere) == []


def test_a_monthly_charge_is_new_at_its_second_charge_if_the_amounts_are_equal():
    assert rises((0, 9.99), (31, 9.99), (61, 9.99)) == {31: None}
    assert rises((0, 9.99), (31, 10.0), (61, 10.0)) == {61: None}


def test_other_charges_are_new_at_their_third():
    for gap in (7, 14, 16, 12, 9, 100, 190):
        assert rises((0, 5.0), (gap, 5.0), (2 * gap, 5.0), (3 * gap, 5.0)) == {2 * gap: None}, gap
    assert rises((0, 5.0), (365, 5.0)) == {365: None}
    for gap in (1, 5, 191, 349, 381):
        assert rises((0, 5.0), (gap, 5.0), (2 * gap, 5.0)) == {}, gap


def test_a_stream_from_the_beginning_of_the_history_is_not_new():
    # The first known purchase is the other's; MONTHLY: 35 days after it is not yet later than 35 days.
    elsewhere = charges((0, 3.0), merchant="Elsewhere")
    for lead, expected in ((35, []), (36, [(None, None)])):
        monthly = charges((lead, 9.0), (lead + 30, 9.0), (lead + 60, 9.0))
        assert bounds(RECURRING, elsewhere + monthly) == expected
    # UNKNOWN of 45 days: 45 + 4.5.
    for lead, expected in ((49, []), (50, [(None, None)])):
        assert bounds(RECURRING, elsewhere + charges((lead, 9.0), (lead + 45, 9.0), (lead + 90, 9.0))) == expected


def test_a_rise_is_of_a_mature_stream():
    # 10 to 11 is 10 %: not more than 10. The fall to 9 is none, 9 to 18 is 100 %, 40 is more than twice 18.
    found = rises((0, 10.0), (30, 10.0), (60, 11.0), (90, 9.0), (120, 18.0), (150, 40.0))
    assert found == {30: None, 60: 10, 120: 100}
    rows = charges((0, 10.0), (30, 10.0), (60, 11.0))
    assert fired(RECURRING, {"percent": 10.0}, rows) == []
    assert fired(RECURRING, {"percent": 9.5}, rows) == [2]


def test_a_charge_that_is_dearer_and_by_which_the_stream_is_new_is_one_event():
    assert rises((0, 10.0), (7, 10.0), (14, 11.0)) == {14: None}
    assert bounds(RECURRING, charges((0, 10.0), (7, 10.0), (14, 11.0))) == [(None, 10)]  # not new, only dearer


def test_amounts_of_the_first_charges_are_within_a_quarter():
    assert stream((0, 10.0), (30, 12.5), (60, 10.0), as_of=datetime(2025, 3, 15)) == ("MONTHLY", "MATURE", 3)
    assert stream((0, 10.0), (30, 12.51), (60, 10.0), as_of=datetime(2025, 3, 15)) is None
    # The third is close to the second, not to the first: a run of 2, and it is not equal.
    assert stream((0, 10.0), (30, 12.51), (60, 12.6), as_of=datetime(2025, 3, 15)) is None
    assert stream((0, 10.0), (30, 12.51), (60, 12.51), as_of=datetime(2025, 3, 15)) == ("MONTHLY", "EARLY_DETECTION", 2)


def test_a_mature_stream_takes_up_to_twice_the_amount():
    base = [(0, 10.0), (30, 10.0), (60, 10.0)]
    assert stream(*base, (90, 20.0), as_of=datetime(2025, 4, 15)) == ("MONTHLY", "MATURE", 4)
    assert stream(*base, (90, 20.01), as_of=datetime(2025, 4, 15)) == ("MONTHLY", "MATURE", 3)  # another purchase


def test_one_charge_may_be_missing_and_one_in_between_is_left_out():
    base = [(0, 10.0), (30, 10.0), (60, 10.0)]
    soon = datetime(2025, 5, 15)
    assert stream(*base, (120, 10.0), as_of=soon) == ("MONTHLY", "MATURE", 4)
    assert stream(*base, (70, 80.0), (90, 10.0), as_of=soon) == ("MONTHLY", "MATURE", 4)
    assert stream((0, 10.0), (30, 10.0), (40, 10.0), (60, 10.0), as_of=soon) is None  # not mature: it restarts
    assert stream(*base, (127, 10.0), as_of=datetime(2025, 5, 20)) is None  # 67 days: UNKNOWN, a run of 2


def test_a_habit_is_no_stream():
    assert stream(*((day, 4.5) for day in range(60)), as_of=datetime(2025, 3, 2)) is None


def test_a_fortnight_that_wavers_goes_on_twice_a_month():
    now = datetime(2025, 2, 10)
    assert stream((0, 5.0), (14, 5.0), (28, 5.0), as_of=now) == ("BIWEEKLY", "MATURE", 3)
    assert stream((0, 5.0), (15, 5.0), (31, 5.0), as_of=now) == ("SEMI_MONTHLY", "MATURE", 3)


def test_of_several_charges_on_a_day_the_first_counts():
    rows = charges((0, 10.0), (30, 10.0), (60, 10.0))
    rows.append(rows[2] | {"amount": 15.0, "transaction_date": rows[2]["transaction_date"] + timedelta(hours=1)})
    assert bounds(RECURRING, rows) == []
    rows[3]["transaction_date"] -= timedelta(hours=2)
    assert bounds(RECURRING, rows) == []  # 15 is not close to 10 while the run is young
    rows[3]["amount"] = 11.0
    assert bounds(RECURRING, rows) == [(None, 10)]


def test_a_stream_is_tombstoned_when_its_next_charges_are_overdue():
    # The last charge is of 2 March 2025 (day 60); 66 days later is 7 May.
    base = [(0, 10.0), (30, 10.0), (60, 10.0)]
    assert stream(*base, as_of=datetime(2025, 5, 7, 23)) == ("MONTHLY", "MATURE", 3)
    assert stream(*base, as_of=datetime(2025, 5, 8)) == ("MONTHLY", "TOMBSTONED", 3)
    assert stream(*base[:2], as_of=datetime(2025, 2, 1)) == ("MONTHLY", "EARLY_DETECTION", 2)


def test_an_unknown_period_is_kept_to_within_a_tenth_but_two_days_at_least():
    now = datetime(2025, 4, 20)
    assert stream((0, 5.0), (10, 5.0), (22, 5.0), (30, 5.0), as_of=datetime(2025, 2, 1)) == ("UNKNOWN", "MATURE", 4)
    assert stream((0, 5.0), (10, 5.0), (23, 5.0), as_of=datetime(2025, 2, 1)) == ("BIWEEKLY", "EARLY_DETECTION", 2)
    assert stream((0, 5.0), (45, 5.0), (94, 5.0), as_of=now) == ("UNKNOWN", "MATURE", 3)
    assert stream((0, 5.0), (45, 5.0), (95, 5.0), as_of=now) is None


def test_the_window_is_open_at_its_start_and_shows_the_last_three():
    day = timedelta(days=1)
    rows = [
        row(AS_OF - 90 * day, 11.0),  # just outside
        row(AS_OF - 90 * day + timedelta(microseconds=1), 12.0),
        row("2026-02-01T02:00", 13.5, None),
        row("2026-02-02", 14.0, "Fuel"),
        row(AS_OF, 15.0),
    ]
    user = USER | {"time_zone": "America/New_York"}
    assert rule_oracle.would_have_fired(LARGE, {"amount": 10.0}, user, rows, AS_OF) == {
        "count": 4,
        "window_days": 90,
        "until": "2026-03-15T12:00:00+00:00",
        "examples": [
            {"date": "2026-03-15", "merchant": "Cafe", "amount": 15.0},
            {"date": "2026-02-01", "merchant": "Fuel", "amount": 14.0},
            {"date": "2026-01-31", "merchant": None, "amount": 13.5},
        ],
    }
    assert rule_oracle.count_in_window(LARGE, {"amount": 12.0}, user, rows, AS_OF) == 3
    assert len(rule_oracle.firings(LARGE, {"amount": 10.0}, user, rows, AS_OF)) == 5


def test_what_lies_before_the_window_counts_for_totals_and_merchants():
    # Monday 15 December 2025, where the window begins at noon: 80 just before it, 30 after.
    rows = [row("2025-12-15T11:00", 80.0), row("2025-12-15T13:00", 30.0)]
    history = History(USER, rows, AS_OF)
    assert history.count_in_window(SPENDER, {"amount": 100.0}) == 1
    assert history.count_in_window(NEW, {"amount": 0.0}) == 0


def test_the_fitted_step_is_the_smallest_within_the_budget():
    # Purchases of 30, 60, 110 and 160; steps 20, 25, 30, 40, 50, 75, 100, 150, 200.
    rows = [row(f"2026-03-0{day}", amount) for day, amount in enumerate([30.0, 60.0, 110.0, 160.0], 1)]
    history = History(USER, rows, AS_OF)
    assert history.fit(LARGE, None, 4) == 20
    assert history.fit(LARGE, None, 3) == 30
    assert history.fit(LARGE, None, 2) == 75
    assert history.fit(LARGE, None, 1) == 150
    assert history.fit(LARGE, None, 0) == 200  # never fires
    assert history.fit(LARGE, None, 3, first_step=50.0) == 50
    assert history.fit(LARGE, None, 3, first_step=1000.0) == 1000
    assert rule_oracle.fit(AWAY, "state", USER, rows, AS_OF, 2) == 0  # nothing to count: the smallest


def test_a_step_with_too_many_firings_rules_out_those_below_it():
    # Utilisation goes from 40 to 55 once, and between 62 and 78 three times: 50 fires once, 70 three times.
    kinds = [("PURCHASE", 150.0), ("PURCHASE", 70.0), ("PURCHASE", 160.0)]
    kinds += [("PAYMENT", 160.0), ("PURCHASE", 160.0)] * 2
    rows = [row(f"2026-03-{n + 1:02}", amount, transaction_type=kind) for n, (kind, amount) in enumerate(kinds)]
    history = History(USER | {"credit_balance": 780.0}, rows, AS_OF)
    assert [history.count_in_window(LIMIT, {"percent": step}) for step in (50, 60, 70, 75, 80)] == [1, 1, 3, 3, 0]
    assert history.fit(LIMIT, None, 3) == 50
    assert history.fit(LIMIT, None, 2) == 80


def test_without_a_step_within_the_budget_there_is_none():
    rows = [row(f"2026-03-{day:02}", 2_000_000.0) for day in range(1, 8)]
    assert History(USER, rows, AS_OF).fit(LARGE, None, 6) is None
