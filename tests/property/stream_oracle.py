"""Recurring streams once more, slowly: one user and merchant after the other, one charge after the other.

Then once more, one amount after the other.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from itertools import groupby, pairwise
from typing import NamedTuple

EPOCH = date(1970, 1, 1)
SCHEDULES = {
    "WEEKLY": [(6, 8), (13, 15)],
    "BIWEEKLY": [(13, 15), (26, 30)],
    "SEMI_MONTHLY": [(12, 19), (26, 35)],
    "MONTHLY": [(25, 35), (55, 66)],
    "ANNUALLY": [(350, 380)],
}


class Charge(NamedTuple):
    """A purchase; `day` counts from the epoch, `amount` in ten-thousandths, `merchant` is -1 where there is none."""

    user: int
    merchant: int
    day: int
    amount: int


class Placed(NamedTuple):
    """A charge and its place in the ledger."""

    user: int
    merchant: int
    day: int
    amount: int
    place: int


@dataclass
class Run:
    """A row of charges that keep a rhythm; a single one has none yet."""

    charges: list[Placed]
    frequency: str = ""
    period: int = 0
    was_new: bool = False

    @property
    def leeway(self) -> Fraction:
        return max(Fraction(2), Fraction(self.period, 10))

    @property
    def longest(self) -> Fraction:
        """The longest gap that the run survives."""
        if self.frequency == "UNKNOWN":
            return self.period + self.leeway
        return Fraction(SCHEDULES[self.frequency][-1][1])

    @property
    def longest_of_one_period(self) -> Fraction:
        return self.longest if self.frequency == "UNKNOWN" else Fraction(SCHEDULES[self.frequency][0][1])

    @property
    def is_mature(self) -> bool:
        return len(self.charges) >= (2 if self.frequency == "ANNUALLY" else 3)

    @property
    def is_early(self) -> bool:
        if len(self.charges) != 2 or self.frequency == "UNKNOWN":
            return False
        first, second = ((each.amount + 50) // 100 for each in self.charges)
        return first == second

    def keeps(self, gap: int) -> bool:
        if self.frequency == "UNKNOWN":
            return abs(gap - self.period) <= self.leeway
        return any(first <= gap <= last for first, last in SCHEDULES[self.frequency])


def frequency_of(gap: int) -> str:
    if 6 <= gap <= 8:
        return "WEEKLY"
    if 13 <= gap <= 15:
        return "BIWEEKLY"
    if gap == 12 or 16 <= gap <= 19:
        return "SEMI_MONTHLY"
    if 25 <= gap <= 35:
        return "MONTHLY"
    if 350 <= gap <= 380:
        return "ANNUALLY"
    return "UNKNOWN" if 9 <= gap <= 190 else ""


def factor(frequency: str) -> Fraction:
    return Fraction(5, 4) if frequency in ("MONTHLY", "ANNUALLY") else Fraction(11, 10)


def within(one: Placed, other: Placed, factor: Fraction) -> bool:
    return one.amount <= factor * other.amount and other.amount <= factor * one.amount


def begun(last: Placed, charge: Placed) -> Run:
    gap = charge.day - last.day
    if frequency_of(gap) and within(last, charge, factor(frequency_of(gap))):
        return Run([last, charge], frequency_of(gap), gap)
    return Run([charge])


def after(run: Run, charge: Placed) -> Run:
    """Return the run that stands after a charge."""
    last = run.charges[-1]
    if len(run.charges) == 1:
        return begun(last, charge)
    gap = charge.day - last.day
    on_schedule = run.keeps(gap)
    if run.frequency == "BIWEEKLY" and not 13 <= gap <= 15 and 12 <= gap <= 19:
        run.frequency, on_schedule = "SEMI_MONTHLY", True
    if on_schedule and within(last, charge, factor(run.frequency) if len(run.charges) < 3 else Fraction(2)):
        run.charges.append(charge)
        return run
    if not on_schedule and run.is_mature and gap < run.longest:
        return run
    return begun(last, charge)


class Stream(NamedTuple):
    """What stands at the end."""

    user: int
    merchant: int
    frequency: str
    status: str
    n_charges: int
    first_day: int
    last_day: int
    first_amount: int
    last_amount: int
    total_amount: int
    next_day: int


class Found(NamedTuple):
    """What the charges show; `rise` is None where there is none."""

    is_new: list[bool]
    rise: list[float | None]
    streams: list[Stream]


@dataclass
class First:
    """What the first walk leaves for the second: places of charges."""

    told: set[int]  # of mature runs, and those that made a stream new
    went_on: set[int]  # those that a mature run went on from
    standing: dict[int, Run]  # by their last charge


def oracle(charges: list[Charge], known_since: list[int], until: list[int]) -> Found:
    """Return what recurs among the charges, which are in the order of the ledger."""
    found = Found([False] * len(charges), [None] * len(charges), [])
    placed = [Placed(*charge, place) for place, charge in enumerate(charges) if charge.merchant >= 0]
    first = walk_merchants(placed, known_since, found)
    beside = walk_amounts(placed, known_since, found, first)
    for last, run in beside.items():
        if last in first.standing and len(run.charges) > len(first.standing[last].charges):
            del first.standing[last]
    chosen = [*first.standing.values(), *(run for last, run in beside.items() if last not in first.standing)]
    streams = [stream_of(run, until[run.charges[0].user]) for run in chosen]
    found.streams.extend(sorted(streams, key=lambda stream: (stream.user, stream.merchant)))
    return found


def walk_merchants(placed: list[Placed], known_since: list[int], found: Found) -> First:
    first = First(set(), set(), {})
    for group in grouped(placed, lambda each: each[:2]):
        run = None
        for run, charge in runs_after(group):
            if len(run.charges) < 2 or run.charges[-1] is not charge:
                continue
            found.is_new[charge.place] = is_new(run, known_since[charge.user])
            found.rise[charge.place] = rise(run)
            if run.is_mature:
                first.went_on.add(run.charges[-2].place)
            if run.is_mature or found.is_new[charge.place]:
                first.told.add(charge.place)
        if run is not None and (run.is_mature or run.is_early):
            first.standing[run.charges[-1].place] = run
    return first


def walk_amounts(placed: list[Placed], known_since: list[int], found: Found, first: First) -> dict[int, Run]:
    """Return the runs of equal amounts that stand, by their last charge."""
    standing = {}
    for group in grouped(placed, lambda each: (each.user, each.merchant, each.amount)):
        run = None
        for run, charge in runs_after(group):
            if run.charges[-1] is not charge or not is_sure(run):
                continue
            if run.was_new or any(each.place in first.told for each in run.charges[:-1]):
                found.is_new[charge.place] = False
            elif charge.place not in first.told:
                found.is_new[charge.place] = run.charges[0].day > known_since[charge.user] + run.longest_of_one_period
            run.was_new = True
        if run is not None and is_sure(run) and run.charges[-1].place not in first.went_on:
            standing[run.charges[-1].place] = run
    return standing


def is_sure(run: Run) -> bool:
    return run.frequency in ("MONTHLY", "ANNUALLY") and run.is_mature


def grouped(placed: list[Placed], key: Callable[[Placed], tuple[int, ...]]) -> list[list[Placed]]:
    """Return the charges that have a key in common, in the order of the keys."""
    return [list(group) for _, group in groupby(sorted(placed, key=lambda each: (key(each), each.place)), key=key)]


def runs_after(charges: list[Placed]) -> Iterator[tuple[Run, Placed]]:
    """Yield the run that stands after each charge, of which the first of a day counts."""
    run = Run(charges[:1])
    yield run, charges[0]
    for before, charge in pairwise(charges):
        if charge.day != before.day:
            run = after(run, charge)
            yield run, charge


def is_new(run: Run, known_since: int) -> bool:
    now_sure = run.is_mature or (run.frequency == "MONTHLY" and run.is_early)
    if run.was_new or not now_sure:
        return False
    run.was_new = True
    return run.charges[0].day > known_since + run.longest_of_one_period


def rise(run: Run) -> float | None:
    before, now = run.charges[-2].amount, run.charges[-1].amount
    return float(Fraction(100 * (now - before), before)) if run.is_mature and now > before else None


def stream_of(run: Run, until: int) -> Stream:
    first, last = run.charges[0], run.charges[-1]
    gone = until > last.day + run.longest
    return Stream(
        user=first.user,
        merchant=first.merchant,
        frequency=run.frequency,
        status="TOMBSTONED" if gone else "MATURE" if run.is_mature else "EARLY_DETECTION",
        n_charges=len(run.charges),
        first_day=first.day,
        last_day=last.day,
        first_amount=first.amount,
        last_amount=last.amount,
        total_amount=sum(each.amount for each in run.charges),
        next_day=-1 if gone else next_day(run, EPOCH + timedelta(last.day)),
    )


def next_day(run: Run, last: date) -> int:
    days = {"WEEKLY": 7, "BIWEEKLY": 14, "SEMI_MONTHLY": 15, "UNKNOWN": run.period}
    if run.frequency in days:
        return (last + timedelta(days[run.frequency]) - EPOCH).days
    year, month = last.year + (run.frequency == "ANNUALLY"), last.month + (run.frequency == "MONTHLY")
    year, month = (year + 1, 1) if month > 12 else (year, month)
    return (date(year, month, min(last.day, calendar.monthrange(year, month)[1])) - EPOCH).days
