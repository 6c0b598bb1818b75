from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from alertrec.ledger import Ledger, is_time_zone
from tests.histories import AS_OF, USER, Row, bought, frames, ledger

NOON = datetime(2026, 3, 14, 12)


def at_noon(amount: float, merchant: str | None = "Cafe", kind: str | None = None) -> Row:
    return bought(amount, merchant=merchant, transaction_date=NOON, transaction_type=kind)


def living_in(time_zone: str | None, **other: Any) -> list[Row]:
    return [USER | {"time_zone": time_zone} | other]


def local(found: Ledger) -> list[datetime]:
    return found.dated["local"].to_list()


def day_of(moment: date) -> int:
    return (moment - date(1970, 1, 1)).days


def test_entries_stand_by_user_and_time_and_users_as_they_were_given():
    users = [USER | {"id": "v"}, USER]
    found = ledger(bought(1.0, 1), bought(2.0, 3), bought(3.0, 2, user_id="v"), users=users)
    assert found.accounts["user_id"].to_list() == ["v", "u"]
    assert found.user.tolist() == [0, 1, 1]
    assert found.amount.tolist() == [3, 2, 1]


def test_at_one_instant_entries_stand_by_merchant_then_amount_then_type():
    rows = [
        at_noon(5.0, "a"),
        at_noon(9.0, "B"),  # capitals come before small letters
        at_noon(2.0, "B"),
        at_noon(7.0, None),
        at_noon(2.0, "B", "FEE"),
        at_noon(1.0, "é"),
    ]
    expected = [
        (None, 7, "PURCHASE"),
        ("B", 2, "FEE"),
        ("B", 2, "PURCHASE"),
        ("B", 9, "PURCHASE"),
        ("a", 5, "PURCHASE"),
        ("é", 1, "PURCHASE"),
    ]
    for given in (rows, rows[::-1]):
        assert ledger(*given).entries.select("merchant_name", "amount", "transaction_type").rows() == expected


@pytest.mark.parametrize("kind", ["REFUND", "payment", "FEE"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_refund_counts_by_its_size_whatever_its_sign_but_is_no_purchase(kind: str, sign: int):
    found = ledger(at_noon(sign * 30.0, kind=kind))
    assert found.amount.tolist() == [30]
    assert found.purchases.tolist() == []
    assert found.spending.is_empty()


@pytest.mark.parametrize("amount", [-30.0, 0.0, None, float("nan"), float("inf"), -float("inf"), 1.1e14])
def test_a_purchase_of_no_amount_is_none(amount: float | None):
    assert ledger(bought(amount), bought(5.0)).amount.tolist() == [5]


def test_the_largest_amount_counts():
    assert ledger(bought(1e14)).amount.tolist() == [1e14]


def test_a_transfer_moves_nothing():
    assert ledger(at_noon(30.0, kind="TRANSFER")).entries.is_empty()


@pytest.mark.parametrize("status", ["PENDING", "approved", "Settled", None])
def test_what_is_under_way_or_done_counts(status: str | None):
    assert ledger(bought(5.0, status=status)).amount.tolist() == [5]


@pytest.mark.parametrize("status", ["DECLINED", "cancelled", "Reversed", "", "?"])
def test_what_never_happened_does_not_count(status: str):
    assert ledger(bought(5.0, status=status)).entries.is_empty()


def test_of_rows_with_one_id_the_first_counts_and_rows_without_id_all_do():
    rows = [bought(5.0, id="a"), bought(6.0, id="a"), bought(7.0, id=None), bought(8.0, id=None)]
    assert ledger(*rows).amount.tolist() == [5, 7, 8]
    assert ledger(*rows[::-1]).amount.tolist() == [6, 7, 8]


@pytest.mark.parametrize("first", [
    {"transaction_date": AS_OF.replace(tzinfo=None) + timedelta(seconds=1)}, {"transaction_date": None},
], ids=["of the future", "without date"])  # fmt: skip
def test_a_row_that_is_not_seen_does_not_displace_one_that_is(first: Row):
    assert ledger(bought(5.0, id="a") | first, bought(6.0, id="a")).amount.tolist() == [6]


def test_a_first_row_that_was_declined_speaks_for_its_id():
    assert ledger(bought(5.0, id="a", status="DECLINED"), bought(5.0, id="a")).entries.is_empty()


def test_rows_alike_in_all_but_their_id_are_two_purchases():
    assert ledger(bought(5.0), bought(5.0)).amount.tolist() == [5, 5]


def test_the_moment_itself_is_seen_and_what_comes_later_is_not():
    found = ledger(bought(1.0, 0), bought(2.0, -1 / 86_400))
    assert found.amount.tolist() == [1]
    assert found.until == AS_OF.replace(tzinfo=None)


def test_without_a_moment_the_ledger_ends_with_the_last_purchase():
    fee = bought(3.0, 1, transaction_type="FEE")
    assert ledger(bought(1.0, 5), bought(2.0, 2), fee, as_of=None).until == AS_OF.replace(tzinfo=None) - timedelta(2)


def test_rows_of_strangers_are_left_out_and_numbers_are_keys_as_text():
    users, rows = frames([bought(1.0), bought(2.0)], [USER])
    found = Ledger.of(
        users.with_columns(id=pl.lit(7)), rows.with_columns(user_id=pl.Series([7.0, 8.0])), AS_OF
    )  # pandas makes floats of whole numbers where one is missing
    assert found.accounts["user_id"].to_list() == ["7"]
    assert found.amount.tolist() == [1]


def test_of_two_rows_of_one_user_the_first_counts():
    found = ledger(bought(1.0), users=[USER, USER | {"credit_limit": 5.0}])
    assert found.accounts["credit_limit"].to_list() == [1000]
    assert found.n_users == 1


@pytest.mark.parametrize(
    ("limit", "balance", "has_balance", "utilization"),
    [
        (1000.0, 250.0, True, 0.25),
        (1000.0, -250.0, True, 0.0),
        (0.01, 0.0, True, 0.0),
        (0.009, 0.0, False, 0.0),
        (None, 250.0, False, 0.0),
        (float("inf"), 250.0, False, 0.0),
        (1000.0, None, False, 0.0),
        (1000.0, float("nan"), False, 0.0),
    ],
)
def test_a_balance_needs_a_limit_of_a_cent_and_a_finite_balance(
    limit: float | None, balance: float | None, has_balance: bool, utilization: float
):
    accounts = ledger(users=[USER | {"credit_limit": limit, "credit_balance": balance}]).accounts
    assert accounts.select("has_balance", "credit_utilization").row(0) == (has_balance, utilization)


def test_a_user_with_a_balance_and_one_without_are_told_apart():
    accounts = ledger(users=[USER, USER | {"id": "v", "credit_limit": None}]).accounts
    assert accounts["has_balance"].to_list() == [True, False]


def test_units_are_whole_ten_thousandths():
    # In floats, 0.1 + 0.2 would be above 0.3, and 1.005 is a little less.
    found = ledger(bought(0.1, 3), bought(0.2, 2), bought(1.005, 1))
    assert found.units.tolist() == [1000, 2000, 10050]


@pytest.mark.parametrize(
    ("utc", "there"),
    [
        # New York is five hours behind in winter; on 8 March 2026 at 2:00 clocks went on to 3:00.
        (datetime(2026, 1, 1, 4, 59), datetime(2025, 12, 31, 23, 59)),
        (datetime(2026, 1, 1, 5), datetime(2026, 1, 1)),
        (datetime(2026, 3, 8, 6, 59, 59), datetime(2026, 3, 8, 1, 59, 59)),
        (datetime(2026, 3, 8, 7), datetime(2026, 3, 8, 3)),
        (datetime(2026, 3, 9, 3, 59), datetime(2026, 3, 8, 23, 59)),
        (datetime(2026, 3, 9, 4), datetime(2026, 3, 9)),
        # On 2 November 2025 at 2:00 they went back to 1:00: that hour was there twice.
        (datetime(2025, 11, 2, 5, 30), datetime(2025, 11, 2, 1, 30)),
        (datetime(2025, 11, 2, 6, 30), datetime(2025, 11, 2, 1, 30)),
        (datetime(2025, 11, 3, 4, 59), datetime(2025, 11, 2, 23, 59)),
    ],
)
def test_local_time_follows_the_clocks_of_the_users_zone(utc: datetime, there: datetime):
    found = ledger(bought(1.0, transaction_date=utc), users=living_in("America/New_York"))
    assert local(found) == [there]
    assert found.day.tolist() == [day_of(there.date())]
    assert found.dated["at"].to_list() == [utc]


def test_each_user_has_a_clock_of_their_own():
    zones = {"u": "Asia/Kolkata", "v": None, "w": "Pacific/Pago_Pago"}
    users = [USER | {"id": user_id, "time_zone": zone} for user_id, zone in zones.items()]
    rows = [bought(1.0, user_id=user_id, transaction_date=datetime(2026, 1, 1, 20)) for user_id in zones]
    # Half past five ahead, and eleven hours behind.
    assert local(ledger(*rows, users=users)) == [
        datetime(2026, 1, 2, 1, 30),
        datetime(2026, 1, 1, 20),
        datetime(2026, 1, 1, 9),
    ]


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "*", "+02:00", "", " ", "europe/berlin", "Europe/Berlin ", "UTC", None]
)
def test_a_zone_that_is_not_known_is_utc(name: str | None):
    found = ledger(bought(1.0, transaction_date=datetime(2026, 1, 1, 23, 30)), users=living_in(name))
    assert local(found) == [datetime(2026, 1, 1, 23, 30)]
    assert found.days_at(datetime(2026, 1, 1, 23, 30)).tolist() == [day_of(date(2026, 1, 1))]


def test_an_unknown_zone_of_one_user_does_not_stop_the_clock_of_another():
    users = [USER | {"time_zone": "*"}, USER | {"id": "v", "time_zone": "Asia/Kolkata"}]
    rows = [bought(1.0, user_id=user_id, transaction_date=datetime(2026, 1, 1, 20)) for user_id in "uv"]
    assert local(ledger(*rows, users=users)) == [datetime(2026, 1, 1, 20), datetime(2026, 1, 2, 1, 30)]


def test_users_without_a_column_of_zones_live_in_utc():
    users, rows = frames([bought(1.0, transaction_date=NOON)], [USER])
    assert local(Ledger.of(users.drop("time_zone"), rows, AS_OF)) == [NOON]


@pytest.mark.parametrize(
    ("name", "is_one"), [("Europe/Berlin", True), ("Etc/GMT+2", True), ("+02:00", False), ("*", False)]
)
def test_only_names_of_zones_are_time_zones(name: str, is_one: bool):
    assert is_time_zone(name) == is_one


def test_days_are_those_of_each_user():
    users = [USER | {"id": zone, "time_zone": zone} for zone in ("Pacific/Kiritimati", "UTC", "America/New_York")]
    # Fourteen hours ahead, none, and five behind.
    assert ledger(users=users).days_at(datetime(2026, 1, 1, 3)).tolist() == [
        day_of(date(2026, 1, 1)),
        day_of(date(2026, 1, 1)),
        day_of(date(2025, 12, 31)),
    ]
    assert ledger(users=users).days_at(datetime(2026, 1, 1, 12)).tolist()[0] == day_of(date(2026, 1, 2))


def test_dates_before_the_epoch_have_days_too():
    found = ledger(bought(1.0, transaction_date=datetime(1969, 12, 31, 23)))
    assert found.day.tolist() == [-1]


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ("2026-03-14T12:00:00", NOON),
        ("2026-03-14 14:00:00+02:00", NOON),
        ("2026-03-14", datetime(2026, 3, 14)),
        (date(2026, 3, 14), datetime(2026, 3, 14)),
        (datetime(2026, 3, 14, 12, tzinfo=UTC), NOON),
    ],
    ids=repr,
)
def test_dates_come_in_several_kinds(given: Any, at: datetime):
    users, rows = frames([bought(1.0)], [USER])
    found = Ledger.of(users, rows.with_columns(transaction_date=pl.Series([given])), AS_OF)
    assert found.dated["at"].to_list() == [at]


def test_a_moment_in_any_zone_is_the_same_moment():
    users, rows = frames([bought(1.0, 1)], [USER])
    zoned = rows.with_columns(pl.col("transaction_date").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"))
    assert Ledger.of(users, zoned, AS_OF).entries.equals(Ledger.of(users, rows, AS_OF.replace(tzinfo=None)).entries)


def test_a_row_without_date_is_left_out():
    assert ledger(bought(1.0), bought(2.0, transaction_date=None)).amount.tolist() == [1]


def test_without_a_column_of_dates_all_purchases_are_spending_and_none_has_a_date():
    users, rows = frames([bought(1.0), bought(2.0)], [USER])
    for as_of in (AS_OF, None):
        found = Ledger.of(users, rows.drop("transaction_date"), as_of)
        assert found.spending["amount"].to_list() == [1, 2]
        assert found.dated.is_empty()
        assert found.purchases.tolist() == []
        assert found.first_at.tolist() == [np.iinfo(np.int64).max]
        assert found.until == (as_of and as_of.replace(tzinfo=None))


@pytest.mark.parametrize("as_of", [AS_OF, None])
@pytest.mark.parametrize("users", [[USER], []], ids=["one user", "nobody"])
def test_an_empty_ledger_has_all_its_arrays(users: list[Row], as_of: datetime | None):
    found = Ledger.of(*frames([], users), as_of)
    assert found.n_users == len(users)
    assert found.entries.is_empty()
    for each in (found.user, found.at, found.amount, found.units, found.is_purchase, found.day, found.merchant):
        assert each.shape == (0,)
    assert found.first_at.tolist() == [np.iinfo(np.int64).max] * len(users)
    assert found.streams.is_new.shape == (0,)
    assert found.until == (as_of and as_of.replace(tzinfo=None))


def test_the_first_purchase_of_each_user_is_known():
    users = [USER, USER | {"id": "v"}]
    fee = bought(9.0, 9, transaction_type="FEE")
    found = ledger(bought(1.0, 2), bought(2.0, 5), fee, users=users)
    five_days_ago = AS_OF.replace(tzinfo=None) - timedelta(days=5)
    assert found.first_at.tolist() == [found.after(5), np.iinfo(np.int64).max]
    assert (
        found.at[found.purchases[0]]
        == found.first_at[0]
        == (five_days_ago - datetime(1970, 1, 1)) / timedelta(microseconds=1)
    )


def test_spellings_of_one_merchant_have_one_code_and_no_name_has_none():
    rows = [bought(1.0, day, name) for day, name in ((5, "Cafe"), (4, "SQ *CAFE"), (3, None), (2, " "), (1, "Shop"))]
    found = ledger(*rows)
    assert found.merchant.tolist() == [0, 0, -1, -1, 1]
    assert found.merchant_name.to_list() == ["Cafe", "SQ *CAFE", None, " ", "Shop"]


@pytest.mark.parametrize("column", ["merchant_state", "merchant_country", "merchant_category"])
def test_entries_that_differ_in_their_place_alone_stand_in_one_order_too(column: str):
    rows = [at_noon(5.0) | {"id": place, column: place} for place in ("CA", "NY")]
    assert ledger(*rows).entries.equals(ledger(*rows[::-1]).entries)
