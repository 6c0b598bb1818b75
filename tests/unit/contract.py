"""What every algorithm must do, on small worlds whose answers are known. A test class of each model inherits this."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec.models.base import AlertModel


class World(NamedTuple):
    """Users' features, and the alerts that they have."""

    features: NDArray[np.float64]
    labels: NDArray[np.bool_]


TRIBE = 6
LACKING = np.arange(2 * TRIBE)


def two_tribes() -> World:
    """Return two tribes of six that spend unlike each other; user n lacks alert n, which their whole tribe has.

    The first tribe has alerts 0 to 5, the second 6 to 11, each user all of them but one.
    """
    wobble = np.linspace(-0.1, 0.1, TRIBE)
    rich = np.column_stack([10 + wobble, 20 - wobble, 30 + wobble**2])
    features = np.concatenate([rich, -rich])
    labels = np.kron(np.eye(2, dtype=bool), np.ones((TRIBE, TRIBE), dtype=bool))
    labels[LACKING, LACKING] = False
    return World(features, labels)


def random_world(n_users: int = 40, n_features: int = 4, n_alerts: int = 5, seed: int = 0) -> World:
    """Return users of whom no two are equally alike."""
    rng = np.random.default_rng(seed)
    return World(rng.normal(size=(n_users, n_features)), rng.random((n_users, n_alerts)) < 0.4)


class ModelContract:
    """Inherited by the tests of each model, which say how it is made and what it answers in the two tribes."""

    parameters: dict[str, Any]

    def make(self) -> AlertModel:
        raise NotImplementedError

    def expected_in_two_tribes(self) -> NDArray[np.float64]:
        """Return the probabilities of the users that were trained on, shape (12, 12)."""
        raise NotImplementedError

    def fit(self, world: World) -> AlertModel:
        return self.make().fit(*world)

    def predict(self, model: AlertModel, world: World, *, own: bool = False) -> NDArray[np.float64]:
        rows = np.arange(len(world.features)) if own else None
        found = model.predict_proba(*world, training_rows=rows)
        assert found.shape == world.labels.shape
        assert found.dtype == np.float64
        assert ((found >= 0) & (found <= 1)).all()  # and hence no NaN
        return found

    def test_fit_returns_the_model(self):
        model = self.make()
        assert model.fit(*two_tribes()) is model

    def test_the_answer_in_two_tribes_is_known(self):
        world = two_tribes()
        found = self.predict(self.fit(world), world, own=True)
        np.testing.assert_allclose(found, self.expected_in_two_tribes())

    def test_what_the_tribe_has_is_at_least_as_probable_as_what_the_other_has(self):
        world = two_tribes()
        found = self.predict(self.fit(world), world, own=True)
        others = np.roll(found, TRIBE, axis=1)
        assert (found[LACKING, LACKING] >= others[LACKING, LACKING]).all()

    def test_fitting_twice_equals_fitting_once(self):
        first, second = random_world(), two_tribes()
        again = self.fit(first).fit(*second)
        np.testing.assert_array_equal(self.predict(again, second), self.predict(self.fit(second), second))

    def test_the_order_of_training_rows_does_not_matter(self):
        world = random_world()
        order = np.random.default_rng(1).permutation(len(world.features))
        shuffled = World(world.features[order], world.labels[order])
        np.testing.assert_allclose(
            self.predict(self.fit(shuffled), shuffled, own=True), self.predict(self.fit(world), world, own=True)[order]
        )

    def test_permuted_alerts_give_permuted_answers(self):
        world = random_world()
        order = np.random.default_rng(1).permutation(world.labels.shape[1])
        permuted = World(world.features, world.labels[:, order])
        np.testing.assert_allclose(
            self.predict(self.fit(permuted), permuted), self.predict(self.fit(world), world)[:, order]
        )

    @pytest.mark.parametrize("value", [False, True])
    def test_what_no_one_or_everyone_has_is_certain(self, value: bool):
        world = random_world()
        world.labels[:, 2] = value
        assert (self.predict(self.fit(world), world)[:, 2] == value).all()

    def test_a_feature_that_never_varies_decides_nothing(self):
        world = random_world()
        with_constant = World(np.column_stack([world.features, np.full(len(world.features), 7.0)]), world.labels)
        np.testing.assert_allclose(
            self.predict(self.fit(with_constant), with_constant), self.predict(self.fit(world), world)
        )

    def test_a_feature_that_is_unknown_does_no_harm(self):
        world = random_world()
        world.features[::3, 1] = np.nan
        self.predict(self.fit(world), world, own=True)

    def test_a_feature_that_nobody_has_does_no_harm(self):
        world = random_world()
        world.features[:, 1] = np.nan
        self.predict(self.fit(world), world, own=True)

    def test_one_user_is_enough(self):
        world = random_world(n_users=1)
        self.predict(self.fit(world), world)
        self.predict(self.fit(world), world, own=True)

    def test_one_alert_is_enough(self):
        world = random_world(n_alerts=1)
        self.predict(self.fit(world), world)

    def test_nobody_may_be_asked_about(self):
        world = random_world()
        none = World(world.features[:0], world.labels[:0])
        self.predict(self.fit(world), none, own=True)

    def test_users_who_are_alike_get_the_same(self):
        world = random_world()
        twins = World(np.repeat(world.features, 2, axis=0), np.repeat(world.labels, 2, axis=0))
        found = self.predict(self.fit(twins), twins)
        np.testing.assert_array_equal(found[::2], found[1::2])

    def test_a_user_alone_gets_what_they_get_among_others(self):
        world = random_world()
        model = self.fit(world)
        together = self.predict(model, world, own=True)
        for row in range(len(world.features)):
            one = slice(row, row + 1)
            alone = model.predict_proba(world.features[one], world.labels[one], training_rows=np.array([row]))
            np.testing.assert_array_equal(alone, together[one])

    def test_what_is_given_stays_as_it_was(self):
        world = random_world()
        for array in world:
            array.setflags(write=False)
        self.predict(self.fit(world), world, own=True)

    def test_arrays_bring_the_model_back_although_they_are_read_only(self):
        world, model = random_world(), self.fit(random_world())
        arrays = model.to_arrays()
        assert all(array.dtype != object for array in arrays.values())
        for array in arrays.values():
            array.setflags(write=False)
        again = type(model).from_arrays(self.parameters, arrays)
        np.testing.assert_array_equal(self.predict(again, world, own=True), self.predict(model, world, own=True))
        for name, array in again.to_arrays().items():
            np.testing.assert_array_equal(array, arrays[name])
