from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.models.base import AlertModel
from alertrec.models.knn import KNeighbours
from alertrec.models.popularity import Popularity
from tests.unit.contract import LACKING, TRIBE, ModelContract, random_world, two_tribes


class TestPopularity(ModelContract):
    parameters: dict[str, Any] = {}  # noqa: RUF012  # never changed

    def make(self) -> AlertModel:
        return Popularity()

    def expected_in_two_tribes(self) -> NDArray[np.float64]:
        return np.full((2 * TRIBE, 2 * TRIBE), 5 / 12)  # five of the twelve have each alert


class TestKNeighbours(ModelContract):
    parameters: dict[str, Any] = {"n_neighbors": 5}  # noqa: RUF012  # never changed

    def make(self) -> AlertModel:
        return KNeighbours(**self.parameters)

    def expected_in_two_tribes(self) -> NDArray[np.float64]:
        # The five neighbours are the others of the tribe. All of them have the alert that the user lacks; of the
        # tribe's other alerts, one of the five lacks each.
        expected = np.kron(np.eye(2), np.full((TRIBE, TRIBE), 4 / 5))
        expected[LACKING, LACKING] = 1
        return expected


class TestKNeighboursOfASample(TestKNeighbours):
    """The same, of a model that remembers at most as many users as there are in the world."""

    parameters: dict[str, Any] = {"n_neighbors": 5, "max_reference": 40}  # noqa: RUF012  # never changed


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


def test_who_has_no_neighbour_at_all_has_shares_of_nought():
    world = random_world(n_users=1)
    model = KNeighbours().fit(world.features, np.ones_like(world.labels))
    assert (model.predict_proba(*world, training_rows=np.array([0])) == 0).all()


def test_a_sample_is_spread_evenly_over_the_training_rows():
    world = random_world(n_users=11)
    model = KNeighbours(max_reference=3).fit(*world)
    assert model.reference_rows_.tolist() == [0, 5, 10]
    np.testing.assert_array_equal(model.labels_, world.labels[[0, 5, 10]])


def test_means_are_those_of_all_users_and_not_of_the_sample():
    features = np.arange(10.0)[:, None]
    model = KNeighbours(max_reference=2).fit(features, np.ones((10, 1), dtype=bool))
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
