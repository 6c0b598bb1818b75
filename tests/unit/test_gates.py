from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec import gates
from alertrec.errors import DataError
from alertrec.evaluation.bootstrap import GroupReport
from alertrec.evaluation.leaks import Leak
from alertrec.evaluation.metrics import judge
from alertrec.evaluation.protocols import leave_one_out
from alertrec.ranking import top_k

ALERTS = tuple(f"alert{number}" for number in range(8))
# What the users have: the first alerts nearly all of them, the last hardly anybody.
POPULARITY = np.array([0.7, 0.6, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02])


def collapsed(probabilities: NDArray[np.float64], *, n: int = 300) -> gates.Gate:
    """Return the verdict on a model that says these probabilities to everybody."""
    rng = np.random.default_rng(0)
    trial = leave_one_out(rng.random((n, len(ALERTS))) < POPULARITY, rng)
    said = np.tile(probabilities, (len(trial), 1))
    found = judge(said, trial, POPULARITY)
    return gates.no_alert_collapsed(found.offered, trial.wanted, trial.enabled, ALERTS)


def group(value: float, low: float) -> GroupReport:
    interval = {"value": value, "low": low, "high": 2 * value - low}
    return {"n_users": 40, "log_loss": interval, "mrr": interval}  # type: ignore[typeddict-item]  # as from JSON


@pytest.mark.parametrize(("n", "good"), [(0, False), (9, False), (10, True), (5000, True)])
def test_ten_judged_users_are_enough(n: int, good: bool):
    assert gates.enough_data(n).passed is good


def test_a_refusal_for_few_users_says_by_how_many():
    gate = gates.enough_data(4)
    assert gate.message == "users judged: 4, below the bound 10 by 6"
    assert (gate.name, gate.measured, gate.bound) == ("enough_data", 4, 10)


def test_offering_everybody_what_is_popular_is_no_collapse():
    assert collapsed(POPULARITY).passed


def test_offering_everybody_what_few_want_is_a_collapse():
    said = POPULARITY.copy()
    said[7] = 1
    gate = collapsed(said)
    assert not gate.passed
    assert gate.message.startswith("alert7 is offered to all of the ")
    assert gate.measured == 1


def test_never_offering_what_many_want_is_a_collapse():
    said = POPULARITY.copy()
    said[0] = 0
    gate = collapsed(said)
    assert not gate.passed
    assert gate.message.startswith("alert0 is never offered, though ")


def test_never_offering_what_few_want_is_no_collapse():
    said = POPULARITY.copy()
    said[7] = 0
    assert collapsed(said).passed


def wanted_by(*counts: int, n: int = 40) -> NDArray[np.bool_]:
    """Return users of whom the first so many want each alert; none has any."""
    return np.arange(n)[:, None] < np.array(counts)


def test_what_chance_explains_is_no_collapse():
    # Of forty users seven want the alert that is always offered and nine one that is not.
    wanted, offered = wanted_by(20, 15, 9, 0, 0, 0, 0, 7), np.tile([0, 1, 7], (40, 1))
    enabled = np.zeros_like(wanted)
    wanted[:, 2] = wanted[:, 2][::-1]
    offered[-1, 1] = 2
    assert gates.no_alert_collapsed(offered, wanted, enabled, ALERTS).passed
    wanted[:, 7] = False
    assert not gates.no_alert_collapsed(offered, wanted, enabled, ALERTS).passed


def test_of_an_alert_that_few_users_lack_nothing_is_said():
    wanted, offered = wanted_by(19, 19, 19, 0, 0, 0, 0, 0, n=19), np.tile([0, 1, 7], (19, 1))
    offered[-1, 1] = 2
    assert gates.no_alert_collapsed(offered, wanted, np.zeros_like(wanted), ALERTS).passed


def test_who_has_no_choice_is_offered_everything_and_that_is_no_collapse():
    # Half of the users lack six alerts, want three of them and are offered those; the others lack only three.
    enabled = np.zeros((100, 8), dtype=bool)
    enabled[:50, 6:] = True
    enabled[50:, :5] = True
    wanted = np.zeros_like(enabled)
    wanted[:50, :3] = True
    wanted[50:, 5] = True
    offered = top_k(np.tile(POPULARITY, (100, 1)), 3, exclude=enabled).alerts
    assert offered[[0, 50]].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert gates.no_alert_collapsed(offered, wanted, enabled, ALERTS).passed


def test_an_alert_that_is_offered_to_some_of_those_who_want_it_has_not_collapsed():
    wanted = np.zeros((100, 8), dtype=bool)
    wanted[:, 0] = True
    offered = np.tile([1, 2, 3], (100, 1))
    enabled = np.zeros_like(wanted)
    assert not gates.no_alert_collapsed(offered, wanted, enabled, ALERTS).passed
    wanted[:, 0], wanted[:, 1], wanted[:, 2], wanted[:, 3] = False, True, True, True
    assert gates.no_alert_collapsed(offered, wanted, enabled, ALERTS).passed


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="do not fit"):
        gates.no_alert_collapsed(
            np.zeros((2, 3), dtype=np.intp), np.zeros((2, 8), dtype=bool), np.zeros((2, 8), dtype=bool), ALERTS[:7]
        )


def test_a_calibration_error_is_refused_beyond_noise_and_by_how_much():
    refused = gates.calibrated(0.081, low=0.06)
    assert not refused.passed
    assert refused.message == "calibration error 0.081 is above the bound 0.05 by 0.031"
    noisy = gates.calibrated(0.081, low=0.04)
    assert noisy.passed
    assert noisy.message.endswith("but not beyond noise: its interval starts at 0.040")
    assert gates.calibrated(0.02, low=0.01).message == "calibration error 0.020 is within the bound 0.05"


def test_a_group_that_is_served_much_worse_is_named():
    report = {"state": {"NY": group(0.11, 0.10), "CA": group(0.16, 0.14)}, "limit": {"high": group(0.13, 0.12)}}
    gate = gates.no_group_harmed(report, overall=0.1)
    # All of the interval of CA is above 1.25 · 0.1; that of the high limits begins below it.
    assert not gate.passed
    assert gate.message == ("the log-loss of state=CA is 60% above that of everybody, more than the bound 25% by 35%")
    assert gate.measured == pytest.approx(0.6)


def test_groups_that_are_served_alike_pass():
    gate = gates.no_group_harmed({"state": {"NY": group(0.11, 0.10)}}, overall=0.1)
    assert gate.passed
    assert gate.measured == pytest.approx(0.1)


def test_without_groups_none_is_harmed():
    gate = gates.no_group_harmed({"state": {}}, overall=0.1)
    assert (gate.passed, gate.measured) == (True, None)


def test_drift_is_refused_by_feature_and_by_how_much():
    gate = gates.no_drift({"spend": 0.31, "limit": 0.05, "balance": 0.4}, ["balance", "spend"])
    assert not gate.passed
    assert gate.message == (
        "population stability index 0.400 of balance is above the bound 0.25 by 0.150; "
        "population stability index 0.310 of spend is above the bound 0.25 by 0.060"
    )
    assert gate.measured == 0.4


def test_what_chance_explains_is_no_drift():
    gate = gates.no_drift({"spend": 0.31, "limit": 0.05}, [])
    assert (gate.passed, gate.measured) == (True, 0.31)
    assert gates.no_drift({}, []).measured is None


def test_a_leak_is_refused_by_feature_and_alert():
    gate = gates.no_leak([Leak("rules_now", "alert2", 0.9987, 412), Leak("rules_now", "alert5", 0.99, 400)])
    assert not gate.passed
    assert gate.message.startswith("rules_now alone tells alert2 (AUC 0.999, 412 users); ")
    assert gate.measured == 0.9987
    assert gates.no_leak([]).passed


@pytest.mark.parametrize(("low", "high", "good"), [(-0.03, -0.01, True), (-0.03, 0.001, False), (0.01, 0.03, False)])
def test_a_model_must_beat_another_beyond_noise(low: float, high: float, good: bool):
    gate = gates.beats({"difference": (low + high) / 2, "low": low, "high": high}, "popularity")
    assert gate.passed is good
    assert gate.name == "beats_popularity"
    assert f"its interval {low:+.4f} to {high:+.4f}" in gate.message
    assert ("not below" in gate.message) is not good


def test_all_gates_must_be_passed():
    good, bad = gates.enough_data(100), gates.enough_data(1)
    assert gates.passed([good, good])
    assert not gates.passed([good, bad])
    assert gates.passed([])


def test_verdicts_are_json():
    stated = gates.no_group_harmed({}, overall=0.1).to_json()
    assert json.loads(json.dumps(stated, allow_nan=False)) == stated
    assert set(stated) == {"name", "passed", "measured", "bound", "message"}
    collapse = collapsed(POPULARITY).to_json()
    assert json.loads(json.dumps(collapse)) == collapse
