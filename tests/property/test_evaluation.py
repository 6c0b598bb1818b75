from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from alertrec.calibration import Calibration, share_interval
from alertrec.drift import population_stability, profile
from alertrec.evaluation.bootstrap import compare, summarise
from alertrec.evaluation.leaks import find_leaks
from alertrec.evaluation.metrics import METRICS, Judgement, cell_losses, judge, reliability, value_of
from alertrec.evaluation.protocols import Trial, folds, leave_one_out
from tests.strategies import laws

Floats = np.ndarray

# Few values, so that there are ties and certainties.
_shares = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1)
_LACKS, _HAS, _WANTS = range(3)


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    n, n_alerts = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    states = draw(npst.arrays(np.int8, (n, n_alerts), elements=st.integers(_LACKS, _WANTS)))
    wanted_by = draw(npst.arrays(np.intp, n, elements=st.integers(0, n_alerts - 1)))
    states[np.arange(n), wanted_by] = _WANTS
    return Trial(np.arange(n) + 100, states == _HAS, states == _WANTS)


@st.composite
def judged(draw: st.DrawFn, n_models: int = 1) -> tuple[Judgement, ...]:
    trial = draw(trials())
    n, n_alerts = trial.wanted.shape
    popularity = draw(npst.arrays(float, n_alerts, elements=_shares))
    n_offered = draw(st.integers(1, 4))
    said = [draw(npst.arrays(float, (n, n_alerts), elements=_shares)) for _ in range(n_models)]
    return tuple(judge(each, trial, popularity, n_offered=n_offered) for each in said)


def again(judgement: Judgement, rows: np.ndarray) -> Judgement:
    """Judge some of the users, in this order, a user perhaps more than once."""
    trial = judgement.trial
    return judge(
        judgement.probabilities[rows],
        Trial(trial.rows[rows], trial.enabled[rows], trial.wanted[rows]),
        judgement.popularity,
        n_offered=judgement.offered.shape[1],
    )


@laws
@given(judged())
def test_metrics_of_ranking_agree_with_sorting_each_row_in_plain_python(drawn: tuple[Judgement]):
    (judgement,) = drawn
    trial, found = judgement.trial, {name: [] for name in ("hit_at_1", "hit_at_3", "mrr", "ndcg_at_3")}
    for said, has, wants in zip(judgement.probabilities, trial.enabled, trial.wanted, strict=True):
        order = sorted((a for a in range(len(said)) if not has[a]), key=lambda a: (-said[a], a))
        ranks = [place + 1 for place, alert in enumerate(order) if wants[alert]]
        found["hit_at_1"].append(ranks[0] <= 1)
        found["hit_at_3"].append(ranks[0] <= 3)
        found["mrr"].append(1 / ranks[0])
        gain = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= 3)
        found["ndcg_at_3"].append(gain / sum(1 / math.log2(1 + rank) for rank in range(1, min(len(ranks), 3) + 1)))
    values = judgement.values()
    for metric, each in found.items():
        assert values[metric] == pytest.approx(sum(each) / len(each))


@laws
@given(judged())
def test_metrics_of_cells_are_those_of_scikit_learn(drawn: tuple[Judgement]):
    from sklearn.metrics import brier_score_loss, log_loss

    (judgement,) = drawn
    cells = ~judgement.trial.enabled
    said, true = judgement.probabilities[cells], judgement.trial.wanted[cells]
    values = judgement.values()
    assert values["log_loss"] == pytest.approx(log_loss(true, np.clip(said, 1e-6, 1 - 1e-6), labels=[False, True]))
    assert values["brier"] == pytest.approx(brier_score_loss(true, said, labels=[False, True], pos_label=True))
    curve = reliability(said, true)
    gap = sum(each["n"] * abs(each["predicted"] - each["observed"]) for each in curve) / len(said)
    assert values["calibration_error"] == pytest.approx(gap)


@laws
@given(trials(), st.integers(0, 2**32 - 1))
def test_ndcg_is_that_of_scikit_learn(trial: Trial, seed: int):
    from sklearn.metrics import ndcg_score

    n, n_alerts = trial.wanted.shape
    if n_alerts < 2:
        return
    said = np.random.default_rng(seed).random((n, n_alerts))  # no ties, of which scikit-learn makes something else
    found = judge(said, trial, np.full(n_alerts, 0.5)).values()["ndcg_at_3"]
    shown = np.where(trial.enabled, -1.0, said)
    assert found == pytest.approx(ndcg_score(trial.wanted.astype(float), shown, k=3))


@laws
@given(judged(), st.data())
def test_the_order_of_the_users_changes_nothing(drawn: tuple[Judgement], data: st.DataObject):
    (judgement,) = drawn
    order = np.array(data.draw(st.permutations(range(len(judgement.trial)))))
    assert again(judgement, order).values() == pytest.approx(judgement.values())


@laws
@given(judged(), st.data())
def test_drawn_users_are_measured_as_if_they_had_been_judged(drawn: tuple[Judgement], data: st.DataObject):
    (judgement,) = drawn
    n = len(judgement.trial)
    rows = data.draw(npst.arrays(np.intp, n, elements=st.integers(0, n - 1)))
    expected = again(judgement, rows).values()
    for metric in set(METRICS) - {"calibration_error"}:  # whose bins are those of all users
        totals = judgement.contributions[metric][rows].sum(axis=0, keepdims=True)
        assert value_of(metric, totals)[0] == pytest.approx(expected[metric])


@laws
@given(trials())
def test_a_model_that_knows_the_future_is_perfect(trial: Trial):
    found = judge(trial.wanted.astype(float), trial, np.full(trial.wanted.shape[1], 0.5)).values()
    assert [found[name] for name in ("hit_at_1", "hit_at_3", "mrr", "brier", "calibration_error")] == [1, 1, 1, 0, 0]
    assert found["ndcg_at_3"] == pytest.approx(1)
    assert 0 <= found["log_loss"] < 1e-5


@laws
@given(judged(), st.integers(0, 100))
def test_an_interval_holds_its_value_within_what_is_possible(drawn: tuple[Judgement], seed: int):
    (judgement,) = drawn
    found = summarise(judgement, np.random.default_rng(seed), 50)
    assert {name: each["value"] for name, each in found.items()} == pytest.approx(judgement.values())
    for name, each in found.items():
        assert each["low"] <= each["value"] <= each["high"]
        if name != "popularity_bias":
            assert each["low"] >= 0
        if name not in {"log_loss", "novelty"}:
            assert each["high"] <= 1 + 1e-12


@laws
@given(judged(n_models=2), st.sampled_from(METRICS), st.integers(0, 100))
def test_a_comparison_turned_round_is_its_negative(drawn: tuple[Judgement, Judgement], metric: str, seed: int):
    one, other = drawn
    there = compare(one, other, metric, np.random.default_rng(seed), 50)
    back = compare(other, one, metric, np.random.default_rng(seed), 50)
    assert there["difference"] == pytest.approx(one.values()[metric] - other.values()[metric], abs=1e-9)
    assert (there["difference"], there["low"], there["high"]) == pytest.approx(
        (-back["difference"], -back["high"], -back["low"]), abs=1e-9
    )
    nothing = compare(one, one, metric, np.random.default_rng(seed), 50)
    assert nothing == {"difference": 0, "low": 0, "high": 0}


@laws
@given(npst.arrays(float, st.integers(0, 60), elements=_shares), st.integers(1, 12), st.data())
def test_a_curve_accounts_for_every_cell_and_parts_no_ties(said: Floats, n_bins: int, data: st.DataObject):
    true = data.draw(npst.arrays(bool, len(said)))
    curve = reliability(said, true, n_bins)
    assert len(curve) <= n_bins
    start, ordered = 0, np.sort(said)
    for each in curve:
        end = start + each["n"]
        inside = (said >= ordered[start]) & (said <= ordered[end - 1])
        assert inside.sum() == each["n"]
        assert each["predicted"] == pytest.approx(said[inside].mean())
        assert each["observed"] == pytest.approx(true[inside].mean())
        assert 0 <= each["low"] <= each["observed"] <= each["high"] <= 1
        start = end
    assert start == len(said)


@laws
@given(st.integers(1, 60), st.integers(1, 12))
def test_bins_without_ties_differ_by_one_cell_at_most(n: int, n_bins: int):
    said = np.random.default_rng(n).permutation(n) / n
    counts = [each["n"] for each in reliability(said, said > 0.5, n_bins)]
    assert max(counts) - min(counts) <= 1
    assert len(counts) == min(n, n_bins)


@laws
@given(npst.arrays(bool, st.tuples(st.integers(0, 20), st.integers(1, 6))), st.integers(0, 100))
def test_leaving_one_out_hides_one_alert_of_each_who_has_any(labels: np.ndarray, seed: int):
    trial = leave_one_out(labels, np.random.default_rng(seed))
    assert trial.rows.tolist() == [row for row, own in enumerate(labels) if own.any()]
    assert (trial.wanted.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(trial.wanted | trial.enabled, labels[trial.rows])


@laws
@given(st.integers(2, 40), st.data())
def test_folds_are_of_equal_size_and_part_the_users(n_users: int, data: st.DataObject):
    n_folds = data.draw(st.integers(2, n_users))
    found = folds(n_users, n_folds, np.random.default_rng(data.draw(st.integers(0, 100))))
    sizes = [len(test) for _, test in found]
    assert len(found) == n_folds
    assert max(sizes) - min(sizes) <= 1
    for train, test in found:
        assert np.union1d(train, test).tolist() == list(range(n_users))
        assert len(train) + len(test) == n_users
    assert sorted(np.concatenate([test for _, test in found]).tolist()) == list(range(n_users))


_few = st.integers(-3, 3).map(float) | st.just(math.nan)


@laws
@given(st.data(), st.integers(2, 25))
def test_the_auc_of_a_leak_is_that_of_scikit_learn(data: st.DataObject, n: int):
    from sklearn.metrics import roc_auc_score

    column = data.draw(npst.arrays(float, n, elements=_few))
    wanted = data.draw(npst.arrays(bool, n))
    found = find_leaks(
        column[:, None], wanted[:, None], ["feature"], ["alert"], bound=0.0, min_positives=1
    )  # the interval still decides
    aucs = []
    known = ~np.isnan(column)
    for values, outcomes in ((column[known], wanted[known]), (known.astype(float), wanted)):
        if outcomes.any() and not outcomes.all():
            auc = roc_auc_score(outcomes, values)
            aucs.append(max(auc, 1 - auc))
    if found:
        assert found[0].auc == pytest.approx(max(aucs))
    else:
        assert max(aucs, default=0) < 1  # what is certain has no interval


# Calibration and drift, whose laws are as short


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    a, b, c = (draw(st.floats(-2, 2)) for _ in range(3))
    return Calibration(draw(st.floats(0.05, 5)), draw(st.floats(-5, 5)), ((a * a, a * b), (a * b, b * b + c * c)))


@laws
@given(calibrations(), npst.arrays(float, st.integers(0, 20), elements=_shares), st.floats(0.5, 0.99))
def test_calibrating_keeps_the_order_and_lies_within_its_interval(calibration: Calibration, said: Floats, level: float):
    said = np.sort(said)
    found = calibration.apply(said)
    low, high = calibration.interval(said, level)
    assert (np.diff(found) >= -1e-12).all()
    assert ((low >= 0) & (low <= found) & (found <= high) & (high <= 1)).all()
    certain = (said == 0) | (said == 1)
    np.testing.assert_array_equal(found[certain], said[certain])
    assert Calibration.from_json(calibration.to_json()) == calibration


@laws
@given(st.data(), st.integers(0, 40))
def test_a_calibration_is_found_whatever_the_cells(data: st.DataObject, n: int):
    said = data.draw(npst.arrays(float, n, elements=_shares))
    true = data.draw(npst.arrays(bool, n))
    users = data.draw(npst.arrays(np.intp, n, elements=st.integers(0, 5)))
    found = Calibration.fit(said, true, users)
    (a, b), (c, d) = found.covariance
    assert np.isfinite([found.slope, found.intercept, a, b, c, d]).all()
    assert found.slope >= 0.05
    assert min(a, d) > 0
    assert b == pytest.approx(c)
    losses = [cell_losses(each, true).sum() for each in (said, found.apply(said))]
    assert losses[1] <= losses[0] + 1e-9
    order = np.array(data.draw(st.permutations(range(n))), dtype=np.intp)
    shuffled = Calibration.fit(said[order], true[order], users[order])
    assert (shuffled.slope, shuffled.intercept) == pytest.approx((found.slope, found.intercept), abs=1e-5)


@laws
@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.5, 0.99))
def test_the_interval_of_a_share_holds_it(successes: int, failures: int, level: float):
    n = successes + failures
    low, high = share_interval(successes, n, level)
    assert 0 <= low <= (successes / n if n else 0.5) <= high <= 1
    if n:
        wider = share_interval(successes, n, (1 + level) / 2)
        assert wider[0] <= low
        assert wider[1] >= high


@laws
@given(npst.arrays(float, st.tuples(st.integers(1, 30), st.just(2)), elements=_few | st.floats()))
def test_nothing_has_drifted_from_itself(features: Floats):
    profiles = profile(features, ["one", "two"])
    for each in profiles.values():
        assert sum(each["shares"]) == pytest.approx(1)
        assert len(each["shares"]) == len(each["edges"]) + 2
        assert each["edges"] == sorted(set(each["edges"]))
    assert population_stability(profiles, features, ["one", "two"]) == {"one": 0, "two": 0}
    twice = population_stability(profiles, np.repeat(features, 2, axis=0), ["one", "two"])
    assert list(twice.values()) == pytest.approx([0, 0])
