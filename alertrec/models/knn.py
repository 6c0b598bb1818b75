"""What similar users have enabled: k nearest neighbours by cosine over standardised features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.models.base import AlertMatrix, Arrays, FeatureMatrix, Rows, ScoreMatrix

Neighbours = NDArray[np.intp]  # (n_users, k), rows of the reference sample, -1 where there are fewer
Similarities = NDArray[np.float64]  # (n_users, k), cosine in [-1, 1], NaN beside -1

# Similarities that differ by less are ties. A product of matrices and one of a matrix and a vector round
# differently, and a user must get the same neighbours alone and in a batch.
_DECIMALS = 9
# Elements of one tile of similarities: 32 MB, which stays near the processor's caches.
_TILE_ELEMENTS = 4_000_000


class KNeighbours:
    """The share of the k nearest users who enabled each alert.

    Parameters
    ----------
    n_neighbors : int
    metric : "cosine"
        Cosine, not Euclidean: a big spender and a small one with the same habits should be neighbours.
    max_reference : int
        Users that the model remembers; of more, evenly spread ones are kept, so that the model and the time for one
        user stay bounded however many users a bank has.

    Attributes
    ----------
    mean_, scale_ : float64 arrays, shape (n_features,)
        Of the training users; a feature that never varies has scale 1.
    reference_ : float64 array, shape (n_reference, n_features)
        Standardised over the training users, then scaled to length 1 (a user at the mean stays 0).
    labels_ : bool array, shape (n_reference, n_alerts)
    reference_rows_ : int array, shape (n_reference,), ascending
        The training rows that the reference users are.
    """

    name = "knn"

    mean_: NDArray[np.float64]
    scale_: NDArray[np.float64]
    reference_: NDArray[np.float64]
    labels_: AlertMatrix
    reference_rows_: Rows

    def __init__(self, n_neighbors: int = 5, metric: str = "cosine", max_reference: int = 20_000) -> None:
        if n_neighbors < 1 or max_reference < 1:
            raise DataError(f"n_neighbors and max_reference must be at least 1, not {n_neighbors} and {max_reference}")
        if metric != "cosine":
            raise DataError(f"the metric of knn is 'cosine', not {metric!r}")
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.max_reference = max_reference

    def fit(self, features: FeatureMatrix, labels: AlertMatrix) -> Self:
        """Remember the users.

        Raises
        ------
        DataError
            If there is no user, or the features hold an infinity.
        """
        if len(features) == 0:
            raise DataError("knn needs at least one user to train on; got none")
        _refuse_infinities(features)
        self.mean_, self.scale_ = _mean_and_scale(features)
        n_kept = min(len(features), self.max_reference)
        self.reference_rows_ = np.linspace(0, len(features) - 1, n_kept).astype(np.intp)
        self.reference_ = self._direction(features[self.reference_rows_])
        self.labels_ = labels[self.reference_rows_]
        return self

    def kneighbors(
        self, features: FeatureMatrix, n_neighbors: int, *, training_rows: Rows | None = None
    ) -> tuple[Neighbours, Similarities]:
        """Return the nearest reference users of each user, the nearest first; of equals, the earlier row.

        A NaN in `features` counts as the training mean. A user's own row, if `training_rows` names it, is not among
        the neighbours.

        Raises
        ------
        DataError
            If the number of features is not that of training, or one is infinite.
        """
        if n_neighbors < 1:
            raise DataError(f"the number of neighbours is at least 1, not {n_neighbors}")
        if features.shape[1] != len(self.mean_):
            raise DataError(f"got {features.shape[1]} features; the model was trained on {len(self.mean_)}")
        _refuse_infinities(features)
        own = self._own_reference(training_rows, len(features))
        neighbours = np.full((len(features), n_neighbors), -1, dtype=np.intp)
        similarities = np.full((len(features), n_neighbors), np.nan)
        for tile in self._tiles(len(features)):
            scores = self._similarities(features[tile], own[tile])
            _nearest(scores, neighbours[tile], similarities[tile])
        return neighbours, similarities

    def shares(self, neighbours: Neighbours) -> ScoreMatrix:
        """Return the share of these neighbours who enabled each alert; 0 for a user without any neighbour."""
        there = neighbours >= 0
        counts = (self.labels_[neighbours] & there[:, :, None]).sum(axis=1)
        return np.asarray(counts / np.maximum(there.sum(axis=1), 1)[:, None])

    def predict_proba(
        self, features: FeatureMatrix, enabled: AlertMatrix, *, training_rows: Rows | None = None
    ) -> ScoreMatrix:
        """Return the share of the nearest users who enabled each alert, shape (n_users, n_alerts)."""
        del enabled
        return self.shares(self.kneighbors(features, self.n_neighbors, training_rows=training_rows)[0])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything learnt."""
        return {
            "mean": self.mean_,
            "scale": self.scale_,
            "reference": self.reference_,
            "labels": self.labels_,
            "reference_rows": self.reference_rows_,
        }

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the fitted model; the arrays may be memory-mapped and are never written to."""
        model = cls(**parameters)
        model.mean_, model.scale_ = arrays["mean"], arrays["scale"]
        model.reference_, model.labels_ = arrays["reference"], arrays["labels"]
        model.reference_rows_ = arrays["reference_rows"]
        return model

    def _direction(self, features: FeatureMatrix) -> FeatureMatrix:
        standardised = (np.where(np.isnan(features), self.mean_, features) - self.mean_) / self.scale_
        # Only the direction counts; brought to at most 1 first, the squares of huge values do not overflow.
        standardised /= np.maximum(np.abs(standardised).max(axis=1, keepdims=True, initial=0.0), 1.0)
        length = np.linalg.norm(standardised, axis=1, keepdims=True)
        return np.asarray(np.divide(standardised, length, out=np.zeros_like(standardised), where=length > 0))

    def _own_reference(self, training_rows: Rows | None, n_users: int) -> Rows:
        """Return the reference row that each user is, -1 where none."""
        if training_rows is None:
            return np.full(n_users, -1, dtype=np.intp)
        position = np.searchsorted(self.reference_rows_, training_rows).clip(max=len(self.reference_rows_) - 1)
        return np.where(self.reference_rows_[position] == training_rows, position, -1)

    def _tiles(self, n_users: int) -> Iterator[slice]:
        size = max(1, _TILE_ELEMENTS // len(self.reference_))
        return (slice(start, start + size) for start in range(0, n_users, size))

    def _similarities(self, features: FeatureMatrix, own: Rows) -> ScoreMatrix:
        """Return the similarity to every reference user, shape (n_users, n_reference); -inf to oneself."""
        scores = np.round(self._direction(features) @ self.reference_.T, _DECIMALS)
        known = np.flatnonzero(own >= 0)
        scores[known, own[known]] = -np.inf
        return np.asarray(scores)


def _mean_and_scale(features: FeatureMatrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and standard deviations, NaN left out; 1 for a feature that never varies or that nobody has.

    Written out, since importing a scaler takes three times as long as training on a thousand users.
    """
    known = np.where(np.isnan(features).all(axis=0), 0.0, features)
    mean, deviation = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
    # The deviation of equal floats can come out as their rounding error.
    constant = deviation <= 1e-12 * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(constant, 1.0, deviation)


def _nearest(scores: ScoreMatrix, neighbours: Neighbours, similarities: Similarities) -> None:
    """Write each row's highest scores, ties to the lower column, into `neighbours` and `similarities`."""
    k = min(neighbours.shape[1], scores.shape[1])
    # Everything at or above the k-th highest score is a candidate; only these few are sorted.
    kth = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
    rows, columns = np.nonzero((scores >= kth) & np.isfinite(scores))
    found = scores[rows, columns]
    order = np.lexsort((columns, -found, rows))
    rows, columns, found = rows[order], columns[order], found[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < k
    neighbours[rows[kept], place[kept]] = columns[kept]
    similarities[rows[kept], place[kept]] = found[kept]


def _refuse_infinities(features: FeatureMatrix) -> None:
    if np.isinf(features).any():
        raise DataError("the features hold an infinity; features are finite numbers, or NaN where unknown")
