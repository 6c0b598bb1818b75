"""Who is judged, on what: one alert hidden of each user, or a split in time; and folds of users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError
from alertrec.models.base import AlertMatrix, Rows


@dataclass(frozen=True, eq=False)
class Trial:
    """What a model may see of the judged users, and what it should have foretold.

    Attributes
    ----------
    rows : int array, shape (n,)
        The judged users, as rows of the population.
    enabled : bool array, shape (n, n_alerts)
        What the model is shown as theirs. Only the other cells are judged.
    wanted : bool array, shape (n, n_alerts)
        What they had or enabled beyond that: at least one alert a user, none of it in `enabled`.

    Raises
    ------
    DataError
        If the shapes differ, an alert is both enabled and wanted, or a user wants nothing.
    """

    rows: Rows
    enabled: AlertMatrix
    wanted: AlertMatrix

    def __post_init__(self) -> None:
        if self.enabled.ndim != 2 or self.enabled.shape != self.wanted.shape or len(self.rows) != len(self.enabled):
            raise DataError(
                f"a trial needs rows (n,), enabled and wanted (n, n_alerts); got {self.rows.shape}, "
                f"{self.enabled.shape} and {self.wanted.shape}"
            )
        if (self.enabled & self.wanted).any():
            raise DataError("an alert cannot be both enabled and wanted; take what is wanted out of `enabled`")
        if not self.wanted.any(axis=1).all():
            raise DataError("each judged user must want at least one alert; leave the others out of the trial")

    def __len__(self) -> int:
        return len(self.rows)

    def is_same_as(self, other: Trial) -> bool:
        """Return whether both judge the same users on the same cells."""
        return self is other or (
            np.array_equal(self.rows, other.rows)
            and np.array_equal(self.enabled, other.enabled)
            and np.array_equal(self.wanted, other.wanted)
        )


def leave_one_out(labels: AlertMatrix, rng: np.random.Generator) -> Trial:
    """Hide one alert, drawn uniformly, of each user who has any.

    Parameters
    ----------
    labels : bool array, shape (n_users, n_alerts)
    rng : numpy Generator
        One number is drawn a judged user, in the order of the rows.
    """
    rows = np.flatnonzero(labels.any(axis=1))
    owned = labels[rows]
    nth = (rng.random(len(rows)) * owned.sum(axis=1)).astype(np.intp)
    wanted = owned & (owned.cumsum(axis=1) == nth[:, None] + 1)
    return Trial(rows, owned & ~wanted, wanted)


def split_in_time(before: AlertMatrix, after: AlertMatrix) -> Trial:
    """Judge the users who gained an alert on what they gained.

    Parameters
    ----------
    before, after : bool array, shape (n_users, n_alerts)
        What each user had at the cut-off and at the end. An alert that was switched off in between was theirs at
        the cut-off, and is not judged.
    """
    if before.shape != after.shape:
        raise DataError(f"before and after must be of one shape; got {before.shape} and {after.shape}")
    gained = after & ~before
    rows = np.flatnonzero(gained.any(axis=1))
    return Trial(rows, before[rows], gained[rows])


def folds(n_users: int, n_folds: int, rng: np.random.Generator) -> list[tuple[Rows, Rows]]:
    """Return pairs of training and test rows, each ascending; each user is in the test rows of one pair.

    Raises
    ------
    DataError
        If there are fewer than two folds, or fewer users than folds.
    """
    if not 2 <= n_folds <= n_users:
        raise DataError(f"cannot make {n_folds} folds of {n_users} users; pass 2 to {n_users} folds")
    fold_of: NDArray[np.intp] = rng.permutation(np.arange(n_users) % n_folds)
    return [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(n_folds)]
