"""What a fitted model says of some users: calibrated probabilities, how sure they are, and who is alike.

Four answers, by what is known of a user. Purchases: the algorithm. No purchases but alerts: which alerts go together.
Neither: what most customers have. The kind of answer is the `recommendation_type` of the list. What customers answered
to offers of a type, the shifts of the calibration, moves all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from alertrec.calibration import Calibration, share_interval
from alertrec.errors import DataError
from alertrec.explanation import Explanation, explain, feature_groups
from alertrec.models import make_model
from alertrec.models.base import AlertMatrix, AlertModel, Arrays, FeatureMatrix, Rows, ScoreMatrix, arrays_of
from alertrec.models.cooccurrence import Cooccurrence
from alertrec.models.knn import KNeighbours, Neighbours, Similarities
from alertrec.models.popularity import Popularity

# How many of the most similar users a customer is told about; of fewer than `explanation.MIN_COHORT`, nothing is told.
COHORT = 50

COLLABORATIVE = "ml_collaborative_filtering"  # the neighbour model
HYBRID = "ml_hybrid"  # behaviour and the other alerts
TRANSACTION_BASED = "ml_transaction_based"  # behaviour alone: the user has no alert yet
DEFAULT = "ml_default"  # the alerts alone: the user has no purchases
NEW_USER = "new_user"


@dataclass(frozen=True)
class Scores:
    """What is said of some users.

    Attributes
    ----------
    probabilities, low, high : float64 arrays, shape (n_users, n_alerts)
        The calibrated probability that each alert is the one a user switches on next, and its 90 % interval.
    kinds : list of str, one a user
    cohort_size : int array, shape (n_users,)
        Users most similar to each, 0 where nothing is known of the user's purchases.
    cohort_count : int array, shape (n_users, n_alerts)
        How many of these have each alert.
    """

    probabilities: ScoreMatrix
    low: ScoreMatrix
    high: ScoreMatrix
    kinds: list[str]
    cohort_size: NDArray[np.int64]
    cohort_count: NDArray[np.int64]


class Columns(NamedTuple):
    """What the columns of the arrays are called: the features of similarity, those of the algorithm, the alerts."""

    similarity: Sequence[str]
    inputs: Sequence[str]
    alerts: Sequence[str]


@dataclass(frozen=True)
class Scorer:
    """A fitted algorithm with all that its answers need.

    Attributes
    ----------
    user_ids : list of str, ascending
        Those whom the neighbour model remembers.
    n_users : int
        Training users.
    is_sample : bool
        Whether `user_ids` are only some of them.
    algorithm : str
    model : AlertModel
        The neighbour model itself where that is the algorithm.
    """

    user_ids: list[str]
    n_users: int
    is_sample: bool
    algorithm: str
    model: AlertModel
    neighbours: KNeighbours
    cooccurrence: Cooccurrence
    popularity: Popularity
    calibration: Calibration

    @classmethod
    def fit(
        cls,
        user_ids: Sequence[str],
        similarity: FeatureMatrix,
        inputs: FeatureMatrix,
        labels: AlertMatrix,
        *,
        neighbours: KNeighbours,
        algorithm: str,
        parameters: Mapping[str, Any],
        calibration: Calibration,
    ) -> Self:
        """Fit on users, one row each.

        Parameters
        ----------
        similarity : float64 array, shape (n_users, n_similarity_features), what neighbours are judged by
        inputs : float64 array, shape (n_users, n_features), what the algorithm looks at
        labels : bool array, shape (n_users, n_alerts)
        neighbours : KNeighbours
            Not fitted yet; it is the algorithm where that is "knn", to which `parameters` do not apply.

        Raises
        ------
        DataError
            If a user comes twice.
        """
        if len(set(user_ids)) != len(user_ids):
            raise DataError("a user comes more than once in the training data; one row a user is expected")
        # Rows in the order of ids: the same users in another order give the same model, ties included.
        order = np.array(sorted(range(len(user_ids)), key=user_ids.__getitem__), dtype=np.intp)
        similarity, inputs, labels = similarity[order], inputs[order], labels[order]
        neighbours.fit(similarity, labels)
        is_knn = algorithm == neighbours.name
        return cls(
            user_ids=[user_ids[order[row]] for row in neighbours.reference_rows_],
            n_users=len(user_ids),
            is_sample=len(neighbours.reference_rows_) < len(user_ids),
            algorithm=algorithm,
            model=neighbours if is_knn else make_model(algorithm, **parameters).fit(inputs, labels),
            neighbours=neighbours,
            cooccurrence=Cooccurrence().fit(similarity, labels),
            popularity=Popularity().fit(similarity, labels),
            calibration=calibration,
        )

    @property
    def is_knn(self) -> bool:
        """Whether the neighbour model is the algorithm."""
        return self.model is self.neighbours

    def score(
        self,
        user_ids: Sequence[str],
        similarity: FeatureMatrix,
        inputs: FeatureMatrix,
        enabled: AlertMatrix,
        *,
        known: NDArray[np.bool_],
    ) -> Scores:
        """Say of each user how probable each alert is.

        Parameters
        ----------
        known : bool array, shape (n_users,)
            False for a user without purchases, whose features say nothing.
        """
        alerts_only = ~known & enabled.any(axis=1)
        n_cohort = max(COHORT, self.neighbours.n_neighbors)
        nearest, _ = self.nearest(user_ids, similarity, n_cohort)
        shares = np.asarray(self.popularity.shares_)
        probabilities = np.tile(shares, (len(enabled), 1))
        low, high = (
            np.tile(end, (len(enabled), 1))
            for end in share_interval(shares * self.n_users, np.full(len(shares), self.n_users))
        )
        kinds = np.full(len(enabled), NEW_USER, dtype=object)
        if known.any():
            found = self._by_algorithm(inputs[known], enabled[known], nearest[known])
            probabilities[known] = self.calibration.apply(found)
            low[known], high[known] = self.calibration.interval(found)
            with_alerts = COLLABORATIVE if self.is_knn else HYBRID
            without = COLLABORATIVE if self.is_knn else TRANSACTION_BASED
            kinds[known] = np.where(enabled[known].any(axis=1), with_alerts, without)
        if alerts_only.any():
            probabilities[alerts_only] = self.cooccurrence.predict_proba(similarity[alerts_only], enabled[alerts_only])
            # Nobody was held out to calibrate this answer on: its interval is as wide as before any evidence.
            low[alerts_only], high[alerts_only] = Calibration.identity().interval(probabilities[alerts_only])
            kinds[alerts_only] = DEFAULT
        if not known.all() and (answered := self.calibration.shifts_alone()) is not None:
            # What customers answered to offers of a type holds for those who have no purchases, too.
            for each in (probabilities, low, high):
                each[~known] = answered.apply(each[~known])
        cohort = np.where(known[:, None], nearest[:, :COHORT], -1)
        size = (cohort >= 0).sum(axis=1)
        count = np.rint(self.neighbours.shares(cohort) * size[:, None]).astype(np.int64)
        return Scores(probabilities, low, high, kinds.tolist(), size, count)

    def nearest(
        self, user_ids: Sequence[str], similarity: FeatureMatrix, n_neighbors: int
    ) -> tuple[Neighbours, Similarities]:
        """Return the nearest users whom the model remembers, never the user themselves; see `KNeighbours`."""
        return self.neighbours.kneighbors(similarity, n_neighbors, training_rows=self.rows_of(user_ids))

    def n_others(self, user_id: str) -> int:
        """Return how many users the model remembers beside this one."""
        return len(self.user_ids) - (user_id in self._row_of)

    def rows_of(self, user_ids: Sequence[str]) -> Rows:
        """Return the training row of each user whom the model remembers, -1 for others."""
        return np.array([self._row_of.get(user_id, -1) for user_id in user_ids], dtype=np.intp)

    def with_users(
        self,
        user_ids: Sequence[str],
        similarity: FeatureMatrix,
        labels: AlertMatrix,
        *,
        gone: Collection[str] = frozenset(),
    ) -> Self:
        """Return the scorer with these users as they are now, in their old place or as new ones, without some others.

        The neighbour model is then the one that a rebuild with the same rows and the same strength of smoothing would
        give; the algorithm, where it is another, stays as it was trained.
        """
        assert len(set(user_ids)) == len(user_ids), "one row a user"
        changed = {*user_ids, *gone}
        kept = np.array([user_id not in changed for user_id in self.user_ids], dtype=bool)
        everybody = [user_id for user_id, keep in zip(self.user_ids, kept, strict=True) if keep] + list(user_ids)
        if not everybody:
            return self
        order = np.array(sorted(range(len(everybody)), key=everybody.__getitem__), dtype=np.intp)
        neighbours = self.neighbours.rebuilt(
            np.concatenate([self.neighbours.known_[kept], similarity])[order],
            np.concatenate([self.neighbours.labels_[kept], labels])[order],
            is_everybody=not self.is_sample,
        )
        return replace(
            self,
            user_ids=[everybody[row] for row in order],
            n_users=self.n_users if self.is_sample else len(everybody),
            neighbours=neighbours,
            model=neighbours if self.is_knn else self.model,
        )

    def explain(
        self,
        user_id: str,
        similarity: FeatureMatrix,
        inputs: FeatureMatrix,
        enabled: AlertMatrix,
        alert: int,
        *,
        is_known: bool,
        columns: Columns,
        typical: NDArray[np.float64],
    ) -> Explanation:
        """Explain what `score` says of one user and one alert; arrays of one row, as there.

        Parameters
        ----------
        typical : float64 array, shape (n_features,)
            What is usual among all users, of the inputs.
        """
        options: dict[str, Any] = {"alert_columns": columns.alerts}
        if not is_known:
            model: Any = self.cooccurrence if enabled.any() else self.popularity
            groups, usual = feature_groups(columns.similarity), np.zeros(similarity.shape[1])
            options["calibration"] = self.calibration.shifts_alone()
            return explain(model, similarity, enabled, alert, groups=groups, typical=usual, **options)
        if self.is_knn:
            options["training_row"] = int(self.rows_of([user_id])[0])
        groups = feature_groups(columns.inputs)
        options["calibration"] = self.calibration
        return explain(self.model, inputs, enabled, alert, groups=groups, typical=typical, **options)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything learnt, as named arrays without objects; the calibration stands on the card."""
        parts: dict[str, Any] = {"cooccurrence": self.cooccurrence, "popularity": self.popularity}
        if not self.is_knn:
            parts["model"] = self.model
        arrays = {f"{part}.{name}": array for part, each in parts.items() for name, array in each.to_arrays().items()}
        return {"user_ids": np.array(self.user_ids, dtype=np.str_), **self.neighbours.to_arrays(), **arrays}

    @classmethod
    def from_arrays(cls, card: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the scorer that a card and its arrays describe."""
        from alertrec.models import MODELS

        algorithm, neighbours = card["algorithm"], KNeighbours.from_arrays(card["neighbours"], arrays)
        is_knn = algorithm == neighbours.name
        return cls(
            user_ids=arrays["user_ids"].tolist(),
            n_users=int(card["n_users"]),
            is_sample=len(arrays["user_ids"]) < int(card["n_users"]),
            algorithm=algorithm,
            model=neighbours
            if is_knn
            else MODELS[algorithm].from_arrays(card["parameters"], arrays_of("model", arrays)),
            neighbours=neighbours,
            cooccurrence=Cooccurrence.from_arrays({}, arrays_of("cooccurrence", arrays)),
            popularity=Popularity.from_arrays({}, arrays_of("popularity", arrays)),
            calibration=Calibration.from_json(card["calibration"]),
        )

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return dict(zip(self.user_ids, self.neighbours.reference_rows_.tolist(), strict=True))

    def _by_algorithm(self, inputs: FeatureMatrix, enabled: AlertMatrix, nearest: Neighbours) -> ScoreMatrix:
        if self.is_knn:
            return self.neighbours.smoothed(nearest[:, : self.neighbours.n_neighbors])
        return self.model.predict_proba(inputs, enabled)
