"""What similar users have enabled: k nearest neighbours by cosine over standardised features, smoothed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.models.base import (
    AlertMatrix,
    Arrays,
    FeatureMatrix,
    Rows,
    ScoreMatrix,
    checked_of_alerts,
    checked_training,
    refuse_below,
    refuse_infinities,
    refuse_unfitted,
)
from alertrec.models.inputs import mean_and_scale

Neighbours = NDArray[np.intp]  # (n_users, k), rows of the reference sample, -1 where there are fewer
Similarities = NDArray[np.float64]  # (n_users, k), cosine in [-1, 1], NaN beside -1

# Similarities that differ by less are ties. A product of matrices and one of a matrix and a vector round
# differently, and a user must get the same neighbours alone and in a batch.
_DECIMALS = 9
# Elements of one tile of similarities: 32 MB, which stays near the processor's caches.
_TILE_ELEMENTS = 4_000_000
# Strengths of smoothing that are tried, in users, and the training users that they are tried on, of more a sample.
_SMOOTHINGS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_MAX_TRIED = 2_000
_TINY = 1e-6


class KNeighbours:
    """The share of the k nearest users who enabled each alert, smoothed towards the share of all.

    The share of five users is 0 or 1 too often to be believed. The probability is (k * share of the neighbours +
    m * share of all users) / (k + m): the neighbours speak as k users, everybody as m. Of some m, the one is learnt
    that foretells best an alert that is hidden, among training users who are not their own neighbours.

    Parameters
    ----------
    n_neighbors : int
    metric : "cosine"
        Cosine, not Euclidean: a big spender and a small one with the same habits should be neighbours.
    max_reference : int
        Users that the model remembers; of more, evenly spread ones are kept, so that the model and the time for one
        user stay bounded however many users a bank has.
    smoothing : float, optional
        m; by default it is learnt.

    Attributes
    ----------
    mean_, scale_ : float64 arrays, shape (n_features,)
        Of the training users; a feature that never varies has scale 1.
    reference_ : float64 array, shape (n_reference, n_features)
        Standardised over the training users, then scaled to length 1 (a user at the mean stays 0).
    known_ : float64 array, shape (n_reference, n_features)
        As they came; NaN where unknown.
    labels_ : bool array, shape (n_reference, n_alerts)
    reference_rows_ : int array, shape (n_reference,), ascending
        The training rows that the reference users are.
    shares_ : float64 array, shape (n_alerts,)
        Of all training users.
    smoothing_ : float
    """

    name = "knn"

    mean_: NDArray[np.float64]
    scale_: NDArray[np.float64]
    reference_: NDArray[np.float64]
    known_: FeatureMatrix
    shares_: NDArray[np.float64]
    smoothing_: float
    labels_: AlertMatrix
    reference_rows_: Rows

    def __init__(
        self,
        n_neighbors: int = 5,
        metric: str = "cosine",
        max_reference: int = 20_000,
        smoothing: float | None = None,
        random_state: int = 0,
    ) -> None:
        if n_neighbors < 1 or max_reference < 1:
            raise DataError(f"n_neighbors and max_reference must be at least 1, not {n_neighbors} and {max_reference}")
        if smoothing is not None:
            refuse_below(0, smoothing=smoothing)
        if metric != "cosine":
            raise DataError(f"the metric of knn is 'cosine', not {metric!r}")
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.max_reference = max_reference
        self.smoothing = smoothing
        self.random_state = random_state  # nothing is drawn

    def fit(self, features: FeatureMatrix, labels: AlertMatrix) -> Self:
        """Remember the users.

        Raises
        ------
        DataError
            If there is no user, or the features hold an infinity.
        """
        features, labels = checked_training(self.name, features, labels)
        self.mean_, self.scale_ = mean_and_scale(features)
        n_kept = min(len(features), self.max_reference)
        self.reference_rows_ = np.linspace(0, len(features) - 1, n_kept).astype(np.intp)
        self.known_ = features[self.reference_rows_]
        self.reference_ = self._direction(self.known_)
        self.labels_ = labels[self.reference_rows_]
        self.shares_ = labels.mean(axis=0)
        self.smoothing_ = self._best_smoothing() if self.smoothing is None else self.smoothing
        return self

    def rebuilt(self, features: FeatureMatrix, labels: AlertMatrix, *, is_everybody: bool) -> Self:
        """Return the model that remembers these users, smoothed as strongly as this one.

        Parameters
        ----------
        is_everybody : bool
            They are all the training users, and means and shares are theirs. Otherwise they are a sample, and the
            means, scales and shares of all users stay as they were.
        """
        model = type(self)(self.n_neighbors, self.metric, max(len(features), 1), self.smoothing_)
        model.fit(features, labels)
        if not is_everybody:
            model.mean_, model.scale_, model.shares_ = self.mean_, self.scale_, self.shares_
            model.reference_ = model._direction(model.known_)
        return model

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
        refuse_infinities(features)
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
        """Return the smoothed share of the nearest users who enabled each alert, shape (n_users, n_alerts)."""
        refuse_unfitted(self.name, is_fitted=hasattr(self, "mean_"))
        features, _ = checked_of_alerts(features, enabled, len(self.shares_))
        return self.smoothed(self.kneighbors(features, self.n_neighbors, training_rows=training_rows)[0])

    def smoothed(self, neighbours: Neighbours, smoothing: float | None = None) -> ScoreMatrix:
        """Return the share of these neighbours who enabled each alert, smoothed by `smoothing_` or another strength."""
        strength = self.smoothing_ if smoothing is None else smoothing
        n_neighbours = (neighbours >= 0).sum(axis=1)[:, None]
        total = n_neighbours + strength
        found = n_neighbours * self.shares(neighbours) + strength * self.shares_
        everybody = np.tile(np.asarray(self.shares_), (len(neighbours), 1))
        return np.asarray(np.divide(found, total, out=everybody, where=total > 0))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything learnt."""
        return {
            "mean": self.mean_,
            "scale": self.scale_,
            "known": self.known_,
            "labels": self.labels_,
            "reference_rows": self.reference_rows_,
            "shares": self.shares_,
            "smoothing": np.array([self.smoothing_]),
        }

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the fitted model; the arrays may be memory-mapped and are never written to."""
        model = cls(**parameters)
        model.mean_, model.scale_ = arrays["mean"], arrays["scale"]
        model.known_, model.labels_ = arrays["known"], arrays["labels"]
        model.reference_ = model._direction(model.known_)
        model.reference_rows_ = arrays["reference_rows"]
        model.shares_, model.smoothing_ = arrays["shares"], float(arrays["smoothing"][0])
        return model

    def _best_smoothing(self) -> float:
        """Return the strength with the least log-loss in leave-one-out over the reference users."""
        tried = np.linspace(0, len(self.known_) - 1, min(len(self.known_), _MAX_TRIED)).astype(np.intp)
        own = self.reference_rows_[tried]
        neighbours, _ = self.kneighbors(self.known_[tried], self.n_neighbors, training_rows=own)
        has = self.labels_[tried]
        # Each of a user's alerts is hidden in turn, and the rounds of one user count as one.
        weight = has / np.maximum(has.sum(axis=1, keepdims=True), 1)
        lacks = ~has & has.any(axis=1, keepdims=True)

        def loss(smoothing: float) -> float:
            probability = self.smoothed(neighbours, smoothing).clip(_TINY, 1 - _TINY)
            return float(-(weight * np.log(probability) + lacks * np.log(1 - probability)).sum())

        return min(_SMOOTHINGS, key=loss)

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
