from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.feedback import PRIOR_DEVIATION, Answers, shifts, tally
from tests.strategies import laws

N_ALERTS = 4
Row = tuple[int, float, bool]  # alert, probability, taken


def answers(rows: list[Row], shifted_by: float = 0.0) -> Answers:
    alerts, probabilities, taken = ([row[place] for row in rows] for place in range(3))
    columns: list[NDArray[Any]] = [np.array(alerts, dtype=np.intp), np.array(probabilities, dtype=float)]
    return Answers(columns[0], columns[1], np.array(taken, dtype=bool), np.full(len(rows), shifted_by))


def learnt(rows: list[Row], n_alerts: int = N_ALERTS) -> NDArray[np.float64]:
    return shifts(answers(rows), n_alerts)


def offered(alert: int, probability: float, *, taken: int, of: int) -> list[Row]:
    return [(alert, probability, number < taken) for number in range(of)]


rows_of_answers = st.lists(
    st.tuples(st.integers(0, N_ALERTS - 1), st.sampled_from([0.05, 0.2, 0.4, 0.7, 0.95]), st.booleans()), max_size=25
)


# In numbers.


def test_two_types_of_which_one_is_liked_are_worked_by_hand():
    # Both promised 0.5, so the logit is 0. Three of four take the first and one of four the second: by symmetry a = 0,
    # b_0 = -b_1 = b, and 3 - 4 · σ(b) = b / 0.5² has the root 0.2001. Without a prior it would be ln 3 = 1.0986.
    found = learnt([*offered(0, 0.5, taken=3, of=4), *offered(1, 0.5, taken=1, of=4)])
    assert 3 - 4 / (1 + math.exp(-found[0])) - 4 * found[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found, [0.2001, -0.2001, 0, 0], atol=1e-4)


def test_that_customers_take_less_of_everything_than_was_promised_moves_nothing():
    # Promised odds of 1, 1/2 and 2; taken a quarter of that: 1/4 (1 of 5), 1/8 (1 of 9) and 1/2 (1 of 3). The common
    # level a = -ln 4 explains all of it.
    rows = [
        *offered(0, 1 / 2, taken=20, of=100),
        *offered(1, 1 / 3, taken=11, of=99),
        *offered(2, 2 / 3, taken=40, of=120),
    ]
    np.testing.assert_allclose(learnt(rows), 0, atol=1e-12)


def test_what_is_promised_is_taken_into_account():
    # Both are taken by one of three, but the second was promised to nearly all, the first to a third.
    found = learnt([*offered(0, 1 / 3, taken=10, of=30), *offered(1, 0.9, taken=10, of=30)])
    assert found[0] > 0.3
    assert found[1] == pytest.approx(-found[0])


def test_many_answers_tell_all_that_the_odds_do():
    # One of two takes the first, one of four the second: ln 1 - ln 1/3 = ln 3 apart, and they sum to 0.
    rows = [*offered(0, 0.5, taken=50_000, of=100_000), *offered(1, 0.5, taken=25_000, of=100_000)]
    np.testing.assert_allclose(learnt(rows, 2), [math.log(3) / 2, -math.log(3) / 2], atol=1e-3)


def test_of_few_answers_little_is_learnt():
    sizes = (1, 4, 16, 64, 256)
    moved = [-learnt([*offered(0, 0.4, taken=0, of=n), *offered(1, 0.4, taken=20, of=40)])[0] for n in sizes]
    assert moved == sorted(moved)
    # One answer of 0.5 too little, against a curvature of 1 / 0.5² and a little more: less than 0.5 / 4.
    assert 0 < moved[0] < 0.125
    assert moved[-1] > 2 * PRIOR_DEVIATION


def test_the_fit_is_that_of_scipy():
    from scipy.optimize import minimize

    rng = np.random.default_rng(3)
    alerts, p = rng.integers(0, N_ALERTS, 400), rng.uniform(0.02, 0.98, 400)
    y = rng.random(400) < p**2
    design = np.eye(N_ALERTS)[alerts]

    def loss(weights: NDArray[np.float64]) -> float:
        logit = np.log(p / (1 - p)) + weights[0] + design @ weights[1:]
        prior = (weights[1:] ** 2).sum() / (2 * PRIOR_DEVIATION**2)
        return float(np.log1p(np.exp(np.where(y, -logit, logit))).sum() + prior)

    expected = minimize(loss, np.zeros(1 + N_ALERTS), tol=1e-10).x[1:]
    found = shifts(Answers(alerts, p, y, np.zeros(400)), N_ALERTS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found).max() > 0.05


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no answers"),
        pytest.param([*offered(0, 0.5, taken=0, of=9), *offered(1, 0.3, taken=0, of=2)], id="all dismissed"),
        pytest.param([*offered(0, 0.5, taken=9, of=9), *offered(1, 0.3, taken=2, of=2)], id="all taken"),
        pytest.param([*offered(2, 0.5, taken=3, of=9), (2, 0.3, True), (2, 0.77, False)], id="one type"),
        pytest.param([(0, 1.0, False), (1, 0.0, True), (2, 0.5, True)], id="promised for certain"),
    ],
)
def test_where_nothing_sets_the_types_apart_nothing_moves(rows: list[Row]):
    assert learnt(rows).tolist() == [0] * N_ALERTS


def test_what_is_always_and_what_is_never_taken_stay_finite():
    found = learnt([*offered(0, 1e-6, taken=1000, of=1000), *offered(1, 1 - 1e-6, taken=0, of=1000)])
    assert np.isfinite(found).all()
    assert found[0] > 5
    assert found.sum() == pytest.approx(0, abs=1e-8)


# Laws.


@laws
@given(rows_of_answers)
def test_shifts_sum_to_zero_and_types_without_answers_have_none(rows: list[Row]):
    found = learnt(rows, N_ALERTS + 1)
    assert found.sum() == pytest.approx(0, abs=1e-8)
    unanswered = set(range(N_ALERTS + 1)) - {alert for alert, *_ in rows}
    assert {found[alert] for alert in unanswered} == {0.0}


@laws
@given(rows_of_answers, st.integers(0, N_ALERTS - 1), st.sampled_from([0.05, 0.4, 0.95]), st.booleans())
def test_one_more_dismissal_lowers_its_type_and_no_other_and_one_more_taken_raises_it(
    rows: list[Row], alert: int, probability: float, taken: bool
):
    change = learnt([*rows, (alert, probability, taken)]) - learnt(rows)
    change = change if taken else -change
    assert change[alert] >= -1e-8
    assert (np.delete(change, alert) <= 1e-8).all()


@laws
@given(rows_of_answers.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_the_order_of_the_answers_does_not_matter_to_the_last_bit(both: tuple[list[Row], list[Row]]):
    one, other = map(learnt, both)
    assert one.tolist() == other.tolist()


@laws
@given(rows_of_answers, st.permutations(range(N_ALERTS)))
def test_types_are_all_alike(rows: list[Row], names: list[int]):
    renamed = learnt([(names[alert], *rest) for alert, *rest in rows])  # type: ignore[misc]
    np.testing.assert_allclose(renamed[names], learnt(rows), atol=1e-8)


@laws
@given(rows_of_answers)
def test_yes_and_no_are_mirrored(rows: list[Row]):
    mirrored = [(alert, 1 - probability, not taken) for alert, probability, taken in rows]
    np.testing.assert_allclose(learnt(mirrored), -learnt(rows), atol=1e-8)


@laws
@given(rows_of_answers, st.lists(st.floats(-3, 3), min_size=N_ALERTS, max_size=N_ALERTS))
def test_the_shift_that_a_promise_was_made_with_is_taken_out_again(rows: list[Row], then: list[float]):
    # So that one training after another learns the same of the same customers, and does not unlearn it.
    assume(rows)
    plain = answers(rows)
    by = np.array(then)[plain.alerts]
    odds = plain.probabilities / (1 - plain.probabilities) * np.exp(by)
    shifted = Answers(plain.alerts, odds / (1 + odds), plain.taken, by)
    np.testing.assert_allclose(shifts(shifted, N_ALERTS), shifts(plain, N_ALERTS), atol=1e-7)


# What is reported and refused.


def test_answers_are_counted_by_type():
    rows = [*offered(0, 0.5, taken=3, of=4), *offered(2, 0.5, taken=0, of=1)]
    found = tally(answers(rows), np.array([0.25, 0.0, -0.25]), ("a", "b", "c"))
    assert found == {
        "a": {"n_answers": 4, "n_taken": 3, "shift": 0.25},
        "c": {"n_answers": 1, "n_taken": 0, "shift": -0.25},
    }
    assert tally(Answers.none(), np.zeros(3), ("a", "b", "c")) == {}


@pytest.mark.parametrize("alert", [-1, N_ALERTS])
def test_an_answer_of_no_alert_is_refused(alert: int):
    with pytest.raises(DataError, match="alerts 0 to 3"):
        learnt([(alert, 0.5, True), (1, 0.5, False)])


@pytest.mark.parametrize(
    ("column", "values"),
    [("alerts", [0]), ("probabilities", [0.5, math.nan]), ("probabilities", [0.5, 1.1]), ("probabilities", [-0.1, 0]),
     ("taken", [True]), ("shifted_by", [0.0, math.inf]), ("shifted_by", [[0.0], [0.0]])],
)  # fmt: skip
def test_answers_that_cannot_be_used_are_refused(column: str, values: list[Any]):
    good = {"alerts": [0, 1], "probabilities": [0.5, 0.5], "taken": [True, False], "shifted_by": [0.0, 0.0]}
    with pytest.raises(DataError):
        Answers(**{name: np.array(each) for name, each in (good | {column: values}).items()})
