"""What each judged user contributes to each metric, so that any resampling of users can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.evaluation.protocols import Trial
from alertrec.evaluation.reliability import N_BINS, bins_of, reliability
from alertrec.models.base import AlertMatrix, ScoreMatrix
from alertrec.ranking import top_k

__all__ = ["HIGHER_IS_BETTER", "METRICS", "Judgement", "cell_losses", "judge", "reliability", "value_of"]

Floats = NDArray[np.float64]

HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {
        "hit_at_1": True,
        "hit_at_3": True,
        "mrr": True,
        "ndcg_at_3": True,
        "log_loss": False,
        "brier": False,
        "calibration_error": False,
        "coverage": True,
        "novelty": True,
        "popularity_bias": False,  # best at 0: offered is what is as popular as what is wanted
    }
)
METRICS = tuple(HIGHER_IS_BETTER)

# Probabilities are clipped before the logarithm, so that one certain and wrong cell costs 13.8 and not infinity.
_CLIP = 1e-6
_TOP = 3


@dataclass(frozen=True, eq=False)
class Judgement:
    """What each user contributes to each metric.

    Attributes
    ----------
    trial : Trial
    probabilities : float64 array, shape (n, n_alerts)
    popularity : float64 array, shape (n_alerts,)
    offered : int array, shape (n, n_offered)
        The best ranked alerts that the user lacks, the best first; -1 where the list has ended.
    contributions : dict of float64 array, shape (n, width)
        For each metric what a user adds to totals of which `value_of` makes the metric.
    """

    trial: Trial
    probabilities: ScoreMatrix
    popularity: Floats
    offered: NDArray[np.intp]
    contributions: Mapping[str, Floats]

    def values(self) -> dict[str, float]:
        """Return every metric over all judged users."""
        return {
            metric: float(value_of(metric, columns.sum(axis=0, keepdims=True))[0])
            for metric, columns in self.contributions.items()
        }


def judge(probabilities: ScoreMatrix, trial: Trial, popularity: Floats, *, n_offered: int = 3) -> Judgement:
    """Hold probabilities against what the users of a trial wanted.

    Parameters
    ----------
    probabilities : float64 array, shape (n, n_alerts)
        Of the users of the trial, in its order; in [0, 1]. Cells of enabled alerts are not looked at.
    trial : Trial
    popularity : float64 array, shape (n_alerts,)
        The share of the training users who have each alert.
    n_offered : int
        How many alerts a user is offered; of these are coverage, novelty and popularity bias.

    Returns
    -------
    Judgement
        hit_at_k: whether a wanted alert is among the first k. mrr: 1 / rank of the best ranked wanted alert.
        ndcg_at_3: gain 1 / log2(1 + rank) of wanted alerts among the first three, as a share of the best possible
        (Järvelin and Kekäläinen 2002). log_loss (nats), brier: means over all cells that are not enabled.
        calibration_error: over these cells in ten bins of equal count, the mean absolute gap between what was said
        and what came true (Naeini et al. 2015). coverage: the share of the alert types that anybody is offered.
        novelty: the mean of -log2 popularity over the offers, popularity taken as at least 1 / (n + 1).
        popularity_bias: the mean popularity of the offers less that of the wanted alerts.

    Raises
    ------
    DataError
        If nobody is judged, a shape does not fit, or a judged probability is NaN or outside [0, 1].
    """
    probabilities = np.asarray(probabilities, dtype=float)
    popularity = np.asarray(popularity, dtype=float)
    _check(probabilities, trial, popularity, n_offered)
    ranked = top_k(probabilities, probabilities.shape[1], exclude=trial.enabled).alerts
    offered = ranked[:, :n_offered]
    contributions = (
        _of_ranking(ranked, trial.wanted)
        | _of_cells(probabilities, trial)
        | _of_offers(offered, trial.wanted, popularity)
    )
    return Judgement(
        trial, probabilities, popularity, offered, MappingProxyType({name: contributions[name] for name in METRICS})
    )


def value_of(metric: str, totals: Floats) -> Floats:
    """Return a metric of each of several groups of users.

    Parameters
    ----------
    metric : one of `METRICS`
    totals : float64 array, shape (n_groups, width)
        The contributions of the users of each group, summed.
    """
    if metric == "coverage":
        return np.asarray((totals > 0).mean(axis=1), dtype=float)
    if metric == "calibration_error":
        return np.asarray(np.abs(totals[:, :-1]).sum(axis=1) / totals[:, -1], dtype=float)
    if metric == "popularity_bias":
        return np.asarray(totals[:, 0] / totals[:, 1] - totals[:, 2] / totals[:, 3], dtype=float)
    return np.asarray(totals[:, 0] / totals[:, 1], dtype=float)


def cell_losses(probabilities: Floats, outcomes: NDArray[np.bool_]) -> Floats:
    """Return minus the logarithm of what was said of what happened, in nats."""
    said = np.clip(np.where(outcomes, probabilities, 1 - probabilities), _CLIP, 1 - _CLIP)
    return np.asarray(-np.log(said), dtype=float)


def _check(probabilities: ScoreMatrix, trial: Trial, popularity: Floats, n_offered: int) -> None:
    if not len(trial):
        raise DataError("nobody to judge: no user of the trial wanted an alert; judge on more users")
    if probabilities.shape != trial.enabled.shape or popularity.shape != probabilities.shape[1:]:
        raise DataError(
            f"expected probabilities {trial.enabled.shape} and popularity {trial.enabled.shape[1:]}; "
            f"got {probabilities.shape} and {popularity.shape}"
        )
    judged = probabilities[~trial.enabled]
    if not ((judged >= 0) & (judged <= 1)).all() or not ((popularity >= 0) & (popularity <= 1)).all():
        raise DataError("probabilities and popularity must be in [0, 1], without NaN")
    if n_offered < 1:
        raise DataError(f"at least one alert must be offered; got n_offered={n_offered}")


def _of_ranking(ranked: NDArray[np.intp], wanted: AlertMatrix) -> dict[str, Floats]:
    hits = np.take_along_axis(wanted, ranked, axis=1) & (ranked >= 0)
    first = hits.argmax(axis=1)  # there is one: a wanted alert is not enabled, so it is ranked
    discounts = 1 / np.log2(np.arange(2, _TOP + 2))
    top = hits[:, :_TOP]
    ideal = np.concatenate([[0], discounts.cumsum()])[np.minimum(wanted.sum(axis=1), _TOP)]
    return {
        "hit_at_1": _ratio(first < 1),
        "hit_at_3": _ratio(first < _TOP),
        "mrr": _ratio(1 / (first + 1)),
        "ndcg_at_3": _ratio(top @ discounts[: top.shape[1]] / ideal),
    }


def _of_cells(probabilities: ScoreMatrix, trial: Trial) -> dict[str, Floats]:
    judged, wanted = ~trial.enabled, trial.wanted
    n_cells = judged.sum(axis=1)
    p = np.where(judged, probabilities, 0.0)
    loss = np.where(judged, cell_losses(p, wanted), 0.0)
    places = np.nonzero(judged)[0] * N_BINS + bins_of(p[judged], N_BINS)
    gaps = np.bincount(places, p[judged] - wanted[judged], minlength=len(p) * N_BINS).reshape(len(p), N_BINS)
    return {
        "log_loss": _ratio(loss.sum(axis=1), n_cells),
        "brier": _ratio(((p - wanted) ** 2).sum(axis=1), n_cells),
        "calibration_error": np.column_stack([gaps, n_cells]),
    }


def _of_offers(offered: NDArray[np.intp], wanted: AlertMatrix, popularity: Floats) -> dict[str, Floats]:
    n, n_alerts = wanted.shape
    there = offered >= 0
    shares = np.where(there, popularity[offered], 0.0)
    surprise = np.where(there, -np.log2(np.maximum(popularity, 1 / (n + 1)))[offered], 0.0)
    is_offered = (offered[:, :, None] == np.arange(n_alerts)).any(axis=1)
    return {
        "coverage": is_offered.astype(float),
        "novelty": _ratio(surprise.sum(axis=1), there.sum(axis=1)),
        "popularity_bias": np.column_stack(
            [shares.sum(axis=1), there.sum(axis=1), wanted @ popularity, wanted.sum(axis=1)]
        ),
    }


def _ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic] | None = None) -> Floats:
    return np.column_stack([numerator, np.ones(len(numerator)) if denominator is None else denominator]).astype(float)
