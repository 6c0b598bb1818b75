"""What a model that is sensitive to scale looks at: features brought to one scale, amounts by their logarithm."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alertrec.models.base import Arrays, FeatureMatrix

# Nobody is further from the mean than this many standard deviations: one odd account must not decide a fit.
_LIMIT = 5.0
# An alert weighs as much as two standard deviations of a feature: most have few alerts, and each tells a lot.
ALERT_SCALE = 2.0


class Inputs:
    """Standardised features; a column that its logarithm makes more symmetric, as amounts are, enters by that.

    The logarithm is sign(x) * log(1 + |x|), which knows zero and negative balances. NaN becomes the mean, and a column
    that had any in training is followed by one that tells where.

    Attributes
    ----------
    is_log_, is_gappy_ : bool arrays, shape (n_features,)
        Which columns enter by their logarithm; which hold NaN in training.
    mean_, scale_ : float64 arrays, shape (n_features,)
        After the logarithm.
    """

    is_log_: NDArray[np.bool_]
    is_gappy_: NDArray[np.bool_]
    mean_: NDArray[np.float64]
    scale_: NDArray[np.float64]

    def fit(self, features: FeatureMatrix) -> Self:
        """Learn scales from the training users."""
        logarithms = signed_log(features)
        self.is_log_ = _asymmetry(logarithms) < _asymmetry(features)
        self.is_gappy_ = np.asarray(np.isnan(features).any(axis=0))
        self.mean_, self.scale_ = mean_and_scale(np.where(self.is_log_, logarithms, features))
        return self

    def transform(self, features: FeatureMatrix) -> FeatureMatrix:
        """Return float64 (n_users, n_features + columns with NaN in training), without NaN."""
        values = (np.where(self.is_log_, signed_log(features), features) - self.mean_) / self.scale_
        unknown = np.isnan(features)
        known = np.where(unknown, 0.0, values).clip(-_LIMIT, _LIMIT)
        return np.hstack([known, unknown[:, self.is_gappy_]])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything learnt."""
        return {"is_log": self.is_log_, "is_gappy": self.is_gappy_, "mean": self.mean_, "scale": self.scale_}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Return the fitted inputs."""
        inputs = cls()
        inputs.is_log_, inputs.is_gappy_ = arrays["is_log"], arrays["is_gappy"]
        inputs.mean_, inputs.scale_ = arrays["mean"], arrays["scale"]
        return inputs


def signed_log(values: FeatureMatrix) -> FeatureMatrix:
    """Return sign(x) * log(1 + |x|)."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def mean_and_scale(features: FeatureMatrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and standard deviations, NaN left out; 1 for a feature that never varies or that nobody has.

    Written out, since importing a scaler takes three times as long as training on a thousand users.
    """
    known = np.where(np.isnan(features).all(axis=0), 0.0, features)
    mean, deviation = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
    # The deviation of equal floats can come out as their rounding error.
    constant = deviation <= 1e-12 * np.maximum(np.abs(mean), 1.0)
    return mean, np.where(constant, 1.0, deviation)


def _asymmetry(features: FeatureMatrix) -> NDArray[np.float64]:
    """Return the size of each column's skewness, the third standardised moment; 0 where it never varies."""
    mean, scale = mean_and_scale(features)
    return np.asarray(np.abs(np.nan_to_num(((features - mean) / scale) ** 3).mean(axis=0)))
