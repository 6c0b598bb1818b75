from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec.models.base import AlertMatrix, Arrays, FeatureMatrix, Rows, ScoreMatrix
from alertrec.models.contributions import Grouping, Parts
from alertrec.models.one_more import OneMore, canonical_order, hide_each, share_of_one_more


class Told(OneMore[FeatureMatrix]):
    """A model that is told its log-odds: the sum of a user's features, and a weight for each pair of alerts.

    It notes what it is given.
    """

    name = "told"

    def __init__(self, weights: NDArray[np.float64] | None = None, random_state: int = 0) -> None:
        self.weights = weights
        self.random_state = random_state
        self.asked: list[int] = []

    def _learn(self, features: FeatureMatrix, labels: AlertMatrix) -> None:
        self.features, self.labels = features, labels

    def _prepare(self, features: FeatureMatrix) -> FeatureMatrix:
        return features

    def _score(self, prepared: FeatureMatrix, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        self.asked.append(len(users))
        weights = np.zeros((enabled.shape[1],) * 2) if self.weights is None else self.weights
        first = np.arange(enabled.shape[1]) == 0
        return prepared[users].sum(axis=1, keepdims=True) * first + enabled @ weights

    def _parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        raise NotImplementedError

    def _learnt(self) -> dict[str, NDArray[Any]]:
        return {}

    def _restore(self, arrays: Arrays) -> None:
        del arrays


def test_odds_of_one_and_three_share_a_quarter_and_three_quarters():
    log_odds = np.log([[1.0, 3.0, 50.0]])
    found = share_of_one_more(log_odds, np.array([[False, False, True]]))
    np.testing.assert_allclose(found, [[0.25, 0.75, 0.0]])


def test_what_is_left_alone_has_its_own_odds():
    # Odds of 3 to 1.
    found = share_of_one_more(np.log([[3.0, 9.0]]), np.array([[False, True]]))
    np.testing.assert_allclose(found, [[0.75, 0.0]])


def test_who_has_everything_is_left_nothing():
    assert share_of_one_more(np.zeros((2, 3)), np.ones((2, 3), dtype=bool)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("level", [-600.0, 0.0, 5000.0])
def test_the_level_of_log_odds_does_not_matter_where_there_is_a_choice(level: float):
    log_odds = np.array([[0.0, np.log(3.0), 7.0]]) + level
    found = share_of_one_more(log_odds, np.array([[False, False, True]]))
    np.testing.assert_allclose(found, [[0.25, 0.75, 0.0]], rtol=1e-9)


def test_extreme_log_odds_overflow_nowhere():
    alone = np.array([[False, True], [False, True]])
    found = share_of_one_more(np.array([[1e4, 1e5], [-1e4, 1e5]]), alone)
    np.testing.assert_allclose(found[:, 0], [1.0, 0.0], atol=1e-300)


def test_no_row_is_no_error():
    assert share_of_one_more(np.empty((0, 3)), np.empty((0, 3), dtype=bool)).shape == (0, 3)


def test_each_alert_of_each_user_is_hidden_once():
    labels = np.array([[True, False, True], [False, False, False], [False, True, False]])
    users, alerts, enabled = hide_each(labels)
    assert users.tolist() == [0, 0, 2]
    assert alerts.tolist() == [0, 2, 1]
    assert enabled.tolist() == [[False, False, True], [True, False, False], [False, False, False]]
    assert labels.sum() == 3  # which is as it was


def test_users_are_ordered_by_their_features_and_then_by_their_alerts():
    features = np.array([[2.0], [1.0], [np.nan], [1.0]])
    labels = np.array([[False, True], [True, True], [False, True], [False, True]])
    users, _ = canonical_order(features, labels)
    assert users.tolist() == [3, 1, 0, 2]  # what is unknown comes last


def test_a_model_learns_only_what_some_have_and_others_have_not():
    features = np.array([[3.0], [1.0], [2.0]])
    labels = np.array([[True, True, False, True], [True, False, False, True], [True, False, False, False]])
    model = Told().fit(features, labels)
    assert sorted(model.contested_.tolist()) == [1, 3]
    assert model.features.tolist() == [[1.0], [2.0], [3.0]]
    np.testing.assert_array_equal(model.labels, labels[np.ix_([1, 2, 0], model.contested_)])
    np.testing.assert_array_equal(model.certain_, [1.0, np.nan, 0.0, np.nan])
    # Three of three, one, none, two; half a user is added to those who have it and to those who have not.
    np.testing.assert_allclose(np.exp(model.constants_), [3.5 / 0.5, 1.5 / 2.5, 0.5 / 3.5, 2.5 / 1.5])


def test_where_all_is_certain_nothing_is_learnt():
    model = Told().fit(np.zeros((2, 1)), np.array([[True, False]] * 2))
    assert not hasattr(model, "labels")
    assert model.predict_proba(np.zeros((1, 1)), np.array([[False, True]])).tolist() == [[1.0, 0.0]]
    assert model.asked == []


def test_what_is_enabled_is_asked_about_without_itself():
    # Alert 0 makes alert 1 nine times as likely as alert 2; the user has 0 and 1.
    weights = np.log([[1.0, 9.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    labels = np.eye(3, dtype=bool)
    model = Told().fit(np.zeros((3, 1)), labels)
    model.weights = weights[np.ix_(model.contested_, model.contested_)]
    found = model.predict_proba(np.zeros((1, 1)), np.array([[True, True, False]]))
    # Without 0, there is a choice of 0 and 2, at odds of 1 each; without 1, of 1 and 2, at odds of 9 and 1. Of what is
    # not enabled, 2 is left alone, at odds of 1.
    np.testing.assert_allclose(found, [[0.5, 0.9, 0.5]], atol=1e-9)


def test_log_odds_of_what_is_certain_are_constants():
    model = Told().fit(np.zeros((2, 1)), np.array([[True, False, True], [True, True, False]]))
    found = model.log_odds(np.ones((1, 1)), np.array([0, 0]), np.zeros((2, 3), dtype=bool))
    np.testing.assert_allclose(np.exp(found[:, 0]), 2.5 / 0.5)


def test_many_users_are_asked_about_in_parts_and_get_the_same(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(50, 2)), rng.random((50, 4)) < 0.5
    model = Told().fit(features, labels)
    whole = model.predict_proba(features, labels)
    assert model.asked == [50 + labels.sum()]
    model.asked.clear()
    monkeypatch.setattr("alertrec.models.one_more._TILE_ROWS", 20)
    np.testing.assert_array_equal(model.predict_proba(features, labels), whole)
    assert sum(model.asked) == 50 + labels.sum()
    assert max(model.asked) <= 40  # twice what is the aim, since users have unequal numbers of alerts
