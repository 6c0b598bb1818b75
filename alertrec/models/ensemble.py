"""The models that learn, weighed by how well each foretells what it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alertrec.models.base import AlertMatrix, Arrays, FeatureMatrix, Rows, ScoreMatrix, arrays_of, refuse_below
from alertrec.models.boosting import Boosting
from alertrec.models.contributions import Grouping, Parts
from alertrec.models.cooccurrence import Cooccurrence
from alertrec.models.linear import Linear
from alertrec.models.neural import Neural
from alertrec.models.one_more import OneMore, hide_each

MEMBERS: tuple[Any, ...] = (Cooccurrence, Linear, Boosting, Neural)

# Users that the stack is fitted on, of more an even sample: a handful of weights is known well enough from these.
_MAX_USERS = 12_000


class Ensemble(OneMore[list[Any]]):
    """A weighted sum of the members' log-odds.

    The weights are the most probable ones on predictions that each member made of users that it was not fitted on,
    in the situation of leave-one-out: one alert of each user is hidden, and which one it is has the probability
    softmax(sum of weight * log-odds + an offset of the alert). This is a conditional logit (McFadden 1973), and
    makes the ensemble calibrated: a member that is too sure of itself gets less weight. The members are then fitted
    on everybody.

    Parameters
    ----------
    n_folds : int
    pull : float
        Strength of the pull of all weights towards equal ones that sum to 1, and of offsets towards 0; it matters
        where users are few.

    Attributes
    ----------
    weights_ : float64 array, shape (n_members,), not negative
    offsets_ : float64 array, shape (n_contested,)
    """

    name = "ensemble"

    weights_: NDArray[np.float64]
    offsets_: NDArray[np.float64]
    members_: list[OneMore[Any]]

    def __init__(self, n_folds: int = 4, pull: float = 5.0, random_state: int = 0) -> None:
        refuse_below(2, n_folds=n_folds)
        refuse_below(0, pull=pull)
        self.n_folds = n_folds
        self.pull = pull
        self.random_state = random_state

    def _learn(self, features: FeatureMatrix, labels: AlertMatrix) -> None:
        self.weights_, self.offsets_ = np.full(len(MEMBERS), 1 / len(MEMBERS)), np.zeros(labels.shape[1])
        if len(features) >= 2 * self.n_folds:
            some = np.linspace(0, len(features) - 1, min(len(features), _MAX_USERS)).astype(np.intp)
            scores, hidden, enabled, weight = self._out_of_fold(features[some], labels[some])
            self.weights_, self.offsets_ = fit_stack(scores, hidden, enabled, weight, pull=self.pull)
        self.members_ = [member(random_state=self.random_state).fit(features, labels) for member in MEMBERS]

    def _out_of_fold(
        self, features: FeatureMatrix, labels: AlertMatrix
    ) -> tuple[NDArray[np.float64], Rows, AlertMatrix, NDArray[np.float64]]:
        """Return members' log-odds (n_members, n_rows, n_alerts), what was hidden, what was not, and rows' weights."""
        fold = np.random.default_rng(self.random_state).permutation(len(features)) % self.n_folds
        scores, parts = [], []
        for number in range(self.n_folds):
            train, test = fold != number, fold == number
            fitted = [member(random_state=self.random_state).fit(features[train], labels[train]) for member in MEMBERS]
            parts.append(hide_each(labels[test]))
            users, _, enabled = parts[-1]
            scores.append(np.stack([member.log_odds(features[test], users, enabled) for member in fitted]))
        hidden = np.concatenate([part.alerts for part in parts])
        enabled = np.concatenate([part.enabled for part in parts])
        return np.concatenate(scores, axis=1), hidden, enabled, 1 / (1 + enabled.sum(axis=1))

    def _prepare(self, features: FeatureMatrix) -> list[Any]:
        return [member.prepare(features) for _, member in self._heard()]

    def _score(self, prepared: list[Any], users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        found = np.tile(self.offsets_, (len(users), 1))
        for (weight, member), part in zip(self._heard(), prepared, strict=True):
            found += weight * member.score(part, users, enabled)
        return found

    def _parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        # Shapley's values of a weighted sum are the weighted sums of theirs.
        found = Parts(self.offsets_[alert], np.zeros(len(grouping.names)), np.zeros(enabled.shape[1]))
        for weight, member in self._heard():
            found = found.plus(weight, member.parts(features, enabled, alert, grouping))
        return found

    def _heard(self) -> list[tuple[float, OneMore[Any]]]:
        """Return the members that have a weight, each with it."""
        pairs = zip(self.weights_.tolist(), self.members_, strict=True)
        return [(weight, member) for weight, member in pairs if weight > 0]

    def _learnt(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"weights": self.weights_, "offsets": self.offsets_}
        for member in self.members_:
            arrays |= {f"{member.name}.{name}": array for name, array in member.to_arrays().items()}
        return arrays

    def _restore(self, arrays: Arrays) -> None:
        self.weights_, self.offsets_ = arrays["weights"], arrays["offsets"]
        self.members_ = [
            member.from_arrays({"random_state": self.random_state}, arrays_of(member.name, arrays))
            for member in MEMBERS
        ]


def fit_stack(
    scores: NDArray[np.float64], hidden: Rows, enabled: AlertMatrix, weight: NDArray[np.float64], *, pull: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the members' weights and the alerts' offsets; see `Ensemble`.

    Parameters
    ----------
    scores : float64 array, shape (n_members, n_rows, n_alerts)
    hidden : int array, shape (n_rows,)
    enabled : bool array, shape (n_rows, n_alerts)
    weight : float64 array, shape (n_rows,)
    """
    from scipy.optimize import minimize

    n_members, n_rows, n_alerts = scores.shape
    start = np.concatenate([np.full(n_members, 1 / n_members), np.zeros(n_alerts)])
    rows = np.arange(n_rows)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed = np.tensordot(parameters[:n_members], scores, axes=1) + parameters[n_members:]
        mixed = np.where(enabled, -np.inf, mixed)
        mixed -= mixed.max(axis=1, keepdims=True)
        shares = np.exp(mixed)
        total = shares.sum(axis=1, keepdims=True)
        value = -weight @ (mixed[rows, hidden] - np.log(total[:, 0]))
        slope = shares / total
        slope[rows, hidden] -= 1
        slope *= weight[:, None]
        gradient = np.concatenate([np.tensordot(scores, slope, axes=2), slope.sum(axis=0)])
        away = parameters - start
        return float(value + pull * (away @ away)), gradient + 2 * pull * away

    bounds = [(0.0, None)] * n_members + [(None, None)] * n_alerts
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}).x
    return found[:n_members], found[n_members:]
