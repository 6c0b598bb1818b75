from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from alertrec.ranking import N_FALLBACK, choose, top_k
from tests.strategies import laws

Case = tuple[np.ndarray, np.ndarray]

# Few values, so that there are ties and scores that equal the threshold.
_scores = st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.7, 1.0, np.nan]) | st.floats(0, 1)
ks = st.integers(1, 10)
thresholds = st.sampled_from([0.0, 0.4, 0.5, 1.0]) | st.floats(0, 1)


@st.composite
def scores_and_masks(draw: st.DrawFn) -> Case:
    shape = draw(st.integers(0, 5)), draw(st.integers(1, 8))
    return draw(npst.arrays(float, shape, elements=_scores)), draw(npst.arrays(bool, shape))


def usable(case: Case, row: int) -> list[int]:
    """Return the alerts of a row that may be offered, the best first, of equals the lower."""
    scores, exclude = case[0][row].tolist(), case[1][row]
    alerts = [alert for alert, score in enumerate(scores) if not exclude[alert] and score == score]  # noqa: PLR0124  # NaN
    return sorted(alerts, key=lambda alert: (-scores[alert], alert))


def listed(alerts: np.ndarray) -> list[int]:
    """Return the alerts of a row, and see that nothing stands behind the end of the list."""
    there = [int(alert) for alert in alerts if alert >= 0]
    assert alerts.tolist() == there + [-1] * (len(alerts) - len(there))
    return there


@laws
@given(scores_and_masks(), ks)
def test_top_k_agrees_with_sorting_each_row_in_plain_python(case: Case, k: int):
    offers = top_k(case[0], k, exclude=case[1])
    assert len(offers.alerts) == len(case[0])
    for row, alerts in enumerate(offers.alerts):
        assert listed(alerts) == usable(case, row)[:k]


@laws
@given(scores_and_masks(), ks, thresholds)
def test_probabilities_stand_beside_their_alerts_and_nan_beside_none(case: Case, k: int, threshold: float):
    for offers in (top_k(case[0], k, exclude=case[1]), choose(case[0], k, exclude=case[1], threshold=threshold)):
        assert offers.alerts.shape == offers.probabilities.shape
        for row, (alerts, found) in enumerate(zip(*offers, strict=True)):
            expected = [case[0][row, alert] if alert >= 0 else np.nan for alert in alerts]
            np.testing.assert_array_equal(found, expected)


@laws
@given(scores_and_masks(), ks, thresholds)
def test_offered_is_what_reaches_the_threshold_or_else_the_two_most_probable(case: Case, k: int, threshold: float):
    offers = choose(case[0], k, exclude=case[1], threshold=threshold)
    for row, alerts in enumerate(offers.alerts):
        best = usable(case, row)[:k]
        passing = [alert for alert in best if case[0][row, alert] >= threshold]
        assert listed(alerts) == (passing or best[:N_FALLBACK])


@laws
@given(scores_and_masks(), ks, thresholds)
def test_a_list_is_empty_only_for_who_may_be_offered_nothing(case: Case, k: int, threshold: float):
    offers = choose(case[0], k, exclude=case[1], threshold=threshold)
    empty = (offers.alerts < 0).all(axis=1)
    np.testing.assert_array_equal(empty, (case[1] | np.isnan(case[0])).all(axis=1))


@laws
@given(scores_and_masks(), ks, thresholds, st.data())
def test_excluding_more_offers_nothing_that_was_excluded_and_leaves_other_users_alone(
    case: Case, k: int, threshold: float, data: st.DataObject
):
    scores, exclude = case
    if not len(scores):
        return
    row = data.draw(st.integers(0, len(scores) - 1))
    more = exclude.copy()
    more[row] |= data.draw(npst.arrays(bool, exclude.shape[1]))
    before, after = (choose(scores, k, exclude=mask, threshold=threshold).alerts for mask in (exclude, more))
    assert not any(more[row, alert] for alert in listed(after[row]))
    others = np.arange(len(scores)) != row
    np.testing.assert_array_equal(before[others], after[others])


@laws
@given(scores_and_masks(), ks, thresholds)
def test_choosing_changes_nothing_of_what_it_is_given(case: Case, k: int, threshold: float):
    for array in case:
        array.setflags(write=False)
    choose(case[0], k, exclude=case[1], threshold=threshold)
