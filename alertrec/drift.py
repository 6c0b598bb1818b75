"""Whether today's users still look like those that the model was trained on: the population stability index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.models.base import FeatureMatrix

Floats = NDArray[np.float64]

# The levels in common use (Siddiqi 2006): below the first nothing has changed, from the second on a lot has.
STABLE_BELOW = 0.1
DRIFTED_FROM = 0.25

# Tenths of the users, and one bin for a missing value.
_QUANTILES = np.arange(1, 10) / 10
_MAX_BINS = len(_QUANTILES) + 2
# Values nearer to each other than this share of their size are the same.
_RESOLUTION = 1e-9


class Profile(TypedDict):
    """How a feature is spread over the users.

    `edges` are the upper, inclusive ends of all bins but the last; `shares` those of the users in each bin and, last,
    of the users without a value; `n` is how many users they are shares of.
    """

    edges: list[float]
    shares: list[float]
    n: int


def profile(features: FeatureMatrix, names: Sequence[str]) -> dict[str, Profile]:
    """Return how each feature is spread, as JSON can hold it.

    Parameters
    ----------
    features : float64 array, shape (n_users, n_features)
        NaN has a bin of its own; infinite values fall into the outer bins.
    names : sequence of str, length n_features

    Notes
    -----
    The edges are the deciles. Where several are one value, as with a constant or with many zeros, that value has a
    bin of its own, so that a move to either side is seen.
    """
    _check(features, names)
    return {name: _profile(column) for name, column in zip(names, features.T, strict=True)}


def population_stability(
    profiles: Mapping[str, Profile], features: FeatureMatrix, names: Sequence[str]
) -> dict[str, float]:
    """Return for each feature Σ (q - p) · ln(q / p), over bins with share p then and q now.

    A share of nobody counts as half a user, so that one new value does not make the sum infinite; a bin that is
    empty then and now counts nothing.

    Parameters
    ----------
    profiles : what `profile` returned of the training users
    features : float64 array, shape (n_users, n_features)
    names : sequence of str, length n_features

    Returns
    -------
    dict of float
        From 0 up, see `STABLE_BELOW` and `DRIFTED_FROM`. Nothing is subtracted for chance, which alone makes about
        (bins - 1) · (1 / n_then + 1 / n_now); `drifted` allows for it.

    Raises
    ------
    DataError
        If there are no users, or a feature has no profile.
    """
    _check(features, names)
    unknown = [name for name in names if name not in profiles]
    if unknown:
        raise DataError(f"no profile of {', '.join(unknown)}; the model was trained on {', '.join(profiles)}")
    return {name: _stability(profiles[name], column) for name, column in zip(names, features.T, strict=True)}


def drift_bound(n_reference: int, n: int) -> float:
    """Return what a feature's index must exceed to count as drift, given how many users were then and are now.

    That is `DRIFTED_FROM` and what chance exceeds once in a hundred: without drift the index over (1 / n_reference +
    1 / n) is about χ² distributed with bins - 1 degrees of freedom (Yurdakul 2018), so mean + 2.33 standard deviations.
    """
    if n_reference < 1 or n < 1:
        raise DataError(f"drift needs users then and now; got {n_reference} and {n}")
    freedom = _MAX_BINS - 1
    return DRIFTED_FROM + (freedom + 2.33 * math.sqrt(2 * freedom)) * (1 / n_reference + 1 / n)


def drifted(stability: Mapping[str, float], n_reference: int, n: int) -> list[str]:
    """Return the features that drifted by more than `drift_bound`, the furthest first.

    Parameters
    ----------
    stability : what `population_stability` returned
    n_reference, n : int
        How many users the profile is of, and how many it was held against.
    """
    bound = drift_bound(n_reference, n)
    return sorted((name for name, value in stability.items() if value > bound), key=lambda name: -stability[name])


def _check(features: FeatureMatrix, names: Sequence[str]) -> None:
    if features.ndim != 2 or features.shape[1] != len(names) or not len(features):
        raise DataError(f"expected features of at least one user and of {len(names)} names; got {features.shape}")


def _profile(column: Floats) -> Profile:
    finite = column[np.isfinite(column)]
    edges: list[float] = []
    if len(finite):
        # Of the values that there are, none in between: a value in between would part no one.
        deciles, repeats = np.unique(np.quantile(finite, _QUANTILES, method="inverted_cdf"), return_counts=True)
        below = [value - _RESOLUTION * max(1.0, abs(value)) for value in deciles[repeats > 1].tolist()]
        edges = sorted({*deciles.tolist(), *below})
    return {"edges": edges, "shares": (_counts(column, edges) / len(column)).tolist(), "n": len(column)}


def _counts(column: Floats, edges: list[float]) -> Floats:
    known = column[~np.isnan(column)]
    counts = np.bincount(np.searchsorted(np.array(edges), known, side="left"), minlength=len(edges) + 1)
    return np.append(counts, len(column) - len(known)).astype(float)


def _stability(then: Profile, column: Floats) -> float:
    now, shares = _counts(column, then["edges"]), np.array(then["shares"])
    if len(shares) != len(now):
        raise DataError(f"a profile of {len(now) - 2} edges needs {len(now)} shares; got {len(shares)}")
    p, q = np.maximum(shares, 0.5 / then["n"]), np.maximum(now, 0.5) / len(column)
    used = (shares > 0) | (now > 0)
    return float(((q - p) * np.log(q / p))[used].sum())
