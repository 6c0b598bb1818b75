"""Small banks as hypothesis draws them: a few users, some purchases, and all that is not a purchase."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
import polars as pl
from hypothesis import settings
from hypothesis import strategies as st

# Polars starts threads at first use, and a busy machine is no failure.
laws = settings(max_examples=30, deadline=None)

AS_OF = datetime(2026, 3, 15, 12, tzinfo=UTC)
FIRST_DAY = date(2025, 2, 1)
USER_IDS = ("u0", "u1", "u2", "u3")
MERCHANTS = ("Corner Cafe", "Streamly", "Books & Co", "Fuel Stop")
LATER = AS_OF.replace(tzinfo=None) + timedelta(seconds=1)

Row = dict[str, Any]
Zone = Literal["naive", "utc", "new york"]

# Quarters: their sums are exact in any order, so that no rounding decides whether amounts are within 1.5 times.
amounts = st.integers(1, 4000).map(lambda quarters: quarters / 4)
_numbers = st.sampled_from([None, 0.0, -200.0, 350.5, 1000.0, 5000.0, float("nan"), float("inf")])
_states = st.sampled_from([None, "NY", "CA"])
_countries = st.sampled_from([None, "US", "MX"])
_spending = st.sampled_from([None, "settled", "SETTLED", "PENDING", "Approved"])


@dataclass(frozen=True)
class Bank:
    """Rows of users and of transactions; dates are UTC without a zone."""

    users: list[Row]
    transactions: list[Row]

    def with_transactions(self, transactions: list[Row]) -> Bank:
        """Return a bank of the same users."""
        return replace(self, transactions=transactions)

    def users_frame(self) -> pl.DataFrame:
        """Return the users as a frame."""
        return pl.DataFrame(self.users, schema=USERS_SCHEMA)

    def transactions_frame(self, zone: Zone = "naive") -> pl.DataFrame:
        """Return the transactions as a frame, their dates in a zone."""
        frame = pl.DataFrame(self.transactions, schema=TRANSACTIONS_SCHEMA)
        if zone == "naive":
            return frame
        at = pl.col("transaction_date").dt.replace_time_zone("UTC")
        return frame.with_columns(at if zone == "utc" else at.dt.convert_time_zone("America/New_York"))


USERS_SCHEMA = {
    "id": pl.String,
    "credit_limit": pl.Float64,
    "credit_balance": pl.Float64,
    "address_state": pl.String,
    "address_country": pl.String,
}
TRANSACTIONS_SCHEMA = {
    "id": pl.String,
    "user_id": pl.String,
    "amount": pl.Float64,
    "merchant_name": pl.String,
    "merchant_category": pl.String,
    "merchant_state": pl.String,
    "merchant_country": pl.String,
    "transaction_date": pl.Datetime("us"),
    "transaction_type": pl.String,
    "status": pl.String,
}

zones: st.SearchStrategy[Zone] = st.sampled_from(["naive", "utc", "new york"])


@st.composite
def users(draw: st.DrawFn) -> list[Row]:
    """Draw one to four users, in any order."""
    ids = draw(st.permutations(USER_IDS))[: draw(st.integers(1, len(USER_IDS)))]
    return [
        {
            "id": user_id,
            "credit_limit": draw(_numbers),
            "credit_balance": draw(_numbers),
            "address_state": draw(_states),
            "address_country": draw(_countries),
        }
        for user_id in ids
    ]


@st.composite
def moments(draw: st.DrawFn) -> datetime:
    """Draw a moment of the last thirteen months; often at an edge of a day or of the thirty days."""
    edge = draw(st.sampled_from([None, 0, 30, 60]))
    if edge is not None:
        return AS_OF.replace(tzinfo=None) - timedelta(days=edge, seconds=draw(st.integers(0, 2)))
    day = FIRST_DAY + timedelta(days=draw(st.integers(0, 406)))
    return datetime(day.year, day.month, day.day, draw(st.integers(0, 23)), draw(st.sampled_from([0, 30, 59])))


@st.composite
def purchases(draw: st.DrawFn) -> Row:
    """Draw one row that is spending."""
    return {
        "user_id": draw(st.sampled_from(USER_IDS)),
        "amount": draw(amounts),
        "merchant_name": draw(st.sampled_from([*MERCHANTS, None])),
        "merchant_category": draw(st.sampled_from(["food", "fun", None])),
        "merchant_state": draw(_states),
        "merchant_country": draw(_countries),
        "transaction_date": draw(moments()),
        "transaction_type": draw(st.sampled_from([None, "PURCHASE", "purchase"])),
        "status": draw(_spending),
    }


@st.composite
def streams(draw: st.DrawFn) -> list[Row]:
    """Draw charges of one merchant at gaps that are even or nearly so, now and then two on a day."""
    # Of two users only, so that streams of several merchants interleave.
    first = draw(purchases()) | {
        "user_id": draw(st.sampled_from(USER_IDS[:2])),
        "merchant_name": draw(st.sampled_from(MERCHANTS)),
    }
    gap = draw(st.sampled_from([1, 6, 7, 8, 14, 27, 30, 33, 90]))
    late = draw(st.sampled_from([[0], [0], [0, 1], [0, 2], [-1, 1], [0, 5]]))
    dearer = draw(st.sampled_from([[1], [1], [1, 1.25], [1, 1.5], [1, 2]]))
    rows, day = [], FIRST_DAY + timedelta(days=draw(st.integers(0, 120)))
    for _ in range(draw(st.integers(2, 5))):
        for hour in draw(st.sampled_from([[9], [9], [9], [9, 17]])):
            at = datetime(day.year, day.month, day.day, hour)
            if at > AS_OF.replace(tzinfo=None):
                continue
            amount = first["amount"] * draw(st.sampled_from(dearer))
            rows.append(first | {"transaction_date": at, "amount": amount})
        day += timedelta(days=gap + draw(st.sampled_from(late)))
    return rows


@st.composite
def spending(draw: st.DrawFn) -> list[Row]:
    """Draw rows that are spending, without ids."""
    rows = draw(st.lists(purchases(), max_size=12))
    for stream in draw(st.lists(streams(), max_size=4)):
        rows += stream
    return rows


@st.composite
def junk(draw: st.DrawFn) -> Row:
    """Draw one row that is not spending, or not of a user of the bank."""
    spoilt = st.sampled_from(
        [
            *({"transaction_type": kind} for kind in ("REFUND", "payment", "FEE", "TRANSFER", "WITHDRAWAL", "?", "")),
            *({"status": status} for status in ("DECLINED", "declined", "CANCELLED", "REVERSED", "?")),
            *({"amount": each} for each in (None, float("nan"), float("inf"), -float("inf"), 0.0, -5000.0)),
            *({"user_id": each} for each in ("stranger", None, "")),
        ]
    )
    return draw(purchases()) | draw(spoilt)


@st.composite
def banks(draw: st.DrawFn, *, with_junk: bool = True, with_future: bool = True) -> Bank:
    """Draw a bank whose transactions have ids of their own and dates, in any order."""
    rows = draw(spending())
    if with_junk:
        rows += draw(st.lists(junk(), max_size=4))
    if with_future:
        later = st.builds(
            lambda row, hours: row | {"transaction_date": LATER + timedelta(hours=hours)},
            purchases(),
            st.integers(0, 500),
        )
        rows += draw(st.lists(later, max_size=3))
    return Bank(draw(users()), number(draw(st.permutations(rows))))


def number(rows: list[Row], prefix: str = "t") -> list[Row]:
    """Return the rows with ids of their own."""
    return [{"id": f"{prefix}{n}"} | row for n, row in enumerate(rows)]


def differences(found: pl.DataFrame | pd.DataFrame, expected: dict[str, dict[str, float]]) -> list[str]:
    """Return where a frame of features differs from numbers by user and feature.

    Features are rounded to six decimals, and a last one may go either way.
    """
    rows = found.to_dicts() if isinstance(found, pl.DataFrame) else found.to_dict("records")
    assert [row["user_id"] for row in rows] == list(expected)
    return [
        f"{row['user_id']}.{name}: {row[name]} instead of {value}"
        for row in rows
        for name, value in expected[row["user_id"]].items()
        if not np.isclose(row[name], value, rtol=1e-9, atol=1.5e-6)
    ]


def by_user(features: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Return the numbers of a frame of features by user."""
    return {row.pop("user_id"): row for row in features.to_dicts()}
