"""What customers answer to offers: by how much they take each type more, or less, than was promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from alertrec.calibration import log_odds, sigmoid
from alertrec.errors import DataError

Floats = NDArray[np.float64]

# The standard deviation of the normal prior on a shift: before any answer, one that multiplies the odds by more than e
# is held for unlikely (two deviations), and it takes about 1 / (0.25 · 0.5²) = 16 answers to get half of the way.
PRIOR_DEVIATION = 0.5
_PRECISION = 1 / PRIOR_DEVIATION**2
# Where nearly nothing is in doubt, Newton's step leads far past the best; log-odds are some tens at most.
_LONGEST_STEP = 3.0
_MAX_STEPS = 100
_MAX_HALVINGS = 30


class Answered(TypedDict):
    """How often offers of one type were answered, how often taken, and what is learnt: a shift of the log-odds."""

    n_answers: int
    n_taken: int
    shift: float


@dataclass(frozen=True)
class Answers:
    """Answered offers, one element each in any order.

    Attributes
    ----------
    alerts : int array, shape (n_answers,)
        The column of the alert that was offered.
    probabilities : float64 array, shape (n_answers,), in [0, 1]
        As promised by the offer.
    taken : bool array, shape (n_answers,)
        Whether the customer took it, and kept it.
    shifted_by : float64 array, shape (n_answers,)
        The shift of the log-odds that was part of the promise. It is taken out again: else the training after one that
        has learnt would find that promises are kept, and unlearn it.
    """

    alerts: NDArray[np.intp]
    probabilities: Floats
    taken: NDArray[np.bool_]
    shifted_by: Floats

    def __post_init__(self) -> None:
        columns = (self.alerts, self.probabilities, self.taken, self.shifted_by)
        if {column.shape for column in columns} != {(len(self.alerts),)}:
            raise DataError(f"answers need columns of one length; got shapes {[column.shape for column in columns]}")
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all() or not np.isfinite(self.shifted_by).all():
            raise DataError("answers need probabilities in [0, 1] and finite shifts, without NaN")

    def __len__(self) -> int:
        return len(self.alerts)

    @classmethod
    def none(cls) -> Self:
        """Return no answers."""
        return cls(np.zeros(0, dtype=np.intp), np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0))


def shifts(answers: Answers, n_alerts: int) -> Floats:
    """Return by how much the log-odds of each alert are to be moved, by what customers answered.

    The answers are explained by logit P(taken) = a + logit(p) + b_j: the promise p without its shift is an offset, `a`
    is how readily customers take any offer, `b_j` how much more readily those of alert j. That is Rasch's model (1960)
    with offsets, fitted as a ridge logistic regression (le Cessie and van Houwelingen 1992): `b` is what is likeliest
    after the answers under a normal prior, `a` is free. It must be: customers take far fewer of all offers than
    leave-one-out promises, which says nothing of one alert against another, and is thrown away. So the shifts sum to
    zero: what is refused more often than others falls, and the others rise by as much in all.

    Parameters
    ----------
    answers : Answers
        What was certain, exactly 0 or 1, stays so and teaches nothing, as in `Calibration`.
    n_alerts : int

    Returns
    -------
    float64 array, shape (n_alerts,)
        Exactly 0 for alerts without answers; for all where every answer is the same, or all are of one alert: then
        nothing tells whether that alert is refused or offers are. The order of the answers does not matter.

    Raises
    ------
    DataError
        If an answer is of an alert that is none of `n_alerts`.
    """
    if not ((answers.alerts >= 0) & (answers.alerts < n_alerts)).all():
        raise DataError(f"answers name alerts 0 to {n_alerts - 1}; got {sorted(set(answers.alerts.tolist()))}")
    found = np.zeros(n_alerts)
    open_ = (answers.probabilities > 0) & (answers.probabilities < 1)
    y, offset = answers.taken[open_].astype(float), (log_odds(answers.probabilities) - answers.shifted_by)[open_]
    present, alerts = np.unique(answers.alerts[open_], return_inverse=True)
    if y.any() and not y.all():
        order = np.lexsort((y, offset, alerts))  # sums of floats depend on their order
        found[present] = _minimise(alerts[order], offset[order], y[order], len(present))[1:]
    return found


def tally(answers: Answers, found: Floats, alert_columns: Sequence[str]) -> dict[str, Answered]:
    """Return what is to be reported of each alert that has answers.

    Parameters
    ----------
    found : float64 array, shape (n_alerts,), see `shifts`
    """
    n_answers = np.bincount(answers.alerts, minlength=len(alert_columns)).tolist()
    n_taken = np.bincount(answers.alerts[answers.taken], minlength=len(alert_columns)).tolist()
    rows = zip(alert_columns, n_answers, n_taken, found.tolist(), strict=True)
    return {alert: {"n_answers": n, "n_taken": taken, "shift": shift} for alert, n, taken, shift in rows if n}


def _minimise(alerts: NDArray[np.intp], offset: Floats, y: Floats, n_present: int) -> Floats:
    """Return (a, b_0, b_1, …) of least loss, by Newton's method with bounded steps; both outcomes must occur."""
    weights = np.zeros(1 + n_present)
    loss = _loss(alerts, offset, y, weights)
    for _ in range(_MAX_STEPS):
        p = sigmoid(weights[0] + weights[1 + alerts] + offset)
        residuals = _sums(alerts, p - y, n_present)
        gradient = np.append(residuals.sum(), residuals + _PRECISION * weights[1:])
        step = np.linalg.solve(_curvature(_sums(alerts, p * (1 - p), n_present)), gradient)
        step *= _LONGEST_STEP / max(float(np.abs(step).max()), _LONGEST_STEP)
        for _ in range(_MAX_HALVINGS):
            trial = _loss(alerts, offset, y, weights - step)
            # So near to the best that rounding hides what is won, a full step is safe.
            if trial <= loss or gradient @ step < 1e-8:
                break
            step /= 2
        else:
            return weights
        weights, loss = weights - step, trial
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _sums(alerts: NDArray[np.intp], values: Floats, n_present: int) -> Floats:
    return np.asarray(np.bincount(alerts, weights=values, minlength=n_present), dtype=float)


def _loss(alerts: NDArray[np.intp], offset: Floats, y: Floats, weights: Floats) -> float:
    logit = weights[0] + weights[1 + alerts] + offset
    return float(np.logaddexp(0, logit).sum() - y @ logit + _PRECISION / 2 * weights[1:] @ weights[1:])


def _curvature(variances: Floats) -> Floats:
    """Return the matrix of second derivatives, shape (1 + n_present, 1 + n_present)."""
    found = np.diag(np.append(variances.sum(), variances + _PRECISION))
    found[0, 1:] = found[1:, 0] = variances
    return found
