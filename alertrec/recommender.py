"""`AlertRecommenderModel`, the face of the numeric core."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from alertrec.artifacts import Card, read_artifact, write_artifact
from alertrec.calibration import Calibration, confidence_level
from alertrec.catalog import ALERT_KEYS
from alertrec.errors import DataError, NotFittedError
from alertrec.explanation import Explanation, similar_share
from alertrec.feature_engineering import SIMILARITY_FEATURES
from alertrec.models.base import AlertMatrix, FeatureMatrix, ScoreMatrix, refuse_below
from alertrec.models.knn import KNeighbours, Neighbours
from alertrec.ranking import choose
from alertrec.rules.usual import UsualDials
from alertrec.scoring import COHORT, Columns, Scorer, Scores
from alertrec.user_frames import feature_matrix, label_matrix, row_of_user, user_ids_of

if TYPE_CHECKING:
    from alertrec.user_frames import UserFrame

DEFAULT_MODEL_PATH = Path(".alertrec") / "models" / "latest"
HIGH_FROM, MEDIUM_FROM = 0.7, 0.5
MIN_NEIGHBOURS = 3


class RecommendedAlert(TypedDict):
    """One recommendation of `recommend_for_user`."""

    alert_type: str
    probability: float
    confidence: str
    reason: str
    explanation: NotRequired[dict[str, Any]]


class _Judged(NamedTuple):
    """What is said of one user: probabilities (1, n_alerts), and of each alert how sure and how many alike have it."""

    probabilities: ScoreMatrix
    levels: Sequence[str]
    n_with_alert: NDArray[np.int64]
    n_similar: int


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


def confidence_of_neighbours(probability: float, n_similar: int) -> str:
    """Return how sure a share is: "low" under 3 neighbours, else "high" from 0.7 and "medium" from 0.5 on."""
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
    feature_columns : tuple of str
        The features that similarity is judged by.
    input_columns : tuple of str
        The features that the algorithm looks at.
    card : dict
        How the model came about: algorithm, parameters, columns, counts, versions.
    usual : UsualDials or None
        The parameters of rules that fit the training users; None where nobody has fitted any.
    """

    def __init__(self, model_path: str | Path | None = None) -> None:
        self.model_path = Path(model_path) if model_path is not None else DEFAULT_MODEL_PATH
        self.card: Card = {}
        self.feature_columns: tuple[str, ...] = SIMILARITY_FEATURES
        self.input_columns: tuple[str, ...] = SIMILARITY_FEATURES
        self.alert_columns: tuple[str, ...] = ALERT_KEYS
        self.usual: UsualDials | None = None
        self._scorer: Scorer | None = None

    @property
    def is_trained(self) -> bool:
        """Whether the model can be asked."""
        return self._scorer is not None

    @property
    def user_ids(self) -> list[str]:
        """The users that the model remembers."""
        return self.scorer.user_ids if self._scorer is not None else []

    @property
    def scorer(self) -> Scorer:
        """What the model has learnt.

        Raises
        ------
        NotFittedError
            Before `train` or `load_model`.
        """
        if self._scorer is None:
            raise NotFittedError("this model has not been trained; call `train` or `load_model` first")
        return self._scorer

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
        labels = label_matrix(user_features_df, self.alert_columns)
        knn = {"n_neighbors": n_neighbors, "metric": metric, "max_reference": max_reference}
        return self.fit(user_features_df, labels, neighbours=knn)

    def fit(
        self,
        user_features_df: UserFrame,
        labels: AlertMatrix,
        *,
        algorithm: str = KNeighbours.name,
        parameters: Mapping[str, Any] | None = None,
        neighbours: Mapping[str, Any] | None = None,
        input_columns: Sequence[str] = SIMILARITY_FEATURES,
        calibration: Calibration | None = None,
    ) -> Self:
        """Learn by any algorithm.

        Parameters
        ----------
        user_features_df : frame with `user_id`, the similarity features and `input_columns`
        labels : bool array, shape (n_users, n_alerts), in the order of `alert_columns`
        algorithm : str
            A name of `alertrec.models.MODELS`.
        parameters, neighbours : mappings
            Of the algorithm, unless that is "knn"; of the neighbour model.
        calibration : Calibration, optional
            What turns the algorithm's probabilities into those that are offered; by default they stay as they are.
        """
        calibration = calibration or Calibration.identity()
        parameters, neighbours = dict(parameters or {}), dict(neighbours or {})
        inputs = feature_matrix(user_features_df, input_columns)
        scorer = Scorer.fit(
            user_ids_of(user_features_df),
            feature_matrix(user_features_df, self.feature_columns),
            inputs,
            labels,
            neighbours=KNeighbours(**neighbours),
            algorithm=algorithm,
            parameters=parameters,
            calibration=calibration,
        )
        self._scorer, self.input_columns = scorer, tuple(input_columns)
        self.card = {
            "algorithm": algorithm,
            "parameters": neighbours if algorithm == KNeighbours.name else parameters,
            "neighbours": neighbours,
            "calibration": calibration.to_json(),
            "n_users": scorer.n_users,
            "feature_columns": list(self.feature_columns),
            "input_columns": list(self.input_columns),
            "alert_columns": list(self.alert_columns),
            # Of a column that nobody has, nought.
            "feature_medians": dict(zip(input_columns, _medians(inputs), strict=True)),
        }
        return self

    def score(self, user_features_df: UserFrame, enabled: AlertMatrix, *, known: NDArray[np.bool_]) -> Scores:
        """Say of each user how probable each alert is.

        Parameters
        ----------
        user_features_df : frame with `user_id`, `feature_columns` and `input_columns`
        enabled : bool array, shape (n_users, n_alerts)
        known : bool array, shape (n_users,)
            False for a user without purchases, whose features say nothing.
        """
        scorer = self.scorer
        inputs = feature_matrix(user_features_df, self.input_columns)
        similarity = self._similarity(user_features_df, inputs)
        return scorer.score(user_ids_of(user_features_df), similarity, inputs, enabled, known=known)

    def with_users(self, user_features_df: UserFrame, labels: AlertMatrix, *, gone: Collection[str] = ()) -> Self:
        """Return this model, its neighbours being these users as they are now, and others but `gone`; see `Scorer`."""
        changed = copy(self)
        similarity = feature_matrix(user_features_df, self.feature_columns)
        changed._scorer = self.scorer.with_users(user_ids_of(user_features_df), similarity, labels, gone=gone)
        changed.card = {**self.card, "n_users": changed._scorer.n_users}
        return changed

    def similar_users(self, user_features_df: UserFrame) -> list[list[str]]:
        """Return the ids of the `COHORT` remembered users most similar to each, never the user themselves."""
        scorer = self.scorer
        similarity = feature_matrix(user_features_df, self.feature_columns)
        nearest, _ = scorer.nearest(user_ids_of(user_features_df), similarity, COHORT)
        return [[scorer.user_ids[row] for row in rows if row >= 0] for rows in nearest.tolist()]

    def explain(self, user_features_df: UserFrame, enabled: AlertMatrix, alert_type: str) -> Explanation:
        """Explain the probability of an alert, of the one user in the frame.

        Parameters
        ----------
        user_features_df : frame of one row, as `score` takes it
        enabled : bool array, shape (1, n_alerts)

        Raises
        ------
        DataError
            If the model knows no such alert.
        """
        if alert_type not in self.alert_columns:
            raise DataError(f"unknown alert type {alert_type!r}; known are {', '.join(self.alert_columns)}")
        scorer = self.scorer
        inputs = feature_matrix(user_features_df, self.input_columns)
        similarity = self._similarity(user_features_df, inputs)
        return scorer.explain(
            user_ids_of(user_features_df)[0],
            similarity,
            inputs,
            enabled,
            self.alert_columns.index(alert_type),
            is_known=bool(user_features_df["amount_count"].to_list()[0] > 0),
            columns=Columns(self.feature_columns, self.input_columns, self.alert_columns),
            typical=np.array([self.card["feature_medians"][name] for name in self.input_columns]),
        )

    def recommend_for_user(
        self,
        user_id: str,
        user_features_df: UserFrame,
        k_neighbors: int = 5,
        threshold: float = 0.4,
        *,
        include_similar_users: bool = False,
        explain: bool = False,
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
        explain : bool
            Add `explanation` to each recommendation: what it rests on and what would change it, see `Explanation`.
            Of the neighbour model, its probability is smoothed and calibrated as in `score`.

        Returns
        -------
        dict with `user_id`, `recommendations` (the most probable first), `similar_users` and `total_similar_users`.

        Raises
        ------
        NotFittedError, UnknownUserError, DataError
            Before `train` or `load_model`; if the frame has no row of the user; if a feature column is missing.
        """
        scorer = self.scorer
        refuse_below(1, k_neighbors=k_neighbors)
        row = row_of_user(user_features_df, user_id)
        user_id = str(user_id)
        enabled = self._enabled(user_id, row)
        inputs = feature_matrix(row, self.input_columns)
        similarity = self._similarity(row, inputs)
        similar: list[SimilarUser] = []
        if scorer.is_knn or include_similar_users:
            neighbours, similarities = scorer.nearest([user_id], similarity, k_neighbors)
            similar = self._similar_users(neighbours[0], similarities[0]) if include_similar_users else []
        if scorer.is_knn:
            judged = self._judged_by_neighbours(neighbours)
        else:
            judged = self._judged(user_id, similarity, inputs, enabled, threshold)
        offers = choose(judged.probabilities, len(self.alert_columns), exclude=enabled, threshold=threshold)
        found = [self._recommendation(judged, alert) for alert in offers.alerts[0].tolist() if alert >= 0]
        if explain:
            for each in found:
                each["explanation"] = self.explain(row, enabled, each["alert_type"]).to_json()
        return {
            "user_id": user_id,
            "recommendations": found,
            "similar_users": similar,
            "total_similar_users": min(k_neighbors, scorer.n_others(user_id)),
        }

    def save_model(self, model_path: str | Path | None = None) -> Path:
        """Write the model to a directory, replacing a model that is there, and return its path.

        Raises
        ------
        NotFittedError, ModelStoreError
            Before `train` or `load_model`; if the path is something else than a model, which is left as it is.
        """
        arrays = self.to_arrays()
        path = Path(model_path) if model_path is not None else self.model_path
        write_artifact(path, self.card, arrays)
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
        arrays = self.scorer.to_arrays()
        if self.usual is not None:
            usual = self.usual.remembering(self.scorer.user_ids)
            arrays |= {"usual.dials": usual.dials, "usual.population": usual.population}
        return arrays

    @classmethod
    def from_arrays(cls, card: Card, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model that a card and its arrays describe."""
        return cls()._restore(card, arrays)

    def _restore(self, card: Card, arrays: Mapping[str, NDArray[Any]]) -> Self:
        scorer = Scorer.from_arrays(card, arrays)
        self._scorer, self.card = scorer, card
        has_usual = "usual.dials" in arrays  # models of the first release have none
        usual = UsualDials(scorer.user_ids, arrays["usual.dials"], arrays["usual.population"]) if has_usual else None
        self.usual = usual
        self.feature_columns = tuple(card["feature_columns"])
        self.input_columns = tuple(card["input_columns"])
        self.alert_columns = tuple(card["alert_columns"])
        return self

    def _enabled(self, user_id: str, row: UserFrame) -> AlertMatrix:
        if any(column in row.columns for column in self.alert_columns):
            return label_matrix(row, self.alert_columns)
        scorer = self.scorer
        remembered = np.flatnonzero(scorer.neighbours.reference_rows_ == scorer.rows_of([user_id]))
        if len(remembered):
            return scorer.neighbours.labels_[remembered]
        if scorer.is_sample:
            raise DataError(
                f"what user {user_id!r} has enabled is not known: the frame has no alert columns, and the model "
                f"remembers {len(scorer.user_ids)} of {scorer.n_users} users; add the alert columns"
            )
        return np.zeros((1, len(self.alert_columns)), dtype=bool)

    def _judged_by_neighbours(self, neighbours: Neighbours) -> _Judged:
        """Judge by the share of just these neighbours, as promised."""
        n_similar = int((neighbours >= 0).sum())
        shares = self.scorer.neighbours.shares(neighbours)
        levels = [confidence_of_neighbours(share, n_similar) for share in shares[0].tolist()]
        return _Judged(shares, levels, np.rint(shares[0] * n_similar).astype(np.int64), n_similar)

    def _judged(
        self, user_id: str, similarity: FeatureMatrix, inputs: FeatureMatrix, enabled: AlertMatrix, threshold: float
    ) -> _Judged:
        """Judge by the algorithm; what is alike tells how many similar users have each alert."""
        known = similarity[:, self.feature_columns.index("amount_count")] > 0
        scores = self.scorer.score([user_id], similarity, inputs, enabled, known=known)
        pairs = zip(scores.probabilities[0].tolist(), scores.low[0].tolist(), strict=True)
        levels = [confidence_level(probability, low, threshold) for probability, low in pairs]
        return _Judged(scores.probabilities, levels, scores.cohort_count[0], int(scores.cohort_size[0]))

    def _similarity(self, frame: UserFrame, inputs: FeatureMatrix) -> FeatureMatrix:
        """Return the features of similarity; taken from the inputs where these have them, which a frame is slow at."""
        if set(self.feature_columns) <= set(self.input_columns):
            return inputs[:, [self.input_columns.index(name) for name in self.feature_columns]]
        return feature_matrix(frame, self.feature_columns)

    def _recommendation(self, judged: _Judged, alert: int) -> RecommendedAlert:
        return {
            "alert_type": self.alert_columns[alert],
            "probability": float(judged.probabilities[0, alert]),
            "confidence": judged.levels[alert],
            "reason": self._reason(judged, alert),
        }

    def _reason(self, judged: _Judged, alert: int) -> str:
        count, size = int(judged.n_with_alert[alert]), judged.n_similar
        if self.scorer.is_knn and size:
            return f"{count} of the {size} most similar users have this alert"
        cohort = similar_share(count, size)
        return cohort.sentence() if cohort is not None else "what is known of the user speaks for it"

    def _similar_users(self, neighbours: NDArray[np.intp], similarities: NDArray[np.float64]) -> list[SimilarUser]:
        knn = self.scorer.neighbours
        return [
            {
                "user_id": self.user_ids[reference],
                "similarity_score": float(similarity),
                "enabled_alerts": [self.alert_columns[alert] for alert in np.flatnonzero(knn.labels_[reference])],
            }
            for reference, similarity in zip(neighbours, similarities, strict=True)
            if reference >= 0
        ]


def _medians(inputs: FeatureMatrix) -> list[float]:
    known = np.where(np.isnan(inputs).all(axis=0), 0.0, inputs)
    medians: list[float] = np.nanmedian(known, axis=0).tolist()
    return medians
