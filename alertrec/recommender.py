"""`AlertRecommenderModel`, the face of the numeric core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from alertrec.artifacts import Card, read_artifact, write_artifact
from alertrec.catalog import ALERT_KEYS
from alertrec.errors import DataError, NotFittedError, UnknownUserError
from alertrec.feature_engineering import SIMILARITY_FEATURES, USER_ID
from alertrec.models.base import AlertMatrix, FeatureMatrix, Rows, ScoreMatrix
from alertrec.models.knn import KNeighbours
from alertrec.models.popularity import Popularity
from alertrec.ranking import choose

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    UserFrame = pd.DataFrame | pl.DataFrame

DEFAULT_MODEL_PATH = Path(".alertrec") / "models" / "latest"
HIGH_FROM, MEDIUM_FROM = 0.7, 0.5
MIN_NEIGHBOURS = 3


class RecommendedAlert(TypedDict):
    """One recommendation of `recommend_for_user`."""

    alert_type: str
    probability: float
    confidence: str
    reason: str


class SimilarUser(TypedDict):
    """One neighbour, for callers who may see whose habits a recommendation rests on."""

    user_id: str
    similarity_score: float
    enabled_alerts: list[str]


class UserRecommendations(TypedDict):
    """The answer of `recommend_for_user`."""

    user_id: str
    recommendations: list[RecommendedAlert]
    similar_users: list[SimilarUser]
    total_similar_users: int


@dataclass(frozen=True)
class Scores:
    """What the model says of some users.

    Attributes
    ----------
    probabilities : float64 array, shape (n_users, n_alerts)
    n_similar : int array, shape (n_users,)
        Neighbours that each user's probabilities rest on; 0 where popularity answers.
    """

    probabilities: ScoreMatrix
    n_similar: NDArray[np.int64]


def confidence_level(probability: float, n_similar: int) -> str:
    """Return "low" under 3 neighbours, else "high" from 0.7 and "medium" from 0.5 on."""
    if n_similar < MIN_NEIGHBOURS or probability < MEDIUM_FROM:
        return "low"
    return "high" if probability >= HIGH_FROM else "medium"


class AlertRecommenderModel:
    """Recommends alerts from what similar users have enabled.

    Parameters
    ----------
    model_path : path, optional
        Where `save_model` and `load_model` look when they are given no path of their own.

    Attributes
    ----------
    is_trained : bool
    user_ids : list of str
        The users that the model remembers, ascending: those that can be somebody's neighbours.
    card : dict
        How the model came about: parameters, columns, counts, versions.
    """

    def __init__(self, model_path: str | Path | None = None) -> None:
        self.model_path = Path(model_path) if model_path is not None else DEFAULT_MODEL_PATH
        self.is_trained = False
        self.card: Card = {}
        self.user_ids: list[str] = []
        self.feature_columns: tuple[str, ...] = SIMILARITY_FEATURES
        self.alert_columns: tuple[str, ...] = ALERT_KEYS
        self._row_of: dict[str, int] = {}
        self._neighbours = KNeighbours()
        self._popularity = Popularity()

    def train(
        self, user_features_df: UserFrame, n_neighbors: int = 5, metric: str = "cosine", *, max_reference: int = 20_000
    ) -> Self:
        """Learn from users' features and the alerts that they have.

        Parameters
        ----------
        user_features_df : pandas or polars frame, one row a user
            `user_id`, the ten similarity features, and one 0/1 column an alert type; an alert column that is missing
            counts as enabled by nobody.

        Raises
        ------
        DataError
            If there is no row, a user comes twice, a feature column is missing, or a feature is infinite.
        """
        user_ids = _user_ids(user_features_df)
        features = _matrix(user_features_df, self.feature_columns)
        labels = _label_matrix(user_features_df, self.alert_columns)
        return self.fit(user_ids, features, labels, n_neighbors=n_neighbors, metric=metric, max_reference=max_reference)

    def fit(self, user_ids: Sequence[str], features: FeatureMatrix, labels: AlertMatrix, **parameters: Any) -> Self:
        """Learn from arrays, shapes (n_users, n_features) and (n_users, n_alerts); see `train`."""
        if len(set(user_ids)) != len(user_ids):
            raise DataError("a user comes more than once in the training data; one row a user is expected")
        # Rows in the order of ids: the same users in another order give the same model, ties included.
        order = sorted(range(len(user_ids)), key=user_ids.__getitem__)
        neighbours = KNeighbours(**parameters).fit(features[order], labels[order])
        self._popularity = Popularity().fit(features, labels)
        self._adopt([user_ids[order[row]] for row in neighbours.reference_rows_], neighbours)
        self.card = {
            "algorithm": neighbours.name,
            "parameters": parameters,
            "n_users": len(user_ids),
            "feature_columns": list(self.feature_columns),
            "alert_columns": list(self.alert_columns),
        }
        return self

    def score(
        self, user_ids: Sequence[str], features: FeatureMatrix, enabled: AlertMatrix, *, known: NDArray[np.bool_]
    ) -> Scores:
        """Return the probability that each user would enable each alert.

        Parameters
        ----------
        features : float64 array, shape (n_users, n_features), the columns of `feature_columns`
        enabled : bool array, shape (n_users, n_alerts)
        known : bool array, shape (n_users,)
            False for a user of whom nothing is known yet, whose features say nothing: popularity answers.
        """
        self._check_trained()
        neighbours, _ = self._nearest(user_ids, features, self._neighbours.n_neighbors)
        shares = self._neighbours.shares(neighbours)
        n_similar = np.where(known, (neighbours >= 0).sum(axis=1), 0)
        base_rates = self._popularity.predict_proba(features, enabled)
        return Scores(np.where((n_similar > 0)[:, None], shares, base_rates), n_similar)

    def recommend_for_user(
        self,
        user_id: str,
        user_features_df: UserFrame,
        k_neighbors: int = 5,
        threshold: float = 0.4,
        *,
        include_similar_users: bool = False,
    ) -> UserRecommendations:
        """Recommend the alerts that one user does not have yet.

        Parameters
        ----------
        user_id : str
        user_features_df : pandas or polars frame with a row of this user
            Alert columns, where there are any, say what the user has; without them, the training data does.
        k_neighbors : int
        threshold : float in [0, 1]
            Alerts from this probability on are recommended; where there is none, the two most probable ones.
        include_similar_users : bool
            Name the neighbours in `similar_users`. They are other customers: for trusted callers only.

        Returns
        -------
        dict with `user_id`, `recommendations` (the most probable first), `similar_users` and `total_similar_users`.

        Raises
        ------
        NotFittedError, UnknownUserError, DataError
            Before `train` or `load_model`; if the frame has no row of the user; if a feature column is missing.
        """
        self._check_trained()
        row = _row_of_user(user_features_df, user_id)
        user_id = str(user_id)
        features = _matrix(row, self.feature_columns)
        neighbours, similarities = self._nearest([user_id], features, k_neighbors)
        shares = self._neighbours.shares(neighbours)
        offers = choose(shares, len(self.alert_columns), exclude=self._enabled(user_id, row), threshold=threshold)
        n_similar = int((neighbours >= 0).sum())
        return {
            "user_id": user_id,
            "recommendations": [
                self._recommendation(alert, probability, n_similar)
                for alert, probability in zip(offers.alerts[0], offers.probabilities[0], strict=True)
                if alert >= 0
            ],
            "similar_users": self._similar_users(neighbours[0], similarities[0]) if include_similar_users else [],
            "total_similar_users": n_similar,
        }

    def save_model(self, model_path: str | Path | None = None) -> Path:
        """Write the model to a directory, replacing a model that is there, and return its path.

        Raises
        ------
        NotFittedError, ModelStoreError
            Before `train` or `load_model`; if the path is something else than a model, which is left as it is.
        """
        self._check_trained()
        path = Path(model_path) if model_path is not None else self.model_path
        write_artifact(path, self.card, self.to_arrays())
        return path

    def load_model(self, model_path: str | Path | None = None) -> Self:
        """Read the model from a directory that `save_model` wrote.

        Raises
        ------
        ModelStoreError
            If a file is missing or altered; the model stays as it was.
        """
        return self._restore(*read_artifact(Path(model_path) if model_path is not None else self.model_path))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything learnt, as named arrays without objects."""
        return {
            "user_ids": np.array(self.user_ids, dtype=np.str_),
            **self._neighbours.to_arrays(),
            **self._popularity.to_arrays(),
        }

    @classmethod
    def from_arrays(cls, card: Card, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model that a card and its arrays describe."""
        return cls()._restore(card, arrays)

    def _restore(self, card: Card, arrays: Mapping[str, NDArray[Any]]) -> Self:
        self.feature_columns = tuple(card["feature_columns"])
        self.alert_columns = tuple(card["alert_columns"])
        self._popularity = Popularity.from_arrays({}, arrays)
        self._adopt(arrays["user_ids"].tolist(), KNeighbours.from_arrays(card["parameters"], arrays))
        self.card = card
        return self

    def _adopt(self, user_ids: list[str], neighbours: KNeighbours) -> None:
        self.user_ids, self._neighbours = user_ids, neighbours
        self._row_of = dict(zip(user_ids, neighbours.reference_rows_.tolist(), strict=True))
        self.is_trained = True

    def _check_trained(self) -> None:
        if not self.is_trained:
            raise NotFittedError("this model has not been trained; call `train` or `load_model` first")

    def _nearest(
        self, user_ids: Sequence[str], features: FeatureMatrix, n_neighbors: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        rows: Rows = np.array([self._row_of.get(user_id, -1) for user_id in user_ids], dtype=np.intp)
        return self._neighbours.kneighbors(features, n_neighbors, training_rows=rows)

    def _enabled(self, user_id: str, row: UserFrame) -> AlertMatrix:
        if any(column in row.columns for column in self.alert_columns):
            return _label_matrix(row, self.alert_columns)
        if user_id in self._row_of:
            return self._neighbours.labels_[np.flatnonzero(self._neighbours.reference_rows_ == self._row_of[user_id])]
        if self.card["n_users"] > len(self.user_ids):
            raise DataError(
                f"what user {user_id!r} has enabled is not known: the frame has no alert columns, and the model "
                f"remembers {len(self.user_ids)} of {self.card['n_users']} users; add the alert columns"
            )
        return np.zeros((1, len(self.alert_columns)), dtype=bool)

    def _recommendation(self, alert: int, probability: float, n_similar: int) -> RecommendedAlert:
        return {
            "alert_type": self.alert_columns[alert],
            "probability": float(probability),
            "confidence": confidence_level(probability, n_similar),
            "reason": f"{round(probability * n_similar)} of the {n_similar} most similar users have this alert",
        }

    def _similar_users(self, neighbours: NDArray[np.intp], similarities: NDArray[np.float64]) -> list[SimilarUser]:
        knn = self._neighbours
        return [
            {
                "user_id": self.user_ids[reference],
                "similarity_score": float(similarity),
                "enabled_alerts": [self.alert_columns[alert] for alert in np.flatnonzero(knn.labels_[reference])],
            }
            for reference, similarity in zip(neighbours, similarities, strict=True)
            if reference >= 0
        ]


def _user_ids(frame: UserFrame) -> list[str]:
    if USER_ID not in frame.columns:
        raise DataError(f"the column {USER_ID!r} is missing; the frame has {', '.join(map(str, frame.columns))}")
    return [str(user_id) for user_id in frame[USER_ID].to_list()]


def _row_of_user(frame: UserFrame, user_id: str) -> UserFrame:
    """Return the row of one user, looked up by identity and never by position."""
    rows = [row for row, each in enumerate(_user_ids(frame)) if each == str(user_id)]
    if not rows:
        raise UnknownUserError(str(user_id))
    if len(rows) > 1:
        raise DataError(f"user {user_id!r} comes {len(rows)} times in the frame; one row a user is expected")
    return frame[rows[0] : rows[0] + 1]


def _matrix(frame: UserFrame, columns: Sequence[str]) -> FeatureMatrix:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"feature columns are missing: {', '.join(missing)}; `build_user_features` makes them")
    return np.asarray(frame[list(columns)].to_numpy(), dtype=np.float64)


def _label_matrix(frame: UserFrame, columns: Sequence[str]) -> AlertMatrix:
    present = {column: np.asarray(frame[column].to_numpy()) for column in columns if column in frame.columns}
    nobody = np.zeros(len(frame), dtype=bool)
    return np.column_stack([_as_bool(present[column]) if column in present else nobody for column in columns])


def _as_bool(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return 0/1, booleans and floats as booleans; an unknown label, None or NaN, is not enabled."""
    return np.nan_to_num(values.astype(np.float64)) > 0
