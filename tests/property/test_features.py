"""The laws of the features; `feature_oracle` says what their numbers are."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertrec.feature_engineering import FEATURES, HISTORY_DAYS, build_user_features
from tests.property.feature_oracle import oracle
from tests.strategies import AS_OF, Bank, Zone, banks, by_user, differences, junk, laws, number, purchases, zones

NAIVE_AS_OF = AS_OF.replace(tzinfo=None)


def build(bank: Bank, as_of: datetime | None = AS_OF) -> pl.DataFrame:
    return build_user_features(bank.users_frame(), bank.transactions_frame(), as_of=as_of)


@settings(laws, max_examples=60)
@given(banks(), zones, st.sampled_from([AS_OF, NAIVE_AS_OF]))
def test_features_agree_with_a_slow_count_row_by_row(bank: Bank, zone: Zone, as_of: datetime):
    features = build_user_features(bank.users_frame(), bank.transactions_frame(zone), as_of=as_of)
    assert differences(features, oracle(bank, NAIVE_AS_OF)) == []


@laws
@given(banks())
def test_one_user_alone_a_chunk_and_everybody_give_the_same_numbers(bank: Bank):
    everybody = by_user(build(bank))
    for size in (1, 2):
        for start in range(0, len(bank.users), size):
            chunk = Bank(bank.users[start : start + size], bank.transactions)
            ids = [user["id"] for user in chunk.users]
            own = chunk.with_transactions([row for row in bank.transactions if row["user_id"] in ids])
            for given_rows in (chunk, own):
                assert differences(build(given_rows), {user_id: everybody[user_id] for user_id in ids}) == []


@laws
@given(banks(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(bank: Bank, random: object):
    shuffled = list(bank.transactions)
    random.shuffle(shuffled)
    assert differences(build(bank.with_transactions(shuffled)), by_user(build(bank))) == []


@laws
@given(banks(with_future=False), st.lists(purchases(), min_size=1, max_size=4), st.integers(0, 10**9))
def test_nothing_dated_later_matters(bank: Bank, later: list[dict[str, object]], microseconds: int):
    moment = NAIVE_AS_OF + timedelta(microseconds=1 + microseconds)
    future = number([row | {"transaction_date": moment} for row in later], "future")
    assert differences(build(bank.with_transactions(future + bank.transactions)), by_user(build(bank))) == []


@laws
@given(banks(with_junk=False), st.lists(junk(), min_size=1, max_size=8), st.sampled_from([AS_OF, None]))
def test_what_is_not_spending_changes_nothing_of_anyone(
    bank: Bank, rows: list[dict[str, object]], as_of: datetime | None
):
    spoilt = bank.with_transactions(number(rows, "junk") + bank.transactions)
    assert differences(build(spoilt, as_of), by_user(build(bank, as_of))) == []


@laws
@given(banks(), st.sampled_from([AS_OF, None]))
def test_every_user_has_one_row_of_finite_numbers_in_the_order_of_users(bank: Bank, as_of: datetime | None):
    doubled = Bank(bank.users + bank.users[::-1], bank.transactions)
    features = build(doubled, as_of)
    assert features.columns == ["user_id", *FEATURES]
    assert features["user_id"].to_list() == [user["id"] for user in bank.users]
    assert features.select(pl.all_horizontal(pl.col(FEATURES).is_finite().all())).item()
    assert differences(features, by_user(build(bank, as_of))) == []


@laws
@given(banks())
def test_shares_and_trends_stay_in_their_ranges(bank: Bank):
    features = build(bank)
    for name in (name for name in FEATURES if "_share" in name):
        assert features[name].is_between(0, 1).all(), name
    assert features["spending_trend_30d"].is_between(-1, 1).all()
    assert features["days_since_purchase"].is_between(0, HISTORY_DAYS).all()


@laws
@given(banks(), zones)
def test_pandas_gives_the_numbers_of_polars_as_pandas(bank: Bank, zone: Zone):
    pandas = pytest.importorskip("pandas")
    users, transactions = bank.users_frame().to_pandas(), bank.transactions_frame(zone).to_pandas()
    features = build_user_features(users, transactions, as_of=AS_OF)
    assert isinstance(features, pandas.DataFrame)
    assert list(features.columns) == ["user_id", *FEATURES]
    assert differences(features, by_user(build(bank))) == []


@laws
@given(banks(), st.data())
def test_rows_that_share_an_id_count_once(bank: Bank, data: st.DataObject):
    copies = data.draw(st.lists(st.sampled_from(bank.transactions), max_size=5)) if bank.transactions else []
    assert differences(build(bank.with_transactions(bank.transactions + copies)), by_user(build(bank))) == []


@laws
@given(banks())
def test_a_user_without_spending_has_zeros_and_the_cap_of_days(bank: Bank):
    empty = bank.with_transactions([row for row in bank.transactions if row["user_id"] != bank.users[0]["id"]])
    first = build(empty).row(0, named=True)
    assert first.pop("days_since_purchase") == HISTORY_DAYS
    assert {value for name, value in first.items() if name != "user_id" and not name.startswith("credit_")} == {0.0}
