from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from alertrec.catalog import BY_KEY
from alertrec.importing.relations import ALERT_RULES, FIELDS, REASONS, TRANSACTIONS, USERS
from alertrec.importing.validation import REASON, ROW, Checked, validate

DOCUMENT = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
KNOWN = pl.Series(["u1", "u2"])
GOOD = {"id": "t1", "user_id": "u1", "amount": "5", "transaction_date": "2026-01-02"}


def check(relation: str, *rows: dict[str, Any], **options: Any) -> Checked:
    frame = pl.DataFrame(list(rows), infer_schema_length=None).with_row_index(ROW, offset=1)
    return validate(frame, relation, user_ids=KNOWN, **options)


def reasons(checked: Checked) -> dict[int, str]:
    return dict(checked.rejected.select(ROW, REASON).iter_rows())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"id": None}, "missing_id"),
        ({"id": " "}, "missing_id"),
        ({"id": "x" * 1001}, "invalid_text"),
        ({"user_id": "u9"}, "unknown_user"),
        ({"user_id": None}, "unknown_user"),
        ({"amount": "$5"}, "unparsable_amount"),
        ({"amount": None}, "unparsable_amount"),
        ({"transaction_date": "soon"}, "unparsable_date"),
        ({"transaction_date": None}, "unparsable_date"),
        ({"transaction_type": "GIFT"}, "unknown_type"),
        ({"status": "LOST"}, "unknown_status"),
        ({"merchant_name": "a\0b"}, "invalid_text"),
        ({"amount": "5\0"}, "invalid_text"),
    ],
)
def test_a_bad_transaction_is_refused_with_its_reason_and_its_neighbour_is_not(bad: dict[str, Any], reason: str):
    extra = {"transaction_type": "refund", "status": None, "merchant_name": "Shop"}
    checked = check(TRANSACTIONS, {**GOOD, **extra, "id": "t0"}, {**GOOD, **extra, **bad})
    assert reasons(checked) == {2: reason}
    assert checked.accepted["id"].to_list() == ["t0"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"credit_limit": "much"}, "unparsable_number"),
        ({"credit_balance": "inf"}, "unparsable_number"),
        ({"credit_limit": "-1"}, "negative_limit"),
        ({"is_active": "maybe"}, "unparsable_boolean"),
        ({"location_consent_given": "2"}, "unparsable_boolean"),
        ({"created_at": "1850-01-01"}, "unparsable_date"),
        ({"time_zone": "CEST"}, "unknown_time_zone"),
        ({"time_zone": "UTC\0"}, "invalid_text"),
    ],
)
def test_a_bad_user_is_refused_with_its_reason(bad: dict[str, Any], reason: str):
    row = dict.fromkeys(
        ("credit_limit", "credit_balance", "is_active", "location_consent_given", "created_at", "time_zone")
    )
    checked = check(USERS, {"id": "a", **row}, {"id": "b", **row, **bad})
    assert reasons(checked) == {2: reason}


def test_numbers_that_are_none_are_told_from_missing_ones():
    frame = pl.DataFrame({ROW: [1, 2], "id": ["a", "b"], "credit_limit": [float("nan"), None]})
    assert reasons(validate(frame, USERS)) == {1: "unparsable_number"}


def test_an_alert_type_may_be_missing_but_not_wrong():
    rows = [
        {"id": str(number), "user_id": "u1", "alert_type": kind, "natural_language_query": "tell me"}
        for number, kind in enumerate(["alert_high_spender", None, "", "alert_rain"])
    ]
    checked = check(ALERT_RULES, *rows)
    assert reasons(checked) == {4: "unknown_alert_type"}
    assert checked.accepted["alert_type"].to_list() == ["alert_high_spender", None, None]


def test_zero_and_negative_amounts_are_accepted():
    checked = check(TRANSACTIONS, {**GOOD, "amount": "0"}, {**GOOD, "id": "t2", "amount": "-7"})
    assert [int(each) for each in checked.accepted["amount"]] == [0, -7]


def test_missing_values_take_their_defaults():
    checked = check(TRANSACTIONS, {**GOOD, "transaction_type": None, "status": ""})
    assert checked.accepted.select("transaction_type", "status").row(0) == ("PURCHASE", "SETTLED")
    assert check(USERS, {"id": "a", "is_active": None}).accepted["is_active"].to_list() == [True]


def test_a_rule_was_changed_when_it_was_made_unless_it_says_otherwise():
    rule = {"id": "r1", "user_id": "u1", "created_at": "2026-01-02", "updated_at": None}
    later = {**rule, "id": "r2", "updated_at": "2026-01-05"}
    assert [each.day for each in check(ALERT_RULES, rule, later).accepted["updated_at"]] == [2, 5]
    del rule["updated_at"]
    assert [each.day for each in check(ALERT_RULES, rule).accepted["updated_at"]] == [2]


def test_of_one_id_the_first_good_row_is_kept():
    rows = [{**GOOD, "amount": amount} for amount in ("bad", "1", "2", "worse")]
    checked = check(TRANSACTIONS, *rows)
    assert reasons(checked) == {1: "unparsable_amount", 3: "duplicate_id", 4: "unparsable_amount"}
    assert [int(each) for each in checked.accepted["amount"]] == [1]


def test_an_id_taken_by_an_earlier_slice_is_a_duplicate():
    checked = check(TRANSACTIONS, GOOD, {**GOOD, "id": "t2"}, taken_ids=pl.Series(["t9", "t1"]))
    assert reasons(checked) == {1: "duplicate_id"}


def test_numbers_as_keys_meet_text_as_keys():
    frame = pl.DataFrame({ROW: [1], "id": [1], "user_id": [7.0], "amount": [1.5], "transaction_date": ["2026-01-02"]})
    checked = validate(frame, TRANSACTIONS, user_ids=pl.Series(["7"]))
    assert checked.accepted.select("id", "user_id").row(0) == ("1", "7")


def test_an_empty_slice_has_the_columns_of_a_full_one():
    frame = pl.DataFrame(
        {**{name: [] for name in GOOD}, ROW: []}, schema={**dict.fromkeys(GOOD, pl.String), ROW: pl.Int64}
    )
    checked = validate(frame, TRANSACTIONS, user_ids=KNOWN)
    assert checked.accepted.columns == list(GOOD)
    assert checked.rejected.height == 0


def documented(pattern: str) -> list[tuple[str, ...]]:
    return re.findall(pattern, DOCUMENT, flags=re.MULTILINE)


@pytest.mark.parametrize("relation", FIELDS)
def test_the_documentation_names_every_column_and_no_other(relation: str):
    ((required, optional),) = documented(rf"^\| `{relation}` \| ([^|]*) \| ([^|]*) \|$")
    assert re.findall(r"`(\w+)`", required) == [field.name for field in FIELDS[relation] if field.required]
    named = re.findall(r"`(\w+)`(?: \(|,| ?$)", optional)
    assert named == [field.name for field in FIELDS[relation] if not field.required]


def test_the_documentation_names_every_reason_in_the_order_in_which_they_count():
    assert documented(r"^\| `(\w+)` \| (?:has|holds|repeats) [^|]*\|$") == list(REASONS)


def test_the_documented_parameters_are_those_of_the_catalogue():
    examples = documented(r"^ +\| `(alert_\w+)` \| `(\{.*?\})` \|")
    assert [(key, sorted(json.loads(example))) for key, example in examples] == [
        (key, sorted(entry.parameters)) for key, entry in BY_KEY.items()
    ]
