"""How far a figure can be trusted: percentiles over users drawn again and again, with replacement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.evaluation.metrics import METRICS, Judgement, cell_losses, value_of
from alertrec.evaluation.reliability import ReliabilityBin, calibration_error, reliability

Floats = NDArray[np.float64]

# Elements of one block of resamples, users by resamples: 32 MB.
_BLOCK_ELEMENTS = 4_000_000
_PERCENTILES = (2.5, 97.5)
OTHER = "other"
UNKNOWN = "unknown"


class Interval(TypedDict):
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(TypedDict):
    """What one judgement has more than another, and the ends of its 95 % interval."""

    difference: float
    low: float
    high: float


class AlertReport(TypedDict):
    """How one alert type is served; None where everybody has it."""

    n_wanted: int
    n_offered: int
    log_loss: float | None
    calibration_error: float | None
    reliability: list[ReliabilityBin]


class GroupReport(TypedDict):
    """How one group of users is served."""

    n_users: int
    log_loss: Interval
    mrr: Interval


def summarise(judgement: Judgement, rng: np.random.Generator, n_resamples: int = 1000) -> dict[str, Interval]:
    """Return each metric with its interval, over users drawn with replacement.

    The bins of `calibration_error` are those of all users. Noise alone makes this figure larger, in a sample and
    once more in a resample of it; its ends are moved down by twice what the resamples show of that, so that the
    lower one may be held against a bound. An interval always holds its value, also where resampling is one-sided
    as it is with `coverage`.
    """
    return _intervals(judgement.contributions, rng, n_resamples)


def compare(
    one: Judgement, other: Judgement, metric: str, rng: np.random.Generator, n_resamples: int = 1000
) -> Difference:
    """Return by how much one exceeds the other, both measured on the same drawn users.

    Raises
    ------
    DataError
        If the judgements are not of the same trial, or there is no such metric.
    """
    if metric not in METRICS:
        raise DataError(f"there is no metric {metric!r}; choose one of {', '.join(METRICS)}")
    if not one.trial.is_same_as(other.trial):
        raise DataError("the judgements are not of the same trial; judge both on the same users and cells")
    width = one.contributions[metric].shape[1]

    def differences(totals: Floats) -> Floats:
        return value_of(metric, totals[:, :width]) - value_of(metric, totals[:, width:])

    both = np.hstack([one.contributions[metric], other.contributions[metric]])
    all_users, drawn = _totals(both, rng, n_resamples)
    value = float(differences(all_users)[0])
    low, high = _ends(value, differences(drawn))
    return {"difference": value, "low": low, "high": high}


def by_alert(judgement: Judgement, alert_columns: Sequence[str]) -> dict[str, AlertReport]:
    """Return how each alert type is served, over the users who lack it.

    Parameters
    ----------
    alert_columns : sequence of str, length n_alerts
    """
    if len(alert_columns) != judgement.probabilities.shape[1]:
        raise DataError(f"expected {judgement.probabilities.shape[1]} alert columns; got {len(alert_columns)}")
    return {name: _alert_report(judgement, alert) for alert, name in enumerate(alert_columns)}


def by_group(
    judgement: Judgement, groups: Mapping[str, Sequence[str | None]], rng: np.random.Generator, min_users: int = 30
) -> dict[str, dict[str, GroupReport]]:
    """Return how each group of users is served.

    Parameters
    ----------
    groups : mapping of sequences, each of length n
        The group of each user of the trial, in its order, by each way of grouping; None is the group `unknown`.
    min_users : int
        Smaller groups are pooled as `other`, which is left out where it is smaller still.
    """
    return {
        name: {
            value: _group_report(judgement, rows, rng)
            for value, rows in _pooled(name, members, len(judgement.trial), min_users)
        }
        for name, members in groups.items()
    }


def _intervals(contributions: Mapping[str, Floats], rng: np.random.Generator, n_resamples: int) -> dict[str, Interval]:
    edges = np.cumsum([columns.shape[1] for columns in contributions.values()])[:-1]
    totals, drawn = _totals(np.hstack(list(contributions.values())), rng, n_resamples)
    found: dict[str, Interval] = {}
    pieces = zip(contributions, np.split(totals, edges, axis=1), np.split(drawn, edges, axis=1), strict=True)
    for metric, all_users, resampled in pieces:
        value = float(value_of(metric, all_users)[0])
        values = value_of(metric, resampled)
        if metric == "calibration_error":
            values = np.maximum(values - 2 * max(float(values.mean()) - value, 0.0), 0.0)
        low, high = _ends(value, values)
        found[metric] = {"value": value, "low": low, "high": high}
    return found


def _totals(columns: Floats, rng: np.random.Generator, n_resamples: int) -> tuple[Floats, Floats]:
    """Return the sums over all users, shape (1, width), and over each resample, shape (n_resamples, width)."""
    if n_resamples < 1:
        raise DataError(f"at least one resample is needed; got {n_resamples}")
    drawn = [counts @ columns for counts in _resamples(len(columns), n_resamples, rng)]
    return columns.sum(axis=0, keepdims=True), np.concatenate(drawn)


def _resamples(n: int, n_resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield blocks of how often each user is drawn, shape (some resamples, n)."""
    at_once = max(1, _BLOCK_ELEMENTS // n)
    for start in range(0, n_resamples, at_once):
        size = min(at_once, n_resamples - start)
        # Faster than drawing the counts from the multinomial distribution, which they have.
        places = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * n).reshape(size, n).astype(float)


def _ends(value: float, drawn: Floats) -> tuple[float, float]:
    low, high = np.percentile(drawn, _PERCENTILES)
    return min(float(low), value), max(float(high), value)


def _alert_report(judgement: Judgement, alert: int) -> AlertReport:
    lacking = ~judgement.trial.enabled[:, alert]
    wanted = judgement.trial.wanted[lacking, alert]
    said = judgement.probabilities[lacking, alert]
    curve = reliability(said, wanted)
    return {
        "n_wanted": int(wanted.sum()),
        "n_offered": int((judgement.offered == alert).sum()),
        "log_loss": float(cell_losses(said, wanted).mean()) if len(said) else None,
        "calibration_error": calibration_error(curve),
        "reliability": curve,
    }


def _group_report(judgement: Judgement, rows: NDArray[np.intp], rng: np.random.Generator) -> GroupReport:
    found = _intervals({metric: judgement.contributions[metric][rows] for metric in ("log_loss", "mrr")}, rng, 1000)
    return {"n_users": len(rows), "log_loss": found["log_loss"], "mrr": found["mrr"]}


def _pooled(name: str, members: Sequence[str | None], n: int, min_users: int) -> Iterator[tuple[str, NDArray[np.intp]]]:
    if len(members) != n:
        raise DataError(f"group {name!r} must name a group for each of the {n} judged users; got {len(members)}")
    values = np.array([UNKNOWN if member is None else str(member) for member in members], dtype=object)
    sizes = {value: int((values == value).sum()) for value in sorted(set(values.tolist()))}
    values[[sizes[value] < min_users for value in values]] = OTHER
    for value in sorted(set(values.tolist())):
        rows = np.flatnonzero(values == value)
        if len(rows) >= min_users:
            yield value, rows
