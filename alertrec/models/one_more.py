"""What the trained models have in common: they say which alert a user switches on next.

The situation is that of leave-one-out: a user has some alerts and is about to switch on one more; which? For alert j,
a model gives the log-odds that a user with this behaviour and these other alerts has j as well. Of users who have one
more than the set E, the share whose one more is j is then odds_j / (sum of the odds of all alerts that are not in E):
the exact conditional of "one of these", whatever the joint distribution. Three cases stand outside of that contest:
an alert that everybody or nobody has is certain, and where only one alert is left, it is judged by its own odds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.models.base import (
    AlertMatrix,
    Arrays,
    FeatureMatrix,
    Rows,
    ScoreMatrix,
    checked,
    checked_training,
    refuse_unfitted,
)
from alertrec.models.contributions import Contributions, Grouping, Parts

Prepared = TypeVar("Prepared")

# Rows that are scored at once: enough that threads pay, and what they need stays within some hundred megabytes.
_TILE_ROWS = 100_000
_DECIMALS = 9
# Rounds in which users and alerts are told apart by each other; ties that outlast two are hardly ever broken.
_ROUNDS = 2


class Hidden(NamedTuple):
    """Users, each with one of their alerts hidden; a user with n alerts comes n times.

    Attributes
    ----------
    users : int array, shape (n_rows,)
    alerts : int array, shape (n_rows,), the one that is hidden
    enabled : bool array, shape (n_rows, n_alerts), the others
    """

    users: Rows
    alerts: Rows
    enabled: AlertMatrix


class OneMore(ABC, Generic[Prepared]):
    """A model of log-odds; learns from alerts that some have and others have not.

    Subclasses learn and score such *contested* alerts only, and are given users and alerts in an order that does not
    hang on the one they came in.

    Attributes
    ----------
    n_features_ : int
    constants_ : float64 array, shape (n_alerts,)
        Log-odds of having the alert among the training users, finite also where everybody or nobody has it.
    contested_ : int array, shape (n_contested,)
        The alerts that are learnt, in the order in which they are.
    certain_ : float64 array, shape (n_alerts,)
        1 for an alert that everybody has, 0 for one that nobody has, NaN otherwise.
    """

    name: ClassVar[str]
    random_state: int

    n_features_: int
    constants_: NDArray[np.float64]
    contested_: Rows
    certain_: NDArray[np.float64]

    def fit(self, features: FeatureMatrix, labels: AlertMatrix) -> Self:
        """Learn from what these users have enabled.

        Parameters
        ----------
        features : float64 array, shape (n_users, n_features); NaN where unknown
        labels : bool array, shape (n_users, n_alerts)

        Raises
        ------
        DataError
            If there is no user, the two differ in length, or a feature is infinite.
        """
        features, labels = checked_training(self.name, features, labels)
        n_users, count = len(labels), labels.sum(axis=0)
        self.n_features_ = features.shape[1]
        self.constants_ = np.log((count + 0.5) / (n_users - count + 0.5))
        self.certain_ = np.where(count == n_users, 1.0, np.where(count == 0, 0.0, np.nan))
        users, alerts = canonical_order(features, labels)
        self.contested_ = alerts[np.isnan(self.certain_[alerts])]
        if len(self.contested_):
            self._learn(features[users], labels[np.ix_(users, self.contested_)])
        return self

    def predict_proba(
        self, features: FeatureMatrix, enabled: AlertMatrix, *, training_rows: Rows | None = None
    ) -> ScoreMatrix:
        """Return the probability that each alert is the one that the user switches on next.

        An alert that is enabled is judged as if it were not yet.

        Returns
        -------
        float64 array, shape (n_users, n_alerts), in [0, 1]

        Raises
        ------
        NotFittedError, DataError
            Before `fit`; if the number of features or alerts is not that of training, or a feature is infinite.
        """
        del training_rows
        features, enabled = self._checked_queries(features, enabled)
        found = np.empty(enabled.shape)
        for tile in _tiles(enabled):
            found[tile] = self._probabilities(features[tile], enabled[tile])
        return found

    def log_odds(self, features: FeatureMatrix, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        """Return the log-odds of having each alert, given the others.

        Parameters
        ----------
        features : float64 array, shape (n_users, n_features)
        users : int array, shape (n_rows,), the user of each row
        enabled : bool array, shape (n_rows, n_alerts)

        Returns
        -------
        float64 array, shape (n_rows, n_alerts)
        """
        return self.score(self.prepare(features), users, enabled)

    def prepare(self, features: FeatureMatrix) -> Prepared | None:
        """Compute what hangs on the users' behaviour alone, once for all that `score` is asked of them."""
        return self._prepare(features) if len(self.contested_) else None

    def score(self, prepared: Prepared | None, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        """Return log-odds as `log_odds` does, from what `prepare` gave."""
        found = np.tile(self.constants_, (len(users), 1))
        if len(self.contested_):
            assert prepared is not None, "`prepare` gives something where there is something to contest"
            found[:, self.contested_] = self._score(prepared, users, enabled[:, self.contested_])
        return found

    def contributions(
        self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, groups: Mapping[str, Sequence[int]]
    ) -> Contributions:
        """Return what a user's behaviour and each of their other alerts add to the log-odds of an alert.

        Parameters
        ----------
        features : float64 array, shape (1, n_features)
        enabled : bool array, shape (1, n_alerts)
            The alert that is asked about counts as not enabled.
        alert : int
        groups : mapping of columns of the features, by name
            Each column in one of them.

        Returns
        -------
        Contributions
            They sum to `log_odds`. Of an alert that is certain, all but the base are 0.

        Raises
        ------
        NotFittedError, DataError
            Before `fit`; unless it is one user, one of the alerts, and groups as above.
        """
        features, enabled = self._checked_queries(features, enabled)
        if len(features) != 1 or not 0 <= alert < enabled.shape[1]:
            raise DataError(f"expected one user and one of {enabled.shape[1]} alerts; got {len(features)} and {alert}")
        grouping = Grouping.of(groups, self.n_features_)
        others = enabled & (np.arange(enabled.shape[1]) != alert)
        return self.parts(features, others, alert, grouping).named(grouping, others[0])

    def parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        """Return contributions as arrays; as `contributions`, of arguments that are known to be right."""
        of_alerts = np.zeros(enabled.shape[1])
        place = np.flatnonzero(self.contested_ == alert)
        if len(place) == 0:
            return Parts(float(self.constants_[alert]), np.zeros(len(grouping.names)), of_alerts)
        learnt = self._parts(features, enabled[:, self.contested_], int(place[0]), grouping)
        of_alerts[self.contested_] = learnt.alerts
        return learnt._replace(alerts=of_alerts)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything learnt, as named arrays without objects."""
        shape = np.array([self.n_features_], dtype=np.int64)
        arrays = {"n_features": shape, "constants": self.constants_, "certain": self.certain_}
        return {**arrays, "contested": self.contested_, **(self._learnt() if len(self.contested_) else {})}

    @classmethod
    def from_arrays(cls, parameters: Mapping[str, Any], arrays: Arrays) -> Self:
        """Return the fitted model that `to_arrays` and its parameters describe."""
        model = cls(**parameters)
        model.n_features_ = int(arrays["n_features"][0])
        model.constants_, model.certain_ = arrays["constants"], arrays["certain"]
        model.contested_ = arrays["contested"]
        if len(model.contested_):
            model._restore(arrays)
        return model

    @abstractmethod
    def _learn(self, features: FeatureMatrix, labels: AlertMatrix) -> None:
        """Learn; each alert is had by some of the users and not by others."""

    @abstractmethod
    def _prepare(self, features: FeatureMatrix) -> Prepared:
        """Compute what hangs on behaviour alone."""

    @abstractmethod
    def _score(self, prepared: Prepared, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        """Return the log-odds of the contested alerts, shape (n_rows, n_contested)."""

    @abstractmethod
    def _parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        """Return what sums to `_score` of one user and alert, which is not enabled; alerts are the contested ones."""

    @abstractmethod
    def _learnt(self) -> dict[str, NDArray[Any]]:
        """Return what `_learn` learnt."""

    @abstractmethod
    def _restore(self, arrays: Arrays) -> None:
        """Take back what `_learnt` returned."""

    def _probabilities(self, features: FeatureMatrix, enabled: AlertMatrix) -> ScoreMatrix:
        # Each user as they are; then, once for each alert that they have, as they would be without it.
        owned = hide_each(enabled)
        everyone = np.arange(len(features))
        rows = np.concatenate([everyone, owned.users])
        without = np.concatenate([enabled, owned.enabled])
        found = self._contest(self.score(self.prepare(features), rows, without), without)
        answer, as_if_not = found[: len(features)], found[len(features) :]
        answer[owned.users, owned.alerts] = as_if_not[np.arange(len(owned.alerts)), owned.alerts]
        # Products of matrices round differently alone and among others; what is answered must not.
        return np.asarray(answer.round(_DECIMALS))

    def _contest(self, log_odds: ScoreMatrix, enabled: AlertMatrix) -> ScoreMatrix:
        free = np.isnan(self.certain_)
        found = np.tile(np.nan_to_num(self.certain_), (len(enabled), 1))
        found[:, free] = share_of_one_more(log_odds[:, free], enabled[:, free])
        return found

    def _checked_queries(self, features: FeatureMatrix, enabled: AlertMatrix) -> tuple[FeatureMatrix, AlertMatrix]:
        refuse_unfitted(self.name, is_fitted=hasattr(self, "n_features_"))
        features, enabled = checked(features, enabled)
        if features.shape[1] != self.n_features_ or enabled.shape[1] != len(self.constants_):
            raise DataError(
                f"got {features.shape[1]} features and {enabled.shape[1]} alerts; "
                f"the model was trained on {self.n_features_} and {len(self.constants_)}"
            )
        return features, enabled


def share_of_one_more(log_odds: ScoreMatrix, enabled: AlertMatrix) -> ScoreMatrix:
    """Return the probability that each alert is the next one, given log-odds; see the top of the module.

    Parameters
    ----------
    log_odds : float64 array, shape (n_rows, n_alerts)
    enabled : bool array, shape (n_rows, n_alerts)

    Returns
    -------
    float64 array, shape (n_rows, n_alerts)
        0 where enabled; the rest of a row sums to 1, unless only one is left.
    """
    odds = np.where(enabled, -np.inf, log_odds)
    highest = np.max(odds, axis=1, keepdims=True, initial=-np.inf)
    odds = np.exp(odds - np.where(np.isfinite(highest), highest, 0.0))
    total = odds.sum(axis=1, keepdims=True)
    shares = np.divide(odds, total, out=np.zeros_like(odds), where=total > 0)
    alone = (~enabled).sum(axis=1, keepdims=True) == 1
    return np.asarray(np.where(alone & ~enabled, 1 / (1 + np.exp(-log_odds.clip(-700, 700))), shares))


def hide_each(labels: AlertMatrix) -> Hidden:
    """Return each user once for each alert that they have, with that alert hidden."""
    users, alerts = np.nonzero(labels)
    enabled = labels[users]
    enabled[np.arange(len(users)), alerts] = False
    return Hidden(users, alerts, enabled)


def canonical_order(features: FeatureMatrix, labels: AlertMatrix) -> tuple[Rows, Rows]:
    """Return orders of users and alerts that do not hang on the ones they came in.

    Sums of floats and draws of random numbers differ with the order of their terms, and with them what is learnt; a
    bank's users and alerts have none. Alerts are told apart by the users who have them; users who are alike in all of
    their features, by the alerts.
    """
    known = np.column_stack([np.isnan(features), np.nan_to_num(features)])
    kinds = _classes(known)
    alert_classes = np.zeros(labels.shape[1], dtype=np.intp)
    for _ in range(_ROUNDS):
        # Alerts by the kinds of users who have them, users by the classes of their alerts, and again.
        alert_classes = _classes(_counts(kinds, labels).T)
        kinds = _classes(np.column_stack([kinds, _counts(alert_classes, labels.T).T]))
    alerts = np.argsort(alert_classes, kind="stable")
    users = np.lexsort((*labels[:, alerts].T, kinds))
    return users, alerts


def _classes(rows: NDArray[Any]) -> Rows:
    """Return the number of each row among the distinct ones, in their order."""
    if rows.shape[1] == 0:
        return np.zeros(len(rows), dtype=np.intp)
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


def _counts(classes: Rows, labels: AlertMatrix) -> NDArray[np.int64]:
    """Return how many rows of each class have each alert, shape (n_classes, n_alerts)."""
    counts = np.zeros((classes.max(initial=-1) + 1, labels.shape[1]), dtype=np.int64)
    np.add.at(counts, classes, labels)
    return counts


def _tiles(enabled: AlertMatrix) -> Iterator[slice]:
    """Divide the users so that each part, with a row for each alert that they have, is of bounded size."""
    size = max(1, int(_TILE_ROWS / (1 + enabled.sum() / max(1, len(enabled)))))
    return (slice(start, start + size) for start in range(0, len(enabled), size))
