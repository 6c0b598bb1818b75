"""Recurring charges against what is known of two exports: standing orders of a real bank, and named subscriptions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alertrec.merchants import merchant_codes
from alertrec.recurring import FREQUENCIES, STATUSES, Frequency, Status, Streams, find_streams
from tests.conftest import SHARED_DATA

SETTLED = ["PENDING", "APPROVED", "SETTLED"]


@dataclass(frozen=True)
class Found:
    """Purchases of an export by user and time, what recurs among them, and which of them are meant to."""

    rows: pl.DataFrame
    streams: Streams
    recurs: np.ndarray

    @property
    def pairs(self) -> np.ndarray:
        """User and merchant of each purchase in one number."""
        return self.rows["user"].to_numpy() * 1_000_000 + self.rows["merchant"].to_numpy()

    @property
    def stream_pairs(self) -> np.ndarray:
        return self.streams.user * 1_000_000 + self.streams.merchant

    def meant(self, least: int) -> set[int]:
        """Return the users and merchants that have so many charges which are meant to recur."""
        pairs, counts = np.unique(self.pairs[self.recurs], return_counts=True)
        return set(pairs[counts >= least].tolist())


def find(rows: pl.DataFrame) -> Found:
    """Find the streams of rows with `user_id`, `day`, `name`, `amount` and `recurs`, in the order of time."""
    rows = rows.with_columns(
        (pl.col("user_id").rank("dense").cast(pl.Int64) - 1).alias("user"),
        pl.Series("merchant", merchant_codes(rows["name"])),
        pl.col("day").cast(pl.Int32).cast(pl.Int64),
        (pl.col("amount") * 10_000).round().cast(pl.Int64),
    ).sort("user", maintain_order=True)
    by_user = (
        rows.group_by("user").agg(pl.col("day").min().alias("first"), pl.col("day").max().alias("last")).sort("user")
    )
    columns = (rows[name].to_numpy() for name in ("user", "merchant", "day", "amount"))
    streams = find_streams(*columns, known_since=by_user["first"].to_numpy(), until=by_user["last"].to_numpy())
    return Found(rows, streams, rows["recurs"].to_numpy())


@pytest.fixture(scope="module")
def berka() -> Found:
    """What leaves the accounts of a Czech bank but cash; payments to an account are what its standing orders pay."""
    path = SHARED_DATA / "berka" / "trans_test.csv.gz"
    if not path.is_file():
        pytest.skip("the export `berka/` is not beside the checkout")
    table = pl.read_csv(path, separator=";", infer_schema=False)
    is_order = pl.col("operation").eq("remittance to another bank").fill_null(False)
    is_card = pl.col("operation").eq("credit card withdrawal").fill_null(False)
    is_household = pl.col("k_symbol").eq("household").fill_null(False)
    rows = table.filter(is_order | is_card | is_household).select(
        pl.col("account_id").alias("user_id"),
        pl.col("date").str.to_date("%y%m%d").alias("day"),
        pl.when(is_order).then("account").otherwise("operation").alias("name"),
        pl.col("amount").cast(pl.Float64),
        is_order.alias("recurs"),
    )
    return find(rows.sort("day", "name", "amount"))


@pytest.fixture(scope="module")
def purchases(sparkov: Path) -> pl.DataFrame:
    """Card purchases, among them those at merchants of the category `subscription`."""
    table = pl.read_parquet(sparkov / "transactions.parquet").filter(
        (pl.col("transaction_type") == "PURCHASE") & pl.col("status").is_in(SETTLED)
    )
    return table.sort("transaction_date", "merchant_name", "amount").select(
        "user_id",
        pl.col("transaction_date").dt.date().alias("day"),
        pl.col("merchant_name").alias("name"),
        "amount",
        (pl.col("merchant_category") == "subscription").alias("recurs"),
    )


@pytest.fixture(scope="module")
def cards(purchases: pl.DataFrame) -> Found:
    return find(purchases)


def billed_by(purchases: pl.DataFrame, biller: pl.Expr) -> tuple[Found, float]:
    """Let one merchant bill all subscriptions of a user; return also the share found of monthly ones of one price."""
    found = find(purchases.with_columns(service="name", name=pl.when("recurs").then(biller).otherwise("name")))
    services = (
        found.rows.filter("recurs")
        .group_by("user", "service")
        .agg(
            pl.len().alias("n"),
            pl.col("amount").first(),
            pl.col("amount").n_unique().alias("n_prices"),
            pl.col("day").diff().median().alias("gap"),
        )
        .filter((pl.col("n") >= 3) & (pl.col("n_prices") == 1) & pl.col("gap").is_between(25, 35))
    )
    assert services.height > 1000
    streams, mature = found.streams, found.streams.status == STATUSES.index(Status.MATURE)
    told = set(zip(streams.user[mature].tolist(), streams.last_amount[mature].tolist(), strict=True))
    return found, sum(each in told for each in services.select("user", "amount").rows()) / services.height


def test_every_standing_order_that_was_paid_three_times_is_a_monthly_stream(berka: Found):
    monthly = berka.streams.frequency == FREQUENCIES.index(Frequency.MONTHLY)
    orders = berka.meant(3)
    assert (len(berka.meant(1)), len(orders)) == (436, 408)
    found = orders & set(berka.stream_pairs[monthly].tolist())
    assert len(found) >= 0.99 * len(orders)  # 408 of 408


def test_little_else_of_the_czech_bank_recurs(berka: Found):
    orders = berka.meant(1)
    others = [pair for pair in berka.stream_pairs.tolist() if pair not in orders]
    assert len(others) <= 0.02 * len(berka.stream_pairs)  # 4 of 426


def test_a_standing_order_that_is_still_paid_is_alive_and_has_a_next_date(berka: Found):
    streams = berka.streams
    alive = streams.status != STATUSES.index(Status.TOMBSTONED)
    assert alive.mean() > 0.9
    ahead = streams.next_day[alive] - streams.last_day[alive]
    assert ((ahead >= 28) & (ahead <= 31)).mean() > 0.98


def test_the_prices_of_standing_orders_do_not_rise(berka: Found):
    assert not (berka.streams.rise[berka.recurs] > 0).any()


def test_nearly_every_subscription_of_sparkov_is_found_and_its_rhythm_named(cards: Found):
    streams, meant = cards.streams, cards.meant(3)
    assert len(meant) > 2000
    mature = streams.status == STATUSES.index(Status.MATURE)
    named = np.isin(streams.frequency, [FREQUENCIES.index(each) for each in (Frequency.WEEKLY, Frequency.MONTHLY)])
    found = meant & set(cards.stream_pairs[mature & named].tolist())
    assert len(found) >= 0.99 * len(meant)  # 2016 of 2019


def test_shops_of_sparkov_are_hardly_ever_taken_for_subscriptions(cards: Found):
    alive = cards.streams.status != STATUSES.index(Status.TOMBSTONED)
    meant = cards.meant(1)
    others = [pair for pair in cards.stream_pairs[alive].tolist() if pair not in meant]
    assert len(others) <= 0.03 * alive.sum()  # 29 of 2046, of 150,969 users and shops


def test_nearly_every_price_rise_of_sparkov_is_found(cards: Found):
    before = pl.col("amount").shift().over("user", "merchant")
    dearer = cards.rows.select(pl.col("recurs") & (pl.col("amount") > 1.1 * before).fill_null(False)).to_series()
    assert dearer.sum() > 400
    found = cards.streams.rise[dearer.to_numpy()]
    assert (found > 10).mean() >= 0.99  # 428 of 429
    assert found[found > 0] == pytest.approx(15, abs=0.1)


def test_shops_of_sparkov_seldom_raise_a_price_or_seem_new(cards: Found):
    # Half a year of 893 users: less than one false alarm a user and year, which are 263.
    alarms = (cards.streams.is_new | (cards.streams.rise > 0)) & ~cards.recurs
    assert alarms.sum() < 893 / 2


def test_subscriptions_that_one_merchant_bills_are_told_apart(purchases: pl.DataFrame):
    _, share = billed_by(purchases, pl.lit("BILL"))
    assert share >= 0.98  # 1386 of 1402; one walk over all of a merchant's charges finds 173


def test_subscriptions_are_found_among_the_purchases_at_a_shop(purchases: pl.DataFrame):
    favourite = pl.col("name").filter(~pl.col("recurs")).mode().min().over("user_id")
    found, share = billed_by(purchases, favourite)
    assert share >= 0.98  # 1389 of 1402; one walk finds 108
    assert (found.streams.is_new & ~found.recurs).sum() < 893 / 10  # 65, no more than without
