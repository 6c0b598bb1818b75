from __future__ import annotations

import json
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from alertrec.errors import DataError
from alertrec.importing import parsing


def test_whole_floats_become_keys_without_a_fraction():
    values = pl.Series("id", [123.0, 2.5, None, float("nan"), 9007199254740991.0])
    assert parsing.parse_text(values).to_list() == ["123", "2.5", None, None, "9007199254740991"]


def test_integers_decimals_and_categories_become_keys():
    assert parsing.parse_text(pl.Series([7, None])).to_list() == ["7", None]
    assert parsing.parse_text(pl.Series([Decimal("7.00"), Decimal("7.50")])).to_list() == ["7", "7.50"]
    assert parsing.parse_text(pl.Series(["a"], dtype=pl.Categorical)).to_list() == ["a"]


def test_bytes_that_are_not_utf8_become_a_nul_and_leave_the_rest():
    assert parsing.parse_text(pl.Series([b"caf\xc3\xa9", b"caf\xe9", None])).to_list() == ["café", "\0", None]


def test_a_column_of_lists_is_refused_by_name():
    with pytest.raises(DataError, match="'merchant_name' holds List"):
        parsing.parse_text(pl.Series("merchant_name", [["a"]]))


def test_blank_keys_are_null_and_others_keep_their_spaces():
    assert parsing.parse_key(pl.Series(["", "  ", " x ", None])).to_list() == [None, None, " x ", None]


@pytest.mark.parametrize(
    ("text", "money"),
    [
        ("12.50", "12.5"),
        (" -3 ", "-3"),
        ("+4.5", "4.5"),
        (".5", "0.5"),
        ("1e3", "1000"),
        ("99999999999999.9999", "99999999999999.9999"),
    ],
)
def test_plain_numbers_are_read_exactly(text: str, money: str):
    assert parsing.parse_money(pl.Series([text])).to_list() == [Decimal(money)]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "$1", "1,234.56", "1 234", "12,50", "1_0", "0x1", "١"),
        *("nan", "inf", "-Infinity", "1e300", "1e14", "99999999999999.99999"),
    ],
)
def test_what_is_no_plain_number_is_not_guessed(text: str):
    assert parsing.parse_money(pl.Series([text])).to_list() == [None]


def test_numeric_columns_are_money_unless_they_are_no_finite_number_that_fits():
    floats = pl.Series([12.5, 1e20, -1e14, float("nan"), float("inf"), None])
    assert parsing.parse_money(floats).to_list() == [Decimal("12.5"), None, None, None, None, None]
    assert parsing.parse_money(pl.Series([3])).to_list() == [Decimal(3)]
    assert parsing.parse_money(pl.Series([Decimal("1.25")])).to_list() == [Decimal("1.25")]
    assert parsing.parse_money(pl.Series([True])).to_list() == [None]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01 04:05", datetime(2026, 3, 1, 4, 5, tzinfo=UTC)),
        ("2026-03-01T04:05:06", datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)),
        ("2026-03-01 04:05:06.123456789", datetime(2026, 3, 1, 4, 5, 6, 123456, tzinfo=UTC)),
        ("2026-03-01T04:05:06Z", datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)),
        ("2026-03-01T04:05:06.5+02:00", datetime(2026, 3, 1, 2, 5, 6, 500_000, tzinfo=UTC)),
        ("2026-03-01 04:05:06-0530", datetime(2026, 3, 1, 9, 35, 6, tzinfo=UTC)),
        ("2026-03-01 04:05:06+02", datetime(2026, 3, 1, 2, 5, 6, tzinfo=UTC)),
        ("2026-03-01 04:05:06 UTC", datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)),
        ("2026-03-01T04:05Z", datetime(2026, 3, 1, 4, 5, tzinfo=UTC)),
        ("1900-01-01", datetime(1900, 1, 1, tzinfo=UTC)),
        ("2200-12-31", datetime(2200, 12, 31, tzinfo=UTC)),
    ],
)
def test_iso_times_are_read_in_utc(text: str, moment: datetime):
    assert parsing.parse_time(pl.Series([text])).to_list() == [moment]


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "03/04/2026", "960728", "2026-02-30"),
        *("1899-12-31", "2201-01-01", "0001-01-01", "99999-01-01"),
    ],
)
def test_other_times_are_not_guessed(text: str):
    assert parsing.parse_time(pl.Series([text])).to_list() == [None]


def test_different_notations_may_be_mixed():
    values = pl.Series(["2026-03-01", None, "x", "2026-03-01T04:05:06Z", "2026-03-01 04:05:06"])
    day = datetime(2026, 3, 1, tzinfo=UTC)
    moment = day.replace(hour=4, minute=5, second=6)
    assert parsing.parse_time(values).to_list() == [day, None, None, moment, moment]


def test_a_date_format_replaces_iso():
    values = pl.Series(["960728", "2026-03-01"])
    assert parsing.parse_time(values, date_format="%y%m%d").to_list() == [datetime(1996, 7, 28, tzinfo=UTC), None]
    numbers = pl.Series([960728])
    assert parsing.parse_time(numbers, date_format="%y%m%d").to_list() == [datetime(1996, 7, 28, tzinfo=UTC)]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_typed_times_of_any_unit_and_zone_are_read(unit: str):
    moment = datetime(2026, 7, 1, 12, 0, tzinfo=ZoneInfo("Europe/Prague"))
    zoned = pl.Series([moment]).cast(pl.Datetime(unit, "Europe/Prague"))
    assert parsing.parse_time(zoned).to_list() == [datetime(2026, 7, 1, 10, 0, tzinfo=UTC)]
    naive = pl.Series([datetime(2026, 7, 1, 12, 0)], dtype=pl.Datetime(unit))
    assert parsing.parse_time(naive).to_list() == [datetime(2026, 7, 1, 12, 0, tzinfo=UTC)]


def test_typed_times_out_of_range_are_null():
    assert parsing.parse_time(pl.Series([2**62, -(2**62)]).cast(pl.Datetime("ms"))).to_list() == [None, None]
    assert parsing.parse_time(pl.Series([date(1899, 1, 1)])).to_list() == [None]
    assert parsing.parse_time(pl.Series([clock(1, 2)])).to_list() == [None]


def test_flags_are_read_in_words_and_numbers():
    words = pl.Series(["TRUE ", "f", "Yes", "n", "1", "0", "maybe", "", None])
    assert parsing.parse_flag(words).to_list() == [True, False, True, False, True, False, None, None, None]
    assert parsing.parse_flag(pl.Series([1.0, 0.0, 2.0])).to_list() == [True, False, None]


def test_words_are_read_in_any_case():
    assert parsing.parse_transaction_type(pl.Series([" purchase", "Gift"])).to_list() == ["PURCHASE", None]
    assert parsing.parse_status(pl.Series(["canceled", "Settled", "?"])).to_list() == ["CANCELLED", "SETTLED", None]


def test_alert_types_are_the_keys_of_the_catalogue():
    values = pl.Series(["alert_high_spender", "alert_rain", None])
    assert parsing.parse_alert_type(values).to_list() == ["alert_high_spender", None, None]


def test_time_zones_are_names_that_days_can_be_told_in():
    good = ["Europe/Prague", " Asia/Tokyo ", "UTC", "America/Port-au-Prince", "Etc/GMT+5", "US/Eastern"]
    assert parsing.parse_time_zone(pl.Series(good)).to_list() == [name.strip() for name in good]
    bad = ["Mars/Phobos", "europe/prague", "+02:00", "02:00", "", " ", "*", "\0", "^U.*$", "x" * 10_000, None]
    assert parsing.parse_time_zone(pl.Series(bad)).to_list() == [None] * len(bad)
    assert parsing.parse_time_zone(pl.Series([], dtype=pl.String)).to_list() == []
    assert parsing.parse_time_zone(pl.Series([5, None])).to_list() == [None, None]
    assert parsing.parse_time_zone(pl.Series([None, None])).to_list() == [None, None]


def test_each_time_zone_is_tried_once(monkeypatch: pytest.MonkeyPatch):
    tried: list[str] = []

    def is_time_zone(name: str) -> bool:
        tried.append(name)
        return True

    monkeypatch.setattr(parsing, "is_time_zone", is_time_zone)
    parsing.parse_time_zone(pl.Series(["Europe/Prague", "Asia/Tokyo"] * 1000))
    assert sorted(tried) == ["Asia/Tokyo", "Europe/Prague"]


def test_parameters_are_objects_that_jsonb_takes():
    good = parsing.parse_object(pl.Series(['{"amount": 5, "of": ["é"]}', '{"path": "a\\\\u0000"}']))
    assert [json.loads(each) for each in good] == [{"amount": 5, "of": ["é"]}, {"path": "a\\u0000"}]
    deep = '{"a":' * 100_000
    bad = ["[1]", "x", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', deep, "", None]
    assert parsing.parse_object(pl.Series(bad)).to_list() == [None] * len(bad)
    assert parsing.parse_object(pl.Series([{"x": 1}])).to_list() == ['{"x": 1}']
