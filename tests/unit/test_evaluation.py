from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.evaluation.bootstrap import by_alert, by_group, compare, summarise
from alertrec.evaluation.leaks import find_leaks
from alertrec.evaluation.metrics import HIGHER_IS_BETTER, Judgement, judge, reliability
from alertrec.evaluation.protocols import Trial, folds, leave_one_out, split_in_time

ALERTS = ("large", "abroad", "recurring", "budget")
POPULARITY = np.array([0.75, 0.5, 2**-1.5, 1.0])
# The first user has `large` and wants `recurring`; the second has nothing and wants `large` and `budget`.
TRIAL = Trial(
    np.array([3, 7]),
    np.array([[True, False, False, False], [False] * 4]),
    np.array([[False, False, True, False], [True, False, False, True]]),
)
PROBABILITIES = np.array([[0.9, 0.5, 0.5, 0.2], [0.1, 0.8, 0.6, 0.4]])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def random_judgement(n: int, *, n_alerts: int = 5, seed: int = 0, noise: float = 0.0) -> Judgement:
    """Return a judgement of users who each want one alert, the first with probability 0.5."""
    wanted = np.zeros((n, n_alerts), dtype=bool)
    shares = np.array([0.5] + [0.5 / (n_alerts - 1)] * (n_alerts - 1))
    wanted[np.arange(n), rng(seed).choice(n_alerts, n, p=shares)] = True
    said = np.clip(shares + noise * rng(seed + 1).standard_normal((n, n_alerts)), 0, 1)
    return judge(said, Trial(np.arange(n), np.zeros_like(wanted), wanted), shares)


# Who is judged, on what


def test_of_each_user_who_has_any_one_alert_is_hidden():
    labels = rng().random((200, 6)) < 0.3
    trial = leave_one_out(labels, rng(1))
    assert trial.rows.tolist() == np.flatnonzero(labels.any(axis=1)).tolist()
    assert (trial.wanted.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(trial.enabled | trial.wanted, labels[trial.rows])


def test_each_alert_of_a_user_is_as_likely_to_be_hidden():
    labels = np.tile([True, False, True, True, False, True], (8000, 1))
    hidden = leave_one_out(labels, rng()).wanted.sum(axis=0)
    # 2000 expected of each of the four; the standard deviation is √(8000 · ¼ · ¾) ≈ 39.
    assert hidden.tolist() == [pytest.approx(n, abs=160) for n in (2000, 0, 2000, 2000, 0, 2000)]


def test_the_same_generator_hides_the_same_alerts():
    labels = rng().random((50, 6)) < 0.5
    one, other, third = (leave_one_out(labels, rng(seed)) for seed in (5, 5, 6))
    assert one.is_same_as(other)
    assert not one.is_same_as(third)


def test_nobody_who_has_nothing_is_judged():
    trial = leave_one_out(np.zeros((3, 4), dtype=bool), rng())
    assert (len(trial), trial.enabled.shape) == (0, (0, 4))


def test_a_split_in_time_judges_who_gained_an_alert_on_what_they_gained():
    before = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    after = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=bool)
    trial = split_in_time(before, after)
    # The second only lost one, the third did nothing. The fourth changed one for another, and had it at the cut-off.
    assert trial.rows.tolist() == [0, 3]
    assert trial.enabled.tolist() == [[True, False, False], [True, False, False]]
    assert trial.wanted.tolist() == [[False, False, True], [False, True, False]]


def test_a_split_in_time_needs_both_moments_of_the_same_users():
    with pytest.raises(DataError, match="one shape"):
        split_in_time(np.zeros((2, 3), dtype=bool), np.zeros((3, 3), dtype=bool))


def test_each_user_is_tested_once_by_who_was_not_trained_on_them():
    found = folds(11, 3, rng())
    assert sorted(np.concatenate([test for _, test in found]).tolist()) == list(range(11))
    assert sorted(len(test) for _, test in found) == [3, 4, 4]
    for train, test in found:
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(11))


@pytest.mark.parametrize("n_folds", [1, 4])
def test_folds_that_cannot_be_made_are_refused(n_folds: int):
    with pytest.raises(DataError, match=f"{n_folds} folds of 3 users"):
        folds(3, n_folds, rng())


@pytest.mark.parametrize(
    ("rows", "enabled", "wanted", "message"),
    [
        ([0], [[True, False]], [[True, False]], "both enabled and wanted"),
        ([0], [[True, False]], [[False, False]], "want at least one"),
        ([0, 1], [[True, False]], [[False, True]], r"rows \(n,\)"),
        ([0], [[True, False]], [[False, True, True]], r"rows \(n,\)"),
    ],
)
def test_a_trial_that_contradicts_itself_is_refused(
    rows: list[int], enabled: list[list[bool]], wanted: list[list[bool]], message: str
):
    with pytest.raises(DataError, match=message):
        Trial(np.array(rows), np.array(enabled), np.array(wanted))


# Metrics


def test_metrics_are_those_worked_by_hand():
    found = judge(PROBABILITIES, TRIAL, POPULARITY, n_offered=2)
    # First user: the tie at 0.5 goes to `abroad`, so `recurring` is second. Second user: abroad, recurring, budget,
    # large; the best wanted one is third.
    assert found.offered.tolist() == [[1, 2], [1, 2]]
    expected = {
        "hit_at_1": 0,
        "hit_at_3": 1,
        "mrr": (1 / 2 + 1 / 3) / 2,
        # The ideal of two wanted alerts is 1 / log2 2 + 1 / log2 3.
        "ndcg_at_3": (1 / math.log2(3) + 0.5 / (1 + 1 / math.log2(3))) / 2,
        # What was said of what happened, in seven cells: `large` of the first user is not judged.
        "log_loss": -math.log(0.5 * 0.5 * 0.8 * 0.1 * 0.2 * 0.4 * 0.4) / 7,
        "brier": (0.25 + 0.25 + 0.04 + 0.81 + 0.64 + 0.36 + 0.36) / 7,
        # Seven cells in ten bins: each alone but for the two of 0.5, of which one came true as it should.
        "calibration_error": (0.9 + 0.2 + 0.6 + 2 * 0 + 0.6 + 0.8) / 7,
        "coverage": 2 / 4,
        "novelty": (1 + 1.5) / 2,  # both are offered abroad (½) and recurring (2^-1.5)
        "popularity_bias": (0.5 + 2**-1.5) / 2 - (2**-1.5 + 0.75 + 1) / 3,
    }
    assert found.values() == pytest.approx(expected)
    assert list(found.values()) == list(HIGHER_IS_BETTER)


def test_what_a_model_says_of_an_enabled_alert_changes_nothing():
    said = PROBABILITIES.copy()
    said[0, 0] = math.nan
    assert judge(said, TRIAL, POPULARITY).values() == judge(PROBABILITIES, TRIAL, POPULARITY).values()


def test_a_certain_and_wrong_cell_costs_much_and_not_everything():
    wrong = judge(1.0 - TRIAL.wanted, TRIAL, POPULARITY).values()
    assert wrong["log_loss"] == pytest.approx(-math.log(1e-6))
    assert wrong["brier"] == 1


def test_an_alert_that_nobody_has_is_as_novel_as_one_user_more_would_make_it():
    found = judge(PROBABILITIES, TRIAL, np.zeros(4), n_offered=1).values()
    assert found["novelty"] == pytest.approx(math.log2(3))


def test_a_user_who_lacks_fewer_alerts_than_are_offered_has_a_shorter_list():
    trial = Trial(np.array([0]), np.array([[True, True, True, False]]), np.array([[False, False, False, True]]))
    found = judge(np.full((1, 4), 0.5), trial, POPULARITY)
    assert found.offered.tolist() == [[3, -1, -1]]
    assert found.values()["novelty"] == 0  # everybody has it
    assert found.values()["coverage"] == 1 / 4


@pytest.mark.parametrize(
    ("said", "popularity", "n_offered", "message"),
    [
        (PROBABILITIES[:1], POPULARITY, 3, "expected probabilities"),
        (PROBABILITIES, POPULARITY[:3], 3, "expected probabilities"),
        (PROBABILITIES + 0.5, POPULARITY, 3, "in \\[0, 1\\]"),
        (PROBABILITIES * np.nan, POPULARITY, 3, "without NaN"),
        (PROBABILITIES, POPULARITY + 1, 3, "in \\[0, 1\\]"),
        (PROBABILITIES, POPULARITY, 0, "n_offered=0"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    said: NDArray[np.float64], popularity: NDArray[np.float64], n_offered: int, message: str
):
    with pytest.raises(DataError, match=message):
        judge(said, TRIAL, popularity, n_offered=n_offered)


def test_a_trial_of_nobody_is_refused():
    nobody = Trial(np.array([], dtype=np.intp), np.zeros((0, 4), dtype=bool), np.zeros((0, 4), dtype=bool))
    with pytest.raises(DataError, match="nobody to judge"):
        judge(np.zeros((0, 4)), nobody, POPULARITY)


# Reliability


def test_bins_have_equal_counts_and_wilson_intervals():
    said = np.array([0.1, 0.2, 0.3, 0.4])
    low, high = reliability(said, np.array([False, False, True, True]), n_bins=2)
    assert (low["predicted"], low["observed"], low["n"]) == (pytest.approx(0.15), 0, 2)
    assert (high["predicted"], high["observed"], high["n"]) == (pytest.approx(0.35), 1, 2)
    # Wilson, 0 of 2, z = 1.96: z² / (2 + z²) = 3.8415 / 5.8415.
    assert (low["low"], low["high"]) == (0, pytest.approx(0.6576, abs=1e-4))


def test_equal_probabilities_share_a_bin():
    curve = reliability(np.array([0.2] * 8 + [0.7, 0.9]), np.zeros(10, dtype=bool), n_bins=5)
    assert [(each["predicted"], each["n"]) for each in curve] == [(pytest.approx(0.2), 8), (pytest.approx(0.8), 2)]


def test_of_no_cells_there_is_no_curve():
    assert reliability(np.array([]), np.array([], dtype=bool)) == []


# Intervals


def test_the_interval_of_a_share_is_as_wide_as_theory_says():
    n = 5000  # more than one block of resamples
    found = summarise(random_judgement(n), rng())["hit_at_1"]
    width = 2 * 1.96 * math.sqrt(found["value"] * (1 - found["value"]) / n)
    assert found["high"] - found["low"] == pytest.approx(width, rel=0.1)


def test_the_interval_of_a_share_holds_the_truth_about_as_often_as_it_says():
    # The truth is 0.5. Of 200 intervals 190 are expected to hold it, ± 3 · √(200 · 0.95 · 0.05) ≈ 9, and at n = 100
    # percentiles hold it a little less often.
    found = [summarise(random_judgement(100, seed=2 * seed), rng(), 200)["hit_at_1"] for seed in range(200)]
    assert 177 <= sum(each["low"] <= 0.5 <= each["high"] for each in found) <= 199


def calibration_errors(n: int, *, exaggeration: float) -> list[tuple[float, float]]:
    """Return value and lower end of ten models' calibration errors, each on users of its own."""
    found = []
    for seed in range(10):
        said = rng(seed).beta(1, 4, (n, 20))
        wanted = rng(seed + 100).random((n, 20)) < said / exaggeration
        wants = wanted.any(axis=1)
        trial = Trial(np.flatnonzero(wants), np.zeros((wants.sum(), 20), dtype=bool), wanted[wants])
        each = summarise(judge(said[wants], trial, np.ones(20)), rng(), 200)["calibration_error"]
        found.append((each["value"], each["low"]))
    return found


def test_noise_is_not_taken_for_bad_calibration():
    # In bins of 40 cells around a share of 0.2 chance alone makes a gap of about 0.8 · √(0.2 · 0.8 / 40) = 0.05, fewer
    # where the shares are small.
    found = calibration_errors(20, exaggeration=1)
    assert np.mean([value for value, _ in found]) > 0.03
    assert max(low for _, low in found) < 0.025


def test_bad_calibration_is_not_taken_for_noise():
    # Said is 0.2 on average, true half of that.
    assert min(low for _, low in calibration_errors(100, exaggeration=2)) > 0.05


def test_the_intervals_of_one_user_are_points():
    found = summarise(random_judgement(1), rng(), 50)
    for each in found.values():
        assert each["low"] == pytest.approx(each["value"])
        assert each["high"] == pytest.approx(each["value"])


def test_the_summary_is_json_without_nan():
    json.dumps(summarise(judge(PROBABILITIES, TRIAL, POPULARITY), rng()), allow_nan=False)


def test_a_paired_difference_sees_what_two_intervals_would_not():
    # Users differ a lot in how hard they are to foretell, the models by the same hundredth on every cell.
    n = 400
    trial = Trial(np.arange(n), np.zeros((n, 2), dtype=bool), np.ones((n, 2), dtype=bool))
    ease = rng().uniform(0.01, 0.9, (n, 1))
    worse, better = (judge(np.repeat(ease, 2, axis=1) * by, trial, np.ones(2)) for by in (1.0, 1.01))
    found = compare(better, worse, "log_loss", rng())
    assert found["difference"] == pytest.approx(-math.log(1.01))
    assert found["high"] < 0
    apart = [summarise(each, rng())["log_loss"] for each in (better, worse)]
    assert apart[0]["high"] > apart[1]["low"]


def test_judgements_of_different_trials_are_not_compared():
    with pytest.raises(DataError, match="same trial"):
        compare(random_judgement(20), random_judgement(20, seed=1), "mrr", rng())


def test_an_unknown_metric_is_refused_by_name():
    with pytest.raises(DataError, match="'accuracy'"):
        compare(random_judgement(5), random_judgement(5), "accuracy", rng())


# By alert and by group


def test_each_alert_is_judged_on_those_who_lack_it():
    found = by_alert(judge(PROBABILITIES, TRIAL, POPULARITY, n_offered=2), ALERTS)
    assert list(found) == list(ALERTS)
    assert [each["n_wanted"] for each in found.values()] == [1, 0, 1, 1]
    assert [each["n_offered"] for each in found.values()] == [0, 2, 2, 0]
    assert found["large"]["log_loss"] == pytest.approx(-math.log(0.1))
    assert found["recurring"]["log_loss"] == pytest.approx(-math.log(0.5 * 0.4) / 2)
    assert found["recurring"]["calibration_error"] == pytest.approx((0.5 + 0.6) / 2)
    assert [each["n"] for each in found["recurring"]["reliability"]] == [1, 1]


def test_of_an_alert_that_everybody_has_nothing_is_known():
    trial = Trial(np.array([0]), np.array([[True, False]]), np.array([[False, True]]))
    found = by_alert(judge(np.array([[0.5, 0.5]]), trial, np.array([1.0, 0.5])), ALERTS[:2])["large"]
    empty = {"n_wanted": 0, "n_offered": 0, "log_loss": None, "calibration_error": None, "reliability": []}
    assert found == empty


def test_alert_columns_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="expected 4 alert columns; got 3"):
        by_alert(judge(PROBABILITIES, TRIAL, POPULARITY), ALERTS[:3])


def test_groups_are_judged_apart_and_small_ones_together():
    judgement = random_judgement(100, noise=0.1)
    states = ["NY"] * 40 + ["CA"] * 20 + [None] * 20 + ["TX"] * 20
    found = by_group(
        judgement, {"state": states, "limit": ["high"] * 70 + ["mid"] * 30, "age": ["old"] * 90 + ["young"] * 10}, rng()
    )
    assert {name: {value: each["n_users"] for value, each in groups.items()} for name, groups in found.items()} == {
        "state": {"NY": 40, "other": 60},
        "limit": {"high": 70, "mid": 30},
        "age": {"old": 90},  # ten are too few to say anything of
    }
    rows = np.arange(40)
    alone = Trial(rows, judgement.trial.enabled[rows], judgement.trial.wanted[rows])
    expected = judge(judgement.probabilities[rows], alone, judgement.popularity).values()
    for metric in ("log_loss", "mrr"):
        each = found["state"]["NY"][metric]
        assert each["value"] == pytest.approx(expected[metric])
        assert each["low"] < each["value"] < each["high"]


def test_users_of_whom_the_group_is_not_known_are_a_group():
    found = by_group(random_judgement(80), {"state": ["NY"] * 40 + [None] * 40}, rng())
    assert list(found["state"]) == ["NY", "unknown"]


def test_a_grouping_must_name_every_user():
    with pytest.raises(DataError, match="'state'"):
        by_group(random_judgement(80), {"state": ["NY"]}, rng())


# Leaks

NAMES = ("spend", "spend_abroad", "days_since")


def later(n: int = 1000) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return honest features and what is wanted later; the first feature tells `large` with an AUC of about 0.9."""
    features = rng().standard_normal((n, 3))
    threshold = np.quantile(features[:, 0], 0.85)
    strong = features[:, 0] + 0.55 * rng(1).standard_normal(n) > threshold
    return features, np.column_stack([strong, rng(2).random((n, 3)) < 0.1])


def leaks_of(features: NDArray[np.float64], wanted: NDArray[np.bool_], **options: object) -> list[tuple[str, str]]:
    found = find_leaks(features, wanted, NAMES, ALERTS, **options)  # type: ignore[arg-type]  # only options of it
    return [(leak.feature, leak.alert) for leak in found]


def test_a_strong_honest_feature_is_no_leak():
    from sklearn.metrics import roc_auc_score

    features, wanted = later()
    assert 0.88 < roc_auc_score(wanted[:, 0], features[:, 0]) < 0.96
    assert leaks_of(features, wanted) == []


def test_honest_features_of_a_small_bank_are_no_leaks():
    for seed in range(50):
        wanted = rng(seed).random((30, 4)) < 0.4
        assert leaks_of(rng(seed + 1000).standard_normal((30, 3)), wanted) == []


def test_a_feature_that_is_often_wrong_is_no_leak_however_many_users_show_it():
    wanted = rng().random((20_000, 1)) < 0.3
    feature = wanted ^ (rng(1).random(wanted.shape) < 0.03)  # an AUC of 0.97, known to ± 0.002
    assert find_leaks(feature.astype(float), wanted, ["it"], ["large"]) == []
    assert find_leaks(feature.astype(float), wanted, ["it"], ["large"], bound=0.96) != []


def test_what_a_few_users_can_show_only_nearly_is_no_leak():
    feature, wanted = np.arange(20.0)[:, None], np.arange(20)[:, None] >= 10
    assert [leak.auc for leak in find_leaks(feature, wanted, ["it"], ["large"])] == [1]
    wanted[9:11] = wanted[10:8:-1]
    # Now 1 of the 100 pairs is the wrong way round. Hanley and McNeil: √(2 · 10 · 0.0049 / 100) ≈ 0.03 either way.
    assert find_leaks(feature, wanted, ["it"], ["large"]) == []


@pytest.mark.parametrize("sign", [1, -1])
def test_a_feature_that_is_the_future_with_a_little_noise_is_a_leak(sign: int):
    features, wanted = later()
    features[:, 2] = sign * (wanted[:, 1] + 0.2 * rng(3).standard_normal(len(features)))
    assert leaks_of(features, wanted) == [("days_since", "abroad")]


def test_a_feature_that_is_the_future_and_wrong_for_one_in_a_hundred_is_a_leak():
    features, wanted = later()
    features[:, 2] = wanted[:, 1] ^ (rng(3).random(len(features)) < 0.01)
    assert leaks_of(features, wanted) == [("days_since", "abroad")]


def test_a_value_that_exists_only_for_who_went_on_to_enable_is_a_leak():
    features, wanted = later()
    features[~wanted[:, 3], 1] = math.nan  # among the others nothing is left to compare
    (leak,) = find_leaks(features, wanted, NAMES, ALERTS)
    assert (leak.feature, leak.alert, leak.auc, leak.n) == ("spend_abroad", "budget", 1, 1000)


def test_a_leak_by_value_and_by_missingness_is_told_once_by_what_tells_more():
    features, wanted = later()
    features[:, 1] = wanted[:, 3]
    others = np.flatnonzero(~wanted[:, 3])
    features[others[20:], 1] = math.nan  # of twenty of the others the value is known, and tells them apart
    (leak,) = find_leaks(features, wanted, NAMES, ALERTS)
    assert (leak.feature, leak.alert, leak.auc, leak.n) == ("spend_abroad", "budget", 1, wanted[:, 3].sum() + 20)


def test_values_missing_at_random_are_no_leak():
    features, wanted = later()
    features[rng(5).random(features.shape) < 0.5] = math.nan
    features[:, 2] = math.nan
    assert leaks_of(features, wanted) == []


def test_how_things_stood_in_the_end_is_a_leak_among_those_who_could_still_enable():
    features, wanted = later()
    enabled = (rng(6).random(wanted.shape) < 0.5) & ~wanted
    features[:, 2] = enabled[:, 1] | wanted[:, 1]
    assert leaks_of(features, wanted) == []  # taken together with those who had it, the feature tells little
    assert leaks_of(features, wanted, enabled=enabled) == [("days_since", "abroad")]


def test_of_a_few_who_want_an_alert_no_leak_is_told():
    features, wanted = later()
    wanted[:, 1] = False
    wanted[:9, 1] = True
    features[:, 2] = wanted[:, 1]
    assert leaks_of(features, wanted) == []
    assert leaks_of(features, wanted, min_positives=9) == [("days_since", "abroad")]


def test_names_that_do_not_fit_the_features_are_refused():
    features, wanted = later(20)
    with pytest.raises(DataError, match="2 feature names"):
        find_leaks(features, wanted, NAMES[:2], ALERTS)
