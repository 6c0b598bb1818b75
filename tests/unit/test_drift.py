from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec.drift import DRIFTED_FROM, STABLE_BELOW, drift_bound, drifted, population_stability, profile
from alertrec.errors import DataError


def column(*values: float) -> NDArray[np.float64]:
    return np.array(values, dtype=float)[:, None]


def stability(then: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    return population_stability(profile(then, ["it"]), now, ["it"])["it"]


def test_the_index_is_that_worked_by_hand():
    then = column(*[0] * 50, *[1] * 50)
    now = column(*[0] * 80, *[1] * 20)
    # (0.8 - 0.5) · ln(0.8 / 0.5) + (0.2 - 0.5) · ln(0.2 / 0.5)
    assert stability(then, now) == pytest.approx(0.3 * math.log(1.6) - 0.3 * math.log(0.4))


def test_users_who_are_spread_evenly_are_a_tenth_in_each_bin():
    found = profile(np.arange(100.0)[:, None], ["it"])["it"]
    assert found["edges"] == [9, 19, 29, 39, 49, 59, 69, 79, 89]
    assert found["shares"] == pytest.approx([0.1] * 10 + [0])
    assert found["n"] == 100


def test_the_same_population_is_stable_and_another_has_drifted():
    rng = np.random.default_rng(0)
    then = rng.lognormal(3, 1, (5000, 1))
    assert stability(then, rng.lognormal(3, 1, (5000, 1))) < STABLE_BELOW / 10
    assert stability(then, rng.lognormal(4, 1, (5000, 1))) > 2 * DRIFTED_FROM


@pytest.mark.parametrize("now", [2.9, 3.1, -1e9, math.nan, math.inf, -math.inf])
def test_a_constant_that_moves_to_either_side_has_drifted(now: float):
    then = column(*[3] * 100)
    assert stability(then, then) == 0
    assert stability(then, column(*[now] * 100)) > 1


@pytest.mark.parametrize("now", [-1.0, 0.5])
def test_many_zeros_that_move_to_either_side_have_drifted(now: float):
    then = column(*[0] * 60, *range(1, 41))
    moved = column(*[now] * 60, *range(1, 41))
    assert stability(then, moved) > 1


def test_missing_values_have_a_share_of_their_own():
    then = column(*[math.nan] * 20, *range(80))
    found = profile(then, ["it"])["it"]
    assert found["shares"][-1] == 0.2
    assert sum(found["shares"]) == pytest.approx(1)
    # Half of the users without a value, the others spread as before: 0.3 · ln(0.5 / 0.2) and ten times that they
    # share the rest.
    now = column(*[math.nan] * 80, *range(80))
    assert stability(then, now) == pytest.approx(0.3 * math.log(0.5 / 0.2) - 0.3 * math.log(0.5 / 0.8))


def test_a_feature_that_nobody_has_is_profiled():
    nothing = column(*[math.nan] * 10)
    assert profile(nothing, ["it"]) == {"it": {"edges": [], "shares": [0, 1], "n": 10}}
    assert stability(nothing, nothing) == 0
    assert stability(nothing, column(*range(10))) > 1


def test_an_empty_bin_counts_as_half_a_user():
    then, now = column(*[0] * 100), column(*[1] * 50)
    # In the bin of zeros 1 and then 0.5/50; above it 0.5/100 and then 1.
    expected = (0.01 - 1) * math.log(0.01 / 1) + (1 - 0.005) * math.log(1 / 0.005)
    assert stability(then, now) == pytest.approx(expected)


def test_profiles_are_json_and_come_back_as_they_went():
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.lognormal(size=50), np.zeros(50), np.full(50, math.nan), np.full(50, math.inf)])
    names = ["spend", "constant", "missing", "infinite"]
    found = profile(features, names)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert population_stability(again, features, names) == dict.fromkeys(names, 0)


@pytest.mark.parametrize(("n_reference", "n"), [(40, 40), (40, 1000), (500, 100), (5000, 5000)])
def test_chance_is_not_called_drift(n_reference: int, n: int):
    rng = np.random.default_rng(n_reference + n)
    names = [f"f{i}" for i in range(200)]
    profiles = profile(rng.standard_normal((n_reference, 200)), names)
    found = population_stability(profiles, rng.standard_normal((n, 200)), names)
    # Nine degrees of freedom without missing values. In small samples many bins are nearly empty, and the index is
    # somewhat larger than that.
    chance = 9 * (1 / n_reference + 1 / n)
    assert np.mean(list(found.values())) == pytest.approx(chance, rel=0.25)
    assert len(drifted(found, n_reference, n)) <= 2


def test_the_bound_is_that_worked_by_hand():
    # Eleven bins: 10 + 2.33 · √20 = 20.42, times 1/100 + 1/50 = 0.03.
    assert drift_bound(100, 50) == pytest.approx(0.25 + 0.6126, abs=1e-4)
    assert drift_bound(10**9, 10**9) == pytest.approx(DRIFTED_FROM)


def test_what_drifted_furthest_comes_first():
    assert drifted({"a": 0.2, "b": 0.4, "c": 0.3, "d": 9.0}, 10_000, 10_000) == ["d", "b", "c"]
    assert drifted({"a": 0.2, "b": 0.4, "c": 0.3, "d": 9.0}, 100, 100) == ["d"]


def test_drift_without_users_is_refused():
    profiles = profile(column(1, 2), ["it"])
    for attempt in (
        lambda: profile(np.zeros((0, 1)), ["it"]),
        lambda: population_stability(profiles, np.zeros((0, 1)), ["it"]),
        lambda: drift_bound(0, 5),
    ):
        with pytest.raises(DataError, match="user"):
            attempt()


def test_a_feature_without_a_profile_is_refused_by_name():
    with pytest.raises(DataError, match="no profile of spend; the model was trained on it"):
        population_stability(profile(column(1), ["it"]), column(1), ["spend"])


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="2 names"):
        profile(column(1), ["it", "that"])


def test_a_profile_that_does_not_fit_itself_is_refused():
    with pytest.raises(DataError, match="needs 3 shares"):
        population_stability({"it": {"edges": [0.0], "shares": [1.0], "n": 5}}, column(1), ["it"])
