"""A small network that reconstructs the alert that was hidden."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alertrec.models.base import AlertMatrix, Arrays, FeatureMatrix, Rows, ScoreMatrix, refuse_below
from alertrec.models.contributions import Grouping, Parts, shapley_values
from alertrec.models.inputs import ALERT_SCALE, Inputs
from alertrec.models.one_more import OneMore
from alertrec.models.parallel import one_thread_each
from alertrec.models.perceptron import Perceptrons, train

_TINY = 1e-12
# The penalty's weight against one user's loss at most: a handful of users would be shrunk to nothing.
_MAX_PENALTY = 0.03


class Neural(OneMore[FeatureMatrix]):
    """Perceptrons of one hidden layer, asked which alert of a user was hidden.

    Each pass over the users hides another of their alerts. The network's softmax over the alerts, divided by what is
    left to alerts that the user has, is the answer in the contest for one more; the level of the log-odds, which that
    contest does not show, is that of users with as many alerts: the odds of all alerts together, given m of them, are
    on average (m + 1) * (users with m + 1) / (users with m).

    Parameters
    ----------
    n_hidden, n_networks : int
        Units of the hidden layer; networks, started and trained apart, that are averaged.
    penalty : float
        Of the squared weights, against the sum of losses over the users, and at most 3 % of that of each user; see
        `Perceptrons.slopes`.
    n_steps : int
        Steps at least; each user is seen `n_passes` times at least.
    """

    name = "neural"

    inputs_: Inputs
    networks_: Perceptrons
    levels_: NDArray[np.float64]

    def __init__(
        self,
        n_hidden: int = 32,
        n_networks: int = 4,
        penalty: float = 16.0,
        n_passes: int = 10,
        n_steps: int = 400,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        random_state: int = 0,
    ) -> None:
        refuse_below(1, n_hidden=n_hidden, n_networks=n_networks, n_passes=n_passes, batch_size=batch_size)
        refuse_below(0, penalty=penalty, n_steps=n_steps, learning_rate=learning_rate)
        self.n_hidden = n_hidden
        self.n_networks = n_networks
        self.penalty = penalty
        self.n_passes = n_passes
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def _learn(self, features: FeatureMatrix, labels: AlertMatrix) -> None:
        self.inputs_ = Inputs().fit(features)
        self.levels_ = _levels(labels)
        rng = np.random.default_rng(self.random_state)
        some = labels.any(axis=1)
        inputs, labels = self.inputs_.transform(features[some]), labels[some]
        n_alerts = labels.shape[1]
        sizes = (self.n_networks, inputs.shape[1] + n_alerts, self.n_hidden, n_alerts)
        with one_thread_each():
            self.networks_ = train(
                Perceptrons.drawn(sizes, rng),
                self._batches(inputs, labels, rng),
                penalty=min(self.penalty / len(inputs), _MAX_PENALTY),
                learning_rate=self.learning_rate,
            )

    def _batches(
        self, inputs: FeatureMatrix, labels: AlertMatrix, rng: np.random.Generator
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        size = min(self.batch_size, len(inputs))
        n_batches = len(inputs) // size
        for _ in range(max(self.n_passes, -(-self.n_steps // n_batches))):
            order = np.stack([rng.permutation(len(inputs)) for _ in range(self.n_networks)])[:, : n_batches * size]
            for users in np.split(order, n_batches, axis=1):
                hidden = hide_one(labels[users], rng)
                yield _rows(inputs[users], labels[users] & ~hidden), hidden.astype(np.float64)

    def _prepare(self, features: FeatureMatrix) -> FeatureMatrix:
        return self.inputs_.transform(features)

    def _score(self, prepared: FeatureMatrix, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        shares = self.networks_.predict(_rows(prepared[users], enabled)) + _TINY
        free = np.where(enabled, 0.0, shares).sum(axis=1, keepdims=True)
        level = self.levels_[enabled.sum(axis=1), None]
        return np.asarray(np.log(shares) - np.log(np.maximum(free, _TINY)) + level)

    def _parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        # A group that is missing has its inputs at the mean, 0, and none of them unknown.
        owned, n_groups = np.flatnonzero(enabled[0]), len(grouping.names)
        inputs, of_inputs = self.inputs_.transform(features), grouping.of_inputs(self.inputs_.is_gappy_)

        def game(there: NDArray[np.bool_]) -> NDArray[np.float64]:
            some = np.zeros((len(there), enabled.shape[1]), dtype=bool)
            some[:, owned] = there[:, n_groups:]
            return self._score(inputs * there[:, of_inputs], np.arange(len(there)), some)[:, alert]

        base, values = shapley_values(game, n_groups + len(owned))
        of_alerts = np.zeros(enabled.shape[1])
        of_alerts[owned] = values[n_groups:]
        return Parts(base, values[:n_groups], of_alerts)

    def _learnt(self) -> dict[str, NDArray[Any]]:
        return {**self.inputs_.to_arrays(), **self.networks_._asdict(), "levels": self.levels_}

    def _restore(self, arrays: Arrays) -> None:
        self.inputs_ = Inputs.from_arrays(arrays)
        self.networks_ = Perceptrons(*(arrays[name] for name in Perceptrons._fields))
        self.levels_ = arrays["levels"]


def hide_one(labels: AlertMatrix, rng: np.random.Generator) -> AlertMatrix:
    """Return one alert of each user as True, each of their alerts with equal chances; alerts on the last axis."""
    draws = np.where(labels, rng.random(labels.shape), -1.0)
    return np.asarray(np.arange(labels.shape[-1]) == draws.argmax(axis=-1)[..., None])


def _levels(labels: AlertMatrix) -> NDArray[np.float64]:
    """Return the log-odds of all other alerts together, by the number that a user has, 0 to n_alerts."""
    n_alerts = labels.shape[1]
    users = np.bincount(labels.sum(axis=1), minlength=n_alerts + 2) + 0.5
    return np.asarray(np.log(np.arange(1, n_alerts + 2) * users[1:] / users[:-1]))


def _rows(inputs: NDArray[np.float64], enabled: AlertMatrix) -> NDArray[np.float64]:
    return np.concatenate([inputs, enabled * ALERT_SCALE], axis=-1)
