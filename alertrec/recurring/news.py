"""Which charges tell something: that a stream is new, or that it costs more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alertrec.recurring.rhythms import IS_SLOW, LONGEST_ON_TIME, MONTHLY, NEEDED, Integers
from alertrec.recurring.walk import Runs

_NO_RISE = -np.inf

Mask = NDArray[np.bool_]


def new_or_dearer(runs: Runs, known_since: Integers) -> tuple[Mask, NDArray[np.float64]]:
    """Return, of each charge of the ledger, whether a stream is new with it, and by how many percent it is dearer.

    `known_since` has the first known day of each charge's user.
    """
    is_new, rise = np.zeros(len(known_since), np.bool_), np.full(len(known_since), _NO_RISE)
    charges, joined = runs.charges, runs.joined
    is_new[charges.place[joined[_are_new(runs, joined, known_since)]]] = True
    dearer = joined[runs.are_mature(joined) & (charges.amount[joined] > charges.amount[runs.previous[joined]])]
    now, before = charges.amount[dearer], charges.amount[runs.previous[dearer]]
    rise[charges.place[dearer]] = 100.0 * (now - before) / before
    return is_new, rise


def with_news_beside(is_new: Mask, every: Runs, equal: Runs, known_since: Integers) -> Mask:
    """Return which charges are new, those of equal amounts too, by which a run matures that was not told of before.

    What goes on beside others is not new where the walk over all of them takes it up again.
    """
    told, is_new = is_new.copy(), is_new.copy()
    told[every.charges.place[every.joined[every.are_mature(every.joined)]]] = True
    mature = equal.joined[equal.are_mature(equal.joined)]
    mature = mature[IS_SLOW[equal.rhythm[mature]]]
    now = mature[equal.position[mature] == NEEDED[equal.rhythm[mature]]]
    first, before, place = _first_two(equal, now)[0], equal.previous[now], equal.charges.place
    untold = ~(told[place[first]] | told[place[before]])
    begins = ~told[place[now]] & _begin_in_sight(equal, first, now, known_since)
    kept = is_new[place[now]] | begins
    is_new[place[mature]] = False
    is_new[place[now]] = untold & kept
    return is_new


def _are_new(runs: Runs, joined: Integers, known_since: Integers) -> Mask:
    rhythm = runs.rhythm[joined]
    first, second = _first_two(runs, joined)
    early = (rhythm == MONTHLY) & runs.charges.same_cents(first, second)
    sure: Mask = runs.position[joined] == np.where(early, 2, NEEDED[rhythm])
    return sure & _begin_in_sight(runs, first, joined, known_since)


def _first_two(runs: Runs, joined: Integers) -> tuple[Integers, Integers]:
    """Return the first two charges of the runs, of which these charges are the second or third."""
    third, before = runs.position[joined] > 2, runs.previous[joined]
    return np.where(third, runs.previous[before], before), np.where(third, before, joined)


def _begin_in_sight(runs: Runs, first: Integers, joined: Integers, known_since: Integers) -> Mask:
    """Return which runs begin so late that a charge before their first would be known."""
    since = known_since[runs.charges.place[joined]]
    begins: Mask = runs.charges.day[first] > since + LONGEST_ON_TIME[runs.rhythm[joined]]
    return begins
