from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec.calibration import MIN_SLOPE, Calibration, confidence_level, share_interval
from alertrec.errors import DataError

Cells = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.intp]]


def cells(*, slope: float = 1.0, intercept: float = 0.0, n: int = 20_000, seed: int = 0) -> Cells:
    """Return what was said, what came true, and whose cell it is; logit(true) = slope · logit(said) + intercept."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, n)
    true = 1 / (1 + np.exp(-(slope * logit + intercept)))
    return 1 / (1 + np.exp(-logit)), rng.random(n) < true, np.arange(n) // 10


def rate_of_said(said: NDArray[np.float64], true: NDArray[np.bool_], near: float) -> float:
    return float(true[np.abs(said - near) < 0.05].mean())


def test_what_keeps_its_word_is_left_alone():
    found = Calibration.fit(*cells())
    assert found.slope == pytest.approx(1, abs=0.05)
    assert found.intercept == pytest.approx(0, abs=0.05)


def test_of_those_told_70_percent_70_percent_enable():
    said, true, users = cells(slope=0.5, intercept=-0.7, n=200_000)
    assert rate_of_said(said, true, 0.7) < 0.5
    calibrated = Calibration.fit(said, true, users).apply(said)
    for near in (0.1, 0.3, 0.5, 0.7):
        assert rate_of_said(calibrated, true, near) == pytest.approx(near, abs=0.03)


def test_overconfidence_is_undone_on_users_who_were_not_fitted_on():
    from sklearn.metrics import log_loss

    fitted = Calibration.fit(*cells(slope=0.4, intercept=0.3))
    assert fitted.slope == pytest.approx(0.4, abs=0.03)
    assert fitted.intercept == pytest.approx(0.3, abs=0.05)
    said, true, _ = cells(slope=0.4, intercept=0.3, seed=1)
    best = 1 / (1 + np.exp(-(0.4 * np.log(said / (1 - said)) + 0.3)))
    assert log_loss(true, fitted.apply(said)) == pytest.approx(log_loss(true, best), abs=1e-3)
    assert log_loss(true, fitted.apply(said)) < log_loss(true, said) - 0.1


def test_the_fit_is_that_of_scikit_learn_but_for_the_ridge():
    from sklearn.linear_model import LogisticRegression

    said, true, users = cells(slope=0.6, intercept=-1)
    logit = np.log(said / (1 - said))[:, None]
    expected = LogisticRegression(C=np.inf, tol=1e-8).fit(logit, true)
    found = Calibration.fit(said, true, users)
    assert found.slope == pytest.approx(expected.coef_[0, 0], abs=1e-3)
    assert found.intercept == pytest.approx(expected.intercept_[0], abs=1e-3)


def test_of_few_cells_little_is_learnt():
    # Two cells, each said 0.5, so that the logit is 0 and the slope has nothing to go on. Minus the gradient of the
    # intercept b is 2 · (1/2 - σ(b)) - b, which is 0 at b = 0.
    found = Calibration.fit([0.5, 0.5], [True, False], [0, 1])
    assert (found.slope, found.intercept) == (pytest.approx(1), pytest.approx(0))
    # Of the slope the ridge alone tells. Of the intercept: curvature 2 · ¼ + 1, and 2 users' scores of ± ½ squared,
    # times 2 / (2 - 1), + 1; so the variance is 2 / 1.5².
    np.testing.assert_allclose(found.covariance, [[1, 0], [0, 2 / 1.5**2]], atol=1e-12)
    # Three of four: 3 - 4 · σ(b) - b = 0 at b = 0.5052, where no ridge would say ln 3 = 1.0986.
    found = Calibration.fit([0.5] * 4, [True, True, True, False], range(4))
    b = found.intercept
    assert 3 - 4 / (1 + math.exp(-b)) - b == pytest.approx(0, abs=1e-9)
    assert b == pytest.approx(0.5052, abs=1e-4)


@pytest.mark.parametrize("outcome", [True, False])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_where_all_outcomes_are_one_nothing_is_changed_and_little_is_known(n: int, outcome: bool):
    found = Calibration.fit(np.full(n, 0.3), np.full(n, outcome), np.arange(n))
    assert found == Calibration.identity()
    assert found.apply(0.3) == pytest.approx(0.3)
    low, high = found.interval(0.3)
    assert low < 0.06
    assert high > 0.7


def test_the_order_is_never_turned():
    said, true, users = cells(slope=-2)
    found = Calibration.fit(said, true, users)
    assert found.slope == MIN_SLOPE
    assert found.apply(said).mean() == pytest.approx(true.mean(), abs=0.01)
    assert (np.diff(found.apply(np.sort(said))) >= 0).all()


def test_what_is_certain_stays_so_and_teaches_nothing():
    said, true, users = cells(slope=0.5, n=1000)
    found = Calibration.fit(said, true, users)
    certain = Calibration.fit([*said, 0, 0, 1, 1], [*true, True, False, True, False], [*users, *range(4)])
    assert certain == found
    assert found.apply([0.0, 1.0]).tolist() == [0, 1]
    assert Calibration.fit([0.0, 1.0], [True, False], [0, 1]) == Calibration.identity()


def test_near_certainty_that_proves_wrong_is_survived():
    # Newton's first step from slope 1 would be of several hundred.
    found = Calibration.fit([1e-6, 1 - 1e-6] * 25, [True, False] * 24 + [False, True], range(50))
    assert found.slope == MIN_SLOPE
    assert found.intercept == pytest.approx(0, abs=1e-6)


def test_missing_stays_missing():
    assert np.isnan(Calibration.identity().apply([math.nan, 0.5])).tolist() == [True, False]


def test_cells_of_one_user_count_as_one_witness():
    said, true, users = cells(n=2000)
    users = np.arange(2000)
    once = Calibration.fit(said, true, users)
    same_users = Calibration.fit(np.tile(said, 4), np.tile(true, 4), np.tile(users, 4))
    new_users = Calibration.fit(np.tile(said, 4), np.tile(true, 4), np.arange(8000))
    for i in range(2):
        assert same_users.covariance[i][i] == pytest.approx(once.covariance[i][i], rel=0.05)
        assert new_users.covariance[i][i] == pytest.approx(once.covariance[i][i] / 4, rel=0.05)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    # Said 0.3 is true; of 200 intervals at 0.9, 180 are expected to hold it, ± 3 · √(200 · 0.9 · 0.1) ≈ 13.
    held = 0
    for seed in range(200):
        low, high = Calibration.fit(*cells(n=500, seed=seed)).interval(0.3)
        held += bool(low <= 0.3 <= high)
    assert 167 <= held <= 193


def test_the_interval_shrinks_with_users():
    widths = [float(np.subtract(*Calibration.fit(*cells(n=n)).interval(0.5)[::-1])) for n in (200, 2000, 20_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < 0.03


def test_a_calibration_comes_back_from_json_as_it_went():
    found = Calibration.fit(*cells(n=300))
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


# Moved by what customers answered.


LOG_3 = math.log(3)
ANSWERED = Calibration.identity().with_shifts([LOG_3, 0, -LOG_3])
SOME = Calibration(0.7, -0.4, ((0.04, 0.01), (0.01, 0.09)), shifts=(0.9, 0.0, -1.3))


def test_shifts_move_the_log_odds_of_their_alerts():
    # Odds of 1 become 3, 1 and 1/3; odds of 1/3 become 1, 1/3 and 1/9.
    np.testing.assert_allclose(ANSWERED.apply([[0.5] * 3, [0.25] * 3]), [[0.75, 0.5, 0.25], [0.5, 0.25, 0.1]])
    assert ANSWERED.apply([0.5] * 3).shape == (3,)
    assert ANSWERED.apply(np.full((2, 5, 3), 0.5)).shape == (2, 5, 3)


def test_shifts_move_the_whole_interval_and_do_not_widen_it():
    p, plain = np.full((1, 3), 0.3), replace(SOME, shifts=())
    for moved, before in zip(SOME.interval(p), plain.interval(p), strict=True):
        odds = before / (1 - before) * np.exp(SOME.shifts)
        np.testing.assert_allclose(moved, odds / (1 + odds))
    low, high = SOME.interval(p)
    assert ((low < SOME.apply(p)) & (SOME.apply(p) < high)).all()


def test_what_is_certain_or_missing_is_not_moved():
    np.testing.assert_array_equal(SOME.apply([[0.0, 1.0, math.nan], [1.0, 0.0, 0.0]])[:, :2], [[0, 1], [1, 0]])
    assert np.isnan(SOME.apply([0.0, 1.0, math.nan])[2])
    np.testing.assert_array_equal(SOME.interval([0.0, 1.0, 0.0]), [[0, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(SOME.unshifted([0.0, 1.0, 0.0]), [0, 1, 0])


def test_the_calibration_of_one_alert_is_its_column_to_the_last_bit():
    p = np.random.default_rng(0).random((200, 3))
    for alert in range(3):
        one = SOME.of_alert(alert)
        np.testing.assert_array_equal(one.apply(p[:, alert]), SOME.apply(p)[:, alert])
        np.testing.assert_array_equal(one.interval(p[:, alert]), [end[:, alert] for end in SOME.interval(p)])
    assert Calibration.identity().of_alert(2) == Calibration.identity()


def test_without_shifts_nothing_is_another_to_the_last_bit():
    found, p = Calibration.fit(*cells(n=300)), np.random.default_rng(0).random((50, 3))
    for nothing in (found.with_shifts([0.0, 0.0, 0.0]), found.with_shifts([])):
        assert nothing == found
        assert nothing.to_json() == {key: found.to_json()[key] for key in ("slope", "intercept", "covariance")}
    assert found.shifts_alone() is None
    assert found.unshifted(p) is p
    # The formula of the releases before.
    before = 0.5 * (1 + np.tanh((found.slope * (np.log(p) - np.log1p(-p)) + found.intercept) / 2))
    np.testing.assert_array_equal(found.apply(p), before)


def test_a_shift_of_nought_leaves_its_alert_as_it_was_to_the_last_bit():
    p = np.random.default_rng(0).random((50, 3))
    np.testing.assert_array_equal(SOME.apply(p)[:, 1], replace(SOME, shifts=()).apply(p)[:, 1])


def test_shifts_are_put_in_place_of_those_before_and_taken_out_again():
    p = np.random.default_rng(0).random((50, 3))
    assert SOME.with_shifts(ANSWERED.shifts).shifts == ANSWERED.shifts
    np.testing.assert_allclose(SOME.unshifted(SOME.apply(p)), replace(SOME, shifts=()).apply(p))
    alone = SOME.shifts_alone()
    assert alone is not None
    np.testing.assert_allclose(alone.unshifted(alone.apply(p)), p)


def test_shifts_come_back_from_json_as_they_went():
    assert Calibration.from_json(json.loads(json.dumps(SOME.to_json()))) == SOME


@pytest.mark.parametrize("shape", [(), (2,), (3, 2), (1,)])
def test_shifts_of_other_alerts_than_those_that_are_calibrated_are_refused(shape: tuple[int, ...]):
    for method in (SOME.apply, SOME.interval, SOME.unshifted):
        with pytest.raises(DataError, match="shifts of 3 alerts"):
            method(np.full(shape, 0.5))


@pytest.mark.parametrize("shifts", [[math.nan, 0.0], [math.inf, 0.0], [[1.0], [2.0]]])
def test_shifts_that_are_none_are_refused(shifts: list[float]):
    with pytest.raises(DataError, match="shifts"):
        Calibration.identity().with_shifts(shifts)


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"slope": 1, "intercept": 0, "covariance": [[1, 0], [0, 1]], "shifts": 3},
        {"slope": 1, "intercept": 0, "covariance": [[1, 0], [0, 1]], "shifts": [math.nan]},
        {"slope": 1, "intercept": 0, "covariance": [[1, 0], [0, 1]], "shifts": ["much"]},
        {"slope": 1, "intercept": 0},
        {"slope": 1, "intercept": 0, "covariance": [1, 2]},
        {"slope": "steep", "intercept": 0, "covariance": [[1, 0], [0, 1]]},
        {"slope": 0, "intercept": 0, "covariance": [[1, 0], [0, 1]]},
        {"slope": 1, "intercept": math.nan, "covariance": [[1, 0], [0, 1]]},
    ],
)
def test_what_is_no_calibration_is_refused(stored: dict[str, object]):
    with pytest.raises(DataError, match="calibration"):
        Calibration.from_json(stored)


@pytest.mark.parametrize(
    ("said", "true", "users"),
    [([0.1], [True, False], [0]), ([0.1, 0.2], [True, False], [0]), ([0.1, math.nan], [True, False], [0, 1]),
     ([0.1, 1.1], [True, False], [0, 1]), ([[0.1]], [[True]], [[0]])],
)  # fmt: skip
def test_cells_that_cannot_be_used_are_refused(said: list[float], true: list[bool], users: list[int]):
    with pytest.raises(DataError):
        Calibration.fit(said, true, users)


def test_wilson_intervals_are_those_of_the_formula():
    # 8 of 10, z = 1.645, so z² / 10 = 0.2706: the centre is (0.8 + 0.1353) / 1.2706 = 0.7361, the reach
    # 1.645 · √(0.016 + 0.00677) / 1.2706 = 0.1953.
    low, high = share_interval([8, 0, 10, 0], [10, 10, 10, 0])
    assert (low[0], high[0]) == (pytest.approx(0.5408, abs=1e-3), pytest.approx(0.9314, abs=1e-3))
    assert (low[1], high[1]) == (0, pytest.approx(0.2129, abs=1e-3))  # z² / (10 + z²)
    assert (low[2], high[2]) == (pytest.approx(0.7871, abs=1e-3), 1)
    assert (low[3], high[3]) == (0, 1)


def test_wilson_intervals_are_those_of_scipy():
    from scipy.stats import binomtest

    for successes, n in ((0, 1), (3, 7), (50, 200), (200, 200)):
        expected = binomtest(successes, n).proportion_ci(0.9, method="wilson")
        assert share_interval(successes, n) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0])
def test_a_level_is_a_share(level: float):
    with pytest.raises(DataError, match="level"):
        share_interval(1, 2, level)


@pytest.mark.parametrize(
    ("probability", "low", "expected"),
    [(0.7, 0.5, "high"), (0.5, 0.4, "high"), (0.5, 0.3, "medium"), (0.4, 0.1, "medium"), (0.39, 0.38, "low")],
)
def test_confidence_comes_from_the_interval(probability: float, low: float, expected: str):
    assert confidence_level(probability, low, threshold=0.4) == expected
