"""The streams among the purchases of users: what recurs, and at which charges that shows."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from alertrec.recurring.amounts import walk_amounts
from alertrec.recurring.charges import by_merchant, one_a_day
from alertrec.recurring.news import new_or_dearer, with_news_beside
from alertrec.recurring.rhythms import EARLY, LONGEST, MATURE, TOMBSTONED, UNKNOWN, Integers, next_days
from alertrec.recurring.standing import standing_streams
from alertrec.recurring.walk import Runs, walk


@dataclass(frozen=True)
class Streams:
    """What recurs, and at which charges that shows.

    Days are local days since the epoch, amounts whole ten-thousandths.

    Attributes
    ----------
    is_new : bool array, shape (n_charges,)
        Whether the charge makes a run a stream that is certain to have begun within the known history.
    rise : float64 array, shape (n_charges,)
        Percent by which a charge of a mature stream is dearer than the one before it; -inf where it is not.
    user, merchant : int64 arrays, shape (n_streams,), as are all below
        Ascending by user, then merchant. Of one merchant, the stream of all its charges is the first, those of single
        amounts follow, ascending by amount.
    frequency, status : int64 arrays
        Places in `FREQUENCIES` and `STATUSES`.
    n_charges : int64 array
        Charges of the stream, without extra purchases; at least 2.
    first_day, last_day : int64 arrays
    first_amount, last_amount, total_amount : int64 arrays
        The average charge is `total_amount / n_charges`.
    next_day : int64 array
        When the next charge is expected, counted from the last, so that it lies in the past where one is missing;
        -1 where the stream is tombstoned.
    """

    is_new: NDArray[np.bool_]
    rise: NDArray[np.float64]
    user: Integers
    merchant: Integers
    frequency: Integers
    status: Integers
    n_charges: Integers
    first_day: Integers
    last_day: Integers
    first_amount: Integers
    last_amount: Integers
    total_amount: Integers
    next_day: Integers


def find_streams(
    user: Integers, merchant: Integers, day: Integers, amount: Integers, *, known_since: Integers, until: Integers
) -> Streams:
    """Find the recurring charges among the purchases of any number of users.

    Parameters
    ----------
    user, merchant, day, amount : int64 arrays, shape (n_charges,)
        By user, then time: `user` and, within a user, `day` never fall. `merchant` is -1 where there is none. Amounts
        are whole ten-thousandths from 0 to 1e18; a stream's total must stay below 2**63.
    known_since, until : int64 arrays, shape (n_users,)
        The day of each user's first known purchase, and the day that counts as today.
    """
    charges, since = by_merchant(user, merchant, day, amount), known_since[user]
    every = walk(one_a_day(charges))
    equal = walk_amounts(charges, every)
    is_new, rise = new_or_dearer(every, since)
    is_new = with_news_beside(is_new, every, equal, since)
    last, last_beside = standing_streams(every, equal)
    tables = _table(every, last, user, merchant, until), _table(equal, last_beside, user, merchant, until)
    table = np.concatenate(tables, axis=1)
    by_pair = np.lexsort((table[1], table[0]))
    return Streams(is_new, rise, *table[:, by_pair])


def _table(runs: Runs, last: Integers, user: Integers, merchant: Integers, until: Integers) -> Integers:
    """Return a row for each column of `Streams` from `user` on, of the streams with these last charges."""
    charges, n_charges, rhythm, place = runs.charges, runs.position[last], runs.rhythm[last], runs.charges.place[last]
    # The first charge of the latest run, charge by charge: runs of a key, and keys, follow each other.
    first = np.maximum.accumulate(np.where(runs.position == 2, runs.previous, 0))[last]
    sums = np.cumsum(np.where(runs.position > 0, charges.amount, 0))  # differences stay exact where the sum wraps
    over = until[user[place]] > charges.day[last] + LONGEST[rhythm]
    columns = {
        "user": user[place],
        "merchant": merchant[place],
        "frequency": np.minimum(rhythm, UNKNOWN),
        "status": np.where(over, TOMBSTONED, np.where(runs.are_mature(last), MATURE, EARLY)),
        "n_charges": n_charges,
        "first_day": charges.day[first],
        "last_day": charges.day[last],
        "first_amount": charges.amount[first],
        "last_amount": charges.amount[last],
        "total_amount": charges.amount[first] + sums[last] - sums[first],
        "next_day": np.where(over, -1, next_days(charges.day[last], rhythm)),
    }
    return np.stack([columns[field.name] for field in fields(Streams)[2:]])
