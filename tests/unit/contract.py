"""What every algorithm must do, on small worlds whose answers are known. A test class of each model inherits this."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec.artifacts import read_artifact, write_artifact
from alertrec.errors import DataError, NotFittedError
from alertrec.models import make_model
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


def random_world(n_users: int = 40, n_features: int = 4, n_alerts: int = 5, seed: int = 0, share: float = 0.4) -> World:
    """Return users of whom no two are equally alike."""
    rng = np.random.default_rng(seed)
    return World(rng.normal(size=(n_users, n_features)), rng.random((n_users, n_alerts)) < share)


def with_feature(world: World, value: float) -> World:
    """Return the same users with one more feature, of one value for all."""
    return World(np.column_stack([world.features, np.full(len(world.features), value)]), world.labels)


class ModelContract:
    """Inherited by the tests of each model, which say how it is made and what it answers in the two tribes."""

    name: ClassVar[str]
    parameters: ClassVar[dict[str, Any]] = {}

    def make(self, random_state: int = 0) -> AlertModel:
        return make_model(self.name, random_state, **self.parameters)

    def fit(self, world: World) -> AlertModel:
        return self.make().fit(*world)

    def predict(self, model: AlertModel, world: World, *, own: bool = False) -> NDArray[np.float64]:
        rows = np.arange(len(world.features)) if own else None
        found = model.predict_proba(*world, training_rows=rows)
        assert found.shape == world.labels.shape
        assert found.dtype == np.float64
        assert ((found >= 0) & (found <= 1)).all()  # and hence no NaN
        return found

    def test_the_name_is_that_of_the_class(self):
        assert self.make().name == self.name

    def test_fit_returns_the_model(self):
        model = self.make()
        assert model.fit(*two_tribes()) is model

    def test_what_the_tribe_has_is_at_least_as_probable_as_what_the_other_has(self):
        world = two_tribes()
        found = self.predict(self.fit(world), world, own=True)
        others = np.roll(found, TRIBE, axis=1)
        assert (found[LACKING, LACKING] >= others[LACKING, LACKING]).all()

    def test_fitting_twice_equals_fitting_once(self):
        first, second = random_world(), two_tribes()
        again = self.fit(first).fit(*second)
        np.testing.assert_array_equal(self.predict(again, second), self.predict(self.fit(second), second))

    def test_the_same_random_state_gives_the_same_arrays(self):
        world = random_world()
        one, other = self.fit(world).to_arrays(), self.fit(world).to_arrays()
        assert list(one) == list(other)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])

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
        model = self.fit(world)
        assert (self.predict(model, world)[:, 2] == value).all()
        # Also to users who are otherwise.
        world.labels[::2, 2] = not value
        assert (self.predict(model, world)[:, 2] == value).all()

    @pytest.mark.parametrize("values", [[False], [True], [False, True]], ids=str)
    def test_all_alerts_may_be_certain(self, values: list[bool]):
        world = random_world()
        certain = np.resize(values, world.labels.shape[1])
        model = self.fit(World(world.features, np.tile(certain, (len(world.features), 1))))
        assert (self.predict(model, world) == certain).all()

    def test_what_value_a_feature_has_that_never_varies_decides_nothing(self):
        one, other = with_feature(random_world(), 7.0), with_feature(random_world(), -3.0)
        np.testing.assert_array_equal(self.predict(self.fit(one), one), self.predict(self.fit(other), other))

    def test_no_feature_may_vary(self):
        world = random_world()
        same = World(np.full_like(world.features, 2.5), world.labels)
        self.predict(self.fit(same), same, own=True)

    def test_there_may_be_no_feature(self):
        world = random_world(n_features=0)
        self.predict(self.fit(world), world, own=True)

    def test_a_feature_that_is_unknown_does_no_harm(self):
        world = random_world()
        world.features[::3, 1] = np.nan
        self.predict(self.fit(world), world, own=True)

    def test_a_feature_that_nobody_has_does_no_harm(self):
        world = random_world()
        world.features[:, 1] = np.nan
        self.predict(self.fit(world), world, own=True)

    def test_a_user_of_whom_nothing_is_known_does_no_harm(self):
        world = random_world()
        unknown = World(np.full_like(world.features, np.nan), np.zeros_like(world.labels))
        self.predict(self.fit(world), unknown)
        mixed = World(np.vstack([world.features, unknown.features]), np.vstack([world.labels, unknown.labels]))
        self.predict(self.fit(mixed), mixed)

    def test_nothing_may_be_known_of_anybody(self):
        world = random_world()
        unknown = World(np.full_like(world.features, np.nan), world.labels)
        self.predict(self.fit(unknown), unknown, own=True)

    @pytest.mark.parametrize("size", [1e12, 1e100])
    def test_a_huge_feature_does_no_harm(self, size: float):
        world = random_world()
        model = self.fit(world)
        world.features[3:5, 1] = size, -size
        self.predict(model, world, own=True)
        self.predict(self.fit(world), world, own=True)

    def test_one_user_is_enough(self):
        world = random_world(n_users=1)
        self.predict(self.fit(world), world)
        self.predict(self.fit(world), world, own=True)

    @pytest.mark.parametrize("n_users", [2, 3, 9])
    def test_a_few_users_are_enough(self, n_users: int):
        world = random_world(n_users=n_users)
        self.predict(self.fit(world), world, own=True)

    def test_a_single_user_may_be_the_only_one_who_has_anything(self):
        world = random_world(n_users=12)
        world.labels[:] = False
        world.labels[4, 1] = True
        self.predict(self.fit(world), world, own=True)

    @pytest.mark.parametrize("n_alerts", [1, 2])
    def test_one_alert_is_enough(self, n_alerts: int):
        world = random_world(n_alerts=n_alerts)
        self.predict(self.fit(world), world)

    def test_there_may_be_hundreds_of_alerts(self):
        world = random_world(n_users=30, n_alerts=300, share=0.01)
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

    def test_an_enabled_alert_is_judged_as_if_it_were_not(self):
        world = random_world()
        model = self.fit(world)
        found = self.predict(model, world)
        for alert in range(world.labels.shape[1]):
            without = world.labels.copy()
            without[:, alert] = False
            judged = self.predict(model, World(world.features, without))
            np.testing.assert_array_equal(found[:, alert], judged[:, alert])

    def test_what_is_given_stays_as_it_was(self):
        world = random_world()
        world.features[::5, 0] = np.nan
        for array in world:
            array.setflags(write=False)
        self.predict(self.fit(world), world, own=True)

    def test_other_types_of_numbers_are_as_good(self):
        features = np.random.default_rng(0).integers(0, 50, size=(40, 4))
        world = World(features.astype(float), random_world().labels)
        model, expected = self.fit(world), self.predict(self.fit(world), world)
        for dtype in (np.int64, np.float32):
            other = World(features.astype(dtype), world.labels.astype(np.int8))
            np.testing.assert_allclose(self.predict(self.fit(other), world), expected, atol=1e-6)
            np.testing.assert_array_equal(self.predict(model, other), expected)

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

    @pytest.mark.parametrize("n_users", [1, 40])
    def test_files_bring_the_model_back(self, tmp_path: Path, n_users: int):
        world = random_world(n_users)
        model = self.make(random_state=3).fit(*world)
        write_artifact(tmp_path / "model", {}, model.to_arrays())
        _, arrays = read_artifact(tmp_path / "model")
        again = type(model).from_arrays({**self.parameters, "random_state": 3}, arrays)
        np.testing.assert_array_equal(self.predict(again, world, own=True), self.predict(model, world, own=True))

    def test_a_parameter_that_there_is_not_is_refused_by_name(self):
        with pytest.raises(DataError, match=f"{self.name} takes no n_moons, n_suns; it takes .*random_state"):
            make_model(self.name, n_suns=1, n_moons=2, **self.parameters)


class TrainedContract(ModelContract):
    """Of a model that says which alert is the next; it puts users and alerts in an order of its own first."""

    def test_what_the_whole_tribe_has_is_the_most_probable_of_what_a_user_lacks(self):
        world = two_tribes()
        found = np.where(world.labels, -1, self.predict(self.fit(world), world))
        best, second = np.sort(found, axis=1)[:, :-3:-1].T
        assert found.argmax(axis=1).tolist() == LACKING.tolist()
        assert (best > 1.01 * second).all()

    def test_the_order_of_training_rows_does_not_matter_at_all(self):
        world = random_world()
        world.features[::4, 0] = np.nan
        world.features[10:20] = world.features[10]  # who are alike in features need not be in alerts
        order = np.random.default_rng(1).permutation(len(world.features))
        one, other = self.fit(world), self.fit(World(world.features[order], world.labels[order]))
        np.testing.assert_array_equal(self.predict(one, world), self.predict(other, world))

    def test_permuted_alerts_give_exactly_the_permuted_answers(self):
        world = random_world()
        order = np.random.default_rng(2).permutation(world.labels.shape[1])
        permuted = World(world.features, world.labels[:, order])
        np.testing.assert_array_equal(
            self.predict(self.fit(permuted), permuted), self.predict(self.fit(world), world)[:, order]
        )

    @pytest.mark.parametrize("value", [False, True])
    def test_what_is_certain_does_not_disturb_the_rest(self, value: bool):
        world = random_world()
        model = self.fit(world)
        expected = self.predict(model, world)
        degenerate = World(world.features, np.insert(world.labels, 2, value, axis=1))
        with_certain = self.fit(degenerate)
        np.testing.assert_array_equal(np.delete(self.predict(with_certain, degenerate), 2, axis=1), expected)
        # Nor does it tell anything of a user that they are the first, or last, without it.
        degenerate.labels[::2, 2] = not value
        np.testing.assert_array_equal(np.delete(self.predict(with_certain, degenerate), 2, axis=1), expected)

    def test_one_of_what_a_user_lacks_is_the_next(self):
        world = random_world()
        world.labels[:, 2] = True
        world.labels[:5] = [False, False, True, False, False]
        found = self.predict(self.fit(world), world)
        contested = ~world.labels
        several = contested.sum(axis=1) > 1
        assert several.sum() > 20
        np.testing.assert_allclose(np.where(contested, found, 0)[several].sum(axis=1), 1, atol=1e-8)

    def test_what_is_left_alone_is_judged_by_its_own_odds(self):
        world = random_world()
        model: Any = self.fit(world)
        all_but_one = np.tile(~np.eye(5, dtype=bool), (8, 1))
        found = self.predict(model, World(world.features, all_but_one))
        log_odds = model.log_odds(world.features, np.arange(40), all_but_one)
        # Also those that the user has: without them, two are left to choose from.
        np.testing.assert_allclose(found[~all_but_one], 1 / (1 + np.exp(-log_odds[~all_but_one])), atol=1e-9)
        assert (found[~all_but_one] < 1).all()

    def test_contributions_sum_to_the_log_odds(self):
        world = random_world()
        world.features[::3, 1] = np.nan
        world.labels[:, 2] = True
        model: Any = self.fit(world)
        groups = {"amounts": [0, 2], "rhythm": [1], "places": [3]}
        for user, alert in [(0, 0), (0, 2), (1, 3), (3, 4), (9, 1)]:
            one = slice(user, user + 1)
            without = world.labels[one].copy()
            without[0, alert] = False
            expected = model.log_odds(world.features[one], np.array([0]), without)[0, alert]
            found = model.contributions(world.features[one], world.labels[one], alert, groups)
            assert found.total() == pytest.approx(expected, abs=1e-9)
            assert list(found.groups) == list(groups)
            assert list(found.alerts) == np.flatnonzero(without[0]).tolist()

    @pytest.mark.parametrize("infinity", [np.inf, -np.inf])
    def test_infinities_are_refused(self, infinity: float):
        world = random_world()
        spoilt = World(world.features.copy(), world.labels)
        spoilt.features[3, 1] = infinity
        with pytest.raises(DataError, match="infinity"):
            self.fit(spoilt)
        with pytest.raises(DataError, match="infinity"):
            self.predict(self.fit(world), spoilt)

    def test_another_number_of_features_or_alerts_is_refused_with_the_numbers(self):
        world = random_world(n_users=6)
        model = self.fit(world)
        with pytest.raises(DataError, match=r"got 3 features and 5 alerts; the model was trained on 4 and 5"):
            model.predict_proba(world.features[:, :3], world.labels)
        with pytest.raises(DataError, match=r"got 4 features and 2 alerts; the model was trained on 4 and 5"):
            model.predict_proba(world.features, world.labels[:, :2])

    def test_users_of_two_numbers_are_refused_with_the_shapes(self):
        world = random_world(n_users=6)
        for features in (world.features[:5], world.features[0]):
            with pytest.raises(DataError, match=rf"got shapes \({features.shape[0]},.*\(6, 5\)"):
                self.make().fit(features, world.labels)

    def test_training_on_nobody_is_refused(self):
        world = random_world()
        with pytest.raises(DataError, match=f"{self.name} needs at least one user"):
            self.fit(World(world.features[:0], world.labels[:0]))

    def test_predicting_before_fitting_is_refused(self):
        with pytest.raises(NotFittedError, match=f"this {self.name} model has not been fitted"):
            self.make().predict_proba(*random_world())
