"""The frames of a made-up bank."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from alertrec.sample_bank.behaviour import DAY, Charges, Ints, Users, draw_charges, draw_users
from alertrec.sample_bank.rules import ALERTS, draw_alerts, measure_habits, write_texts
from alertrec.sample_bank.vocabulary import CITIES, COUNTRIES, KINDS, STATES, merchants
from alertrec.transactions import APPROVED, CANCELLED, DECLINED, PENDING, PURCHASE, SETTLED

STATUSES = (SETTLED, PENDING, APPROVED, DECLINED, CANCELLED)


@dataclass(frozen=True)
class SampleBank:
    """Three frames with the columns that `alertrec import` takes; times are UTC."""

    users: pl.DataFrame
    transactions: pl.DataFrame
    alert_rules: pl.DataFrame


def make_sample_bank(n_users: int = 1000, *, as_of: datetime, days: int = 180, seed: int = 0) -> SampleBank:
    """Draw a bank whose history ends at `as_of`; the same arguments give the same frames.

    Parameters
    ----------
    n_users : int
        About 2 % of them have no transactions, 2 % are inactive and 30 % have no alert rules.
    as_of : datetime
        UTC if it has no zone; every row is older.
    days : int
        Length of the history. A user buys about 150 times in 180 days.
    seed : int
        Seed of all draws.
    """
    if n_users < 1 or days < 1:
        raise ValueError(f"n_users and days must be at least 1; got {n_users} and {days}")
    rng = np.random.default_rng(seed)
    end = int((as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)).timestamp())
    start = end - days * DAY
    users = draw_users(rng, n_users)
    charges = draw_charges(rng, users, start=start, end=end)
    return SampleBank(
        users=_users_frame(rng, users, start=start),
        transactions=_transactions_frame(rng, charges, n_users=n_users, end=end),
        alert_rules=_rules_frame(rng, users, charges, start=start, end=end),
    )


def _transactions_frame(rng: np.random.Generator, charges: Charges, *, n_users: int, end: int) -> pl.DataFrame:
    names, categories = merchants()
    n_rows = len(charges.user)
    return pl.DataFrame(
        {
            "id": _ids("txn", np.arange(1, n_rows + 1), width=max(7, len(str(n_rows)))),
            "user_id": _picked(_user_ids(n_users), charges.user),
            "amount": charges.amount,
            "currency": pl.Series(["USD"]).new_from_index(0, n_rows),
            "merchant_name": _picked(names, charges.merchant),
            "merchant_category": _picked(categories, charges.merchant),
            "merchant_city": _picked([*CITIES, None], charges.place),
            "merchant_state": _picked([*STATES, None], charges.place),
            "merchant_country": _picked([*COUNTRIES, "US"], charges.place),
            "transaction_date": _times(charges.second),
            "transaction_type": _picked(KINDS, charges.kind),
            "status": _picked(STATUSES, _statuses(rng, charges, end=end)),
        }
    )


def _statuses(rng: np.random.Generator, charges: Charges, *, end: int) -> Ints:
    luck, is_purchase = rng.random(len(charges.user)), charges.kind == KINDS.index(PURCHASE)
    young = (end - charges.second) / DAY
    return np.select(
        [
            is_purchase & (luck < 0.012),
            is_purchase & (luck < 0.016),
            (young < 2) & (luck < 0.7),
            (young < 3) & (luck < 0.5),
        ],
        [STATUSES.index(DECLINED), STATUSES.index(CANCELLED), STATUSES.index(PENDING), STATUSES.index(APPROVED)],
        default=STATUSES.index(SETTLED),
    )


def _users_frame(rng: np.random.Generator, users: Users, *, start: int) -> pl.DataFrame:
    n_users = len(users.home)
    # A debit card has no limit.
    has_limit = pl.Series(rng.random(n_users) >= 0.03)
    frame = pl.DataFrame(
        {
            "id": _user_ids(n_users),
            "is_active": rng.random(n_users) >= 0.02,
            "credit_limit": users.limit,
            "credit_balance": np.round(users.limit * users.utilization, 2),
            "address_city": _picked(CITIES, users.home),
            "address_state": _picked(STATES, users.home),
            "address_country": pl.Series(["US"]).new_from_index(0, n_users),
            "location_consent_given": rng.random(n_users) < 0.6,
            "created_at": _times(start - rng.integers(0, 3 * 365 * DAY, n_users)),
        }
    )
    return frame.with_columns(pl.when(has_limit).then(pl.col("credit_limit")).alias("credit_limit"))


def _rules_frame(rng: np.random.Generator, users: Users, charges: Charges, *, start: int, end: int) -> pl.DataFrame:
    n_users = len(users.home)
    habits = measure_habits(users, charges)
    user, alert = np.nonzero(draw_alerts(rng, users, habits))
    n_rules = len(user)
    second = rng.integers(start, end, n_rules)
    known = pl.Series(rng.random(n_rules) >= 0.15)
    keys = _picked(ALERTS, alert)
    return pl.DataFrame(
        {
            "id": _ids("rule", np.arange(1, n_rules + 1), width=max(5, len(str(n_rules)))),
            "user_id": _picked(_user_ids(n_users), user),
            "alert_type": keys.set(~known, None),
            "natural_language_query": write_texts(rng, keys.to_list(), habits, user=user, days=(end - start) // DAY),
            "is_active": rng.random(n_rules) >= 0.06,
            "created_at": _times(second),
        }
    )


def _user_ids(n_users: int) -> pl.Series:
    return _ids("user", np.arange(1, n_users + 1), width=max(4, len(str(n_users))))


def _ids(prefix: str, numbers: Ints, *, width: int) -> pl.Series:
    return prefix + "-" + pl.Series(numbers).cast(pl.String).str.zfill(width)


def _picked(values: Any, indices: Ints) -> pl.Series:
    # An index of -1 picks the last value.
    return pl.Series(values, dtype=pl.String).gather(np.where(indices < 0, len(values) + indices, indices))


def _times(seconds: Ints) -> pl.Series:
    return pl.Series(seconds * 1_000_000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
