"""Frames of users, pandas or polars, as the promised calls take them → arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import DataError, UnknownUserError
from alertrec.feature_engineering import USER_ID
from alertrec.models.base import AlertMatrix, FeatureMatrix

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    UserFrame = pd.DataFrame | pl.DataFrame


def user_ids_of(frame: UserFrame) -> list[str]:
    """Return the ids of the rows, as text."""
    if USER_ID not in frame.columns:
        raise DataError(f"the column {USER_ID!r} is missing; the frame has {', '.join(map(str, frame.columns))}")
    return [str(user_id) for user_id in frame[USER_ID].to_list()]


def row_of_user(frame: UserFrame, user_id: str) -> UserFrame:
    """Return the row of one user, looked up by identity and never by position."""
    rows = [row for row, each in enumerate(user_ids_of(frame)) if each == str(user_id)]
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
    """Return what users have enabled, bool (n_users, n_columns); a column that is missing, nobody."""
    present = {column: np.asarray(frame[column].to_numpy()) for column in columns if column in frame.columns}
    nobody = np.zeros(len(frame), dtype=bool)
    return np.column_stack([_as_bool(present[column]) if column in present else nobody for column in columns])


def _as_bool(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return 0/1, booleans and floats as booleans; an unknown label, None or NaN, is not enabled."""
    return np.nan_to_num(values.astype(np.float64)) > 0
