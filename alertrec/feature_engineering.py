"""Transactions up to a moment → one row of numbers a user. The only definition, for training and for serving.

Spending is a purchase that is pending, approved or settled, of a finite amount above zero. Nothing else is:
refunds, payments, fees, declined and cancelled purchases, NaN, zero and negative amounts, and those above
`MAX_AMOUNT`, are left out.
Everything is as of a moment: what is dated later does not exist yet. A row without a date is left out; where
there is no column of dates at all, the features that need them are those of a user without purchases. Of several rows
with one `id`, the first counts. A user without spending has a row too: zeros, and `days_since_purchase` at its cap.
No feature is ever NaN or infinite. Features are rounded to six decimals: sums of floats differ by their order in the
last ones, and a user must have the same numbers alone and among others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from alertrec.transactions import PURCHASE, SETTLED, SPENDING_STATUSES, SPENDING_TYPES

if TYPE_CHECKING:
    import pandas as pd

USER_ID = "user_id"

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

# Days of history that training and serving read from the database; a year holds every season and annual charge.
HISTORY_DAYS = 365
RECENT_DAYS = 30
MAX_AMOUNT = 1e14  # what the import accepts; whatever is above is not money
MIN_CREDIT_LIMIT = 0.01
DECIMALS = 6
NIGHT_ENDS_HOUR = 6
DAYS_PER_MONTH = 30.44

_ISO_FORMATS = tuple(
    f"%Y-%m-%d{time}" for time in ("", *(f"{sep}%H:%M:%S%.f{zone}" for sep in ("T", " ") for zone in ("", "%#z")))
)
_TEXT_COLUMNS = ("merchant_name", "merchant_category", "merchant_state", "merchant_country")

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
        return _features(users_df, transactions_df, as_of)
    features = _features(_from_pandas(users_df), _from_pandas(transactions_df), as_of)
    return features.to_pandas()


def select_spending(users: pl.DataFrame, transactions: pl.DataFrame, as_of: datetime | None = None) -> pl.DataFrame:
    """Return the transactions that are money spent by these users, up to `as_of`.

    Returns
    -------
    Frame with `user_id`, `amount` (float64, above 0), the merchant columns, `at` (datetime in UTC without a zone,
    null where the input has no dates), and the user's `address_state` and `address_country`.
    """
    known = _accounts(users).select(USER_ID, "address_state", "address_country")
    rows = _columns(transactions)
    if as_of is not None:
        rows = rows.filter(pl.col("at").is_null() | (pl.col("at") <= _naive_utc(as_of)))
    if "id" in rows.columns:  # after the cut, so that a later row cannot displace one that is seen
        rows = rows.filter(pl.col("id").is_null() | pl.col("id").is_first_distinct()).drop("id")
    return (
        rows.filter(
            (pl.col("amount") > 0)
            & (pl.col("amount") <= MAX_AMOUNT)
            & pl.col("transaction_type").is_in(list(SPENDING_TYPES))
            & pl.col("status").is_in(list(SPENDING_STATUSES))
        )
        .drop("transaction_type", "status")
        .join(known, on=USER_ID, how="inner")
    )


def _features(users: pl.DataFrame, transactions: pl.DataFrame, as_of: datetime | None) -> pl.DataFrame:
    accounts = _accounts(users)
    spending = select_spending(users, transactions, as_of)
    until = _naive_utc(as_of) if as_of is not None else spending["at"].max()
    spending = spending.with_columns(
        pl.lit(until, pl.Datetime("us")).sub(pl.col("at")).dt.total_seconds().truediv(86_400).alias("age_days")
    )
    totals = spending.group_by(USER_ID).agg(*_amounts(), *_places(), *_rhythm())
    dated = spending.filter(pl.col("at").is_not_null())
    merchants = _merchants(dated)
    features = accounts
    for part in (totals, _days(dated), _weeks(dated), _new_merchants(merchants), _recurring(merchants)):
        features = features.join(part, on=USER_ID, how="left", maintain_order="left")
    return features.with_columns(pl.col("days_since_purchase").fill_null(HISTORY_DAYS)).select(
        USER_ID, *(pl.col(name).cast(pl.Float64).fill_null(0.0).round(DECIMALS) for name in FEATURES)
    )


def _accounts(users: pl.DataFrame) -> pl.DataFrame:
    limit, balance = (_number(users, name) for name in ("credit_limit", "credit_balance"))
    utilization = pl.when(limit >= MIN_CREDIT_LIMIT).then(balance.clip(lower_bound=0) / limit).otherwise(0.0)
    return users.select(
        _key(users, "id").alias(USER_ID),
        limit.alias("credit_limit"),
        balance.alias("credit_balance"),
        utilization.alias("credit_utilization"),
        _text(users, "address_state"),
        _text(users, "address_country"),
    ).unique(USER_ID, keep="first", maintain_order=True)


def _columns(transactions: pl.DataFrame) -> pl.DataFrame:
    """Return the columns that features are made of, in the types they are made from."""
    rows = transactions.select(
        *(("id",) if "id" in transactions.columns else ()),
        _key(transactions, USER_ID),
        pl.col("amount").cast(pl.Float64, strict=False),
        *(_text(transactions, name) for name in _TEXT_COLUMNS),
        _upper(transactions, "transaction_type", PURCHASE),
        _upper(transactions, "status", SETTLED),
        _moment(transactions).alias("at"),
    )
    # Row by row: what becomes of one user's rows must not hang on whose rows are read with them.
    return rows.filter(pl.col("at").is_not_null()) if "transaction_date" in transactions.columns else rows


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
    yield from (
        pl.col("merchant_state").ne(pl.col("address_state")).mean().alias("out_of_state_share"),
        pl.col("merchant_country").ne(pl.col("address_country")).mean().alias("out_of_country_share"),
    )


def _rhythm() -> Iterator[pl.Expr]:
    age = pl.col("age_days")
    recent = pl.col("amount").filter(age < RECENT_DAYS).sum()
    before = pl.col("amount").filter((age >= RECENT_DAYS) & (age < 2 * RECENT_DAYS)).sum()
    yield from (
        pl.col("at").dt.hour().lt(NIGHT_ENDS_HOUR).mean().alias("night_share"),
        pl.col("at").dt.weekday().ge(6).mean().alias("weekend_share"),
        age.min().clip(upper_bound=HISTORY_DAYS).alias("days_since_purchase"),
        pl.when(recent + before > 0)
        .then((recent - before) / (recent + before))
        .otherwise(0.0)
        .alias("spending_trend_30d"),
    )


def _days(dated: pl.DataFrame) -> pl.DataFrame:
    daily = dated.group_by(USER_ID, pl.col("at").dt.date().alias("day")).agg(
        pl.len().alias("purchases"), pl.col("merchant_name").drop_nulls().n_unique().alias("merchants")
    )
    return daily.group_by(USER_ID).agg(
        pl.len().alias("active_days"),
        pl.col("purchases").max().alias("daily_purchases_max"),
        pl.col("merchants").max().alias("daily_merchants_max"),
    )


def _weeks(dated: pl.DataFrame) -> pl.DataFrame:
    """Spending by ISO week, Monday to Sunday, over the weeks that have any."""
    weekly = dated.group_by(USER_ID, pl.col("at").dt.truncate("1w").alias("week")).agg(pl.col("amount").sum())
    return weekly.group_by(USER_ID).agg(
        pl.col("amount").mean().alias("weekly_spending_mean"), pl.col("amount").max().alias("weekly_spending_max")
    )


def _merchants(dated: pl.DataFrame) -> pl.DataFrame:
    """One row a user and merchant: when first and last seen, the gaps between its days, its amounts."""
    # Several charges of a merchant on one day are one visit, else two coffees would make a gap of no days.
    visits = (
        dated.filter(pl.col("merchant_name").is_not_null())
        .with_columns(pl.col("merchant_name").str.strip_chars().str.to_lowercase())  # spellings of one merchant
        .group_by(USER_ID, "merchant_name", pl.col("at").dt.date().alias("day"))
        .agg(pl.col("amount").sum(), pl.col("age_days").max().alias("oldest"), pl.col("age_days").min().alias("newest"))
        .sort(USER_ID, "merchant_name", "day")
    )
    same = pl.col(USER_ID).eq(pl.col(USER_ID).shift()) & pl.col("merchant_name").eq(pl.col("merchant_name").shift())
    gap = pl.when(same).then(pl.col("day").diff().dt.total_days())
    return (
        visits.with_columns(gap.alias("gap"))
        .group_by(USER_ID, "merchant_name", maintain_order=True)
        .agg(
            pl.len().alias("visits"),
            pl.col("oldest").max().alias("first_age"),
            pl.col("newest").min().alias("last_age"),
            pl.col("gap").median().alias("gap"),
            (pl.col("gap").max() - pl.col("gap").min()).alias("gap_range"),
            pl.col("amount").first().alias("first_amount"),
            pl.col("amount").last().alias("last_amount"),
            (pl.col("amount").max() / pl.col("amount").min()).alias("amount_ratio"),
        )
    )


def _new_merchants(merchants: pl.DataFrame) -> pl.DataFrame:
    return (
        merchants.filter(pl.col("last_age") < RECENT_DAYS)
        .group_by(USER_ID)
        .agg(pl.col("first_age").lt(RECENT_DAYS).mean().alias("new_merchant_share_30d"))
    )


def _recurring(merchants: pl.DataFrame) -> pl.DataFrame:
    """Charges of one merchant that come at even gaps of a week to a year, for amounts that stay close.

    Three visits are the least that show an even gap; a daily coffee has a gap below a week and is a habit.
    """
    gap = pl.col("gap")
    weekly, monthly = gap.is_between(6, 8), gap.is_between(27, 33)
    streams = merchants.filter(
        (pl.col("visits") >= 3)
        & gap.is_between(6, HISTORY_DAYS)
        & (pl.col("gap_range") <= (gap / 5).clip(lower_bound=2))
        & (pl.col("amount_ratio") <= 1.5)
    )
    return streams.group_by(USER_ID).agg(
        pl.len().alias("recurring_charge_count"),
        weekly.sum().alias("recurring_weekly_count"),
        monthly.sum().alias("recurring_monthly_count"),
        (pl.col("last_amount") * DAYS_PER_MONTH / gap).sum().alias("recurring_monthly_amount"),
        (pl.col("last_amount") / pl.col("first_amount") - 1).max().clip(lower_bound=0).alias("recurring_price_rise"),
    )


def _number(frame: pl.DataFrame, name: str) -> pl.Expr:
    if name not in frame.columns:
        return pl.lit(0.0)
    value = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(value.abs() <= MAX_AMOUNT).then(value).otherwise(0.0)


def _key(frame: pl.DataFrame, name: str) -> pl.Expr:
    # pandas turns whole numbers into floats where one is missing: 7.0 is the key 7.
    is_float = frame.schema[name].is_float()
    return (pl.col(name).cast(pl.Int64, strict=False) if is_float else pl.col(name)).cast(pl.String)


def _text(frame: pl.DataFrame, name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.String) if name in frame.columns else pl.lit(None, pl.String)
    return value.alias(name)


def _upper(frame: pl.DataFrame, name: str, default: str) -> pl.Expr:
    return _text(frame, name).str.to_uppercase().fill_null(default)


def _moment(frame: pl.DataFrame) -> pl.Expr:
    if "transaction_date" not in frame.columns:
        return pl.lit(None, pl.Datetime("us"))
    column, dtype = pl.col("transaction_date"), frame.schema["transaction_date"]
    if dtype == pl.String:
        parsed = (column.str.to_datetime(each, time_unit="us", time_zone="UTC", strict=False) for each in _ISO_FORMATS)
        column = pl.coalesce(*parsed).dt.replace_time_zone(None)
    elif isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(pl.Datetime("us"))


def _naive_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo is not None else moment


def _from_pandas(frame: pd.DataFrame) -> pl.DataFrame:
    return pl.from_pandas(frame, nan_to_null=True)
