"""What speaks for and against an alert, and what would change the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alertrec.calibration import Calibration
from alertrec.errors import DataError
from alertrec.models.base import AlertMatrix, AlertModel, FeatureMatrix
from alertrec.models.contributions import Grouping
from alertrec.models.one_more import OneMore

Groups = Mapping[str, Sequence[int]]


class Evidence(StrEnum):
    """What kind of thing speaks for or against an alert."""

    BEHAVIOUR = "behaviour"
    ALERT = "alert"
    NUMBER_OF_ALERTS = "number_of_alerts"


@dataclass(frozen=True)
class Contribution:
    """What a group of features, or another alert, adds to the log-odds.

    Attributes
    ----------
    name : str
        Of the group, or the column of the alert.
    value : float
    """

    evidence: Evidence
    name: str
    value: float


@dataclass(frozen=True)
class Change:
    """The answer if one thing were different, all else as it is.

    Attributes
    ----------
    name : str
        Of a group of features, which then is as with a typical user; or the column of an alert, which the user then
        has not.
    probability : float
        Calibrated.
    """

    evidence: Evidence
    name: str
    probability: float


@dataclass(frozen=True)
class Explanation:
    """Why a model gives an alert this probability.

    `log_odds` is that of having the alert, whatever becomes of others; the probability is that it is the one the user
    switches on next. What speaks for two alerts alike changes neither's probability much: `changes` tell of that.
    What customers answered to such offers is part of the calibration, and so of `probability` and of `changes`; it is
    no contribution, for it is the same for all users, and tells of offers and not of who has the alert.

    Attributes
    ----------
    alert : str
        Its column.
    probability : float, in [0, 1]
        As it is offered: calibrated.
    log_odds, base : float or None
        base + the contributions = log_odds. None of a model that has no log-odds.
    contributions : tuple of Contribution
        The largest first, whichever their sign; those that are 0 are left out.
    changes : tuple of Change
        The furthest from `probability` first.
    """

    alert: str
    probability: float
    log_odds: float | None
    base: float | None
    contributions: tuple[Contribution, ...]
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads, as JSON can hold it."""
        stored = asdict(self)
        return stored | {name: list(stored[name]) for name in ("contributions", "changes")}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the explanation that `to_json` described."""
        try:
            contributions = tuple(Contribution(**_with_kind(each)) for each in stored["contributions"])
            changes = tuple(Change(**_with_kind(each)) for each in stored["changes"])
            return cls(**{**stored, "contributions": contributions, "changes": changes})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a stored explanation: {stored!r}; expected what `to_json` returns") from error


def explain(  # noqa: PLR0913  # the question is the first four; how to put the answer, the rest
    model: AlertModel,
    features: FeatureMatrix,
    enabled: AlertMatrix,
    alert: int,
    *,
    groups: Groups,
    alert_columns: Sequence[str],
    typical: NDArray[np.float64],
    calibration: Calibration | None = None,
    training_row: int = -1,
) -> Explanation:
    """Explain what a model says of one user and one alert.

    Parameters
    ----------
    features : float64 array, shape (1, n_features); NaN where unknown
    enabled : bool array, shape (1, n_alerts)
        An alert that is asked about and enabled is judged as if it were not yet.
    alert : int
    groups : mapping of columns of the features, by name
        Each column in one of them; see `feature_groups`.
    alert_columns : sequence of str, one an alert
    typical : float64 array, shape (n_features,)
        What a group is changed to, such as the medians of the training users.
    calibration : Calibration, optional
        That of all alerts.
    training_row : int
        The row of the training data that the user is, -1 for none.

    Raises
    ------
    NotFittedError, DataError
        Before `fit`; if shapes, groups or the alert do not go together.
    """
    _check(features, enabled, alert, columns=alert_columns, typical=typical)
    grouping = Grouping.of(groups, features.shape[1])
    others = np.flatnonzero(enabled[0] & (np.arange(enabled.shape[1]) != alert))
    asked, without = _variations(features, enabled, grouping, others, typical)
    rows = np.full(len(asked), training_row, dtype=np.intp)
    raw = model.predict_proba(asked, without, training_rows=rows)[:, alert]
    now, *then = (raw if calibration is None else calibration.of_alert(alert).apply(raw)).tolist()
    names = [(Evidence.BEHAVIOUR, name) for name in grouping.names]
    names += [(Evidence.ALERT, alert_columns[other]) for other in others.tolist()]
    changes = [Change(evidence, name, found) for (evidence, name), found in zip(names, then, strict=True)]
    changes.sort(key=lambda change: -abs(change.probability - now))
    log_odds, base, contributions = _contributions(model, features, enabled, alert, groups, alert_columns)
    return Explanation(alert_columns[alert], now, log_odds, base, contributions, tuple(changes))


def _check(
    features: FeatureMatrix, enabled: AlertMatrix, alert: int, *, columns: Sequence[str], typical: NDArray[np.float64]
) -> None:
    if len(features) != 1 or len(enabled) != 1 or typical.shape != features.shape[1:]:
        raise DataError(
            "expected features (1, n_features), alerts (1, n_alerts) and a typical user (n_features,); "
            f"got shapes {features.shape}, {enabled.shape} and {typical.shape}"
        )
    if len(columns) != enabled.shape[1] or not 0 <= alert < len(columns):
        raise DataError(f"expected one of {enabled.shape[1]} alerts, each with its column; got {alert}, {columns}")


def _variations(
    features: FeatureMatrix,
    enabled: AlertMatrix,
    grouping: Grouping,
    others: NDArray[np.intp],
    typical: NDArray[np.float64],
) -> tuple[FeatureMatrix, AlertMatrix]:
    """Return the user as they are, then with each group as is typical, then without each of the other alerts."""
    n_groups = len(grouping.names)
    n_rows = 1 + n_groups + len(others)
    varied, without = np.repeat(features, n_rows, axis=0), np.repeat(enabled, n_rows, axis=0)
    columns = np.arange(len(typical))
    varied[1 + grouping.of_column, columns] = typical
    without[np.arange(1 + n_groups, n_rows), others] = False
    return varied, without


def _contributions(
    model: AlertModel, features: FeatureMatrix, enabled: AlertMatrix, alert: int, groups: Groups, columns: Sequence[str]
) -> tuple[float | None, float | None, tuple[Contribution, ...]]:
    """Return log-odds, base, and contributions by size."""
    if not isinstance(model, OneMore):
        return None, None, ()
    parts = model.contributions(features, enabled, alert, groups)
    others = enabled & (np.arange(enabled.shape[1]) != alert)
    log_odds = float(model.log_odds(features, np.zeros(1, dtype=np.intp), others)[0, alert])
    found = [Contribution(Evidence.BEHAVIOUR, name, value) for name, value in parts.groups.items()]
    found += [Contribution(Evidence.ALERT, columns[other], value) for other, value in parts.alerts.items()]
    found.append(Contribution(Evidence.NUMBER_OF_ALERTS, "number of alerts", parts.number_of_alerts))
    found.sort(key=lambda each: -abs(each.value))
    return log_odds, parts.base, tuple(each for each in found if each.value)


def _with_kind(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {**stored, "evidence": Evidence(stored["evidence"])}
