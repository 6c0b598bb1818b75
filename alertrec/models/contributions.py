"""What each part of the evidence adds to a model's log-odds, by Shapley's rule (1953).

The parts, or players, are groups of features and the other alerts that a user has. A value of Shapley is what a player
adds to the players that came before it, on average over all orders in which they can come; the values and the base add
up to the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError

Floats = NDArray[np.float64]
Coalitions = NDArray[np.bool_]  # (n_coalitions, n_players)
Game = Callable[[Coalitions], Floats]  # the output, shape (n_coalitions,), where only those players are there

# Up to so many players, all 2 ** n coalitions are asked about; of more, about as many rows are spent on sampled orders.
MAX_EXACT_PLAYERS = 12
_MAX_ROWS = 1 << MAX_EXACT_PLAYERS
_MIN_PAIRS = 16


@dataclass(frozen=True)
class Contributions:
    """The log-odds of one alert for one user, taken apart; the base and all else sum to it.

    Attributes
    ----------
    base : float
        Log-odds of an average user without other alerts, as the model has it: features at their training mean (for
        trees, the mean of their output over the training users).
    groups : dict of float, by name of the group
    alerts : dict of float, by index of the alert
        Of each other alert that the user has.
    number_of_alerts : float
        Of how many these are, where a model looks at that by itself.
    """

    base: float
    groups: Mapping[str, float]
    alerts: Mapping[int, float]
    number_of_alerts: float = 0.0

    def total(self) -> float:
        """Return the log-odds."""
        return math.fsum([self.base, *self.groups.values(), *self.alerts.values(), self.number_of_alerts])


class Grouping(NamedTuple):
    """Which group each feature is in.

    Attributes
    ----------
    names : tuple of str
    of_column : int array, shape (n_features,), positions in `names`
    """

    names: tuple[str, ...]
    of_column: NDArray[np.intp]

    @classmethod
    def of(cls, groups: Mapping[str, Sequence[int]], n_features: int) -> Grouping:
        """Return the grouping; `DataError` unless each of the features is in one group and in only one."""
        pairs = sorted((int(column), place) for place, group in enumerate(groups.values()) for column in group)
        columns = [column for column, _ in pairs]
        if columns != list(range(n_features)):
            raise DataError(f"groups must hold each of the columns 0 to {n_features - 1} once; got {columns}")
        return cls(tuple(groups), np.array([place for _, place in pairs], dtype=np.intp))

    def of_inputs(self, is_gappy: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the group of each column of `Inputs.transform`: the features, then the gaps of some of them."""
        return np.concatenate([self.of_column, self.of_column[is_gappy]])

    def sums(self, values: Floats, of_column: NDArray[np.intp] | None = None) -> Floats:
        """Return the sum of the values over the columns of each group."""
        places = self.of_column if of_column is None else of_column
        return np.bincount(places, values, len(self.names)).astype(np.float64)


class Parts(NamedTuple):
    """`Contributions` as arrays.

    Attributes
    ----------
    base : float
    groups : float64 array, shape (n_groups,)
    alerts : float64 array, shape (n_alerts,), 0 for those that the user has not
    number : float
    """

    base: float
    groups: Floats
    alerts: Floats
    number: float = 0.0

    def plus(self, weight: float, other: Parts) -> Parts:
        """Return these parts plus a multiple of others."""
        return Parts(
            self.base + weight * other.base,
            self.groups + weight * other.groups,
            self.alerts + weight * other.alerts,
            self.number + weight * other.number,
        )

    def named(self, grouping: Grouping, others: NDArray[np.bool_]) -> Contributions:
        """Return the contributions by name, those of the other alerts by index."""
        groups = dict(zip(grouping.names, self.groups.tolist(), strict=True))
        alerts = {int(alert): float(self.alerts[alert]) for alert in np.flatnonzero(others)}
        return Contributions(float(self.base), groups, alerts, float(self.number))


def shapley_values(game: Game, n_players: int) -> tuple[float, Floats]:
    """Return the output without any player, and what each adds to it; they sum to the output with all.

    Exact up to `MAX_EXACT_PLAYERS`. Of more players, the average is over a few hundred orders and their reverses
    instead of all: the same ones each time, so that the same question has the same answer. What a player adds
    whatever the others do is exact even then, and so is what two add only together.

    Parameters
    ----------
    game : callable
        Asked once, about all coalitions.
    n_players : int

    Returns
    -------
    float, and float64 array of shape (n_players,)
    """
    return _exact(game, n_players) if n_players <= MAX_EXACT_PLAYERS else _sampled(game, n_players)


def _exact(game: Game, n_players: int) -> tuple[float, Floats]:
    codes, bits = np.arange(1 << n_players), 1 << np.arange(n_players)
    there = (codes[:, None] & bits) > 0
    worth, size = game(there), there.sum(axis=1)
    # The share of all orders in which a player comes right after these.
    share = np.array([1 / (n_players * math.comb(n_players - 1, before)) for before in range(n_players)])
    found = np.empty(n_players)
    for player, bit in enumerate(bits):
        before = codes[~there[:, player]]
        found[player] = share[size[before]] @ (worth[before | bit] - worth[before])
    return float(worth[0]), found


def _sampled(game: Game, n_players: int) -> tuple[float, Floats]:
    n_pairs = max(_MIN_PAIRS, _MAX_ROWS // (2 * (n_players + 1)))
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(n_players), (n_pairs, 1)), axis=1)
    orders = np.concatenate([orders, orders[:, ::-1]])
    place = np.argsort(orders, axis=1)
    there = place[:, None, :] < np.arange(n_players + 1)[:, None]
    worth = game(there.reshape(-1, n_players)).reshape(len(orders), n_players + 1)
    added = np.diff(worth, axis=1)
    return float(worth[0, 0]), np.asarray(np.take_along_axis(added, place, axis=1).mean(axis=0))
