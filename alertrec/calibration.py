"""Probabilities that keep their word: of those told 70 %, 70 % enable; and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alertrec.errors import DataError

Floats = NDArray[np.float64]
Pair = tuple[float, float]

# Logits are taken of probabilities within [EPSILON, 1 - EPSILON].
EPSILON = 1e-6
# A slope that is not positive would turn the order of the offers.
MIN_SLOPE = 0.05
# The ridge on (slope - 1, intercept), in units of observations: a normal prior of standard deviation 1 on either.
_RIDGE = 1.0
_MAX_STEPS = 100
_MAX_HALVINGS = 30
_UNKNOWN: tuple[Pair, Pair] = ((1 / _RIDGE, 0.0), (0.0, 1 / _RIDGE))


@dataclass(frozen=True)
class Calibration:
    """Logistic recalibration: logit(calibrated) = slope · logit(p) + intercept (Platt 1999; Cox 1958).

    Attributes
    ----------
    slope : float, at least `MIN_SLOPE`
        Below 1 where the probabilities were overconfident.
    intercept : float
        On the logit; negative where they were too high.
    covariance : 2 × 2, of (slope, intercept)
    shifts : tuple of float, one an alert, or none
        What customers answered to offers of each, see `feedback.shifts`: added to the intercept. With shifts, the last
        axis of what is calibrated is the alerts.
    """

    slope: float
    intercept: float
    covariance: tuple[Pair, Pair]
    shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = np.array([self.slope, self.intercept, *np.ravel(self.covariance)], dtype=float)
        if numbers.shape != (6,) or not np.isfinite(numbers).all() or self.slope < MIN_SLOPE:
            raise DataError(f"not a calibration: {self!r}; expected six finite numbers and slope ≥ {MIN_SLOPE}")
        if not isinstance(self.shifts, tuple) or not np.isfinite(np.array(self.shifts, dtype=float)).all():
            raise DataError(f"not a calibration: {self!r}; expected a tuple of finite shifts, one an alert")

    @classmethod
    def identity(cls) -> Self:
        """Return the calibration of which nothing is known: it changes nothing, and its intervals are wide."""
        return cls(1.0, 0.0, _UNKNOWN)

    @classmethod
    def fit(cls, probabilities: ArrayLike, outcomes: ArrayLike, users: ArrayLike) -> Self:
        """Return the calibration that best explains what happened.

        Parameters
        ----------
        probabilities : float array, shape (n_cells,), in [0, 1]
            Of users that the model was not trained on. What is certain, exactly 0 or 1, stays so in `apply` and
            teaches nothing here; a model must smooth its shares before they can be calibrated.
        outcomes : bool array, shape (n_cells,)
        users : int array, shape (n_cells,)
            Whose cell it is. A user's cells depend on each other, so the covariance is the sandwich clustered by
            user (Liang and Zeger 1986), widened by the ridge's own share.

        Returns
        -------
        Calibration
            The identity where no cells are left, or none or all of them came true.

        Raises
        ------
        DataError
            If the lengths differ, or a probability is NaN or outside [0, 1].
        """
        p = np.asarray(probabilities, dtype=float)
        y = np.asarray(outcomes, dtype=float)
        whose = np.asarray(users)
        if p.ndim != 1 or not p.shape == y.shape == whose.shape:
            raise DataError(f"calibration needs columns of one length; got {p.shape}, {y.shape} and {whose.shape}")
        if not ((p >= 0) & (p <= 1)).all():
            raise DataError("probabilities must be in [0, 1], without NaN")
        open_ = (p > 0) & (p < 1)
        p, y = p[open_], y[open_]
        clusters = np.unique(whose[open_], return_inverse=True)[1]
        if y.all() or not y.any():
            return cls.identity()
        design = np.column_stack([log_odds(p), np.ones(len(p))])
        weights = _minimise(design, y)
        if weights[0] < MIN_SLOPE:  # the loss is convex, so the best of what is allowed lies on this edge
            weights = _minimise(design, y, start=np.array([MIN_SLOPE, 0.0]), free=np.array([False, True]))
        (a, b), (c, d) = _sandwich(design, y, weights, clusters).tolist()
        return cls(float(weights[0]), float(weights[1]), ((a, b), (c, d)))

    def with_shifts(self, shifts: ArrayLike) -> Self:
        """Return this calibration with these shifts, shape (n_alerts,), in place of its own; none if all are 0."""
        found = np.asarray(shifts, dtype=float)
        if found.ndim != 1:
            raise DataError(f"shifts are one number an alert; got shape {found.shape}")
        return replace(self, shifts=tuple(found.tolist()) if found.any() else ())

    def of_alert(self, alert: int) -> Self:
        """Return the calibration of one alert, for arrays of any shape: to the last bit what its column gets."""
        if not self.shifts:
            return self
        return replace(self, intercept=self.intercept + self.shifts[alert], shifts=())

    def shifts_alone(self) -> Self | None:
        """Return what moves probabilities of another origin by the shifts, and by nothing else; None without shifts."""
        return replace(self.identity(), shifts=self.shifts) if self.shifts else None

    def unshifted(self, probabilities: ArrayLike) -> Floats:
        """Return calibrated probabilities as they would be without the shifts; as they are where there are none."""
        p = np.asarray(probabilities, dtype=float)
        if not self.shifts:
            return p
        return _keep_ends(p, sigmoid(log_odds(p) - self._shifts_for(p)))

    def apply(self, probabilities: ArrayLike) -> Floats:
        """Return the calibrated probabilities, of the same shape and order; 0, 1 and NaN stay what they are."""
        p = np.asarray(probabilities, dtype=float)
        return _keep_ends(p, sigmoid(self.slope * log_odds(p) + (self.intercept + self._shifts_for(p))))

    def interval(self, probabilities: ArrayLike, level: float = 0.9) -> tuple[Floats, Floats]:
        """Return the lower and upper end of what the calibrated probability may be, by the delta method.

        The ends enclose what `apply` returns, within [0, 1]. They tell how well the promise of the model is known,
        not how much one user may differ from another of whom the model says the same. Shifts move them and do not widen
        them.
        """
        p = np.asarray(probabilities, dtype=float)
        logit = log_odds(p)
        (slope, shared), (_, intercept) = self.covariance
        deviation = np.sqrt(np.maximum(slope * logit**2 + 2 * shared * logit + intercept, 0))
        centre, reach = self.slope * logit + (self.intercept + self._shifts_for(p)), _quantile(level) * deviation
        return _keep_ends(p, sigmoid(centre - reach)), _keep_ends(p, sigmoid(centre + reach))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads, as JSON can hold it."""
        covariance = [list(row) for row in self.covariance]
        stored = {"slope": self.slope, "intercept": self.intercept, "covariance": covariance}
        return stored | ({"shifts": list(self.shifts)} if self.shifts else {})

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the calibration that `to_json` described."""
        try:
            (a, b), (c, d) = stored["covariance"]
            covariance = ((float(a), float(b)), (float(c), float(d)))
            shifts = tuple(float(shift) for shift in stored.get("shifts", ()))  # older releases knew none
            return cls(float(stored["slope"]), float(stored["intercept"]), covariance, shifts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a stored calibration: {stored!r}; expected what `to_json` returns") from error

    def _shifts_for(self, p: Floats) -> Floats | float:
        """Return what is added to the intercepts of these cells."""
        if not self.shifts:
            return 0.0
        if p.shape[-1:] != (len(self.shifts),):
            raise DataError(f"there are shifts of {len(self.shifts)} alerts; got probabilities of shape {p.shape}")
        return np.array(self.shifts)


def share_interval(successes: ArrayLike, n: ArrayLike, level: float = 0.9) -> tuple[Floats, Floats]:
    """Return the lower and upper end of Wilson's interval (1927) of a share; (0, 1) where n is 0.

    Parameters
    ----------
    successes, n : array of counts, of shapes that broadcast
    """
    k, n = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    z2 = _quantile(level) ** 2
    at_least_one = np.maximum(n, 1)  # the ends of n = 0 are put in below
    share = k / at_least_one
    centre = share + z2 / (2 * at_least_one)
    reach = np.sqrt(z2 * share * (1 - share) / at_least_one + (z2 / (2 * at_least_one)) ** 2)
    scale = 1 + z2 / at_least_one
    # A share lies within its interval; rounding must not say otherwise at 0 and 1.
    low = np.clip(np.minimum((centre - reach) / scale, share), 0, 1)
    high = np.clip(np.maximum((centre + reach) / scale, share), 0, 1)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def confidence_level(probability: float, low: float, threshold: float) -> Literal["high", "medium", "low"]:
    """Return high if the whole interval reaches the threshold, medium if only the estimate does, else low."""
    if low >= threshold:
        return "high"
    return "medium" if probability >= threshold else "low"


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise DataError(f"the level of an interval must be within (0, 1); got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)


def log_odds(p: Floats) -> Floats:
    """Return log(p / (1 - p)), of p within `EPSILON` of either end as of that end."""
    clipped = np.clip(p, EPSILON, 1 - EPSILON)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), dtype=float)


def sigmoid(logit: Floats) -> Floats:
    """Return the probability of these log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(logit / 2)), dtype=float)  # never overflows


def _keep_ends(p: Floats, calibrated: Floats) -> Floats:
    return np.where((p <= 0) | (p >= 1), p, calibrated)


def _loss(design: Floats, y: Floats, weights: Floats) -> float:
    logit = design @ weights
    pulled = weights - [1.0, 0.0]
    return float(np.logaddexp(0, logit).sum() - y @ logit + _RIDGE / 2 * pulled @ pulled)


def _minimise(
    design: Floats, y: Floats, *, start: Floats | None = None, free: NDArray[np.bool_] | None = None
) -> Floats:
    """Return the weights of least loss, by Newton's method with halved steps; what is not free stays."""
    weights = np.array([1.0, 0.0]) if start is None else start
    moving = np.array([True, True]) if free is None else free
    loss = _loss(design, y, weights)
    for _ in range(_MAX_STEPS):
        gradient = design.T @ (sigmoid(design @ weights) - y) + _RIDGE * (weights - [1.0, 0.0])
        step = np.zeros(2)
        step[moving] = np.linalg.solve(_curvature(design, weights)[np.ix_(moving, moving)], gradient[moving])
        for _ in range(_MAX_HALVINGS):
            trial = _loss(design, y, weights - step)
            if trial <= loss:
                break
            step /= 2
        else:
            return weights
        weights, loss = weights - step, trial
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _curvature(design: Floats, weights: Floats) -> Floats:
    p = sigmoid(design @ weights)
    return np.asarray((design.T * (p * (1 - p))) @ design + _RIDGE * np.eye(2), dtype=float)


def _sandwich(design: Floats, y: Floats, weights: Floats, clusters: NDArray[np.intp]) -> Floats:
    residuals = y - sigmoid(design @ weights)
    scores = np.column_stack([np.bincount(clusters, residuals * column) for column in design.T])
    n = len(scores)
    inner = scores.T @ scores * (n / max(n - 1, 1)) + _RIDGE * np.eye(2)
    bread = np.linalg.inv(_curvature(design, weights))
    return np.asarray(bread @ inner @ bread, dtype=float)
