"""What counts of some users' transactions, up to a moment and in order: what features and detectors are made of.

Only what is pending, approved or settled counts; declined, cancelled and reversed transactions never happened.
Spending is a purchase of a finite amount above zero, up to `MAX_AMOUNT`. Refunds, payments and fees are none of it, but
move the balance. What is dated later than the moment does not exist yet. A row without a date is left out; where there
is no column of dates at all, all rows count and have no date. Of several rows with one `id`, the first counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alertrec.merchants import merchant_codes
from alertrec.recurring import Streams, find_streams
from alertrec.transactions import (
    BALANCE_LOWERED_BY,
    BALANCE_RAISED_BY,
    MAX_AMOUNT,
    PURCHASE,
    SETTLED,
    SPENDING_STATUSES,
)

if TYPE_CHECKING:
    import pandas as pd

USER_ID = "user_id"
MIN_CREDIT_LIMIT = 0.01
# Sums are made of whole ten-thousandths, which is what the tables hold: of floats, 0.1 + 0.2 would exceed 0.3.
UNITS = 10_000
MICROSECONDS_PER_DAY = 86_400_000_000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*", re.ASCII)
_ISO_FORMATS = tuple(
    f"%Y-%m-%d{time}" for time in ("", *(f"{sep}%H:%M:%S%.f{zone}" for sep in ("T", " ") for zone in ("", "%#z")))
)
_TEXT_COLUMNS = ("merchant_name", "merchant_category", "merchant_state", "merchant_country")
# Of entries at one instant. What comes after the type only keeps two that differ in no more from changing places.
_ORDER = ("merchant_name", "amount", "transaction_type", "merchant_state", "merchant_country", "merchant_category")
_MOVEMENTS = [*BALANCE_RAISED_BY, *BALANCE_LOWERED_BY]


@dataclass(frozen=True)
class Ledger:
    """Users, and the entries of their ledgers by user and time.

    Entries at one instant are in the order of merchant (no name first), amount and type, so that nothing hangs on the
    order in which rows arrive.

    Attributes
    ----------
    accounts : frame, one row a user, in the order given
        `user_id`, `credit_limit`, `credit_balance` and `credit_utilization` (0 where missing), `has_balance`,
        `address_state`, `address_country` and, as places are compared, `home_state`, `home_country` (null where they
        are blank), `time_zone` (null: UTC).
    entries : frame
        `user` (row of `accounts`), `id` where the input has one, `at` (UTC without a zone) and `local` (the same
        moment in the user's time zone), `amount` (float64, above 0), the merchant columns, `transaction_type`.
    until : datetime or None
        UTC without a zone: the moment up to which rows count; the last entry's if none was given.
    """

    accounts: pl.DataFrame
    entries: pl.DataFrame
    until: datetime | None

    @classmethod
    def of(cls, users: pl.DataFrame, transactions: pl.DataFrame, as_of: datetime | None = None) -> Ledger:
        """Return the ledger of these users.

        Parameters
        ----------
        users, transactions : frames as `build_user_features` takes them; users may have a `time_zone`
        as_of : datetime, optional
            UTC where it has no zone.
        """
        accounts = _accounts(users)
        rows = _columns(transactions)
        until = naive_utc(as_of) if as_of is not None else None
        if until is not None:
            rows = rows.filter(pl.col("at").is_null() | (pl.col("at") <= until))
        if "id" in rows.columns:  # after the cut, so that a later row cannot displace one that is seen
            rows = rows.filter(pl.col("id").is_null() | pl.col("id").is_first_distinct())
        entries = (
            rows.filter(
                (pl.col("amount") > 0)
                & (pl.col("amount") <= MAX_AMOUNT)
                & pl.col("transaction_type").is_in(_MOVEMENTS)
                & pl.col("status").is_in(list(SPENDING_STATUSES))
            )
            .drop("status")
            .join(accounts.select(USER_ID).with_row_index("user"), on=USER_ID, how="inner")
            .drop(USER_ID)
            .sort("user", "at", *_ORDER, *(("id",) if "id" in rows.columns else ()))
        )
        if until is None:
            last = entries.filter(pl.col("transaction_type") == PURCHASE)["at"].max()
            until = last if isinstance(last, datetime) else None
        return cls(accounts, _with_local_time(entries, accounts), until)

    @classmethod
    def of_pandas(cls, users: pd.DataFrame, transactions: pd.DataFrame, as_of: datetime | None = None) -> Ledger:
        """Return the same of pandas frames, in which NaN is a missing value."""
        return cls.of(pl.from_pandas(users, nan_to_null=True), pl.from_pandas(transactions, nan_to_null=True), as_of)

    @property
    def n_users(self) -> int:
        """The number of users."""
        return self.accounts.height

    @property
    def spending(self) -> pl.DataFrame:
        """The entries that are purchases."""
        return self.entries.filter(pl.col("transaction_type") == PURCHASE)

    @cached_property
    def dated(self) -> pl.DataFrame:
        """The entries that have a date: all, or none where the input has no column of dates."""
        return self.entries.filter(pl.col("at").is_not_null())

    # From here on, arrays of one number an entry of `dated`.

    @cached_property
    def user(self) -> Ints:
        """The row of `accounts`."""
        return self.dated["user"].cast(pl.Int64).to_numpy()

    @cached_property
    def at(self) -> Ints:
        """Microseconds since the epoch, UTC."""
        return self.dated["at"].cast(pl.Int64).to_numpy()

    @cached_property
    def amount(self) -> Floats:
        """The amount, above 0."""
        return self.dated["amount"].to_numpy()

    @cached_property
    def units(self) -> Ints:
        """The amount in whole ten-thousandths; sums of them are exact up to 9e14 in the currency."""
        return np.rint(self.amount * UNITS).astype(np.int64)

    @cached_property
    def is_purchase(self) -> Mask:
        """Whether the entry is spending."""
        return (self.dated["transaction_type"] == PURCHASE).to_numpy()

    @cached_property
    def purchases(self) -> Ints:
        """The places of the purchases."""
        return np.flatnonzero(self.is_purchase)

    @cached_property
    def day(self) -> Ints:
        """Days since the epoch, in the user's time zone."""
        return np.asarray(self.dated["local"].cast(pl.Int64).to_numpy() // MICROSECONDS_PER_DAY)

    @cached_property
    def merchant_name(self) -> pl.Series:
        """The name of the merchant as it was given."""
        return self.dated["merchant_name"]

    @cached_property
    def merchant(self) -> Ints:
        """The code of the merchant, the same for all spellings of its name; -1 where there is none."""
        return merchant_codes(self.merchant_name)

    @cached_property
    def first_at(self) -> Ints:
        """The moment of each user's first purchase, shape (n_users,); of one without any, the end of time."""
        return self._of_first_purchase(self.at, np.iinfo(np.int64).max)

    @cached_property
    def streams(self) -> Streams:
        """The recurring charges; its arrays over charges have one number a purchase."""
        user, day = self.user[self.purchases], self.day[self.purchases]
        first_day = self._of_first_purchase(self.day, 0)
        until = self.days_at(self.until) if self.until is not None else first_day
        merchant, units = self.merchant[self.purchases], self.units[self.purchases]
        return find_streams(user, merchant, day, units, known_since=first_day, until=until)

    def _of_first_purchase(self, values: Ints, otherwise: int) -> Ints:
        found = np.full(self.n_users, otherwise)
        latest_first = self.purchases[::-1]
        found[self.user[latest_first]] = values[latest_first]  # of a user's purchases, the first is written last
        return found

    def after(self, days: int) -> int:
        """Return the moment that many days before `until`, in microseconds; entries later than it are in the window."""
        assert self.until is not None, "an empty ledger without a moment has no window"
        return microseconds(self.until - timedelta(days=days))

    def days_at(self, moment: datetime) -> Ints:
        """Return the local day of a moment for each user, shape (n_users,)."""
        at = np.full(self.n_users, microseconds(moment))
        return np.asarray((at + _offsets(at, self.accounts["time_zone"])) // MICROSECONDS_PER_DAY)


def place(name: pl.Expr) -> pl.Expr:
    """Return the name of a state or country as places are compared; null where it is blank."""
    stripped = name.str.strip_chars().str.to_uppercase()
    return pl.when(stripped != "").then(stripped)


def naive_utc(moment: datetime) -> datetime:
    """Return the moment in UTC, without a zone; one without a zone is UTC already."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo is not None else moment


def microseconds(moment: datetime) -> int:
    """Return microseconds since the epoch of a moment in UTC without a zone."""
    return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001 - both are UTC


@lru_cache(maxsize=1_000)
def is_time_zone(name: str) -> bool:
    """Return whether a name is that of an IANA time zone; polars, which brings its own database, decides."""
    if not _ZONE_NAME.fullmatch(name):
        return False  # polars takes "" and "+02:00" too, and "*" is the end of it
    try:
        _zone_offsets(np.zeros(1, dtype=np.int64), name)
    except pl.exceptions.PolarsError:
        return False
    return True


def _with_local_time(entries: pl.DataFrame, accounts: pl.DataFrame) -> pl.DataFrame:
    zones = accounts["time_zone"]
    if zones.null_count() == len(zones):
        return entries.with_columns(local="at")
    at = entries["at"].cast(pl.Int64)
    offsets = pl.Series(_offsets(at.fill_null(0).to_numpy(), zones.gather(entries["user"])))
    return entries.with_columns(local=(at + offsets).cast(pl.Datetime("us")))


def _offsets(at: Ints, zones: pl.Series) -> Ints:
    found = np.zeros(len(at), dtype=np.int64)
    for zone in zones.drop_nulls().unique():
        if is_time_zone(zone):
            there = (zones == zone).fill_null(False).to_numpy()
            found[there] = _zone_offsets(at[there], zone)
    return found


def _zone_offsets(at: Ints, zone: str) -> Ints:
    local = pl.Series(at).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
    offset = local.dt.base_utc_offset() + local.dt.dst_offset()
    return offset.dt.total_microseconds().to_numpy()


def _accounts(users: pl.DataFrame) -> pl.DataFrame:
    limit, balance = (_number(users, name) for name in ("credit_limit", "credit_balance"))
    has_limit = limit.fill_null(0.0) >= MIN_CREDIT_LIMIT
    utilization = pl.when(has_limit).then(balance.fill_null(0.0).clip(lower_bound=0) / limit).otherwise(0.0)
    return users.select(
        _key(users, "id").alias(USER_ID),
        limit.fill_null(0.0).alias("credit_limit"),
        balance.fill_null(0.0).alias("credit_balance"),
        utilization.alias("credit_utilization"),
        (has_limit & balance.is_not_null()).alias("has_balance"),
        _text(users, "address_state"),
        _text(users, "address_country"),
        place(_text(users, "address_state")).alias("home_state"),
        place(_text(users, "address_country")).alias("home_country"),
        _text(users, "time_zone"),
    ).unique(USER_ID, keep="first", maintain_order=True)


def _columns(transactions: pl.DataFrame) -> pl.DataFrame:
    """Return the columns that count, in the types that they are counted in."""
    kind = _upper(transactions, "transaction_type", PURCHASE)
    amount = pl.col("amount").cast(pl.Float64, strict=False)
    rows = transactions.select(
        *(("id",) if "id" in transactions.columns else ()),
        _key(transactions, USER_ID),
        # Banks write refunds with either sign; a purchase below zero is none.
        pl.when(kind == PURCHASE).then(amount).otherwise(amount.abs()).alias("amount"),
        *(_text(transactions, name) for name in _TEXT_COLUMNS),
        kind,
        _upper(transactions, "status", SETTLED),
        _moment(transactions).alias("at"),
    )
    # Row by row: what becomes of one user's rows must not hang on whose rows are read with them.
    return rows.filter(pl.col("at").is_not_null()) if "transaction_date" in transactions.columns else rows


def _number(frame: pl.DataFrame, name: str) -> pl.Expr:
    if name not in frame.columns:
        return pl.lit(None, pl.Float64)
    value = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(value.abs() <= MAX_AMOUNT).then(value)


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
