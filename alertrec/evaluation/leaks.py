"""Features that know the future: one number that alone tells who enables an alert later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.models.base import AlertMatrix, FeatureMatrix

Floats = NDArray[np.float64]

# However strong, an honest feature stays below: behaviour up to a moment does not settle what somebody does after it.
_HONEST = 0.95


@dataclass(frozen=True)
class Leak:
    """A feature that tells an alert.

    Attributes
    ----------
    feature, alert : str
    auc : float, in [0.5, 1]
        Area under the ROC curve of the feature, or of whether it is missing, in the direction that tells more.
    n : int
        The users compared.
    """

    feature: str
    alert: str
    auc: float
    n: int


def find_leaks(
    features: FeatureMatrix,
    wanted: AlertMatrix,
    feature_names: Sequence[str],
    alert_columns: Sequence[str],
    *,
    enabled: AlertMatrix | None = None,
    bound: float = 0.98,
    min_positives: int = 10,
) -> list[Leak]:
    """Return the features that alone separate who wants an alert from who does not.

    Two things must hold, so that neither a strong honest feature nor chance among many pairs is taken for a leak:
    the AUC reaches `bound`, and the lower end of its 95 % interval (Hanley and McNeil 1982) is above 0.95.

    Parameters
    ----------
    features : float64 array, shape (n_users, n_features)
        As of the cut-off. Users for whom a feature is NaN are left out of its AUC; whether it is NaN is tried as a
        feature of its own, since a value that exists only for those who went on to enable tells as much.
    wanted : bool array, shape (n_users, n_alerts)
        What came after the cut-off.
    enabled : bool array, shape (n_users, n_alerts), optional
        What was there at the cut-off. Who has an alert already is left out of its comparisons, or a feature that
        knows how things stood in the end would pass: it cannot tell who came to have an alert from who had it.
    min_positives : int
        A pair is tried where at least so many users want the alert, and at least so many do not.

    Returns
    -------
    list of Leak
        The largest AUC first; each pair of feature and alert once.
    """
    shape = len(features), len(feature_names), len(alert_columns)
    if shape != (len(wanted), features.shape[1], wanted.shape[1]):
        raise DataError(
            f"features {features.shape} and wanted {wanted.shape} do not fit each other, {len(feature_names)} "
            f"feature names and {len(alert_columns)} alert columns"
        )
    judged = np.ones_like(wanted) if enabled is None else ~enabled
    leaks: dict[tuple[str, int], Leak] = {}
    for name, column, rows in _candidates(features, feature_names):
        auc, low, n_positives, n = _aucs(column[rows], wanted[rows] & judged[rows], judged[rows])
        enough = np.minimum(n_positives, n - n_positives) >= min_positives
        for alert in np.flatnonzero(enough & (auc >= bound) & (low > _HONEST)).tolist():
            leak = Leak(name, alert_columns[alert], float(auc[alert]), int(n[alert]))
            known = leaks.get((name, alert))
            if known is None or known.auc < leak.auc:
                leaks[name, alert] = leak
    return sorted(leaks.values(), key=lambda leak: (-leak.auc, leak.feature, leak.alert))


def _candidates(features: FeatureMatrix, names: Sequence[str]) -> Iterator[tuple[str, Floats, NDArray[np.bool_]]]:
    """Yield each feature with the rows where it is known, and whether it is known with all rows."""
    for name, column in zip(names, features.T, strict=True):
        known = ~np.isnan(column)
        if known.any():
            yield name, column, known
        if not known.all():
            yield name, known.astype(float), np.ones_like(known)


def _aucs(
    column: Floats, wanted: AlertMatrix, judged: AlertMatrix
) -> tuple[Floats, Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Return for each alert the AUC in its better direction, its lower 95 % end, and how many want it of how many.

    An AUC of nobody, or of nobody else, is NaN.
    """
    order = np.argsort(column, kind="stable")
    # Users of one value are compared as one, which halves the credit of a tie.
    starts = np.unique(column[order], return_index=True)[1]
    positives = np.add.reduceat(wanted[order], starts, axis=0, dtype=float)
    negatives = np.add.reduceat((judged & ~wanted)[order], starts, axis=0, dtype=float)
    n_positives, n_negatives = positives.sum(axis=0), negatives.sum(axis=0)
    pairs = np.where(n_positives * n_negatives > 0, n_positives * n_negatives, np.nan)
    auc = (positives * (negatives.cumsum(axis=0) - negatives / 2)).sum(axis=0) / pairs
    auc = np.maximum(auc, 1 - auc)
    one, two = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
    variance = (auc * (1 - auc) + (n_positives - 1) * one + (n_negatives - 1) * two) / pairs
    low = auc - 1.96 * np.sqrt(np.maximum(variance, 0))
    return auc, low, n_positives.astype(np.intp), (n_positives + n_negatives).astype(np.intp)
