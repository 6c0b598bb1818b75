"""Said and come true, side by side: cells in bins of equal count."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from alertrec.calibration import share_interval
from alertrec.errors import DataError

N_BINS = 10


class ReliabilityBin(TypedDict):
    """Cells of about the same probability: what was said, what came true, and its 95 % interval."""

    predicted: float
    observed: float
    n: int
    low: float
    high: float


def reliability(
    probabilities: NDArray[np.float64], outcomes: NDArray[np.bool_], n_bins: int = N_BINS
) -> list[ReliabilityBin]:
    """Return the mean probability beside the rate of what came true, in bins of equal count.

    Parameters
    ----------
    probabilities : float64 array, shape (n_cells,), without NaN
    outcomes : bool array, shape (n_cells,)
    n_bins : int
        At most so many; equal probabilities are never put into different bins.

    Returns
    -------
    list of dict
        By rising probability; `low` and `high` are Wilson's interval, which takes the cells as independent.
    """
    if probabilities.ndim != 1 or probabilities.shape != outcomes.shape:
        raise DataError(f"expected two columns of one length; got {probabilities.shape} and {outcomes.shape}")
    bins = bins_of(probabilities, n_bins)
    n = np.bincount(bins, minlength=n_bins)
    said = np.bincount(bins, probabilities, minlength=n_bins)
    true = np.bincount(bins, outcomes, minlength=n_bins)
    low, high = share_interval(true, n, level=0.95)
    return [
        {
            "predicted": float(said[b] / n[b]),
            "observed": float(true[b] / n[b]),
            "n": int(n[b]),
            "low": float(low[b]),
            "high": float(high[b]),
        }
        for b in np.flatnonzero(n)
    ]


def calibration_error(curve: list[ReliabilityBin]) -> float | None:
    """Return the mean absolute gap of a curve, each bin weighted by its cells; None of no cells."""
    n_cells = sum(each["n"] for each in curve)
    if not n_cells:
        return None
    return sum(each["n"] * abs(each["predicted"] - each["observed"]) for each in curve) / n_cells


def bins_of(probabilities: NDArray[np.float64], n_bins: int) -> NDArray[np.intp]:
    """Return the bin of each probability, by the share of probabilities that are smaller.

    Without ties the counts differ by one at most. Equal probabilities share a bin, so that some may stay empty.
    """
    smaller = np.searchsorted(np.sort(probabilities), probabilities, side="left")
    return np.asarray(smaller * n_bins // max(len(probabilities), 1), dtype=np.intp)
