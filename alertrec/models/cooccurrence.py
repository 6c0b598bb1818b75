"""Which alerts go together, in closed form; behaviour is not looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alertrec.models.base import AlertMatrix, Arrays, FeatureMatrix, Rows, ScoreMatrix, refuse_below
from alertrec.models.contributions import Grouping, Parts
from alertrec.models.one_more import OneMore


class Cooccurrence(OneMore[int]):
    """Item-item weights that are the off-diagonal of minus the inverse covariance of the alerts.

    Regressing each alert on all others by ridge gives, column by column, -P_ij / P_jj with P the inverse of the
    regularised covariance (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019). As weights of
    log-odds, by linear discriminant analysis, these are divided by the residual variance 1 / P_jj: what is left is
    -P_ij, a symmetric matrix. The intercept is that of the discriminant: log-odds of the base rate, less the weights
    times the midpoint between the users who have the alert and those who have not.

    Parameters
    ----------
    ridge : float
        Added to the variances, in users: so many who have just that one alert.
    """

    name = "cooccurrence"

    def __init__(self, ridge: float = 50.0, random_state: int = 0) -> None:
        refuse_below(1e-6, ridge=ridge)
        self.ridge = ridge
        self.random_state = random_state

    def _learn(self, features: FeatureMatrix, labels: AlertMatrix) -> None:
        del features
        n_users, n_alerts = labels.shape
        there = labels.astype(np.float64)
        count, both = there.sum(axis=0), there.T @ there
        share = count / n_users
        covariance = both / n_users - np.outer(share, share)
        precision = np.linalg.inv(covariance + np.eye(n_alerts) * self.ridge / n_users)
        self.weights_ = np.where(np.eye(n_alerts, dtype=bool), 0.0, -precision)
        # Column j: the share of i among those who have j, and among those who have not.
        with_, without = both / count, (count[:, None] - both) / (n_users - count)
        self.intercepts_ = np.log(count / (n_users - count)) - (self.weights_ * (with_ + without) / 2).sum(axis=0)

    def _prepare(self, features: FeatureMatrix) -> int:
        return len(features)

    def _score(self, prepared: int, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        del prepared, users
        return np.asarray(enabled @ self.weights_ + self.intercepts_)

    def _parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        del features
        return Parts(self.intercepts_[alert], np.zeros(len(grouping.names)), self.weights_[:, alert] * enabled[0])

    def _learnt(self) -> dict[str, NDArray[Any]]:
        return {"intercepts": self.intercepts_, "of_alerts": self.weights_}

    def _restore(self, arrays: Arrays) -> None:
        self.intercepts_, self.weights_ = arrays["intercepts"], arrays["of_alerts"]
