"""Which runs stand as streams at the end: each charge is the last of one stream at most."""

from __future__ import annotations

import numpy as np

from alertrec.recurring.rhythms import IS_SLOW, UNKNOWN, Integers
from alertrec.recurring.walk import Runs


def standing_streams(every: Runs, equal: Runs) -> tuple[Integers, Integers]:
    """Return the last charges of the streams of all charges of a merchant, and of those of equal amounts beside them.

    Of two with the same last charge, the one with more charges stands.
    """
    last, last_beside = _standing(every), _standing_beside(equal, every)
    places, places_beside = every.charges.place[last], equal.charges.place[last_beside]
    _, one, other = np.intersect1d(places, places_beside, assume_unique=True, return_indices=True)
    longer = equal.position[last_beside[other]] > every.position[last[one]]
    return np.delete(last, one[longer]), np.delete(last_beside, other[~longer])


def _standing(runs: Runs) -> Integers:
    last = runs.standing
    early = (runs.rhythm[last] < UNKNOWN) & runs.charges.same_cents(last, runs.previous[last])
    return last[runs.are_mature(last) | early]


def _standing_beside(equal: Runs, every: Runs) -> Integers:
    """Return the last charges of monthly and annual runs, unless a mature run of all charges went on from them."""
    went_on = every.charges.place[every.previous[every.joined[every.are_mature(every.joined)]]]
    last = equal.standing[equal.are_mature(equal.standing) & IS_SLOW[equal.rhythm[equal.standing]]]
    kept: Integers = last[~np.isin(equal.charges.place[last], went_on)]
    return kept
