"""The causal state machine, one of each user and merchant, all of them stepped at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alertrec.recurring.charges import Charges
from alertrec.recurring.rhythms import BEGINS, EARLY_PART, EXTRA, FAR, FOLLOWS, MATURE_PART, NEEDED, Integers

_NOWHERE = -1


@dataclass(frozen=True)
class Runs:
    """The run that each charge joined, and the last charges of the runs that stand at the end."""

    charges: Charges
    joined: Integers  # those that joined a run, but for its first
    position: Integers  # 2 for the second charge of a run; 0 for a charge that joined none
    previous: Integers  # the charge before it in the run
    rhythm: Integers
    standing: Integers

    def are_mature(self, joined: Integers) -> NDArray[np.bool_]:
        """Return with which of these charges, each of which joined a run, that run is mature."""
        mature: NDArray[np.bool_] = self.position[joined] >= NEEDED[self.rhythm[joined]]
        return mature


def walk(charges: Charges) -> Runs:
    """Walk the charges of every key, at most one of each a day, from the first to the last."""
    return _Walk(charges).to_the_end()


class _Walk:
    """One step takes the next charge of every key at once; those without more charges drop out.

    The state is a row of arrays with one number a key: `charge`, the next one, `end` behind their last one, and of the
    run that it may join `last`, its latest charge, `n`, their number, and `rhythm`. There is always a run of at least
    two: where one has ended, the walk goes on from the next two charges in a row that begin another.
    """

    def __init__(self, charges: Charges) -> None:
        self.charges, self.day, self.amount = charges, charges.day, charges.amount
        self.position, self.previous, self.rhythms = np.zeros((3, len(charges.key)), np.int64)
        self.seconds = _second_charges(charges)
        self.standing: list[Integers] = []
        start = self.seconds[_differ_from_before(charges.key[self.seconds])]
        ends = np.append(np.flatnonzero(charges.key[1:] != charges.key[:-1]) + 1, len(charges.key))
        self.charge, self.end = start + 1, ends[np.searchsorted(ends, start, side="right")]
        self.last, self.n, self.rhythm = start, np.full(len(start), 2), self._rhythm_begun_at(start)
        self._note(start, start - 1, self.n, self.rhythm)

    def to_the_end(self) -> Runs:
        """Step until no charge is left."""
        self._drop_done()
        while len(self.charge):
            self._step()
            self._drop_done()
        last = np.concatenate([np.zeros(0, np.int64), *self.standing])
        last = np.sort(last[last >= 0])
        joined = np.flatnonzero(self.position)
        return Runs(self.charges, joined, self.position, self.previous, self.rhythms, last)

    def _drop_done(self) -> None:
        done = self.charge == self.end
        if done.any():
            self.standing.append(self.last[done])
            state = np.stack((self.charge, self.end, self.last, self.n, self.rhythm))
            self.charge, self.end, self.last, self.n, self.rhythm = state[:, ~done]

    def _step(self) -> None:
        gap = np.minimum(self.day.take(self.charge) - self.day.take(self.last), FAR)
        now, before = self.amount.take(self.charge), self.amount.take(self.last)
        low = np.minimum(now, before)
        apart = np.abs(now - before)
        follow = FOLLOWS[self.rhythm, gap]
        joins = (follow >= 0) & (apart <= low // np.where(self.n >= 3, MATURE_PART, EARLY_PART[follow]))
        n = np.where(joins, self.n + 1, 0)
        ended = np.flatnonzero(~(joins | ((follow == EXTRA) & (self.n >= NEEDED[self.rhythm]))))
        if len(ended):
            follow[ended] = fresh = BEGINS[gap[ended]]
            begins = (fresh >= 0) & (apart[ended] <= low[ended] // EARLY_PART[fresh])
            n[ended] = 2 * begins
            self._jump(ended[~begins], n, follow)
        self._note(self.charge, self.last, n, follow)
        joined = n > 0
        self.last = np.where(joined, self.charge, self.last)
        self.n = np.where(joined, n, self.n)
        self.rhythm = np.where(joined, follow, self.rhythm)
        self.charge = self.charge + 1

    def _jump(self, lost: Integers, n: Integers, rhythm: Integers) -> None:
        """Take those whose charge stands alone to the second charge of their next run, or to their end."""
        ahead = np.searchsorted(self.seconds, self.charge[lost], side="right")
        second = np.append(self.seconds, len(self.day))[ahead]
        found = second < self.end[lost]
        lands, gone, second = lost[found], lost[~found], second[found]
        self.charge[lands], self.last[lands], n[lands] = second, second - 1, 2
        rhythm[lands] = self._rhythm_begun_at(second)
        self.charge[gone], self.last[gone] = self.end[gone] - 1, _NOWHERE

    def _rhythm_begun_at(self, second: Integers) -> Integers:
        rhythm: Integers = BEGINS[self.day[second] - self.day[second - 1]]
        return rhythm

    def _note(self, charge: Integers, last: Integers, n: Integers, rhythm: Integers) -> None:
        self.position[charge], self.previous[charge], self.rhythms[charge] = n, last, rhythm


def _second_charges(charges: Charges) -> Integers:
    """Return the second of every two charges in a row that can begin a run."""
    gap = np.clip(charges.day[1:] - charges.day[:-1], 0, FAR)  # from one merchant to the next it may be anything
    rhythm = BEGINS[gap]
    within = np.flatnonzero((charges.key[1:] == charges.key[:-1]) & (rhythm >= 0))
    one, other = charges.amount[within], charges.amount[within + 1]
    close = np.abs(one - other) <= np.minimum(one, other) // EARLY_PART[rhythm[within]]
    seconds: Integers = within[close] + 1
    return seconds


def _differ_from_before(values: Integers) -> NDArray[np.bool_]:
    differ = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=differ[1:])
    return differ
