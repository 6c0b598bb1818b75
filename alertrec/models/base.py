"""What every algorithm takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError

FeatureMatrix = NDArray[np.float64]  # (n_users, n_features)
AlertMatrix = NDArray[np.bool_]  # (n_users, n_alerts)
ScoreMatrix = NDArray[np.float64]  # (n_users, n_alerts)
Rows = NDArray[np.intp]  # (n_users,)
Arrays = Mapping[str, NDArray[Any]]


class AlertModel(Protocol):
    """An algorithm that estimates who would enable which alert."""

    name: str

    def fit(self, features: FeatureMatrix, labels: AlertMatrix) -> Self:
        """Learn from what these users have enabled."""

    def predict_proba(
        self, features: FeatureMatrix, enabled: AlertMatrix, *, training_rows: Rows | None = None
    ) -> ScoreMatrix:
        """Return the probability that each user would enable each alert.

        Parameters
        ----------
        features : float64 array, shape (n_users, n_features)
        enabled : bool array, shape (n_users, n_alerts)
            What the user has already, itself evidence.
        training_rows : int array, shape (n_users,), optional
            The row of the training data that each user is, -1 for a user that was not there. A model that
            remembers rows must not take a user's own row for another's.

        Returns
        -------
        float64 array, shape (n_users, n_alerts), in [0, 1]
        """

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything learnt, as named arrays."""

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the fitted model that `to_arrays` and its parameters describe."""


def refuse_infinities(features: FeatureMatrix) -> None:
    """Raise `DataError` where a feature is infinite; NaN, which is unknown, may be."""
    if np.isinf(features).any():
        raise DataError("the features hold an infinity; features are finite numbers, or NaN where unknown")
