"""Everybody is offered what most have: the baseline, and the honest answer for a user of whom nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alertrec.models.base import (
    AlertMatrix,
    Arrays,
    FeatureMatrix,
    Rows,
    ScoreMatrix,
    checked_of_alerts,
    checked_training,
    refuse_unfitted,
)


class Popularity:
    """The share of training users who enabled each alert.

    Attributes
    ----------
    shares_ : float64 array, shape (n_alerts,), in [0, 1]
    """

    name = "popularity"

    shares_: NDArray[np.float64]

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state  # nothing is drawn

    def fit(self, features: FeatureMatrix, labels: AlertMatrix) -> Self:
        """Count; the features are not looked at."""
        _, labels = checked_training(self.name, features, labels)
        self.shares_ = labels.mean(axis=0)
        return self

    def predict_proba(
        self, features: FeatureMatrix, enabled: AlertMatrix, *, training_rows: Rows | None = None
    ) -> ScoreMatrix:
        """Return the same shares for everybody, shape (n_users, n_alerts)."""
        del training_rows
        refuse_unfitted(self.name, is_fitted=hasattr(self, "shares_"))
        features, _ = checked_of_alerts(features, enabled, len(self.shares_))
        return np.tile(np.asarray(self.shares_), (len(features), 1))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the shares."""
        return {"shares": self.shares_}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the fitted model."""
        model = cls(**parameters)
        model.shares_ = arrays["shares"]
        return model
