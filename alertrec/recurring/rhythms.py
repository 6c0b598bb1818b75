"""The rhythms that charges come in, as tables: which gaps begin one, which keep it, how long it takes to be sure."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


class Frequency(StrEnum):
    """How often a stream is charged, in the words that the field uses."""

    WEEKLY = "WEEKLY"
    BIWEEKLY = "BIWEEKLY"
    SEMI_MONTHLY = "SEMI_MONTHLY"
    MONTHLY = "MONTHLY"
    ANNUALLY = "ANNUALLY"
    UNKNOWN = "UNKNOWN"


class Status(StrEnum):
    """How sure a stream is; tombstoned once its next charge is overdue."""

    EARLY_DETECTION = "EARLY_DETECTION"
    MATURE = "MATURE"
    TOMBSTONED = "TOMBSTONED"


FREQUENCIES = tuple(Frequency)
STATUSES = tuple(Status)
EARLY, MATURE, TOMBSTONED = range(3)

# A rhythm is a frequency's place in `FREQUENCIES`; an unknown frequency has one rhythm for each period.
WEEKLY, BIWEEKLY, SEMI_MONTHLY, MONTHLY, ANNUALLY, UNKNOWN = range(6)
_SLOW = (MONTHLY, ANNUALLY)  # as subscriptions are billed, and shops seldom visited
_SHORTEST_PERIOD, _LONGEST_PERIOD = 9, 190
# First and last day of a gap on time, and of a gap with one charge skipped between.
_ON_TIME = {WEEKLY: (6, 8), BIWEEKLY: (13, 15), SEMI_MONTHLY: (12, 19), MONTHLY: (25, 35), ANNUALLY: (350, 380)}
_SKIPPED = {WEEKLY: (13, 15), BIWEEKLY: (26, 30), SEMI_MONTHLY: (26, 35), MONTHLY: (55, 66)}
FAR = 381  # longer than any gap that a run survives
_NOMINAL_DAYS = (7, 14, 15, 30, 365)
EXTRA, _OVER = -1, -2  # what a gap off schedule means to a mature run: one purchase more, or the end


def _rhythm_begun(gap: int) -> int:
    """Return the rhythm of two charges so far apart, -1 where they have none."""
    for rhythm in (WEEKLY, BIWEEKLY, SEMI_MONTHLY, MONTHLY, ANNUALLY):  # a fortnight is not half a month
        first, last = _ON_TIME[rhythm]
        if first <= gap <= last:
            return rhythm
    return _rhythm_of_period(gap) if _SHORTEST_PERIOD <= gap <= _LONGEST_PERIOD else -1


def _rhythm_of_period(period: int) -> int:
    return UNKNOWN + period - _SHORTEST_PERIOD


def _bands(rhythm: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return first and last day of a gap on time, and of a gap with one charge skipped; the same where none may be."""
    if rhythm < UNKNOWN:
        return _ON_TIME[rhythm], _SKIPPED.get(rhythm, _ON_TIME[rhythm])
    period = rhythm - UNKNOWN + _SHORTEST_PERIOD
    leeway = max(2, period // 10)
    return (period - leeway, period + leeway), (period - leeway, period + leeway)


def _rhythm_after(rhythm: int, gap: int) -> int:
    """Return the rhythm with which a run goes on after a gap that is on schedule, else `EXTRA` or `_OVER`."""
    on_time, skipped = _bands(rhythm)
    if any(first <= gap <= last for first, last in (on_time, skipped)):
        return rhythm
    first, last = _ON_TIME[SEMI_MONTHLY]
    if rhythm == BIWEEKLY and first <= gap <= last:
        return SEMI_MONTHLY
    return EXTRA if gap < skipped[1] else _OVER


_RHYTHMS = range(_rhythm_of_period(_LONGEST_PERIOD) + 1)
_GAPS = range(FAR + 1)
BEGINS = np.array([_rhythm_begun(gap) for gap in _GAPS])
FOLLOWS = np.array([[_rhythm_after(rhythm, gap) for gap in _GAPS] for rhythm in _RHYTHMS])
IS_SLOW = np.array([rhythm in _SLOW for rhythm in _RHYTHMS])
NEEDED = np.array([2 if rhythm == ANNUALLY else 3 for rhythm in _RHYTHMS])  # charges that make a run mature
# Two charges in a row differ by at most this part of the smaller one: a tenth, since two purchases at a shop are often
# alike and a week apart; a quarter at a month or a year, as of power bills. A mature stream may double.
EARLY_PART = np.array([4 if rhythm in _SLOW else 10 for rhythm in _RHYTHMS])
MATURE_PART = 1
LONGEST_ON_TIME = np.array([_bands(rhythm)[0][1] for rhythm in _RHYTHMS])
LONGEST = np.array([_bands(rhythm)[1][1] for rhythm in _RHYTHMS])
_PERIOD = np.array([*_NOMINAL_DAYS, *range(_SHORTEST_PERIOD, _LONGEST_PERIOD + 1)])


def next_days(last: Integers, rhythm: Integers) -> Integers:
    """Return the days on which the charges after these are expected."""
    days: Integers = last + _PERIOD[rhythm]
    for each, months in ((MONTHLY, 1), (ANNUALLY, 12)):
        chosen = np.flatnonzero(rhythm == each)
        days[chosen] = _months_later(last[chosen], months)
    return days


def _months_later(day: Integers, months: int) -> Integers:
    """Return the same day of a later month, or that month's last day where it has none such."""
    dates = day.astype("datetime64[D]")
    month = dates.astype("datetime64[M]")
    then = month + months
    day_of_month = dates - month.astype("datetime64[D]")
    begins, ends = then.astype("datetime64[D]"), (then + 1).astype("datetime64[D]")
    days: Integers = np.minimum(begins + day_of_month, ends - 1).astype(np.int64)
    return days
