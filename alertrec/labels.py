"""Alert rules → which alerts each user has: the labels that models learn from, and what is not offered again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl

from alertrec.catalog import ALERT_KEYS, ALERT_TYPES, HeuristicLabel, classify
from alertrec.errors import DataError
from alertrec.ledger import USER_ID
from alertrec.models.base import AlertMatrix

if TYPE_CHECKING:
    import pandas as pd

HEURISTIC_QUANTILE = 0.75
_PREFIX = "alert_"

Frame = TypeVar("Frame", "pd.DataFrame", pl.DataFrame)


def get_alert_columns() -> list[str]:
    """Return the keys of all alert types, in the order of the columns of every label and probability matrix."""
    return list(ALERT_KEYS)


def resolve_alert_type(alert_type: object, natural_language_query: object) -> str | None:
    """Return the type of a rule: the typed column decides; without one, the text does; None if neither tells.

    What is not a text, such as the NaN that pandas puts for a missing one, tells nothing.
    """
    if isinstance(alert_type, str) and alert_type in ALERT_KEYS:
        return alert_type
    return classify(natural_language_query) if isinstance(natural_language_query, str) else None


def extract_alert_types_from_rules(rules: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return for every alert type whether one of these rules is of it.

    Parameters
    ----------
    rules : mappings with `alert_type` and/or `natural_language_query`, each of which may be missing or None
        Rules whose `is_active` is false are left out.

    Returns
    -------
    dict from every alert key to 0 or 1.
    """
    found = {
        resolve_alert_type(rule.get("alert_type"), rule.get("natural_language_query"))
        for rule in rules
        if rule.get("is_active", True)
    }
    return {key: int(key in found) for key in ALERT_KEYS}


def enabled_matrix(
    user_ids: Sequence[str], rules: pl.DataFrame, alert_columns: Sequence[str] = ALERT_KEYS
) -> AlertMatrix:
    """Return which alerts these users have switched on.

    Parameters
    ----------
    user_ids : length n_users, without repetition
    rules : frame with `user_id`, `alert_type`, `natural_language_query`, active rules only
        Rules of other users, and rules whose type nothing tells, are left out.
    alert_columns : keys of the columns of the result, which a model may have in another order than the catalogue

    Returns
    -------
    bool array, shape (n_users, n_alerts)
    """
    row_of = {user_id: row for row, user_id in enumerate(user_ids)}
    column_of = {key: column for column, key in enumerate(alert_columns)}
    enabled = np.zeros((len(user_ids), len(alert_columns)), dtype=bool)
    for user_id, alert_type, query in rules.select(USER_ID, "alert_type", "natural_language_query").iter_rows():
        key = resolve_alert_type(alert_type, query)
        if key in column_of and user_id in row_of:
            enabled[row_of[user_id], column_of[key]] = True
    return enabled


def heuristic_matrix(features: pl.DataFrame) -> AlertMatrix:
    """Return who would want which alert by the catalogue's rules of thumb, shape (n_users, n_alerts)."""
    columns = [_heuristic_column(features, entry.heuristic) for entry in ALERT_TYPES]
    return np.column_stack(columns) if columns else np.zeros((features.height, 0), dtype=bool)


def generate_initial_alert_labels(user_features_df: Frame) -> Frame:
    """Return the features with one 0/1 column an alert type, by the catalogue's rules of thumb.

    For banks where nobody has switched on a rule yet: the upper quarter of users by the type's feature, or a
    utilisation from 0.7 on. Types without a rule of thumb, and features that are 0 for everybody, label nobody.
    """
    features = _to_polars(user_features_df)
    return _with_labels(user_features_df, features, heuristic_matrix(features))


def merge_real_alert_labels(user_features_df: Frame, user_alerts_df: Frame) -> Frame:
    """Return the features with one 0/1 column an alert type, from what users have switched on.

    Parameters
    ----------
    user_features_df : frame with `user_id`; label columns that it has already are replaced
    user_alerts_df : frame with `user_id`, `alert_type` (with or without the prefix `alert_`) and `enabled` (0 or 1)
        Of several rows of a user and type, one that is enabled wins. Users without rows get zeros.

    Raises
    ------
    DataError
        If an alert type is not in the catalogue.
    """
    features, alerts = _to_polars(user_features_df), _to_polars(user_alerts_df)
    bare = pl.col("alert_type").cast(pl.String)
    key = pl.when(bare.str.starts_with(_PREFIX)).then(bare).otherwise(pl.lit(_PREFIX) + bare)
    enabled = alerts.filter(pl.col("enabled").cast(pl.Float64).fill_nan(0) > 0).select(
        pl.col(USER_ID).cast(pl.String),
        key.alias("alert_type"),
        pl.lit(None, pl.String).alias("natural_language_query"),
    )
    unknown = sorted(set(enabled["alert_type"].drop_nulls()) - set(ALERT_KEYS))
    if unknown:
        raise DataError(f"unknown alert types {', '.join(unknown)}; known are {', '.join(ALERT_KEYS)}")
    user_ids = features[USER_ID].cast(pl.String).to_list()
    return _with_labels(user_features_df, features, enabled_matrix(user_ids, enabled))


def _heuristic_column(features: pl.DataFrame, rule: HeuristicLabel | None) -> AlertMatrix:
    if rule is None or features.is_empty():
        return np.zeros(features.height, dtype=bool)
    values = features[rule.feature].to_numpy()
    if rule.at_least is not None:
        return np.asarray(values >= rule.at_least)
    return np.asarray((values >= np.quantile(values, HEURISTIC_QUANTILE)) & (values > 0))


def _to_polars(frame: pd.DataFrame | pl.DataFrame) -> pl.DataFrame:
    return frame if isinstance(frame, pl.DataFrame) else pl.from_pandas(frame)


def _with_labels(original: Frame, features: pl.DataFrame, labels: AlertMatrix) -> Frame:
    columns = {key: labels[:, column].astype(np.int64) for column, key in enumerate(ALERT_KEYS)}
    if isinstance(original, pl.DataFrame):
        return features.with_columns(**{key: pl.Series(values) for key, values in columns.items()})
    return original.assign(**columns)
