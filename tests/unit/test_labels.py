from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from alertrec.catalog import ALERT_KEYS, ALERT_TYPES
from alertrec.errors import DataError
from alertrec.feature_engineering import FEATURES
from alertrec.labels import (
    enabled_matrix,
    extract_alert_types_from_rules,
    generate_initial_alert_labels,
    get_alert_columns,
    merge_real_alert_labels,
    resolve_alert_type,
)

each_kind = pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
LARGE, LIMIT, NEW = "alert_large_transaction", "alert_near_credit_limit", "alert_new_merchant"
LIMIT_TEXT = "Warn me near my credit limit"


def found(rules: list[dict[str, Any]]) -> set[str]:
    return {key for key, value in extract_alert_types_from_rules(rules).items() if value}


def column(frame: Any, name: str) -> list[Any]:
    return frame[name].to_list()


def features(make: Any, **columns: list[float]) -> Any:
    n_users = len(next(iter(columns.values())))
    values = {name: columns.get(name, [0.0] * n_users) for name in FEATURES}
    return make({"user_id": [f"u{n}" for n in range(n_users)]} | values)


def test_alert_columns_are_the_keys_in_order():
    assert get_alert_columns() == list(ALERT_KEYS)


def test_the_typed_column_decides_over_the_text():
    assert found([{"alert_type": LARGE, "natural_language_query": LIMIT_TEXT}]) == {LARGE}


@pytest.mark.parametrize("alert_type", [None, "", "something else", float("nan")])
def test_without_a_type_the_text_decides(alert_type: Any):
    assert resolve_alert_type(alert_type, LIMIT_TEXT) == LIMIT
    assert found([{"alert_type": alert_type, "natural_language_query": LIMIT_TEXT}]) == {LIMIT}
    assert found([{"natural_language_query": LIMIT_TEXT}]) == {LIMIT}


@pytest.mark.parametrize(
    "rule",
    [{}, {"alert_type": None, "natural_language_query": None}, {"natural_language_query": ""}, {"alert_type": "x"}],
    ids=str,
)
def test_a_rule_that_tells_nothing_is_of_no_type(rule: dict[str, Any]):
    assert found([rule]) == set()
    assert found([rule, {"alert_type": NEW}]) == {NEW}


def test_a_text_that_is_missing_in_pandas_is_of_no_type():
    rules = pd.DataFrame({"alert_type": [None, LARGE], "natural_language_query": [None, "x"]}).to_dict("records")
    assert found(rules) == {LARGE}


@pytest.mark.parametrize("off", [False, 0, None])
def test_a_rule_that_is_off_is_left_out(off: Any):
    assert found([{"alert_type": LARGE, "is_active": off}, {"alert_type": NEW, "is_active": True}]) == {NEW}


def test_all_types_are_answered_with_zero_or_one():
    answer = extract_alert_types_from_rules(iter([{"alert_type": LARGE}, {"alert_type": LARGE}]))
    assert answer == {key: int(key == LARGE) for key in ALERT_KEYS}


def test_enabled_alerts_stand_in_the_row_of_their_user():
    rules = pl.DataFrame(
        [("b", LARGE, None), ("a", None, LIMIT_TEXT), ("b", NEW, ""), ("stranger", LARGE, None), ("a", "?", "?")],
        schema=["user_id", "alert_type", "natural_language_query"],
        orient="row",
    )
    enabled = enabled_matrix(["a", "b", "c"], rules)
    assert enabled.dtype == bool
    pairs = [(int(row), ALERT_KEYS[column]) for row, column in np.argwhere(enabled)]
    assert sorted(pairs) == [(0, LIMIT), (1, LARGE), (1, NEW)]


def test_nobody_has_anything_where_there_are_no_rules():
    none = pl.DataFrame(schema=dict.fromkeys(["user_id", "alert_type", "natural_language_query"], pl.String))
    assert not enabled_matrix(["a"], none).any()
    assert enabled_matrix([], none).shape == (0, len(ALERT_KEYS))


@each_kind
def test_the_upper_quarter_is_labelled(make: Any):
    # The 75th percentile of 1 to 8 lies at 6.25: 7 and 8 are above.
    labelled = generate_initial_alert_labels(features(make, amount_max=[3.0, 8, 1, 6, 2, 7, 5, 4]))
    assert column(labelled, LARGE) == [0, 1, 0, 0, 0, 1, 0, 0]
    assert isinstance(labelled, make)


@each_kind
def test_a_utilisation_from_seven_tenths_on_is_labelled(make: Any):
    labelled = generate_initial_alert_labels(features(make, credit_utilization=[0.69, 0.7, 1.3, 0.0]))
    assert column(labelled, LIMIT) == [0, 1, 1, 0]


@each_kind
def test_a_feature_that_is_zero_for_all_labels_nobody(make: Any):
    labelled = generate_initial_alert_labels(features(make, amount_sum=[0.0, 0.0, 0.0]))
    assert all(column(labelled, key) == [0, 0, 0] for key in ALERT_KEYS)


@each_kind
def test_who_has_nothing_of_a_feature_is_not_in_its_upper_quarter(make: Any):
    # Four of five users have spent nothing, so that the 75th percentile is 0.
    labelled = generate_initial_alert_labels(features(make, amount_sum=[0.0, 0.0, 0.0, 0.0, 90.0]))
    assert column(labelled, "alert_high_spender") == [0, 0, 0, 0, 1]


@each_kind
def test_types_without_a_rule_of_thumb_label_nobody(make: Any):
    labelled = generate_initial_alert_labels(features(make, **{name: [1.0, 2.0, 3.0] for name in FEATURES}))
    without = [entry.key for entry in ALERT_TYPES if entry.heuristic is None]
    assert without
    assert all(column(labelled, key) == [0, 0, 0] for key in without)


@each_kind
def test_labels_come_after_the_features_as_integers(make: Any):
    before = features(make, amount_sum=[1.0, 2.0])
    labelled = generate_initial_alert_labels(before)
    assert list(labelled.columns) == ["user_id", *FEATURES, *ALERT_KEYS]
    assert list(before.columns) == ["user_id", *FEATURES]
    assert {str(labelled[key].dtype).lower() for key in ALERT_KEYS} == {"int64"}


@each_kind
def test_no_users_give_no_labels(make: Any):
    labelled = generate_initial_alert_labels(features(make, amount_sum=[]))
    assert (len(labelled), list(labelled.columns[-8:])) == (0, list(ALERT_KEYS))


@each_kind
def test_real_labels_are_matched_by_user_and_keep_the_order_of_rows(make: Any):
    frame = make({"user_id": ["c", "a", "b"], "amount_sum": [3.0, 1.0, 2.0]})
    alerts = make(
        {"user_id": ["a", "b", "stranger", "a"], "alert_type": [LARGE, NEW, LARGE, NEW], "enabled": [1, 1, 1, 0]}
    )
    merged = merge_real_alert_labels(frame, alerts)
    assert isinstance(merged, make)
    assert column(merged, "user_id") == ["c", "a", "b"]
    assert column(merged, "amount_sum") == [3, 1, 2]
    assert column(merged, LARGE) == [0, 1, 0]
    assert column(merged, NEW) == [0, 0, 1]
    assert column(merged, LIMIT) == [0, 0, 0]


@each_kind
def test_an_index_of_another_kind_does_not_move_labels(make: Any):
    frame = pd.DataFrame({"user_id": ["a", "b", "c"]}, index=[2, 0, 1])
    alerts = make({"user_id": ["b"], "alert_type": [LARGE], "enabled": [True]})
    merged = merge_real_alert_labels(frame, alerts)
    assert merged[LARGE].to_list() == [0, 1, 0]
    assert merged.index.to_list() == [2, 0, 1]


@each_kind
@pytest.mark.parametrize("name", [LARGE, "large_transaction"])
def test_the_prefix_of_a_type_may_be_left_out(make: Any, name: str):
    merged = merge_real_alert_labels(
        make({"user_id": ["a"]}), make({"user_id": ["a"], "alert_type": [name], "enabled": [1]})
    )
    assert column(merged, LARGE) == [1]


@each_kind
def test_an_unknown_type_is_refused_by_name(make: Any):
    alerts = make({"user_id": ["a"], "alert_type": ["alert_unheard_of"], "enabled": [1]})
    with pytest.raises(DataError, match="alert_unheard_of") as caught:
        merge_real_alert_labels(make({"user_id": ["a"]}), alerts)
    assert LARGE in str(caught.value)


@each_kind
def test_one_row_that_is_on_wins_over_others_that_are_off(make: Any):
    for order in ([0, 1, 0], [1, 0, 0], [0, 0, 1]):
        alerts = make({"user_id": ["a"] * 3, "alert_type": [LARGE] * 3, "enabled": order})
        assert column(merge_real_alert_labels(make({"user_id": ["a"]}), alerts), LARGE) == [1]


@each_kind
def test_what_is_not_known_to_be_on_is_off(make: Any):
    alerts = make({"user_id": ["a", "b", "c"], "alert_type": [LARGE] * 3, "enabled": np.array([np.nan, 0.0, 1.0])})
    assert column(merge_real_alert_labels(make({"user_id": ["a", "b", "c"]}), alerts), LARGE) == [0, 0, 1]


@each_kind
def test_labels_that_were_there_are_replaced(make: Any):
    frame = generate_initial_alert_labels(features(make, amount_max=[1.0, 2.0, 3.0, 4.0]))
    assert column(frame, LARGE) == [0, 0, 0, 1]
    merged = merge_real_alert_labels(frame, make({"user_id": ["u0"], "alert_type": [LARGE], "enabled": [1]}))
    assert list(merged.columns) == list(frame.columns)
    assert column(merged, LARGE) == [1, 0, 0, 0]


@each_kind
def test_integer_ids_meet_their_texts(make: Any):
    merged = merge_real_alert_labels(
        make({"user_id": ["7", "8"]}), make({"user_id": [8], "alert_type": [LARGE], "enabled": [1]})
    )
    assert column(merged, LARGE) == [0, 1]
