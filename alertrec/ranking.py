"""Probabilities → the list of a user. The only place that filters, breaks ties and sorts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alertrec.models.base import AlertMatrix, ScoreMatrix

# Where nothing reaches the threshold, this many are offered all the same, marked as of low confidence.
N_FALLBACK = 2


class Offers(NamedTuple):
    """The ranked offers of all users.

    Attributes
    ----------
    alerts : int array, shape (n_users, k)
        Columns of the probability matrix, the best first; -1 where the list has ended.
    probabilities : float64 array, shape (n_users, k)
        NaN beside -1.
    """

    alerts: NDArray[np.intp]
    probabilities: NDArray[np.float64]


def top_k(probabilities: ScoreMatrix, k: int, *, exclude: AlertMatrix) -> Offers:
    """Return each user's k most probable alerts; ties go to the lower alert index.

    Parameters
    ----------
    probabilities : float64 array, shape (n_users, n_alerts); NaN is never offered
    exclude : bool array, shape (n_users, n_alerts); never offered
    """
    scores = np.where(exclude | np.isnan(probabilities), -np.inf, probabilities)
    # A stable sort of the negated scores keeps equal ones in the order of the alerts.
    alerts = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, alerts, axis=1)
    usable = np.isfinite(found)
    return Offers(np.where(usable, alerts, -1), np.where(usable, found, np.nan))


def choose(probabilities: ScoreMatrix, k: int, *, exclude: AlertMatrix, threshold: float) -> Offers:
    """Return at most k alerts a user that reach the threshold; where none does, the two most probable.

    Empty is only the list of a user for whom everything is excluded.
    """
    offers = top_k(probabilities, k, exclude=exclude)
    passing = offers.probabilities >= threshold
    fallback = ~passing.any(axis=1, keepdims=True) & (np.arange(offers.alerts.shape[1]) < N_FALLBACK)
    keep = (passing | fallback) & (offers.alerts >= 0)
    return Offers(np.where(keep, offers.alerts, -1), np.where(keep, offers.probabilities, np.nan))
