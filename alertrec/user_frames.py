"""Frames of users, pandas or polars, as the promised calls take them → arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError, UnknownUserError
from alertrec.ledger import USER_ID
from alertrec.models.base import AlertMatrix, FeatureMatrix

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    UserFrame = pd.DataFrame | pl.DataFrame


def user_ids_of(frame: UserFrame) -> list[str]:
    """Return the ids of the rows, as text."""
    return [str(user_id) for user_id in _ids(frame)]


def row_of_user(frame: UserFrame, user_id: str) -> UserFrame:
    """Return the row of one user, looked up by identity and never by position."""
    rows = _rows_of(frame, str(user_id))
    if not rows:
        raise UnknownUserError(str(user_id))
    if len(rows) > 1:
        raise DataError(f"user {user_id!r} comes {len(rows)} times in the frame; one row a user is expected")
    return frame[rows[0] : rows[0] + 1]


def feature_matrix(frame: UserFrame, columns: Sequence[str]) -> FeatureMatrix:
    """Return these features, float64 (n_users, n_columns).

    Raises
    ------
    DataError
        Naming the columns that are missing.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"feature columns are missing: {', '.join(missing)}; `build_user_features` makes them")
    return np.asarray(frame[list(columns)].to_numpy(), dtype=np.float64)


def label_matrix(frame: UserFrame, columns: Sequence[str]) -> AlertMatrix:
    """Return what users have enabled, bool (n_users, n_columns); a column that is missing, nobody.

    Labels are 0 and 1, booleans or floats; an unknown one, None or NaN, is not enabled.
    """
    there = [column for column in columns if column in frame.columns]
    found = np.zeros((len(frame), len(columns)), dtype=np.float64)
    if there:
        found[:, [columns.index(column) for column in there]] = _as_floats(frame, there)
    return np.asarray(np.nan_to_num(found) > 0)


def _as_floats(frame: UserFrame, columns: list[str]) -> NDArray[np.float64]:
    try:
        return np.asarray(frame[columns].to_numpy(), dtype=np.float64)
    except (TypeError, ValueError):  # columns of different kinds, some of which have a null of their own
        return np.column_stack([np.asarray(frame[column].to_numpy()).astype(np.float64) for column in columns])


def _rows_of(frame: UserFrame, user_id: str) -> list[int]:
    values = _ids(frame)
    if user_id not in values:  # of another kind than text, or not there
        return [row for row, each in enumerate(values) if str(each) == user_id]
    first = values.index(user_id)
    return [first] if values.count(user_id) == 1 else [row for row, each in enumerate(values) if str(each) == user_id]


def _ids(frame: UserFrame) -> list[Any]:
    if USER_ID not in frame.columns:
        raise DataError(f"the column {USER_ID!r} is missing; the frame has {', '.join(map(str, frame.columns))}")
    ids: list[Any] = frame[USER_ID].to_list()
    return ids
