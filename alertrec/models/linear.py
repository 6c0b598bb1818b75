"""One regularised logistic regression an alert, on behaviour and the other alerts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alertrec.models.base import AlertMatrix, Arrays, FeatureMatrix, Rows, ScoreMatrix, refuse_below
from alertrec.models.contributions import Grouping, Parts
from alertrec.models.inputs import ALERT_SCALE, Inputs
from alertrec.models.one_more import OneMore
from alertrec.models.parallel import each_alert


class Weights(NamedTuple):
    """What logistic regression learns.

    Attributes
    ----------
    intercepts : float64 array, shape (n_alerts,)
    of_inputs : float64 array, shape (n_inputs, n_alerts)
    of_alerts : float64 array, shape (n_alerts, n_alerts)
        Row i, column j: what having alert i adds to the log-odds of alert j; the diagonal is 0.
    """

    intercepts: NDArray[np.float64]
    of_inputs: NDArray[np.float64]
    of_alerts: NDArray[np.float64]


class Linear(OneMore[ScoreMatrix]):
    """Logistic regression with an L2 penalty.

    What wins for a bank of a few hundred users, where trees and neighbours have too little to go on.

    Parameters
    ----------
    penalty : float
        Half of this times the sum of squared weights is added to the sum of log-losses: the inverse of scikit-learn's
        `C`. Inputs are standardised, so the penalty treats all alike.
    """

    name = "linear"

    inputs_: Inputs
    weights_: Weights

    def __init__(self, penalty: float = 10.0, random_state: int = 0) -> None:
        refuse_below(1e-6, penalty=penalty)
        self.penalty = penalty
        self.random_state = random_state

    def _learn(self, features: FeatureMatrix, labels: AlertMatrix) -> None:
        self.inputs_ = Inputs().fit(features)
        self.weights_ = fit_weights(self.inputs_.transform(features), labels, penalty=self.penalty)

    def _prepare(self, features: FeatureMatrix) -> ScoreMatrix:
        return np.asarray(self.inputs_.transform(features) @ self.weights_.of_inputs + self.weights_.intercepts)

    def _score(self, prepared: ScoreMatrix, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        return np.asarray(prepared[users] + enabled @ self.weights_.of_alerts)

    def _parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        # Of a sum, Shapley's values are its terms: inputs are 0 at the mean, and so is each alert that is missing.
        terms = self.inputs_.transform(features)[0] * self.weights_.of_inputs[:, alert]
        of_groups = grouping.sums(terms, grouping.of_inputs(self.inputs_.is_gappy_))
        return Parts(self.weights_.intercepts[alert], of_groups, self.weights_.of_alerts[:, alert] * enabled[0])

    def _learnt(self) -> dict[str, NDArray[Any]]:
        return {**self.inputs_.to_arrays(), **self.weights_._asdict()}

    def _restore(self, arrays: Arrays) -> None:
        self.inputs_ = Inputs.from_arrays(arrays)
        self.weights_ = Weights(*(arrays[name] for name in Weights._fields))


def fit_weights(inputs: FeatureMatrix, labels: AlertMatrix, *, penalty: float) -> Weights:
    """Fit one logistic regression an alert, on the inputs and the other alerts."""
    from sklearn.linear_model import LogisticRegression

    n_inputs, n_alerts = inputs.shape[1], labels.shape[1]
    design = np.hstack([inputs, labels * ALERT_SCALE])

    def fit(alert: int) -> tuple[NDArray[np.float64], float]:
        others = np.delete(np.arange(design.shape[1]), n_inputs + alert)
        regression = LogisticRegression(C=1 / penalty, solver="newton-cholesky", max_iter=100)
        regression.fit(design[:, others], labels[:, alert])
        return np.insert(regression.coef_[0], n_inputs + alert, 0.0), float(regression.intercept_[0])

    weights, intercepts = zip(*each_alert(fit, n_alerts), strict=True)
    stacked = np.column_stack(weights)
    return Weights(np.array(intercepts), stacked[:n_inputs], stacked[n_inputs:] * ALERT_SCALE)
