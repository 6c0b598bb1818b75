"""Transactions up to a moment → one row of numbers a user. The only definition, for training and for serving.

What counts is told in `alertrec.ledger`. A user without spending has a row too: zeros, and `days_since_purchase` at its
cap; where there is no column of dates at all, the features that need them are those of a user without purchases.
No feature is ever NaN or infinite. Features are rounded to six decimals: sums of floats differ by their order in the
last ones, and a user must have the same numbers alone and among others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import polars as pl

from alertrec.ledger import UNITS, USER_ID, Ledger, place
from alertrec.recurring import FREQUENCIES, STATUSES, Frequency, Status, Streams
from alertrec.transactions import PURCHASE

if TYPE_CHECKING:
    import pandas as pd

SIMILARITY_FEATURES: tuple[str, ...] = (
    "amount_mean",
    "amount_std",
    "amount_max",
    "amount_sum",
    "amount_count",
    "merchant_name_nunique",
    "merchant_category_nunique",
    "credit_limit",
    "credit_balance",
    "credit_utilization",
)
BEHAVIOUR_FEATURES: tuple[str, ...] = (
    "amount_median",
    "amount_p95",
    "night_share",
    "weekend_share",
    "out_of_state_share",
    "out_of_country_share",
    "days_since_purchase",
    "spending_trend_30d",
    "active_days",
    "daily_purchases_max",
    "daily_merchants_max",
    "weekly_spending_mean",
    "weekly_spending_max",
    "new_merchant_share_30d",
    "recurring_charge_count",
    "recurring_weekly_count",
    "recurring_monthly_count",
    "recurring_monthly_amount",
    "recurring_price_rise",
)
FEATURES = SIMILARITY_FEATURES + BEHAVIOUR_FEATURES

# Days of history that training and serving read from the database: a year, every season, and an annual charge twice.
HISTORY_DAYS = 400
RECENT_DAYS = 30
DECIMALS = 6
NIGHT_ENDS_HOUR = 6
DAYS_PER_MONTH = 30.44
SECONDS_PER_DAY = 86_400
# Of other frequencies, the gap between two charges tells.
_TIMES_A_MONTH = {
    Frequency.WEEKLY: DAYS_PER_MONTH / 7,
    Frequency.BIWEEKLY: DAYS_PER_MONTH / 14,
    Frequency.SEMI_MONTHLY: 2.0,
    Frequency.MONTHLY: 1.0,
    Frequency.ANNUALLY: 1 / 12,
}

Frame = TypeVar("Frame", "pd.DataFrame", pl.DataFrame)


def get_similarity_feature_columns() -> list[str]:
    """Return the names of the ten features that similarity between users is judged by."""
    return list(SIMILARITY_FEATURES)


def build_user_features(users_df: Frame, transactions_df: Frame, *, as_of: datetime | None = None) -> Frame:
    """Build the features of every user in `users_df`.

    Parameters
    ----------
    users_df : frame with `id`; optionally `credit_limit`, `credit_balance`, `address_state`, `address_country`
        Missing, NaN and infinite numbers count as 0. Of several rows with one id, the first counts.
    transactions_df : frame with `user_id`, `amount`, `merchant_name`, `merchant_category`; optionally `id`,
        `merchant_state`, `merchant_country`, `transaction_date` (UTC where it has no zone), `transaction_type`
        and `status` (a purchase that has settled where they are missing).
        Rows of users that are not in `users_df` are left out.
    as_of : datetime, optional
        Transactions dated later are not seen. UTC where it has no zone. By default the moment of the last one.

    Returns
    -------
    Frame of the kind that came in, pandas or polars: `user_id` as text and `FEATURES` as float64, in the order of
    `users_df`. Amounts are in the account's currency, shares in [0, 1], `spending_trend_30d` in [-1, 1].
    """
    if isinstance(users_df, pl.DataFrame) and isinstance(transactions_df, pl.DataFrame):
        return features_of(Ledger.of(users_df, transactions_df, as_of))
    return features_of(Ledger.of_pandas(users_df, transactions_df, as_of)).to_pandas()


def features_of(ledger: Ledger) -> pl.DataFrame:
    """Build the features of every user of a ledger, as `build_user_features` returns them."""
    features = ledger.accounts.with_row_index("user")
    homes = features.select("user", "home_state", "home_country")
    age = pl.lit(ledger.until, pl.Datetime("us")).sub(pl.col("at")).dt.total_seconds().truediv(SECONDS_PER_DAY)
    spending = ledger.spending.join(homes, on="user", maintain_order="left").with_columns(age.alias("age_days"))
    totals = spending.group_by("user").agg(*_amounts(), *_places(), *_rhythm())
    dated = ledger.dated.select("user", "local", "amount", "transaction_type").with_columns(
        merchant=pl.Series(ledger.merchant), at=pl.Series(ledger.at)
    )
    dated = dated.filter(pl.col("transaction_type") == PURCHASE)
    for part in (totals, _days(dated), _weeks(dated), _new_merchants(dated, ledger), _recurring(ledger.streams)):
        features = features.join(part, on="user", how="left", maintain_order="left")
    return features.with_columns(pl.col("days_since_purchase").fill_null(HISTORY_DAYS)).select(
        USER_ID, *(pl.col(name).cast(pl.Float64).fill_null(0.0).round(DECIMALS) for name in FEATURES)
    )


def _amounts() -> Iterator[pl.Expr]:
    amount = pl.col("amount")
    yield from (
        amount.mean().alias("amount_mean"),
        amount.std().alias("amount_std"),  # of one purchase: null, hence 0
        amount.max().alias("amount_max"),
        amount.sum().alias("amount_sum"),
        amount.count().alias("amount_count"),
        pl.col("merchant_name").drop_nulls().n_unique().alias("merchant_name_nunique"),
        pl.col("merchant_category").drop_nulls().n_unique().alias("merchant_category_nunique"),
        amount.median().alias("amount_median"),
        amount.quantile(0.95, "linear").alias("amount_p95"),
    )


def _places() -> Iterator[pl.Expr]:
    # `ne` is null where either side is unknown, and `mean` leaves nulls out: a purchase without a place, as most
    # online ones are, says nothing about where the customer was.
    # Another country is another state.
    abroad = place(pl.col("merchant_country")).ne(pl.col("home_country"))
    elsewhere = place(pl.col("merchant_state")).ne(pl.col("home_state"))
    away = pl.when(pl.col("home_state").is_not_null()).then(pl.when(abroad).then(True).otherwise(elsewhere))
    yield from (
        away.mean().alias("out_of_state_share"),
        abroad.mean().alias("out_of_country_share"),
    )


def _rhythm() -> Iterator[pl.Expr]:
    age = pl.col("age_days")
    recent = pl.col("amount").filter(age < RECENT_DAYS).sum()
    before = pl.col("amount").filter((age >= RECENT_DAYS) & (age < 2 * RECENT_DAYS)).sum()
    yield from (
        pl.col("local").dt.hour().lt(NIGHT_ENDS_HOUR).mean().alias("night_share"),
        pl.col("local").dt.weekday().ge(6).mean().alias("weekend_share"),
        age.min().clip(upper_bound=HISTORY_DAYS).alias("days_since_purchase"),
        pl.when(recent + before > 0)
        .then((recent - before) / (recent + before))
        .otherwise(0.0)
        .alias("spending_trend_30d"),
    )


def _days(dated: pl.DataFrame) -> pl.DataFrame:
    merchants = pl.col("merchant").filter(pl.col("merchant") >= 0).n_unique()
    daily = dated.group_by("user", pl.col("local").dt.date().alias("day")).agg(
        pl.len().alias("purchases"), merchants.alias("merchants")
    )
    return daily.group_by("user").agg(
        pl.len().alias("active_days"),
        pl.col("purchases").max().alias("daily_purchases_max"),
        pl.col("merchants").max().alias("daily_merchants_max"),
    )


def _weeks(dated: pl.DataFrame) -> pl.DataFrame:
    """Spending by ISO week, Monday to Sunday, over the weeks that have any."""
    weekly = dated.group_by("user", pl.col("local").dt.truncate("1w").alias("week")).agg(pl.col("amount").sum())
    return weekly.group_by("user").agg(
        pl.col("amount").mean().alias("weekly_spending_mean"), pl.col("amount").max().alias("weekly_spending_max")
    )


def _new_merchants(dated: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    """Of the merchants of the last days, the share where the user was not seen before."""
    since = ledger.after(RECENT_DAYS) if ledger.until is not None else 0
    return (
        dated.filter(pl.col("merchant") >= 0)
        .group_by("user", "merchant")
        .agg(pl.col("at").min().alias("first"), pl.col("at").max().alias("last"))
        .filter(pl.col("last") > since)
        .group_by("user")
        .agg(pl.col("first").gt(since).mean().alias("new_merchant_share_30d"))
    )


def _recurring(streams: Streams) -> pl.DataFrame:
    """What the charges come to that recur and are not overdue."""
    frequency = np.array(FREQUENCIES)[streams.frequency]
    period = streams.next_day - streams.last_day
    a_month = np.select([frequency == name for name in _TIMES_A_MONTH], list(_TIMES_A_MONTH.values()))
    living = pl.DataFrame(
        {
            "user": streams.user,
            "is_weekly": frequency == Frequency.WEEKLY,
            "is_monthly": frequency == Frequency.MONTHLY,
            "monthly_amount": streams.last_amount / UNITS * np.where(a_month > 0, a_month, DAYS_PER_MONTH / period),
            "rise": streams.last_amount / streams.first_amount - 1,
        }
    ).filter(pl.Series(streams.status == STATUSES.index(Status.MATURE)))
    return living.group_by(pl.col("user").cast(pl.UInt32)).agg(
        pl.len().alias("recurring_charge_count"),
        pl.col("is_weekly").sum().alias("recurring_weekly_count"),
        pl.col("is_monthly").sum().alias("recurring_monthly_count"),
        pl.col("monthly_amount").sum().alias("recurring_monthly_amount"),
        pl.col("rise").max().clip(lower_bound=0).alias("recurring_price_rise"),
    )
