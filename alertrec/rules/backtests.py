"""What rules would have done on the last 90 days, and the parameter that keeps one within a budget of noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from alertrec.catalog import BY_KEY, AlertType, Parameters
from alertrec.detectors import Events, can_fire, detect, in_window, least_dials
from alertrec.ledger import MICROSECONDS_PER_DAY, Floats, Ints, Ledger, Mask

WINDOW_DAYS = 90
BUDGET_MONTH_DAYS = 30


@dataclass(frozen=True)
class Budget:
    """How often alerts may fire before a customer switches them off.

    Attributes
    ----------
    per_rule, per_user : float
        Firings in 30 days: of one rule, and of all rules of a user.
    """

    per_rule: float = 2.0
    per_user: float = 6.0

    def of_a_rule(self, days: int = WINDOW_DAYS) -> int:
        """Return the firings of one rule that so many days allow."""
        return _in_days(self.per_rule, days)

    def of_a_user(self, days: int = WINDOW_DAYS) -> int:
        """Return the firings of all rules of a user that so many days allow."""
        return _in_days(self.per_user, days)


def fit_steps(counts: Ints, allowed: int | Ints, first: int | Ints = 0) -> Ints:
    """Return the smallest step of a dial that keeps within what is allowed, and fires at all where that is possible.

    A step keeps within it if neither it nor any step above it would have fired more often. So a larger allowance never
    gives a higher step, also where a higher threshold can fire more often than a lower one, as that of a utilisation
    can.

    Parameters
    ----------
    counts : int array, shape (n_users, n_steps)
        How often each step would have fired.
    allowed : int, or int array of shape (n_users,)
    first : int, or int array of shape (n_users,)
        The lowest step that is tried.

    Returns
    -------
    int array, shape (n_users,)
        Indices of steps; -1 where none keeps within it.
    """
    from_first = np.arange(counts.shape[1]) >= np.reshape(first, (-1, 1))
    within = (worst_from(counts) <= np.reshape(allowed, (-1, 1))) & from_first
    firing = within & (counts > 0)
    return np.where(firing.any(axis=1), firing.argmax(axis=1), np.where(within.any(axis=1), within.argmax(axis=1), -1))


def worst_from(counts: Ints) -> Ints:
    """Return how often each step of a dial, or any step above it, would have fired at most; of the same shape."""
    return np.maximum.accumulate(counts[:, ::-1], axis=1)[:, ::-1]


class BackTest:
    """One kind of rule on the last 90 days of a ledger, for every value of its dial.

    Attributes
    ----------
    steps : tuple of float
        Of the dial.
    can_fire : bool array, shape (n_users,)
        Whether an account has what the rule watches, such as a credit limit.
    first_steps : int array, shape (n_users,)
        The least step of the dial that can fire as things stand: of a utilisation, none below the present one.
    """

    def __init__(self, ledger: Ledger, alert_type: str, parameters: Parameters) -> None:
        entry: AlertType = BY_KEY[alert_type]
        self.steps: tuple[float, ...] = entry.dial.steps
        self.can_fire: Mask = can_fire(ledger, alert_type, parameters)
        self.first_steps: Ints = np.searchsorted(self.steps, least_dials(ledger, alert_type), side="left")
        self._ledger = ledger
        self._events: Events = in_window(ledger, detect(ledger, alert_type, parameters), WINDOW_DAYS)
        self._user: Ints = ledger.user[self._events.entry]
        self._bounds: Ints = np.searchsorted(self._user, np.arange(ledger.n_users + 1))

    @cached_property
    def counts(self) -> Ints:
        """How often each step of the dial would have fired, shape (n_users, n_steps)."""
        return self._events.counts(self._user, self._ledger.n_users, self.steps)

    @cached_property
    def _worst(self) -> Ints:
        return worst_from(self.counts)

    def fit_all(self, allowed: int | Ints, first: int | Ints = 0) -> Ints:
        """Return the step of the dial that fits each user, see `fit_steps`; none that cannot fire as things stand."""
        return fit_steps(self.counts, allowed, np.maximum(first, self.first_steps))

    def fired(self, user: int, dial: float) -> Ints:
        """Return the places in the ledger at which the rule would have fired for one user, by time.

        With an infinite number, those at which it fires whatever its number.
        """
        mine = slice(self._bounds[user], self._bounds[user + 1])
        low, high = self._events.low[mine], self._events.high[mine]
        fired = np.isinf(high) if np.isinf(dial) else (low <= dial) & (dial < high)
        return self._events.entry[mine][fired]

    def fit(self, user: int, allowed: int, first: int = 0) -> float | None:
        """Return the value of the dial that fits one user, see `fit_all`; None where none does."""
        # The same on one row, for a tenth of the time: lists are made one user after the other.
        step = max(first, int(self.first_steps[user]), int(np.count_nonzero(self._worst[user] > allowed)))
        if step >= len(self.steps):
            return None
        firing = self.counts[user, step:].nonzero()[0]
        return self.steps[step + firing[0]] if len(firing) else self.steps[step]


class BackTests:
    """The back-tests of all kinds of rules on one ledger, each made when it is first asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._made: dict[tuple[str, str | None], BackTest] = {}

    def of(self, alert_type: str, parameters: Parameters | None = None) -> BackTest:
        """Return the back-test of rules with such parameters; the value of the dial does not matter."""
        parameters = parameters if parameters is not None else BY_KEY[alert_type].parameters
        scope = parameters.get("scope")
        key = (alert_type, None if scope is None else str(scope))
        if key not in self._made:
            self._made[key] = BackTest(self.ledger, alert_type, parameters)
        return self._made[key]


def knows_window(ledger: Ledger) -> Mask:
    """Return of whom the window tells: purchases as old as it, and some within it; shape (n_users,)."""
    known = np.zeros(ledger.n_users, dtype=bool)
    if ledger.until is not None:
        since = ledger.after(WINDOW_DAYS)
        known[ledger.user[ledger.purchases[ledger.at[ledger.purchases] > since]]] = True
        known &= ledger.first_at <= since
    return known


def history_days(ledger: Ledger) -> Ints:
    """Return for how many whole days each user's purchases are known, 0 without any, shape (n_users,)."""
    if ledger.until is None:
        return np.zeros(ledger.n_users, dtype=np.int64)
    return np.maximum(ledger.after(0) - ledger.first_at, 0) // MICROSECONDS_PER_DAY


def fitted_dials(ledger: Ledger, alert_types: tuple[str, ...], budget: Budget) -> Floats:
    """Return the value of each type's dial that fits each user by their own history.

    Returns
    -------
    float64 array, shape (n_users, n_alerts)
        NaN where the history is shorter than the window, or no value keeps within the budget.
    """
    dials = np.full((ledger.n_users, len(alert_types)), np.nan)
    known = knows_window(ledger)
    tests = BackTests(ledger)
    for column, alert_type in enumerate(alert_types):
        test = tests.of(alert_type)
        steps = test.fit_all(budget.of_a_rule())
        fitted = known & (steps >= 0)
        dials[fitted, column] = np.asarray(BY_KEY[alert_type].dial.steps)[steps[fitted]]
    return dials


def would_have_fired(ledger: Ledger, fired: Ints) -> dict[str, Any]:
    """Return the count of the window and up to three examples, the latest first, as JSON holds them.

    Parameters
    ----------
    fired : int array
        What `BackTest.fired` returned.
    """
    assert ledger.until is not None
    return {
        "count": len(fired),
        "window_days": WINDOW_DAYS,
        "until": f"{ledger.until.isoformat()}+00:00",
        "examples": [_example(ledger, int(entry)) for entry in fired[:-4:-1]],
    }


def _example(ledger: Ledger, entry: int) -> Mapping[str, Any]:
    return {
        "date": str(np.datetime64(int(ledger.day[entry]), "D")),
        "merchant": ledger.merchant_name[entry],
        "amount": float(ledger.amount[entry]),
    }


def days_of_budget(history_days: int) -> int:
    """Return for how many days of the window the budget of a user counts: those that are known, a month at least."""
    return min(max(history_days, BUDGET_MONTH_DAYS), WINDOW_DAYS)


def _in_days(per_month: float, days: int) -> int:
    return math.floor(per_month * days / BUDGET_MONTH_DAYS + 1e-9)  # 0.1 a month in 300 days is 1, not 0.99…
