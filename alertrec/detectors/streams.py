"""The recurring charges of users, as a frame to look at."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import polars as pl

from alertrec.ledger import UNITS, USER_ID, Ints, Ledger
from alertrec.recurring import FREQUENCIES, STATUSES, Streams

if TYPE_CHECKING:
    import pandas as pd

Frame = TypeVar("Frame", "pd.DataFrame", pl.DataFrame)


def recurring_streams(users: Frame, transactions: Frame, *, as_of: datetime | None = None) -> Frame:
    """Return the charges of each user that come back, one row a stream; one merchant may bill several.

    Parameters
    ----------
    users, transactions, as_of : as `firings` takes them

    Returns
    -------
    Frame of the kind that came in, by user in their order: `user_id`, `merchant_name` (as it was last written),
    `frequency` and `status` (see `alertrec.recurring`), `n_charges`, `average_amount`, `last_amount`, `first_date`,
    `last_date`, `next_date` (when the next charge is expected; null where the stream is tombstoned). Days are the
    user's own.
    """
    if isinstance(users, pl.DataFrame) and isinstance(transactions, pl.DataFrame):
        return streams_frame(Ledger.of(users, transactions, as_of))
    return streams_frame(Ledger.of_pandas(users, transactions, as_of)).to_pandas()


def streams_frame(ledger: Ledger) -> pl.DataFrame:
    """Return the recurring charges of a ledger, see `recurring_streams`."""
    found: Streams = ledger.streams
    return pl.DataFrame(
        {
            USER_ID: ledger.accounts[USER_ID].gather(found.user),
            "merchant_name": _last_names(ledger, found.user, found.merchant),
            "frequency": np.array(FREQUENCIES, dtype=object)[found.frequency],
            "status": np.array(STATUSES, dtype=object)[found.status],
            "n_charges": found.n_charges,
            "average_amount": found.total_amount / found.n_charges / UNITS,
            "last_amount": found.last_amount / UNITS,
            "first_date": _dates(found.first_day),
            "last_date": _dates(found.last_day),
            "next_date": _dates(found.next_day),
        },
        schema_overrides={"frequency": pl.String, "status": pl.String},
    )


def _last_names(ledger: Ledger, user: Ints, merchant: Ints) -> pl.Series:
    """Return the spelling of each user's last purchase at a merchant."""
    names = (
        pl.DataFrame({"user": ledger.user, "merchant": ledger.merchant, "name": ledger.merchant_name})
        .filter(pl.Series(ledger.is_purchase))
        .group_by("user", "merchant")
        .agg(pl.col("name").last())
    )
    wanted = pl.DataFrame({"user": user, "merchant": merchant})
    return wanted.join(names, on=["user", "merchant"], how="left", maintain_order="left")["name"]


def _dates(days: Ints) -> pl.Series:
    return pl.Series(days).replace(-1, None).cast(pl.Int32).cast(pl.Date)
