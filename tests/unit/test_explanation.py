"""Explanations: their numbers recompute, by slow oracles and by asking the model anew."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from alertrec.calibration import Calibration
from alertrec.errors import DataError, NotFittedError
from alertrec.explanation import (
    FEATURE_GROUPS,
    MIN_COHORT,
    Change,
    Cohort,
    Contribution,
    Evidence,
    Explanation,
    explain,
    feature_groups,
    sentences,
    similar_share,
)
from alertrec.feature_engineering import FEATURES
from alertrec.models import make_model
from alertrec.models.boosting import Boosting
from alertrec.models.contributions import MAX_EXACT_PLAYERS, Contributions, Grouping, shapley_values
from alertrec.models.linear import Linear
from alertrec.models.neural import Neural
from alertrec.models.one_more import OneMore
from tests.strategies import laws
from tests.unit.contract import World, random_world

WITH_LOG_ODDS = ("cooccurrence", "linear", "boosting", "neural", "ensemble")
WITHOUT = ("popularity", "knn")
GROUPS = {"first": [2, 0], "second": [1], "third": [3]}
COLUMNS = ("alert_a", "alert_b", "alert_c", "alert_d", "alert_e")


def quick(name: str) -> Any:
    """Return a model that is not fitted; the network trains briefly."""
    return make_model(name, **({"n_steps": 40} if name == "neural" else {}))


def gappy_world(n_users: int = 60, n_alerts: int = 5, seed: int = 0) -> World:
    """Return a world with a column of amounts, a column with gaps, and an alert that behaviour decides."""
    world = random_world(n_users=n_users, n_alerts=n_alerts, seed=seed)
    world.labels[:, 0] = world.features[:, 0] + 0.5 * world.labels[:, -1] > 0.3
    world.features[:, 3] = np.exp(2 * world.features[:, 3])
    world.features[::4, 1] = np.nan
    return world


@pytest.fixture(scope="module")
def world() -> World:
    return gappy_world()


@pytest.fixture(scope="module")
def fitted(world: World) -> Callable[[str], Any]:
    models = {name: quick(name).fit(*world) for name in WITH_LOG_ODDS + WITHOUT}
    return models.__getitem__


def one(world: World, user: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return world.features[user : user + 1], world.labels[user : user + 1]


def log_odds(model: OneMore[Any], features: NDArray[np.float64], enabled: NDArray[np.bool_], alert: int) -> float:
    """Return what the contributions have to sum to."""
    others = enabled.copy()
    others[0, alert] = False
    return float(model.log_odds(features, np.zeros(1, dtype=np.intp), others)[0, alert])


def by_definition(game: Callable[[frozenset[int]], float], n_players: int) -> list[float]:
    """Return Shapley's values as the mean over all orders of the players."""
    found = [0.0] * n_players
    for order in permutations(range(n_players)):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            found[player] += game(before | {player}) - game(before)
    return [value / math.factorial(n_players) for value in found]


def as_game(worth: Mapping[frozenset[int], float]) -> Callable[[NDArray[np.bool_]], NDArray[np.float64]]:
    return lambda there: np.array([worth[frozenset(np.flatnonzero(row).tolist())] for row in there])


def all_coalitions(n_players: int) -> list[frozenset[int]]:
    return [frozenset(some) for size in range(n_players + 1) for some in combinations(range(n_players), size)]


class TestShapleyValues:
    @laws
    @given(st.data(), st.integers(0, 4))
    def test_agree_with_the_mean_over_all_orders(self, data: st.DataObject, n_players: int):
        worth = {some: data.draw(st.floats(-9, 9)) for some in all_coalitions(n_players)}
        base, values = shapley_values(as_game(worth), n_players)
        assert base == worth[frozenset()]
        np.testing.assert_allclose(values, by_definition(worth.__getitem__, n_players), atol=1e-12)

    @pytest.mark.parametrize("n_players", [3, MAX_EXACT_PLAYERS, MAX_EXACT_PLAYERS + 1, 60])
    def test_sum_to_the_output_and_ask_once(self, n_players: int):
        weights = np.random.default_rng(0).normal(size=(n_players, n_players))
        asked = []

        def game(there: NDArray[np.bool_]) -> NDArray[np.float64]:
            asked.append(len(there))
            return np.tanh(((there @ weights) * there).sum(axis=1) / n_players) + 2

        base, values = shapley_values(game, n_players)
        assert base == 2
        assert base + values.sum() == pytest.approx(game(np.ones((1, n_players), dtype=bool))[0], rel=1e-12)
        assert asked[0] <= 5000
        assert len(asked) == 2  # the second is ours

    @pytest.mark.parametrize("n_players", [4, MAX_EXACT_PLAYERS + 4])
    def test_of_a_sum_are_its_terms(self, n_players: int):
        terms = np.arange(n_players) - 1.5
        base, values = shapley_values(lambda there: there @ terms + 0.25, n_players)
        assert base == 0.25
        np.testing.assert_allclose(values, terms, atol=1e-12)

    @pytest.mark.parametrize("n_players", [5, MAX_EXACT_PLAYERS + 4])
    def test_who_changes_nothing_gets_nothing_and_equals_get_the_same(self, n_players: int):
        # Player 0 counts for nothing; 1 and 2 pay only together, 4: two each. In an order and its reverse, each of
        # the two comes last once, so that sampled orders give what all do.
        _, values = shapley_values(lambda there: 4.0 * (there[:, 1] & there[:, 2]), n_players)
        assert values[0] == 0
        assert values[1:3] == pytest.approx([2, 2], abs=1e-12)

    def test_sampled_ones_are_near_the_exact_and_always_the_same(self, monkeypatch: pytest.MonkeyPatch):
        weights = np.random.default_rng(1).normal(size=(10, 10))

        def game(there: NDArray[np.bool_]) -> NDArray[np.float64]:
            return np.tanh(((there @ weights) * there).sum(axis=1))

        _, exact = shapley_values(game, 10)
        monkeypatch.setattr("alertrec.models.contributions.MAX_EXACT_PLAYERS", 9)
        _, sampled = shapley_values(game, 10)
        np.testing.assert_allclose(sampled, exact, atol=0.08)
        np.testing.assert_array_equal(shapley_values(game, 10)[1], sampled)


class TestContributions:
    @pytest.mark.parametrize("name", WITH_LOG_ODDS)
    def test_sum_to_the_log_odds(self, name: str, world: World, fitted: Callable[[str], Any]):
        model = fitted(name)
        for user in range(0, 60, 5):
            features, enabled = one(world, user)
            for alert in range(5):
                found = model.contributions(features, enabled, alert, GROUPS)
                assert found.total() == pytest.approx(log_odds(model, features, enabled, alert), rel=1e-9, abs=1e-12)
                assert list(found.groups) == list(GROUPS)
                assert list(found.alerts) == [other for other in np.flatnonzero(enabled[0]) if other != alert]

    @pytest.mark.parametrize("name", ["cooccurrence", "linear", "boosting", "neural"])
    @pytest.mark.parametrize("seed", range(4))
    def test_sum_in_any_world(self, name: str, seed: int):
        rng = np.random.default_rng(seed)
        world = random_world(int(rng.integers(2, 60)), int(rng.integers(1, 7)), int(rng.integers(1, 18)), seed)
        world.features[rng.random(world.features.shape) < 0.2] = np.nan
        model = quick(name).fit(*world)
        n_features, n_alerts = world.features.shape[1], world.labels.shape[1]
        groups = {str(place): [place] for place in range(n_features)}
        features, enabled = world.features[:1], rng.random((1, n_alerts)) < 0.7
        for alert in range(n_alerts):
            found = model.contributions(features, enabled, alert, groups)
            assert found.total() == pytest.approx(log_odds(model, features, enabled, alert), rel=1e-9, abs=1e-12)

    @pytest.mark.parametrize("name", ["boosting", "neural", "ensemble"])
    def test_of_a_model_that_was_saved_are_the_same(self, name: str, world: World, fitted: Callable[[str], Any]):
        model = fitted(name)
        parameters = {"n_steps": 40} if name == "neural" else {}
        again = type(model).from_arrays(parameters, model.to_arrays())
        features, enabled = one(world, 3)
        assert again.contributions(features, enabled, 0, GROUPS) == model.contributions(features, enabled, 0, GROUPS)

    @pytest.mark.parametrize("name", WITH_LOG_ODDS)
    def test_do_not_change_with_whether_the_alert_is_enabled(
        self, name: str, world: World, fitted: Callable[[str], Any]
    ):
        features, enabled = world.features[:1], np.array([[True, False, True, False, True]])
        without = np.array([[False, False, True, False, True]])
        model = fitted(name)
        assert model.contributions(features, enabled, 0, GROUPS) == model.contributions(features, without, 0, GROUPS)

    @pytest.mark.parametrize("name", WITH_LOG_ODDS)
    @pytest.mark.parametrize("value", [False, True])
    def test_of_an_alert_that_is_certain_are_the_base_alone(self, name: str, value: bool):
        world = random_world()
        world.labels[:, 2] = value
        model = quick(name).fit(*world)
        features, enabled = world.features[:1], np.ones((1, 5), dtype=bool)
        found = model.contributions(features, enabled, 2, GROUPS)
        assert found.base == log_odds(model, features, enabled, 2)
        assert not any(found.groups.values())
        assert found.alerts == {0: 0, 1: 0, 3: 0, 4: 0}
        # And of another alert, one that everybody or nobody has says nothing.
        assert model.contributions(features, enabled, 0, GROUPS).alerts[2] == 0

    @pytest.mark.parametrize("name", WITH_LOG_ODDS)
    def test_of_a_single_alert_are_those_of_behaviour(self, name: str):
        world = random_world(n_alerts=1)
        model = quick(name).fit(*world)
        features, enabled = one(world, 0)
        found = model.contributions(features, enabled, 0, GROUPS)
        assert found.alerts == {}
        assert found.total() == pytest.approx(log_odds(model, features, enabled, 0), rel=1e-9)

    @pytest.mark.parametrize("name", ["linear", "neural"])
    def test_of_an_average_user_without_alerts_are_nothing(self, name: str):
        world = random_world()
        model = quick(name).fit(*world)
        found = model.contributions(np.full((1, 4), np.nan), np.zeros((1, 5), dtype=bool), 0, GROUPS)
        assert not any(found.groups.values())  # unknown counts as the mean, where training knew of no gaps
        assert found.base == log_odds(model, np.full((1, 4), np.nan), np.zeros((1, 5), dtype=bool), 0)

    def test_of_cooccurrence_are_those_of_alerts(self, world: World, fitted: Callable[[str], Any]):
        found = fitted("cooccurrence").contributions(world.features[:1], np.ones((1, 5), dtype=bool), 0, GROUPS)
        assert not any(found.groups.values())
        assert all(found.alerts.values())

    def test_of_linear_are_weights_times_inputs_worked_by_hand(self):
        # Features 0 and 2 have mean 1 and deviation 1, and are symmetric; their logarithms are not.
        features = np.array([[0.0], [2.0], [0.0], [2.0]])
        model = Linear().fit(features, np.array([[True, False], [True, True], [False, True], [False, False]]))
        place = int(np.flatnonzero(model.contested_ == 0)[0])
        weights = model.weights_
        found = model.contributions(np.array([[3.0]]), np.array([[False, True]]), 0, {"only": [0]})
        assert not model.inputs_.is_log_[0]
        assert found.base == weights.intercepts[place]
        assert found.groups == {"only": pytest.approx(2 * weights.of_inputs[0, place])}
        assert found.alerts == {1: pytest.approx(weights.of_alerts[1 - place, place])}

    def test_a_gap_counts_to_the_group_of_its_feature(self, world: World, fitted: Callable[[str], Any]):
        model: Linear = fitted("linear")
        features = world.features[:1].copy()
        features[0, 1] = np.nan
        found = model.contributions(features, np.zeros((1, 5), dtype=bool), 0, GROUPS)
        place = int(np.flatnonzero(model.contested_ == 0)[0])
        assert found.groups["second"] == pytest.approx(model.weights_.of_inputs[4, place])
        assert found.groups["second"] != 0

    def test_of_trees_give_an_unused_feature_nothing(self):
        world = gappy_world(n_users=200)
        constant = np.column_stack([world.features, np.full(200, 7.0)])
        model = Boosting().fit(constant, world.labels)
        found = model.contributions(constant[:1], world.labels[:1], 0, {**GROUPS, "constant": [4]})
        assert found.groups["constant"] == 0
        assert found.groups["first"] != 0

    def test_of_trees_are_shapley_values_of_the_expected_output(self):
        # A tree of one split is a function of one input, so that a sum of such trees adds up feature by feature, and
        # what each adds is its part less the mean of its part over the training users.
        rng = np.random.default_rng(2)
        features = rng.normal(size=(300, 3))
        labels = np.column_stack([features[:, 0] > features[:, 1], rng.random(300) < 0.5])
        model = Boosting(num_leaves=2, n_rounds=12).fit(features, labels)
        place = int(np.flatnonzero(model.contested_ == 0)[0])
        trees = model.trees_[place]
        training = np.column_stack([features, labels[:, 1]])
        asked = np.array([1.2, -0.4, 0.3, 1.0])

        def expected(known: frozenset[int]) -> float:
            rows = training.copy()
            rows[:, sorted(known)] = asked[sorted(known)]
            return float(trees.predict(rows, raw_score=True).mean())

        values = by_definition(expected, 4)
        found = model.contributions(asked[None, :3], np.array([[False, True]]), 0, {"a": [0], "b": [1], "c": [2]})
        assert [*found.groups.values(), found.number_of_alerts] == pytest.approx(values, abs=1e-9)
        assert found.base == pytest.approx(model.intercepts_[place] + expected(frozenset()))
        assert found.groups["a"] > 0 > -found.groups["b"]

    def test_of_the_network_agree_with_the_mean_over_all_orders(self, world: World, fitted: Callable[[str], Any]):
        model: Neural = fitted("neural")
        features, enabled = world.features[4:5].copy(), np.array([[False, True, False, True, False]])
        assert np.isnan(features[0, 1])
        # What a missing group is: the mean, after the logarithm where that is what the network sees, and known.
        inputs = model.inputs_
        mean = np.where(inputs.is_log_, np.sign(inputs.mean_) * np.expm1(np.abs(inputs.mean_)), inputs.mean_)

        def worth(there: frozenset[int]) -> float:
            row, some = mean[None].copy(), np.zeros((1, 5), dtype=bool)
            for player in there:
                if player < 3:
                    columns = list(GROUPS.values())[player]
                    row[0, columns] = features[0, columns]
                else:
                    some[0, {3: 1, 4: 3}[player]] = True
            return log_odds(model, row, some, 0)

        found = model.contributions(features, enabled, 0, GROUPS)
        values = [*found.groups.values(), *found.alerts.values()]
        assert values == pytest.approx(by_definition(worth, 5), abs=1e-9)
        assert found.base == pytest.approx(worth(frozenset()))

    def test_of_the_ensemble_are_the_weighted_sums_of_its_members(self, world: World, fitted: Callable[[str], Any]):
        model = fitted("ensemble")
        features, enabled = one(world, 1)
        found = model.contributions(features, enabled, 2, GROUPS)
        place = int(np.flatnonzero(model.contested_ == 2)[0])
        parts = [
            member.contributions(features, enabled[:, model.contested_], place, GROUPS) for member in model.members_
        ]
        for name in GROUPS:
            assert found.groups[name] == pytest.approx(
                math.fsum(w * part.groups[name] for w, part in zip(model.weights_, parts, strict=True))
            )
        base = math.fsum(w * part.base for w, part in zip(model.weights_, parts, strict=True))
        assert found.base == pytest.approx(base + model.offsets_[place])

    @pytest.mark.parametrize("name", WITH_LOG_ODDS)
    def test_hang_on_neither_the_order_nor_the_names_of_groups(
        self, name: str, world: World, fitted: Callable[[str], Any]
    ):
        features, enabled = one(world, 2)
        found = fitted(name).contributions(features, enabled, 0, GROUPS)
        turned = fitted(name).contributions(features, enabled, 0, {"x": [3], "y": [0, 2], "z": [1]})
        assert turned.groups["y"] == pytest.approx(found.groups["first"], abs=1e-12)
        assert turned.groups["x"] == pytest.approx(found.groups["third"], abs=1e-12)

    @pytest.mark.parametrize(
        "groups", [{"a": [0, 1, 2]}, {"a": [0, 1], "b": [1, 2, 3]}, {"a": [0, 1, 2, 3, 4]}, {}], ids=str
    )
    def test_groups_that_miss_or_repeat_a_feature_are_refused(
        self, groups: dict[str, list[int]], world: World, fitted: Callable[[str], Any]
    ):
        with pytest.raises(DataError, match="columns 0 to 3 once"):
            fitted("linear").contributions(*one(world, 0), 0, groups)

    def test_a_group_without_features_adds_nothing(self, world: World, fitted: Callable[[str], Any]):
        for name in WITH_LOG_ODDS:
            assert fitted(name).contributions(*one(world, 0), 0, GROUPS | {"none": []}).groups["none"] == 0

    @pytest.mark.parametrize("alert", [-1, 5])
    def test_an_alert_that_is_not_there_is_refused(self, alert: int, world: World, fitted: Callable[[str], Any]):
        with pytest.raises(DataError, match=f"one of 5 alerts; got 1 and {alert}"):
            fitted("linear").contributions(*one(world, 0), alert, GROUPS)

    def test_two_users_at_once_or_a_model_not_fitted_are_refused(self, world: World, fitted: Callable[[str], Any]):
        with pytest.raises(DataError, match="got 2"):
            fitted("linear").contributions(world.features[:2], world.labels[:2], 0, GROUPS)
        with pytest.raises(NotFittedError):
            Linear().contributions(*one(world, 0), 0, GROUPS)

    def test_total_is_the_sum(self):
        assert Contributions(1.0, {"a": 0.5}, {3: -0.25}, 0.125).total() == 1.375

    def test_no_features_at_all_are_a_grouping(self):
        assert Grouping.of({}, 0).of_column.tolist() == []


class Fake:
    """A model without log-odds: the chance of each alert is the first feature, halved by each other alert."""

    name = "fake"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def predict_proba(
        self, features: NDArray[np.float64], enabled: NDArray[np.bool_], *, training_rows: Any = None
    ) -> NDArray[np.float64]:
        self.asked.append(training_rows)
        n_others = enabled.sum(axis=1, keepdims=True) - enabled
        return features[:, :1] * 0.5**n_others


def ask(model: Any, world: World, user: int = 0, alert: int = 0, **others: Any) -> Explanation:
    settings: dict[str, Any] = {
        "groups": GROUPS, "alert_columns": COLUMNS, "typical": np.nanmedian(world.features, axis=0)
    }  # fmt: skip
    return explain(model, *one(world, user), alert, **(settings | others))


class TestExplain:
    def test_changes_of_a_fake_model_are_worked_by_hand(self):
        # Enabled are the alert asked about, which does not count, and alert_b: 0.8 / 2. Without alert_b 0.8; with the
        # typical first group 0.2 / 2; the other groups change nothing.
        world = World(np.array([[0.8, 0, 0, 0]]), np.array([[True, True, False, False, False]]))
        found = ask(Fake(), world, typical=np.array([0.2, 0, 0, 0]))
        assert found.alert == "alert_a"
        assert found.probability == 0.4
        assert (found.log_odds, found.base, found.contributions) == (None, None, ())
        assert found.changes == (
            Change(Evidence.ALERT, "alert_b", 0.8),
            Change(Evidence.BEHAVIOUR, "first", 0.1),
            Change(Evidence.BEHAVIOUR, "second", 0.4),
            Change(Evidence.BEHAVIOUR, "third", 0.4),
        )

    def test_the_model_is_asked_once_and_told_which_training_row_the_user_is(self):
        world, model = random_world(n_users=1), Fake()
        world.features[:] = 0.5
        ask(model, world, training_row=7)
        assert len(model.asked) == 1
        assert set(model.asked[0].tolist()) == {7}

    @pytest.mark.parametrize("name", WITH_LOG_ODDS + WITHOUT)
    def test_every_number_recomputes(self, name: str, world: World, fitted: Callable[[str], Any]):
        model, calibration = fitted(name), Calibration(0.8, -0.3, ((1.0, 0.0), (0.0, 1.0)))
        typical = np.nanmedian(world.features, axis=0)
        for user, alert in ((0, 0), (1, 3), (8, 4)):
            found = ask(model, world, user, alert, calibration=calibration)
            features, enabled = one(world, user)
            assert found.probability == calibration.apply(model.predict_proba(features, enabled))[0, alert]
            assert len(found.changes) == 3 + enabled.sum() - enabled[0, alert]
            for change in found.changes:
                varied, without = features.copy(), enabled.copy()
                if change.evidence is Evidence.ALERT:
                    without[0, COLUMNS.index(change.name)] = False
                else:
                    varied[0, GROUPS[change.name]] = typical[GROUPS[change.name]]
                assert change.probability == calibration.apply(model.predict_proba(varied, without))[0, alert]
            reach = [abs(change.probability - found.probability) for change in found.changes]
            assert reach == sorted(reach, reverse=True)

    @pytest.mark.parametrize("name", WITH_LOG_ODDS)
    def test_contributions_come_by_size_and_sum_to_the_log_odds(
        self, name: str, world: World, fitted: Callable[[str], Any]
    ):
        found = ask(fitted(name), world, 1, 0)
        values = [each.value for each in found.contributions]
        assert found.base is not None
        assert found.log_odds == log_odds(fitted(name), *one(world, 1), 0)
        assert math.fsum([found.base, *values]) == pytest.approx(found.log_odds, rel=1e-9)
        assert [abs(value) for value in values] == sorted(map(abs, values), reverse=True)
        assert all(values)

    @pytest.mark.parametrize("name", WITHOUT)
    def test_models_without_log_odds_have_no_contributions(self, name: str, world: World, fitted: Callable[[str], Any]):
        found = ask(fitted(name), world)
        assert (found.log_odds, found.base, found.contributions) == (None, None, ())

    @pytest.mark.parametrize("value", [False, True])
    def test_an_alert_that_is_certain_has_a_base_and_changes_that_change_nothing(self, value: bool):
        world = random_world()
        world.labels[:, 2] = value
        found = ask(quick("linear").fit(*world), world, alert=2, calibration=Calibration(0.5, 1.0, ((1, 0), (0, 1))))
        assert found.probability == value
        assert found.log_odds == found.base
        assert found.contributions == ()
        assert {change.probability for change in found.changes} == {float(value)}

    @pytest.mark.parametrize("name", WITH_LOG_ODDS + WITHOUT)
    def test_a_single_alert_is_explained_by_behaviour(self, name: str):
        world = random_world(n_alerts=1)
        found = ask(quick(name).fit(*world), world, alert_columns=["only"])
        assert {change.evidence for change in found.changes} == {Evidence.BEHAVIOUR}

    @pytest.mark.parametrize("name", ["ensemble", "knn"])
    def test_json_brings_it_back(self, name: str, world: World, fitted: Callable[[str], Any]):
        found = ask(fitted(name), world, 1)
        assert Explanation.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found

    @pytest.mark.parametrize(
        "stored",
        [{}, {"changes": 3, "contributions": []}, {"contributions": [{"evidence": "mood"}], "changes": []}],
        ids=str,
    )
    def test_what_is_no_stored_explanation_is_refused(self, stored: dict[str, Any]):
        with pytest.raises(DataError, match="not a stored explanation"):
            Explanation.from_json(stored)

    @pytest.mark.parametrize(
        "wrong", [{"alert_columns": COLUMNS[:4]}, {"typical": np.zeros(3)}, {"alert": 5}, {"alert": -1}], ids=str
    )
    def test_what_does_not_go_together_is_refused(
        self, wrong: dict[str, Any], world: World, fitted: Callable[[str], Any]
    ):
        with pytest.raises(DataError, match="expected"):
            ask(fitted("linear"), world, **wrong)

    def test_what_is_given_stays_as_it_was(self, fitted: Callable[[str], Any]):
        world = gappy_world()
        for array in world:
            array.setflags(write=False)
        ask(fitted("ensemble"), world)


class TestFeatureGroups:
    def test_every_feature_is_in_exactly_one(self):
        assert sorted(name for group in FEATURE_GROUPS.values() for name in group) == sorted(FEATURES)

    def test_columns_are_found_in_any_order_and_unknown_ones_stand_alone(self):
        found = feature_groups(["shoe_size", "credit_limit", "amount_sum", "credit_balance"])
        assert found == {"shoe_size": [0], "credit limit and balance": [1, 3], "spending amounts": [2]}

    def test_our_own_features_make_the_groups(self):
        assert set(feature_groups(FEATURES)) == set(FEATURE_GROUPS)
        assert Grouping.of(feature_groups(FEATURES), len(FEATURES)).of_column.shape == (29,)


class TestSimilarShare:
    @pytest.mark.parametrize("n_customers", [0, 1, MIN_COHORT - 1])
    def test_of_few_customers_nothing_is_told(self, n_customers: int):
        assert similar_share(0, n_customers) is None
        assert similar_share(n_customers, n_customers) is None

    @pytest.mark.parametrize(
        ("n_with_alert", "sentence"),
        [
            (34, "34 of the 50 customers most like you have this alert on"),
            (1, "1 of the 50 customers most like you has this alert on"),
            (0, "None of the 50 customers most like you have this alert on"),
            (50, "All of the 50 customers most like you have this alert on"),
        ],
    )
    def test_is_told_in_plain_english(self, n_with_alert: int, sentence: str):
        found = similar_share(n_with_alert, 50)
        assert found is not None
        assert found.sentence() == sentence
        assert found.to_json() == {
            "n_with_alert": n_with_alert, "n_customers": 50, "share": n_with_alert / 50, "sentence": sentence
        }  # fmt: skip

    def test_twenty_are_enough(self):
        assert similar_share(5, MIN_COHORT) == Cohort(5, MIN_COHORT)

    @pytest.mark.parametrize(("n_with_alert", "n_customers"), [(-1, 30), (31, 30), (1, 0)])
    def test_counts_that_cannot_be_are_refused(self, n_with_alert: int, n_customers: int):
        with pytest.raises(DataError, match=f"{n_with_alert} of {n_customers}"):
            similar_share(n_with_alert, n_customers)

    def test_a_small_cohort_cannot_be_made_by_hand(self):
        with pytest.raises(DataError, match="at least 20"):
            Cohort(3, 19)


PLACES, CREDIT, WEEKLY = "places of purchase", "credit limit and balance", "alert_weekly"


def told(probability: float, contributions: dict[str, float], changes: dict[str, float]) -> list[str]:
    def kind(name: str) -> Evidence:
        return Evidence.ALERT if name.startswith("alert") else Evidence.BEHAVIOUR

    found = Explanation(
        "alert_travel", probability, 0.0, 0.0,
        tuple(Contribution(kind(name), name, value) for name, value in contributions.items()),
        tuple(Change(kind(name), name, value) for name, value in changes.items()),
    )  # fmt: skip
    return sentences(found, {WEEKLY: "Weekly spending"}, limit=2)


class TestSentences:
    def test_tell_the_reasons_and_what_would_change_the_answer(self):
        assert told(0.3, {PLACES: 0.84, WEEKLY: -0.31}, {PLACES: 0.12, WEEKLY: 0.35}) == [
            "Your places of purchase speak for it (+0.8).",
            "Having “Weekly spending” on speaks against it (-0.3).",
            "If your places of purchase were like most customers', its chance would be 12% instead of 30%.",
        ]

    def test_tell_what_another_alert_would_change(self):
        assert told(0.3, {}, {WEEKLY: 0.2}) == ["Without “Weekly spending” on, its chance would be 20% instead of 30%."]

    def test_an_alert_without_a_title_goes_by_its_column(self):
        assert told(0.3, {}, {"alert_new": 0.2})[0].startswith("Without “alert_new” on")

    def test_leave_out_what_the_answer_computed_anew_contradicts(self):
        # It speaks for this alert, but more so for others: without it, the chance would be higher.
        assert told(0.3, {PLACES: 0.8}, {PLACES: 0.301}) == []

    def test_leave_out_what_is_small(self):
        assert told(0.3, {PLACES: 0.09, CREDIT: 0.0}, {PLACES: 0.299, CREDIT: 0.3}) == []

    def test_tell_no_more_than_they_may(self):
        many = {f"alert_{number}": 0.5 for number in range(5)}
        assert len(told(0.3, many, dict.fromkeys(many, 0.2))) == 3

    def test_of_nothing_are_none(self):
        assert told(0.3, {}, {}) == []

    @pytest.mark.parametrize("name", WITH_LOG_ODDS + WITHOUT)
    def test_of_every_model_hold_only_numbers_of_the_explanation(
        self, name: str, world: World, fitted: Callable[[str], Any]
    ):
        for user in range(10):
            found = ask(fitted(name), world, user)
            numbers = {f"({each.value:+.1f})" for each in found.contributions}
            for sentence in sentences(found, {}):
                assert "instead of" in sentence or sentence.split()[-1].rstrip(".") in numbers
