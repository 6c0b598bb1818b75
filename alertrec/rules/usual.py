"""What fits most customers: the parameters of those whose own history is too short to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from alertrec.explanation.cohort import MIN_COHORT
from alertrec.ledger import Floats


@dataclass(frozen=True)
class UsualDials:
    """The values of the dials that fit the users of a training, see `fitted_dials`.

    Attributes
    ----------
    user_ids : list of str
        Those whom the model remembers.
    dials : float64 array, shape (n_users, n_alerts)
        NaN where nothing is known.
    population : float64 array, shape (n_alerts,)
        The lower median over all users of the training; NaN where fewer than `MIN_COHORT` are known.
    """

    user_ids: list[str]
    dials: Floats
    population: Floats

    @classmethod
    def of(cls, user_ids: Sequence[str], dials: Floats, *, remembered: Sequence[str]) -> UsualDials:
        """Return what fits the users of a training, keeping the values of some of them."""
        return cls(list(user_ids), dials, lower_medians(dials)).remembering(remembered)

    def remembering(self, user_ids: Sequence[str]) -> UsualDials:
        """Return the same of these users; of those who are not known, nothing."""
        known = np.vstack([self.dials, np.full(self.dials.shape[1], np.nan)])
        rows = [self._row_of.get(user_id, -1) for user_id in user_ids]
        return replace(self, user_ids=list(user_ids), dials=known[rows])

    def among(self, user_ids: Sequence[str]) -> Floats:
        """Return the lower medians among some users, shape (n_alerts,); NaN where fewer than `MIN_COHORT` are known."""
        rows = [self._row_of[user_id] for user_id in user_ids if user_id in self._row_of]
        return lower_medians(self.dials[rows])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {user_id: row for row, user_id in enumerate(self.user_ids)}


def lower_medians(dials: Floats) -> Floats:
    """Return the lower median of each column, which is one of its values, of the rows that have one.

    Returns
    -------
    float64 array, shape (n_columns,)
        NaN where fewer than `MIN_COHORT` rows have one: what is told of fewer people could point at them.
    """
    known = np.sort(dials, axis=0)  # NaN last
    n = (~np.isnan(dials)).sum(axis=0)
    if not len(known):
        return np.full(dials.shape[1], np.nan)
    middle = known[np.maximum(n - 1, 0) // 2, np.arange(dials.shape[1])]
    return np.where(n >= MIN_COHORT, middle, np.nan)
