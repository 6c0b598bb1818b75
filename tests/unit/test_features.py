from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from alertrec.feature_engineering import (
    BEHAVIOUR_FEATURES,
    FEATURES,
    HISTORY_DAYS,
    SIMILARITY_FEATURES,
    build_user_features,
    get_similarity_feature_columns,
)

AS_OF = datetime(2026, 3, 31, 12, tzinfo=UTC)  # a Tuesday
ANN = {"id": "ann", "credit_limit": 1000.0, "credit_balance": 250.0, "address_state": "NY", "address_country": "US"}


def near(value: float) -> Any:
    return pytest.approx(value, abs=1e-6)  # features are rounded to six decimals


def purchase(amount: Any, at: Any = datetime(2026, 3, 30, 9), merchant: str | None = "Cafe", **other: Any) -> dict:
    row = {"user_id": "ann", "amount": amount, "merchant_name": merchant, "merchant_category": "food"}
    return row | {"transaction_date": at} | other


def features_of(*rows: dict, as_of: datetime | None = AS_OF, user: dict | None = None) -> dict[str, float]:
    """Build the features of one user from rows, through polars."""
    transactions = pl.DataFrame(list(rows), infer_schema_length=None)
    return build_user_features(pl.DataFrame([user or ANN]), transactions, as_of=as_of).row(0, named=True)


def test_the_ten_similarity_features_keep_their_names():
    assert get_similarity_feature_columns() == [
        "amount_mean", "amount_std", "amount_max", "amount_sum", "amount_count",
        "merchant_name_nunique", "merchant_category_nunique", "credit_limit", "credit_balance", "credit_utilization",
    ]  # fmt: skip
    assert FEATURES == SIMILARITY_FEATURES + BEHAVIOUR_FEATURES
    assert len(set(FEATURES)) == len(FEATURES)


def test_amounts_are_those_of_the_purchases():
    row = features_of(purchase(10.0), purchase(20.0, merchant="Shop"), purchase(60.0, merchant=None))
    # mean 90/3; deviations −20, −10, 30: sqrt((400 + 100 + 900) / (3 − 1)) = sqrt(700)
    assert row["amount_mean"] == 30
    assert row["amount_std"] == near(math.sqrt(700))
    assert (row["amount_max"], row["amount_sum"], row["amount_count"]) == (60, 90, 3)
    # the 0.95 quantile lies 1.9 steps above the first: 20 + 0.9 · (60 − 20)
    assert (row["amount_median"], row["amount_p95"]) == (20, near(56))
    assert (row["merchant_name_nunique"], row["merchant_category_nunique"]) == (2, 1)
    assert row["credit_utilization"] == 0.25


def test_one_purchase_has_no_spread():
    assert features_of(purchase(10.0))["amount_std"] == 0


def test_one_refund_of_five_thousand_does_not_touch_the_mean():
    # With the refund counted, the mean was (10 + 20 + 80 − 5000) / 4 < 0; it is 110 / 3.
    row = features_of(
        purchase(10.0), purchase(20.0), purchase(80.0), purchase(-5000.0), purchase(5000.0, transaction_type="REFUND")
    )
    assert row["amount_mean"] == near(110 / 3)
    assert row["amount_max"] == 80


@pytest.mark.parametrize("status", ["DECLINED", "CANCELLED", "REVERSED", "declined"])
def test_money_that_did_not_leave_is_not_spent(status: str):
    assert features_of(purchase(10.0), purchase(900.0, status=status))["amount_sum"] == 10


@pytest.mark.parametrize("status", ["PENDING", "approved", "SETTLED", None])
def test_money_that_left_or_is_about_to_is_spent(status: str | None):
    assert features_of(purchase(10.0), purchase(900.0, status=status))["amount_sum"] == 910


@pytest.mark.parametrize("kind", ["REFUND", "PAYMENT", "FEE", "TRANSFER", "WITHDRAWAL", "DEPOSIT", "INTEREST"])
def test_only_purchases_are_spending(kind: str):
    assert features_of(purchase(10.0), purchase(900.0, transaction_type=kind))["amount_sum"] == 10


def test_three_daily_coffees_are_no_subscription():
    days = [datetime(2026, 3, day, 8) for day in (27, 28, 29)]
    assert features_of(*(purchase(4.5, day) for day in days))["recurring_charge_count"] == 0


def test_three_monthly_charges_are_one():
    days = [datetime(2026, 1, 5), datetime(2026, 2, 4), datetime(2026, 3, 6)]
    row = features_of(*(purchase(amount, day) for amount, day in zip((10.0, 10.0, 12.0), days, strict=True)))
    # Gaps of 30 and 30 days: once a month; 12 / 10 − 1 dearer.
    assert (row["recurring_charge_count"], row["recurring_monthly_count"], row["recurring_weekly_count"]) == (1, 1, 0)
    assert row["recurring_monthly_amount"] == 12
    assert row["recurring_price_rise"] == near(0.2)


def test_subscriptions_that_take_turns_are_each_seen():
    months = [datetime(2026, 1, 5), datetime(2026, 2, 4), datetime(2026, 3, 6)]
    rows = [purchase(10.0, day, "Streamly") for day in months]
    rows += [purchase(20.0, day + timedelta(days=10), "Gym") for day in months]
    row = features_of(*rows)
    assert (row["recurring_charge_count"], row["recurring_monthly_amount"]) == (2, 30)


def test_two_charges_on_one_day_of_a_weekly_stream_are_one_visit():
    days = [datetime(2026, 3, day, hour) for day in (3, 10, 17) for hour in (9, 17)]
    row = features_of(*(purchase(5.0, day) for day in days))
    # The first of each day, three of 5 a week apart: 5 · 30.44 / 7.
    assert (row["recurring_weekly_count"], row["active_days"], row["daily_purchases_max"]) == (1, 3, 2)
    assert row["recurring_monthly_amount"] == near(152.2 / 7)


def test_amounts_that_differ_by_more_than_a_quarter_are_no_subscription():
    days = [datetime(2026, 1, 5), datetime(2026, 2, 4), datetime(2026, 3, 6)]
    dear = [purchase(amount, day) for amount, day in zip((10.0, 10.0, 12.51), days, strict=True)]
    assert features_of(*dear)["recurring_charge_count"] == 0


@pytest.mark.parametrize(
    ("gaps", "counts"),
    [
        ([5, 5], (0, 0, 0)),  # more often than weekly is a habit
        ([6, 6], (1, 1, 0)),
        ([8, 8], (1, 1, 0)),
        ([9, 9], (1, 0, 0)),
        ([6, 8], (1, 1, 0)),
        ([6, 9], (0, 0, 0)),
        ([24, 24], (1, 0, 0)),
        ([25, 25], (1, 0, 1)),
        ([35, 35], (1, 0, 1)),
        ([36, 36], (1, 0, 0)),
        ([25, 35], (1, 0, 1)),
        ([25, 36], (0, 0, 0)),
        ([30], (0, 0, 0)),  # two charges show no rhythm
        ([30, 30, 60, 30], (1, 0, 1)),  # one is skipped
        ([30, 30, 90], (0, 0, 0)),  # two are
    ],
    ids=str,
)
def test_charges_recur_when_they_keep_a_rhythm(gaps: list[int], counts: tuple[int, int, int]):
    days = [datetime(2026, 3, 30) - timedelta(days=sum(gaps[n:])) for n in range(len(gaps) + 1)]
    row = features_of(*(purchase(10.0, day) for day in days))
    kinds = ("recurring_charge_count", "recurring_weekly_count", "recurring_monthly_count")
    assert tuple(row[kind] for kind in kinds) == counts


def test_one_service_under_three_spellings_is_one_subscription():
    days = [datetime(2026, 1, 5), datetime(2026, 2, 4), datetime(2026, 3, 6)]
    names = ("Streamly", "STREAMLY.COM*12345", " Streamly Inc ")
    rows = [purchase(10.0, day, name) for name, day in zip(names, days, strict=True)]
    assert features_of(*rows)["recurring_charge_count"] == 1


def test_recent_spending_is_compared_with_the_thirty_days_before():
    row = features_of(
        purchase(30.0, datetime(2026, 3, 1, 12, 0, 1)),  # one second under 30 days old
        purchase(10.0, datetime(2026, 3, 1, 12)),  # exactly 30 days old: before
        purchase(99.0, datetime(2026, 1, 30, 12)),  # exactly 60 days old: neither
    )
    assert row["spending_trend_30d"] == near((30 - 10) / (30 + 10))


def test_days_nights_weekends_and_weeks_are_those_of_the_calendar_in_utc():
    row = features_of(
        purchase(1.0, datetime(2026, 3, 28, 5, 59)),  # Saturday night
        purchase(2.0, datetime(2026, 3, 29, 23)),  # Sunday, the same week
        purchase(9.0, datetime(2026, 3, 30, 6)),  # Monday, the next
    )
    assert row["night_share"] == near(1 / 3)
    assert row["weekend_share"] == near(2 / 3)
    assert (row["weekly_spending_mean"], row["weekly_spending_max"]) == (6, 9)  # (3 + 9) / 2
    assert row["days_since_purchase"] == 1.25  # Monday 6:00 to Tuesday 12:00


def test_a_purchase_without_a_place_says_nothing_about_places():
    away = [purchase(1.0, merchant_state=state) for state in ("NY", "CA", None)]
    assert features_of(*away)["out_of_state_share"] == 0.5
    assert features_of(*away, user=ANN | {"address_state": None})["out_of_state_share"] == 0


def test_a_merchant_is_new_when_it_was_first_used_within_thirty_days():
    row = features_of(
        purchase(1.0, datetime(2026, 1, 1), "Old"),
        purchase(1.0, datetime(2026, 3, 30), "Old"),
        purchase(1.0, datetime(2026, 3, 30), "New"),
        purchase(1.0, datetime(2026, 1, 1), "Left"),
    )
    assert row["new_merchant_share_30d"] == 0.5  # of Old and New


def test_a_zone_moves_the_day_and_not_the_moment():
    new_york = timezone(timedelta(hours=-4))
    # 23:00 on the 30th in New York is 3:00 on the 31st in UTC: a night, nine hours ago.
    row = features_of(purchase(1.0, datetime(2026, 3, 30, 23, tzinfo=new_york)))
    assert (row["night_share"], row["days_since_purchase"]) == (1, 9 / 24)


def test_as_of_is_by_default_the_last_moment():
    assert features_of(purchase(1.0), as_of=None)["days_since_purchase"] == 0


def test_what_is_dated_later_does_not_exist_yet():
    later = purchase(900.0, AS_OF.replace(tzinfo=None) + timedelta(microseconds=1))
    assert features_of(purchase(1.0), later)["amount_max"] == 1


def test_a_later_row_does_not_displace_an_earlier_one_of_the_same_id():
    rows = [purchase(900.0, datetime(2026, 4, 1), id="t1"), purchase(1.0, datetime(2026, 3, 30), id="t1")]
    assert features_of(*rows)["amount_sum"] == 1


def test_of_several_rows_with_one_id_the_first_counts():
    assert features_of(purchase(1.0, id="t1"), purchase(2.0, id="t2"), purchase(4.0, id="t1"))["amount_sum"] == 3


def test_rows_without_an_id_are_not_one_row():
    assert features_of(purchase(1.0, id=None), purchase(2.0, id=None), purchase(4.0, id="t1"))["amount_sum"] == 7


def test_a_row_without_a_date_counts_alike_whoever_else_is_there():
    users = pl.DataFrame([ANN, ANN | {"id": "bob"}])
    undated = purchase(5.0, None)
    transactions = pl.DataFrame([undated, purchase(7.0, user_id="bob")])
    together = build_user_features(users, transactions).row(0, named=True)
    alone = build_user_features(users[:1], transactions[:1]).row(0, named=True)
    assert alone["amount_sum"] == together["amount_sum"]


@pytest.mark.parametrize("as_of", [None, AS_OF])
def test_without_a_column_of_dates_the_amounts_count(as_of: datetime | None):
    rows = [{key: value for key, value in purchase(5.0).items() if key != "transaction_date"}]
    row = features_of(*rows, as_of=as_of)
    assert (row["amount_sum"], row["active_days"], row["days_since_purchase"]) == (5, 0, HISTORY_DAYS)


def test_the_least_columns_that_were_promised_suffice():
    users = pd.DataFrame({"id": [7, 8]})
    transactions = pd.DataFrame(
        {"user_id": [7, 7], "amount": [1, 3], "merchant_name": ["a", "b"], "merchant_category": ["x", "x"]}
    )
    features = build_user_features(users, transactions)
    assert features["user_id"].tolist() == ["7", "8"]
    assert features["amount_mean"].tolist() == [2, 0]
    assert features["days_since_purchase"].tolist() == [HISTORY_DAYS, HISTORY_DAYS]


def test_integer_ids_of_pandas_meet_although_a_missing_one_made_them_floats():
    users = pd.DataFrame({"id": [7]})
    transactions = pd.DataFrame(
        {"user_id": [7, None], "amount": [1.0, 3.0], "merchant_name": ["a", "b"], "merchant_category": ["x", "x"]}
    )
    assert build_user_features(users, transactions)["amount_sum"].tolist() == [1]


@pytest.mark.parametrize(
    "amounts", [[Decimal("1.50"), Decimal("2.25")], [1.5, 2.25], ["1.50", "2.25"]], ids=["decimal", "float", "text"]
)
@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_amounts_come_as_decimals_floats_or_texts(make: Any, amounts: list[Any]):
    rows = [purchase(amount) for amount in amounts]
    assert list(build_user_features(make([ANN]), make(rows))["amount_sum"]) == [3.75]


@pytest.mark.parametrize(
    "at",
    [
        "2026-03-30T09:00:00", "2026-03-30 09:00:00", "2026-03-30T09:00:00Z", "2026-03-30T05:00:00-04:00",
        datetime(2026, 3, 30, 9), datetime(2026, 3, 30, 9, tzinfo=UTC),
        datetime(2026, 3, 30, 5, tzinfo=timezone(timedelta(hours=-4))),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_dates_come_as_datetimes_or_texts(make: Any, at: Any):
    features = build_user_features(make([ANN]), make([purchase(1.0, at)]), as_of=AS_OF)
    assert list(features["days_since_purchase"]) == [27 / 24]


@pytest.mark.parametrize("at", ["2026-03-30", date(2026, 3, 30)], ids=["text", "date"])
@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_a_day_is_its_midnight(make: Any, at: Any):
    features = build_user_features(make([ANN]), make([purchase(1.0, at)]), as_of=AS_OF)
    assert list(features["days_since_purchase"]) == [1.5]


def test_a_text_that_is_no_date_counts_as_none():
    assert features_of(purchase(1.0, "2026-03-30T09:00:00Z"), purchase(2.0, "soon"))["amount_sum"] == 1
    assert features_of(purchase(2.0, "soon"), purchase(1.0, "2026-03-30T09:00:00Z"))["amount_sum"] == 1


def test_dates_as_texts_need_not_be_of_one_format():
    row = features_of(purchase(1.0, "2026-03-30"), purchase(2.0, "2026-03-30T09:00:00Z"))
    assert row["amount_sum"] == 3


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_no_transactions_at_all_give_a_row_of_zeros(make: Any):
    columns = ["id", "user_id", "amount", "merchant_name", "merchant_category", "transaction_date", "status"]
    none = make({name: [] for name in columns})
    features = build_user_features(make([ANN]), none, as_of=AS_OF)
    assert list(features["user_id"]) == ["ann"]
    assert list(features["amount_sum"]) == [0]
    assert list(features["days_since_purchase"]) == [HISTORY_DAYS]
    assert list(features["credit_utilization"]) == [0.25]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_no_users_give_no_rows_but_all_columns(make: Any):
    features = build_user_features(make({"id": []}), make([purchase(1.0)]), as_of=AS_OF)
    assert (len(features), list(features.columns)) == (0, ["user_id", *FEATURES])


@pytest.mark.parametrize(
    ("limit", "balance", "used"),
    [(1000.0, 1500.0, 1.5), (0.0, 50.0, 0.0), (-10.0, 50.0, 0.0), (100.0, -50.0, 0.0), (math.nan, 5.0, 0.0)],
)
def test_utilisation_is_the_balance_of_the_limit_and_never_below_zero(limit: float, balance: float, used: float):
    user = ANN | {"credit_limit": limit, "credit_balance": balance}
    assert features_of(purchase(1.0), user=user)["credit_utilization"] == used


def test_of_several_rows_of_a_user_the_first_counts():
    users = pl.DataFrame([ANN, ANN | {"credit_limit": 5.0}])
    features = build_user_features(users, pl.DataFrame([purchase(1.0)]))
    assert features["credit_limit"].to_list() == [1000]
    assert features["amount_count"].to_list() == [1]


@pytest.mark.parametrize("amount", [1e200, 1e308])
def test_no_amount_however_large_makes_a_feature_infinite(amount: float):
    days = [datetime(2026, 1, 5), datetime(2026, 2, 4), datetime(2026, 3, 6)]
    row = features_of(*(purchase(amount * factor, day) for factor, day in zip((1, 0.9, 1), days, strict=True)))
    assert [name for name in FEATURES if not np.isfinite(row[name])] == []


def test_no_credit_limit_however_small_makes_the_utilisation_infinite():
    row = features_of(purchase(1.0), user=ANN | {"credit_limit": 5e-324, "credit_balance": 10.0})
    assert np.isfinite(row["credit_utilization"])


def test_what_comes_in_is_not_changed():
    users, transactions = pd.DataFrame([ANN]), pd.DataFrame([purchase(1.0)])
    before = users.copy(), transactions.copy()
    build_user_features(users, transactions)
    pd.testing.assert_frame_equal(users, before[0])
    pd.testing.assert_frame_equal(transactions, before[1])
