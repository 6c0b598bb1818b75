"""What could fire a rule, whatever its number: the entries of a ledger, each with the numbers at which it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alertrec.ledger import Floats, Ints, Ledger, Mask


@dataclass(frozen=True)
class Events:
    """The entries at which a rule of one kind fires, for every value of its dial at once.

    A rule whose dial stands at t fires at an event if `low <= t < high`: above, not at, the threshold.

    Attributes
    ----------
    entry : int array, ascending
        Places in the arrays of the ledger.
    low, high : float64 arrays, as long
    """

    entry: Ints
    low: Floats
    high: Floats

    @classmethod
    def below(cls, entry: Ints, high: Floats) -> Events:
        """Return events that fire every rule below a number."""
        return cls(entry, np.full(len(entry), -np.inf), high)

    def where(self, kept: Mask) -> Events:
        """Return some of the events."""
        return Events(self.entry[kept], self.low[kept], self.high[kept])

    def fired(self, dial: float | Floats) -> Mask:
        """Return which events fire.

        Parameters
        ----------
        dial : float, or float64 array of one number an event
        """
        return np.asarray((self.low <= dial) & (dial < self.high))

    def counts(self, user: Ints, n_users: int, steps: tuple[float, ...]) -> Ints:
        """Return how often each step of a dial fires for each user.

        Parameters
        ----------
        user : int array, one an event

        Returns
        -------
        int array, shape (n_users, n_steps)
        """
        # An event fires from the first step that is at least `low` up to the last one below `high`: +1 and -1 there,
        # summed along the steps.
        n = len(steps) + 1
        changes = np.zeros(n_users * n, dtype=np.int64)
        for ends, change in ((self.low, 1), (self.high, -1)):
            place = user * n + np.searchsorted(steps, ends, side="left")
            changes += change * np.bincount(place, minlength=n_users * n)
        return np.cumsum(changes.reshape(n_users, n), axis=1)[:, :-1]


def in_window(ledger: Ledger, events: Events, days: int) -> Events:
    """Return the events of the last days before the ledger's moment."""
    return events.where(ledger.at[events.entry] > ledger.after(days))
