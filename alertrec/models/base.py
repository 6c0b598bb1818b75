"""What every algorithm takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError, NotFittedError

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


def arrays_of(part: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names begin with that of a part and a dot, by what follows."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


# What is further from nought is brought to it, so that squares of squares do not overflow.
_LARGEST = 1e50


def checked(features: FeatureMatrix, labels: AlertMatrix) -> tuple[FeatureMatrix, AlertMatrix]:
    """Return users' features and alerts as float64 and bool.

    Raises
    ------
    DataError
        If they are not two tables of the same number of rows, or a feature is infinite; NaN, which is unknown, may be.
    """
    features, labels = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels):
        raise DataError(
            f"expected (n_users, n_features) and (n_users, n_alerts); got shapes {features.shape} and {labels.shape}"
        )
    refuse_infinities(features)
    return (features.clip(-_LARGEST, _LARGEST) if (np.abs(features) > _LARGEST).any() else features), labels


def checked_training(name: str, features: FeatureMatrix, labels: AlertMatrix) -> tuple[FeatureMatrix, AlertMatrix]:
    """Return what `checked` does, of at least one user."""
    features, labels = checked(features, labels)
    if len(features) == 0:
        raise DataError(f"{name} needs at least one user to train on; got none")
    return features, labels


def refuse_infinities(features: FeatureMatrix) -> None:
    """Raise `DataError` where a feature is infinite; NaN, which is unknown, may be."""
    if np.isinf(features).any():
        raise DataError("the features hold an infinity; features are finite numbers, or NaN where unknown")


def refuse_below(least: float, **parameters: float) -> None:
    """Raise `DataError` where a parameter is less than it may be, or NaN."""
    for name, value in parameters.items():
        if not value >= least:
            raise DataError(f"{name} must be at least {least:g}, not {value}")


def refuse_unfitted(name: str, *, is_fitted: bool) -> None:
    """Raise `NotFittedError` where a model is asked before `fit`."""
    if not is_fitted:
        raise NotFittedError(f"this {name} model has not been fitted; call `fit` first")


def checked_of_alerts(
    features: FeatureMatrix, enabled: AlertMatrix, n_alerts: int
) -> tuple[FeatureMatrix, AlertMatrix]:
    """Return what `checked` does; `DataError` too where the number of alerts is not that of training."""
    features, enabled = checked(features, enabled)
    if enabled.shape[1] != n_alerts:
        raise DataError(f"got {enabled.shape[1]} alerts; the model was trained on {n_alerts}")
    return features, enabled
