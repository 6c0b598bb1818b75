"""What a model must pass before it serves anybody; a refusal says which gate and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alertrec.calibration import share_interval
from alertrec.drift import DRIFTED_FROM
from alertrec.errors import DataError
from alertrec.evaluation.bootstrap import Difference, GroupReport
from alertrec.evaluation.leaks import Leak
from alertrec.models.base import AlertMatrix

# A bank of forty users, most of them with rules, must be able to start.
MIN_JUDGED = 10
MAX_CALIBRATION_ERROR = 0.05
# A group's log-loss may be so much above everybody's, as a share of it.
MAX_GROUP_EXCESS = 0.25
# An alert type that so many users and such a share of them want is offered to somebody, or else it collapsed.
MIN_WANTED = 5
WANTED_BY_MANY = 0.1
# An alert type that is offered to so many of those who lack it is offered to everybody.
OFFERED_TO_ALL = 0.99
MIN_LACKING = 20


@dataclass(frozen=True)
class Gate:
    """The verdict of one gate.

    Attributes
    ----------
    measured, bound : float or None
        None where the gate was not measured by a number.
    message : str
        In plain words, whether passed or not.
    """

    name: str
    passed: bool
    measured: float | None
    bound: float | None
    message: str

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON can hold it."""
        return asdict(self)


def passed(gates: Iterable[Gate]) -> bool:
    """Return whether every gate was passed."""
    return all(gate.passed for gate in gates)


def enough_data(n_judged: int, bound: int = MIN_JUDGED) -> Gate:
    """Refuse a model that was judged on too few users to tell anything."""
    n_judged = int(n_judged)  # a count of numpy's is no JSON
    few = n_judged < bound
    verdict = f"below the bound {bound} by {bound - n_judged}" if few else f"at least {bound}"
    return Gate("enough_data", not few, n_judged, bound, f"users judged: {n_judged}, {verdict}")


def no_alert_collapsed(
    offered: NDArray[np.intp], wanted: AlertMatrix, enabled: AlertMatrix, alert_columns: Sequence[str]
) -> Gate:
    """Refuse a model that never offers what many want, or offers to all what few want.

    Parameters
    ----------
    offered : int array, shape (n, n_offered)
        Alert indices, -1 where a list has ended.
    wanted, enabled : bool array, shape (n, n_alerts)
    alert_columns : sequence of str, length n_alerts

    Notes
    -----
    Never: offered to nobody, though at least 5 users and 10 % of all judged want it.
    Always: offered to at least 99 % of those who lack it and have more to choose from than a list holds (of fewer
    than 20 such users nothing is said), though it is not among the n_offered types that those who lack them want
    most. The most wanted types may be offered to everybody. Shares are compared by the nearer ends of their 90 %
    intervals, so that chance refuses nobody.
    """
    if not offered.shape[0] == len(wanted) == len(enabled) or wanted.shape != (len(enabled), len(alert_columns)):
        raise DataError(
            f"offered {offered.shape}, wanted {wanted.shape}, enabled {enabled.shape} and {len(alert_columns)} alert "
            "columns do not fit each other"
        )
    is_offered = (offered[:, :, None] == np.arange(len(alert_columns))).any(axis=1)
    never = ~is_offered.any(axis=0) & (wanted.sum(axis=0) >= max(MIN_WANTED, WANTED_BY_MANY * len(wanted)))
    lacking, offered_to_all = _offered_to_all(is_offered, wanted, enabled, n_offered=offered.shape[1])
    n_wanted, names = wanted.sum(axis=0).tolist(), list(alert_columns)
    complaints = [
        *(f"{names[a]} is never offered, though {n_wanted[a]} of {len(wanted)} users want it" for a in _where(never)),
        *(
            f"{names[a]} is offered to all of the {lacking[a]} users who lack it, though {n_wanted[a]} want it"
            for a in _where(offered_to_all)
        ),
    ]
    message = "; ".join(complaints) or "no alert type is offered to nobody or to everybody against what is wanted"
    return Gate("no_alert_collapsed", not complaints, len(complaints), 0, message)


def calibrated(calibration_error: float, low: float, bound: float = MAX_CALIBRATION_ERROR) -> Gate:
    """Refuse a model whose probabilities do not keep their word.

    Parameters
    ----------
    calibration_error, low : float
        Expected calibration error and the lower end of its interval; only the latter above the bound refuses.
    """
    good = low <= bound
    message = f"calibration error {calibration_error:.3f} is {_side(calibration_error, bound)}"
    if good and calibration_error > bound:
        message += f", but not beyond noise: its interval starts at {low:.3f}"
    return Gate("calibrated", good, calibration_error, bound, message)


def no_group_harmed(
    groups_report: Mapping[str, Mapping[str, GroupReport]], overall: float, bound: float = MAX_GROUP_EXCESS
) -> Gate:
    """Refuse a model that serves a group much worse than everybody.

    Parameters
    ----------
    groups_report : what `by_group` returned
    overall : float
        Log-loss over all judged users.
    bound : float
        A group is harmed if the whole interval of its log-loss is above (1 + bound) · overall.
    """
    found = [
        (report["log_loss"]["value"] / overall - 1, report["log_loss"]["low"], f"{name}={value}")
        for name, values in groups_report.items()
        for value, report in values.items()
    ]
    harmed = sorted((each for each in found if each[1] > (1 + bound) * overall), reverse=True)
    worst = max((excess for excess, _, _ in harmed or found), default=None)
    if harmed:
        message = "; ".join(
            f"the log-loss of {group} is {excess:.0%} above that of everybody, more than the bound {bound:.0%} by "
            f"{excess - bound:.0%}"
            for excess, _, group in harmed
        )
    else:
        message = f"no group's log-loss is more than {bound:.0%} above that of everybody, beyond noise"
    return Gate("no_group_harmed", not harmed, worst, bound, message)


def no_drift(stability: Mapping[str, float], drifted_names: Sequence[str], bound: float = DRIFTED_FROM) -> Gate:
    """Refuse to serve users who no longer look like those in training.

    Parameters
    ----------
    stability : what `population_stability` returned
    drifted_names : what `drifted` returned
    bound : float
        Above which a feature counts as drifted, before what `drift_bound` allows for chance.
    """
    worst = max((stability[name] for name in drifted_names or stability), default=None)
    message = f"no feature's population stability index is above {bound:g} beyond noise"
    if drifted_names:
        message = "; ".join(
            f"population stability index {stability[name]:.3f} of {name} is {_side(stability[name], bound)}"
            for name in drifted_names
        )
    return Gate("no_drift", not drifted_names, worst, bound, message)


def no_leak(leaks: Sequence[Leak]) -> Gate:
    """Refuse a model that was given a feature which knows the future."""
    what = "; ".join(f"{each.feature} alone tells {each.alert} (AUC {each.auc:.3f}, {each.n} users)" for each in leaks)
    worst = max((leak.auc for leak in leaks), default=None)
    return Gate("no_leak", not leaks, worst, None, what or "no feature alone tells who enables an alert later")


def beats(comparison: Difference, against: str) -> Gate:
    """Refuse a model whose log-loss is not below another's beyond noise.

    Parameters
    ----------
    comparison : what `compare` returned of log-loss, the new model first
    against : str
        What the other is called.
    """
    better = comparison["high"] < 0
    message = (
        f"the log-loss is {'' if better else 'not '}below that of {against} beyond noise: the difference is "
        f"{comparison['difference']:+.4f}, its interval {comparison['low']:+.4f} to {comparison['high']:+.4f}"
    )
    return Gate(f"beats_{against}", better, comparison["difference"], 0.0, message)


def _side(measured: float, bound: float) -> str:
    if measured > bound:
        return f"above the bound {bound:g} by {measured - bound:.3f}"
    return f"within the bound {bound:g}"


def _where(true: NDArray[np.bool_]) -> list[int]:
    return [int(alert) for alert in np.flatnonzero(true)]


def _offered_to_all(
    is_offered: AlertMatrix, wanted: AlertMatrix, enabled: AlertMatrix, *, n_offered: int
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return for each alert type how many with a choice lack it, and whether it is offered to them against it."""
    has_choice = (~enabled).sum(axis=1) > n_offered
    lacking = ~enabled[has_choice]
    n_lacking = lacking.sum(axis=0)
    judged = n_lacking >= MIN_LACKING
    low, high = share_interval(wanted[has_choice].sum(axis=0), n_lacking)
    nth_most_wanted = np.sort(np.where(judged, low, 0.0))[-n_offered:].min(initial=1.0)
    n_offers = (is_offered[has_choice] & lacking).sum(axis=0)
    return n_lacking, judged & (n_offers >= OFFERED_TO_ALL * n_lacking) & (high < nth_most_wanted)
