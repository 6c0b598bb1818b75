from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from alertrec.catalog import ALERT_KEYS, classify
from alertrec.sample_bank import SampleBank, make_sample_answers, make_sample_bank
from alertrec.sample_bank.vocabulary import SEGMENTS, TEXTS, merchants
from alertrec.storage.tables import alert_actions
from alertrec.transactions import PURCHASE, STATUSES, TRANSACTION_TYPES

AS_OF = datetime(2026, 9, 30, 15, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def bank() -> SampleBank:
    return make_sample_bank(1000, as_of=AS_OF)


def test_the_same_seed_gives_the_same_bank_and_another_seed_another():
    first, again = (make_sample_bank(50, as_of=AS_OF, seed=3) for _ in range(2))
    other = make_sample_bank(50, as_of=AS_OF, seed=4)
    assert first.users.equals(again.users)
    assert first.transactions.write_csv() == again.transactions.write_csv()
    assert first.alert_rules.equals(again.alert_rules)
    assert not first.transactions.equals(other.transactions)


def test_columns_are_those_of_an_export(bank: SampleBank):
    assert bank.users.columns == [
        "id", "is_active", "credit_limit", "credit_balance", "address_city", "address_state", "address_country",
        "location_consent_given", "created_at",
    ]  # fmt: skip
    assert bank.transactions.columns == [
        "id", "user_id", "amount", "currency", "merchant_name", "merchant_category", "merchant_city",
        "merchant_state", "merchant_country", "transaction_date", "transaction_type", "status",
    ]  # fmt: skip
    assert bank.alert_rules.columns == [
        "id", "user_id", "alert_type", "natural_language_query", "is_active", "created_at",
    ]  # fmt: skip


def test_ids_are_unique_and_padded(bank: SampleBank):
    for frame, first in (
        (bank.users, "user-0001"),
        (bank.transactions, "txn-0000001"),
        (bank.alert_rules, "rule-00001"),
    ):
        assert frame["id"].is_unique().all()
        assert frame["id"][0] == first
    assert bank.transactions["user_id"].is_in(bank.users["id"].implode()).all()


def test_everything_happened_in_the_period_and_before_its_end(bank: SampleBank):
    start = AS_OF - timedelta(days=180)
    for times in (bank.transactions["transaction_date"], bank.alert_rules["created_at"]):
        assert start <= times.min() < start + timedelta(days=2)
        assert AS_OF - timedelta(days=2) < times.max() < AS_OF
    assert bank.users["created_at"].max() <= start


def test_a_moment_without_a_zone_is_utc():
    naive = make_sample_bank(5, as_of=AS_OF.replace(tzinfo=None))
    assert naive.transactions.equals(make_sample_bank(5, as_of=AS_OF).transactions)


def test_users_are_as_many_and_as_busy_as_promised(bank: SampleBank):
    bought = bank.transactions.filter(transaction_type=PURCHASE)
    assert 120 <= bought.height / 1000 <= 180
    assert 0.005 <= 1 - bank.transactions["user_id"].n_unique() / 1000 <= 0.045
    assert 0.005 <= 1 - bank.users["is_active"].mean() <= 0.045
    assert 0.25 <= 1 - bank.alert_rules["user_id"].n_unique() / 1000 <= 0.36
    near_limit = bank.users.filter(pl.col("credit_balance") > 0.8 * pl.col("credit_limit"))
    assert near_limit.height >= 30


def test_rows_that_are_no_spending_occur(bank: SampleBank):
    assert set(bank.transactions["transaction_type"]) == {"PURCHASE", "REFUND", "PAYMENT", "FEE"}
    assert set(bank.transactions["transaction_type"]) <= set(TRANSACTION_TYPES)
    assert set(bank.transactions["status"]) == {"SETTLED", "PENDING", "APPROVED", "DECLINED", "CANCELLED"}
    assert set(bank.transactions["status"]) <= set(STATUSES)
    assert bank.transactions["amount"].min() > 0


def test_subscriptions_come_back_every_month_or_week_and_some_become_dearer(bank: SampleBank):
    charges = bank.transactions.filter(merchant_category="subscription", transaction_type=PURCHASE)
    one = charges.sort("user_id", "merchant_name", "transaction_date").with_columns(
        pl.col("transaction_date").diff().over("user_id", "merchant_name").dt.total_hours().alias("gap") / 24
    )
    assert set((one["gap"].drop_nulls() / 7).round().unique()) <= {1.0, 4.0, 5.0}
    prices = charges.group_by("user_id", "merchant_name").agg(pl.col("amount").n_unique().alias("n_prices"))
    assert 0.1 < (prices["n_prices"] == 2).mean() < 0.5
    assert prices["n_prices"].max() == 2


def test_some_purchases_are_made_in_other_states_and_countries(bank: SampleBank):
    placed = bank.transactions.join(bank.users, left_on="user_id", right_on="id").drop_nulls("merchant_city")
    assert 0.02 < (placed["merchant_city"] != placed["address_city"]).mean() < 0.3
    assert placed.filter(pl.col("merchant_country") != "US")["merchant_state"].is_null().all()
    assert placed["merchant_country"].n_unique() > 3


def test_every_text_is_of_the_type_that_it_was_written_for():
    assert set(TEXTS) == set(ALERT_KEYS)
    assert {len(segment.alerts) for segment in SEGMENTS} == {len(TEXTS)}
    for key, texts in TEXTS.items():
        for text in texts:
            for amount, count, percent, scope in ((25, 3, 10, "country"), (12_500, 14, 90, "state")):
                written = text.format(amount=amount, count=count, percent=percent, scope=scope)
                assert classify(written) == key, written


def test_rules_say_what_they_are_of_and_some_only_in_words(bank: SampleBank):
    rules = bank.alert_rules.with_columns(
        pl.col("natural_language_query").map_elements(classify, return_dtype=pl.String).alias("said")
    )
    typed = rules.drop_nulls("alert_type")
    assert 0.11 <= 1 - typed.height / rules.height <= 0.19
    assert typed["alert_type"].equals(typed["said"], check_names=False)
    assert 0.03 <= 1 - rules["is_active"].mean() <= 0.09
    assert rules.select("user_id", "said").is_unique().all()
    assert set(rules["said"]) == set(ALERT_KEYS)


def test_who_buys_away_from_home_watches_that_more_often():
    bank = make_sample_bank(3000, as_of=AS_OF, seed=1)
    placed = bank.transactions.join(bank.users, left_on="user_id", right_on="id").drop_nulls("merchant_city")
    away = placed.group_by("user_id").agg((pl.col("merchant_city") != pl.col("address_city")).mean().alias("away"))
    owners = bank.alert_rules.filter(alert_type="alert_location_based")["user_id"]
    by_owner = away.with_columns(pl.col("user_id").is_in(owners.implode()).alias("owns"))
    assert by_owner.filter("owns")["away"].mean() > 2 * by_owner.filter(~pl.col("owns"))["away"].mean()


def test_having_one_alert_makes_another_likelier():
    rules = make_sample_bank(3000, as_of=AS_OF, seed=1).alert_rules
    counts = rules.group_by("user_id").len()["len"].to_numpy()
    # Eight independent alerts of equal mean would have a smaller variance than a binomial's n p (1 - p).
    share = counts.mean() / 8
    assert np.var(counts) > 8 * share * (1 - share)


def test_merchants_have_names_of_their_own():
    names, categories = merchants()
    assert len(names) == len(categories) == len(set(names))


@pytest.mark.parametrize(("n_users", "days"), [(1, 1), (1, 30), (3, 400)])
def test_small_banks_and_other_periods_work(n_users: int, days: int):
    bank = make_sample_bank(n_users, as_of=AS_OF, days=days)
    assert bank.users.height == n_users


@pytest.mark.parametrize(("n_users", "days"), [(0, 180), (10, 0)])
def test_a_bank_of_nothing_is_refused(n_users: int, days: int):
    with pytest.raises(ValueError, match="at least 1"):
        make_sample_bank(n_users, as_of=AS_OF, days=days)


@pytest.fixture(scope="module")
def answers(bank: SampleBank) -> pl.DataFrame:
    return make_sample_answers(bank, as_of=AS_OF)


def test_answers_have_the_columns_of_the_table_and_are_of_the_past(answers: pl.DataFrame):
    columns = {column.name for column in alert_actions.columns} - {"due_at"}
    assert set(answers.columns) == columns
    assert answers.height > 1000
    assert answers["event_id"].n_unique() == answers.height
    assert answers["occurred_at"].max() < AS_OF
    assert answers["processed_at"].null_count() == 0  # nobody's list is renewed for them


def test_the_same_seed_gives_the_same_answers(bank: SampleBank, answers: pl.DataFrame):
    assert make_sample_answers(bank, as_of=AS_OF).equals(answers)
    assert not make_sample_answers(bank, as_of=AS_OF, seed=1).equals(answers)


def test_what_was_accepted_is_a_rule_of_that_customer_and_type(bank: SampleBank, answers: pl.DataFrame):
    accepted = answers.filter(action="accepted").select("user_id", "alert_type", id="alert_rule_id")
    assert accepted.height > 300
    assert accepted.join(bank.alert_rules, on=["id", "user_id", "alert_type"], how="anti").is_empty()
    given_up = set(answers.filter(action="disabled")["alert_rule_id"])
    assert given_up
    off = set(bank.alert_rules.filter(~pl.col("is_active"))["id"])
    assert given_up == off & set(accepted["id"])


def test_what_was_not_taken_is_no_rule_of_that_customer(bank: SampleBank, answers: pl.DataFrame):
    refused = answers.filter(pl.col("action").is_in(["dismissed", "snoozed"])).select("user_id", "alert_type")
    assert refused.height > 100
    assert refused.join(bank.alert_rules, on=["user_id", "alert_type"], how="semi").is_empty()


def test_what_is_likelier_was_taken_more_often(answers: pl.DataFrame):
    offers = answers.group_by("recommendation_id").agg(
        pl.col("probability").first(), (pl.col("action") == "accepted").any().alias("taken")
    )
    mean = dict(offers.group_by("taken").agg(pl.col("probability").mean()).iter_rows())
    assert mean[True] > mean[False] + 0.05
