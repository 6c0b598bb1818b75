"""Probabilities and back-tests → the rules offered to each user, chosen as a set.

Of the alerts that are probable enough, that one comes first whose value is highest: its probability, less for what the
user's other rules and the offers before it tell already. Each is offered with the parameter that fits, within what its
own budget and that of all rules of the user leave.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from alertrec.catalog import BY_KEY, Parameters
from alertrec.detectors import fixed_parameters
from alertrec.ledger import Floats, Ints
from alertrec.models.base import AlertMatrix, ScoreMatrix
from alertrec.ranking import choose
from alertrec.rules.backtests import BackTests

# What a rule is worth all of whose firings others tell already, against one that tells only news.
WORTH_OF_THE_KNOWN = 0.5


@dataclass(frozen=True)
class Offer:
    """A rule that fits a user who does not have it.

    Attributes
    ----------
    alert : int
        Column of the probability matrix.
    dial : float
        The number above which it fires, which `parameters` hold too.
    parameters : mapping
    fired : int array
        Places in the ledger at which it would have fired in the window.
    n_known : int
        At how many of these another rule of the user, or an offer before it, would have fired too.
    value : float
        What it is ranked by.
    """

    alert: int
    dial: float
    parameters: Parameters
    fired: Ints
    n_known: int
    value: float


@dataclass(frozen=True)
class Room:
    """What one user's rules leave to offers.

    Attributes
    ----------
    n_items : int
        Offers at most.
    of_a_rule, left : int
        How often one offer, and all of them together, may have fired.
    told : set of int
        Places in the ledger at which the user's rules fire.
    """

    n_items: int
    of_a_rule: int
    left: int
    told: Collection[int]


def choose_offers(
    probabilities: ScoreMatrix,
    exclude: AlertMatrix,
    *,
    alert_types: Sequence[str],
    rooms: Sequence[Room],
    first_dials: Floats,
    tests: BackTests,
    threshold: float,
) -> list[list[Offer]]:
    """Return the offers of each user, the most valuable first.

    Parameters
    ----------
    probabilities : float64 array, shape (n_users, n_alerts); NaN is never offered
    exclude : bool array, shape (n_users, n_alerts); never offered
    alert_types : the columns of these
    rooms : one a user
    first_dials : float64 array, shape (n_users, n_alerts)
        The least value of each dial that is tried; NaN where all are.
    threshold : float in [0, 1]
    """
    allowed = np.array([min(room.left, room.of_a_rule) for room in rooms], dtype=np.int64)
    first = np.zeros(first_dials.shape, dtype=np.int64)
    unfit = exclude.copy()
    for column, alert_type in enumerate(alert_types):
        if unfit[:, column].all():
            continue
        test = tests.of(alert_type)
        first[:, column] = np.searchsorted(test.steps, np.nan_to_num(first_dials[:, column]))
        unfit[:, column] |= ~test.can_fire | (test.fit_all(allowed, first[:, column]) < 0)
    # Candidates are judged by what is promised, the probability; only their order is one of value.
    n_items = max((room.n_items for room in rooms), default=0)
    candidates = choose(probabilities, n_items, exclude=unfit, threshold=threshold).alerts
    return [
        _in_order(
            {int(alert): float(probabilities[user, alert]) for alert in candidates[user, : room.n_items] if alert >= 0},
            _Fitting(user, tests, alert_types, first[user]),
            room,
        )
        for user, room in enumerate(rooms)
    ]


@dataclass(frozen=True)
class _Fitting:
    user: int
    tests: BackTests
    alert_types: Sequence[str]
    first_steps: Ints

    def offer(self, alert: int, probability: float, *, allowed: int, told: Collection[int]) -> Offer | None:
        """Return an alert with the parameters that fit; None where none do."""
        alert_type = self.alert_types[alert]
        test = self.tests.of(alert_type)
        dial = test.fit(self.user, allowed, int(self.first_steps[alert]))
        if dial is None:
            return None
        fired = test.fired(self.user, dial)
        n_known = sum(int(entry) in told for entry in fired)
        known_share = n_known / len(fired) if len(fired) else 0.0
        parameters = BY_KEY[alert_type].turned(fixed_parameters(self.tests.ledger, alert_type, self.user), dial)
        return Offer(
            alert, dial, parameters, fired, n_known, probability * (1 - (1 - WORTH_OF_THE_KNOWN) * known_share)
        )


def _in_order(candidates: dict[int, float], fitting: _Fitting, room: Room) -> list[Offer]:
    chosen: list[Offer] = []
    told, left = set(room.told), room.left
    while candidates:
        allowed = min(left, room.of_a_rule)
        fitted = {
            alert: offer
            for alert, probability in candidates.items()
            if (offer := fitting.offer(alert, probability, allowed=allowed, told=told)) is not None
        }
        if not fitted:
            break
        best = max(fitted.values(), key=lambda offer: (offer.value, -offer.alert))
        chosen.append(best)
        told |= {int(entry) for entry in best.fired}
        left -= len(best.fired)
        candidates = {alert: candidates[alert] for alert in fitted if alert != best.alert}
    return chosen
