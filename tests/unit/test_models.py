from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from alertrec.errors import DataError
from alertrec.models import MODELS, make_model
from alertrec.models.boosting import Boosting
from alertrec.models.ensemble import Ensemble
from alertrec.models.knn import KNeighbours
from alertrec.models.linear import Linear
from alertrec.models.neural import Neural
from alertrec.models.popularity import Popularity
from tests.unit.contract import LACKING, TRIBE, ModelContract, TrainedContract, random_world, two_tribes, with_feature


class TestPopularity(ModelContract):
    name = "popularity"

    def test_the_answer_in_two_tribes_is_known(self):
        # Five of the twelve have each alert.
        world = two_tribes()
        found = self.predict(self.fit(world), world, own=True)
        np.testing.assert_allclose(found, np.full((2 * TRIBE, 2 * TRIBE), 5 / 12))


class TestKNeighbours(ModelContract):
    name = "knn"
    parameters: ClassVar[dict[str, Any]] = {"n_neighbors": 5}

    def test_the_answer_in_two_tribes_is_known(self):
        # The five neighbours are the others of the tribe. All of them have the alert that the user lacks; of the
        # tribe's other alerts, one of the five lacks each. Of all twelve users, five have each alert.
        shares = np.kron(np.eye(2), np.full((TRIBE, TRIBE), 4 / 5))
        shares[LACKING, LACKING] = 1
        world = two_tribes()
        model: Any = self.fit(world)
        strength = model.smoothing_
        expected = (5 * shares + strength * 5 / 12) / (5 + strength)
        np.testing.assert_allclose(self.predict(model, world, own=True), expected)


class TestKNeighboursOfASample(TestKNeighbours):
    """The same, of a model that remembers at most as many users as there are in the world."""

    parameters: ClassVar[dict[str, Any]] = {"n_neighbors": 5, "max_reference": 40}


class TestKNeighboursSmoothedAsTold(TestKNeighbours):
    parameters: ClassVar[dict[str, Any]] = {"n_neighbors": 5, "smoothing": 3.0}

    def test_the_strength_is_the_one_told(self):
        model: Any = self.fit(two_tribes())
        assert model.smoothing_ == 3.0


class TestCooccurrence(TrainedContract):
    name = "cooccurrence"


class TestLinear(TrainedContract):
    name = "linear"


class TestBoosting(TrainedContract):
    name = "boosting"


class TestNeural(TrainedContract):
    name = "neural"
    parameters: ClassVar[dict[str, Any]] = {"n_steps": 100}


class TestEnsemble(TrainedContract):
    name = "ensemble"
    parameters: ClassVar[dict[str, Any]] = {"n_folds": 2}


def test_every_model_has_passed_the_contract():
    tested = [tests for tests in globals().values() if isinstance(tests, type) and issubclass(tests, ModelContract)]
    assert {tests.name for tests in tested if hasattr(tests, "name")} == set(MODELS)


def test_a_model_that_there_is_not_is_refused_by_name():
    with pytest.raises(DataError, match=r"no model 'astrology'; there are popularity, knn, .*ensemble"):
        make_model("astrology")


@pytest.mark.parametrize("name", ["popularity", "knn", "cooccurrence", "linear", "boosting"])
def test_a_feature_that_never_varies_decides_nothing(name: str):
    world = random_world()
    one, other = make_model(name).fit(*with_feature(world, 7.0)), make_model(name).fit(*world)
    np.testing.assert_allclose(
        one.predict_proba(*with_feature(world, 7.0)), other.predict_proba(*world), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("name", MODELS)
def test_neither_popularity_nor_cooccurrence_looks_at_behaviour_and_all_others_do(name: str):
    # Who has an alert is told by the first feature, and by nothing else.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 2))
    labels = np.column_stack([features[:, 0] > 0, features[:, 0] < 0, rng.random((200, 2)) < 0.5])
    nothing = np.zeros((2, 4), dtype=bool)
    rich, poor = make_model(name).fit(features, labels).predict_proba(np.array([[2.0, 0.0], [-2.0, 0.0]]), nothing)
    if name in {"popularity", "cooccurrence"}:
        np.testing.assert_array_equal(rich, poor)
    else:
        assert rich[0] > 1.3 * rich[1]
        assert poor[1] > 1.3 * poor[0]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in {"popularity", "knn"}])
def test_what_the_others_are_counts_in_each_trained_model(name: str):
    # The second alert goes with the first, the fourth with the third; behaviour tells nothing.
    rng = np.random.default_rng(0)
    first, third = rng.random((2, 300)) < 0.4
    labels = np.column_stack([first, first, third, third]) ^ (rng.random((300, 4)) < 0.05)
    model = make_model(name).fit(rng.normal(size=(300, 2)), labels)
    has = np.array([[True, False, False, False], [False, False, True, False]])
    found = model.predict_proba(np.zeros((2, 2)), has)
    assert found[0, 1] > 2 * max(found[0, 2], found[0, 3])
    assert found[1, 3] > 2 * max(found[1, 0], found[1, 1])


def test_boosting_knows_what_no_line_tells():
    # Whoever is far from the mean, on either side, has the first alert, and whoever is near it the second.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 1))
    far = np.abs(features[:, 0]) > 0.7
    labels = np.column_stack([far, ~far, rng.random((600, 1)) < 0.5]) ^ (rng.random((600, 3)) < 0.05)
    asked, nothing = np.array([[-2.0], [0.0], [2.0]]), np.zeros((3, 3), dtype=bool)
    boosting = Boosting().fit(features, labels).predict_proba(asked, nothing)
    linear = Linear().fit(features, labels).predict_proba(asked, nothing)
    assert boosting[:, :2].argmax(axis=1).tolist() == [0, 1, 0]
    assert linear[:, :2].argmax(axis=1).tolist() != [0, 1, 0]


def test_boosting_lets_behaviour_count_for_more_where_alerts_are_few():
    # Only of those who have nothing else does the feature tell who has the first alert.
    rng = np.random.default_rng(0)
    features, others = rng.normal(size=(2000, 1)), rng.random((2000, 3)) < 0.3
    wants = np.where(others.any(axis=1), rng.random(2000) < 0.5, features[:, 0] > 0)
    model = Boosting().fit(features, np.column_stack([wants, others]))
    nothing, one = np.zeros((2, 4), dtype=bool), np.array([[False, True, False, False]] * 2)
    rich_and_poor = np.array([[1.0], [-1.0]])
    gap_of_nothing = np.subtract(*model.log_odds(rich_and_poor, np.arange(2), nothing)[:, 0])
    gap_of_one = np.subtract(*model.log_odds(rich_and_poor, np.arange(2), one)[:, 0])
    assert gap_of_nothing > gap_of_one + 1


@pytest.mark.parametrize("name", ["neural", "ensemble"])
def test_another_random_state_gives_another_model(name: str):
    world = random_world()
    one, other = (make_model(name, state).fit(*world).predict_proba(*world) for state in (0, 1))
    assert (one != other).any()


def test_the_level_of_neural_log_odds_is_that_of_users_with_as_many_alerts():
    # Of ten users, four have no alert, three have one, two have two and one has all three. The odds of any more,
    # given none, are 1 * 3 to 4, given one 2 * 2 to 3, given two 3 * 1 to 2; half a user is added to each number.
    labels = np.array([[0, 0, 0]] * 4 + [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    features = np.arange(10.0)[:, None]
    model = Neural(n_steps=20).fit(features, labels)
    enabled = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=bool)
    odds = np.exp(model.log_odds(features, np.array([0, 4, 9]), enabled))
    expected = [3.5 / 4.5, 2 * 2.5 / 3.5, 3 * 1.5 / 2.5]
    np.testing.assert_allclose(np.where(enabled, 0, odds).sum(axis=1), expected, rtol=1e-6)


def test_an_ensemble_is_the_weighted_sum_of_its_members():
    world = random_world(n_users=60, n_alerts=4)
    labels = world.labels
    model = Ensemble(n_folds=2).fit(world.features, labels)
    users = np.arange(60)
    expected = np.zeros(labels.shape)
    expected[:, model.contested_] = model.offsets_
    names = [member.name for member in model.members_]
    assert names == ["cooccurrence", "linear", "boosting", "neural"]
    for weight, name in zip(model.weights_, names, strict=True):
        assert weight >= 0
        # Each member as it is when it is fitted alone.
        expected += weight * MODELS[name](random_state=0).fit(world.features, labels).log_odds(
            world.features, users, labels
        )
    np.testing.assert_allclose(model.log_odds(world.features, users, labels), expected, atol=1e-8)


def test_where_users_are_too_few_for_folds_all_members_weigh_the_same():
    model = Ensemble(n_folds=4).fit(*random_world(n_users=7))
    assert model.weights_.tolist() == [0.25] * 4
    assert (model.offsets_ == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_what_a_member_knows_by_heart_gets_it_no_weight(seed: int):
    # Nothing depends on anything here. Trees learn it all the same, and foretell by it what they were fitted on.
    model = Ensemble(n_folds=2).fit(*random_world(n_users=100, seed=seed))
    assert (model.weights_ < 0.6).all()


def test_popularity_counts():
    labels = np.array([[True, False], [True, False], [False, False], [False, True]])
    model = Popularity().fit(np.zeros((4, 1)), labels)
    assert model.predict_proba(np.zeros((2, 1)), labels[:2]).tolist() == [[0.5, 0.25]] * 2


def test_knn_smooths_towards_the_share_of_all():
    # Of four users, one has the first alert and two have the second; the nearest two of the one asked about are the
    # first two users, of whom one has the first and both have the second.
    features = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.5], [-1.0, -0.5]])
    labels = np.array([[True, True], [False, True], [False, False], [False, False]])
    model = KNeighbours(n_neighbors=2, smoothing=6.0).fit(features, labels)
    asked = np.array([[1.0, 0.0]])
    neighbours, _ = model.kneighbors(asked, 2)
    assert model.shares(neighbours).tolist() == [[0.5, 1.0]]
    # Two of the neighbours and six of all: 2 * 0.5 + 6 * 0.25 of eight, and 2 * 1 + 6 * 0.5.
    assert model.predict_proba(asked, labels[:1]).tolist() == [[2.5 / 8, 5 / 8]]


def test_knn_smooths_much_where_neighbours_tell_nothing_and_little_where_they_tell_all():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 2))
    noise = KNeighbours().fit(features, rng.random((400, 3)) < 0.3)
    told = KNeighbours().fit(features, np.column_stack([features > 0, features < 0]))
    assert noise.smoothing_ >= 80
    assert told.smoothing_ <= 1


def test_a_big_spender_and_a_small_one_with_the_same_habits_are_neighbours():
    # Mean (0, 0): the third user goes in the direction of the first, five times as far.
    features = np.array([[1.0, 1.0], [1.0, -1.0], [5.0, 5.0], [-7.0, -5.0]])
    model = KNeighbours(n_neighbors=1).fit(features, np.eye(4, dtype=bool))
    neighbours, similarities = model.kneighbors(features[:1], 1, training_rows=np.array([0]))
    assert neighbours.tolist() == [[2]]
    assert similarities[0, 0] == pytest.approx(1, abs=0.02)


def test_of_equally_near_users_the_earlier_row_comes_first():
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-2.0, 0.0]])
    model = KNeighbours().fit(features, np.eye(5, dtype=bool))
    neighbours, _ = model.kneighbors(features[:1], 2)
    assert neighbours.tolist() == [[0, 2]]


def test_where_there_are_fewer_users_than_neighbours_the_rest_is_empty():
    world = two_tribes()
    model = KNeighbours().fit(world.features[:3], world.labels[:3])
    neighbours, similarities = model.kneighbors(world.features[:1], 5, training_rows=np.array([0]))
    assert sorted(neighbours[0, :2].tolist()) == [1, 2]
    assert neighbours[0, 2:].tolist() == [-1, -1, -1]
    assert np.isnan(similarities[0, 2:]).all()
    # Of two neighbours, both have alert 0, and one each 1 and 2.
    assert model.shares(neighbours)[0, :3].tolist() == [1, 0.5, 0.5]


@pytest.mark.parametrize("smoothing", [None, 0.0, 2.0])
def test_who_has_no_neighbour_at_all_gets_what_all_have(smoothing: float | None):
    features, labels = np.array([[1.0, 2.0]]), np.array([[True, False]])
    model = KNeighbours(smoothing=smoothing).fit(features, labels)
    neighbours, _ = model.kneighbors(features, 5, training_rows=np.array([0]))
    assert model.shares(neighbours).tolist() == [[0.0, 0.0]]
    assert model.predict_proba(features, labels, training_rows=np.array([0])).tolist() == [[1.0, 0.0]]


def test_a_sample_is_spread_evenly_over_the_training_rows():
    world = random_world(n_users=11)
    model = KNeighbours(max_reference=3).fit(*world)
    assert model.reference_rows_.tolist() == [0, 5, 10]
    np.testing.assert_array_equal(model.labels_, world.labels[[0, 5, 10]])


def test_means_and_shares_are_those_of_all_users_and_not_of_the_sample():
    features = np.arange(10.0)[:, None]
    model = KNeighbours(max_reference=2).fit(features, features < 3)
    assert model.shares_.tolist() == [0.3]
    assert model.mean_.tolist() == [4.5]
    assert model.scale_[0] == pytest.approx(np.sqrt(8.25))  # (10² − 1) / 12


@pytest.mark.parametrize("parameters", [{"n_neighbors": 0}, {"max_reference": 0}, {"metric": "euclidean"}], ids=str)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]):
    with pytest.raises(DataError, match=str(next(iter(parameters.values())))):
        KNeighbours(**parameters)


@pytest.mark.parametrize("infinity", [np.inf, -np.inf])
def test_infinities_are_refused(infinity: float):
    world = random_world()
    spoilt = world.features.copy()
    spoilt[3, 1] = infinity
    with pytest.raises(DataError, match="infinity"):
        KNeighbours().fit(spoilt, world.labels)
    with pytest.raises(DataError, match="infinity"):
        KNeighbours().fit(*world).kneighbors(spoilt, 5)


def test_another_number_of_features_is_refused_with_both_numbers():
    world = random_world(n_features=4)
    with pytest.raises(DataError, match=r"got 3 features.*on 4"):
        KNeighbours().fit(*world).kneighbors(world.features[:, :3], 5)


def test_training_on_nobody_is_refused():
    world = random_world()
    with pytest.raises(DataError, match="at least one user"):
        KNeighbours().fit(world.features[:0], world.labels[:0])


def test_a_feature_far_outside_of_the_training_is_no_error():
    world = random_world()
    model = KNeighbours().fit(*world)
    far = np.full((1, 4), 1e200)
    neighbours, similarities = model.kneighbors(far, 5)
    expected, _ = model.kneighbors(np.full((1, 4), 1e9), 5)
    assert neighbours.tolist() == expected.tolist()
    assert np.isfinite(similarities).all()


def test_a_tile_of_one_user_gives_what_a_large_one_gives(monkeypatch: pytest.MonkeyPatch):
    world = random_world()
    model = KNeighbours().fit(*world)
    own = np.arange(len(world.features))
    large = model.kneighbors(world.features, 7, training_rows=own)
    monkeypatch.setattr("alertrec.models.knn._TILE_ELEMENTS", 1)
    for one, many in zip(model.kneighbors(world.features, 7, training_rows=own), large, strict=True):
        np.testing.assert_array_equal(one, many)
