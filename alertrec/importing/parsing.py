"""Columns as a file holds them → columns as PostgreSQL stores them.

Each parser takes a series of any type and returns one of equal length; a value that cannot be used is null. Nothing
is guessed: an amount like `$1,234.56` or a date like `03/04/2026` is null, and its row is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import polars as pl

from alertrec.catalog import ALERT_KEYS
from alertrec.errors import DataError
from alertrec.ledger import is_time_zone
from alertrec.transactions import STATUSES, TRANSACTION_TYPES

NUL = "\0"

MAX_MONEY = Decimal("99999999999999.9999")  # the largest numeric(18,4)
FIRST_YEAR, LAST_YEAR = 1900, 2200

_MONEY = pl.Decimal(38, 4)
_TIME = pl.Datetime("us", "UTC")
_NESTED = (pl.List, pl.Array, pl.Object)
# The most frequent first: each further format is tried only on the values that none before it fits.
_ISO_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
)
# jsonb has no NUL; two backslashes before the `u` are one backslash and no escape.
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_FLAGS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}
_TYPES = {name: name for name in TRANSACTION_TYPES}
_STATUSES = {**{name: name for name in STATUSES}, "CANCELED": "CANCELLED"}
_ALERTS = {key: key for key in ALERT_KEYS}


def parse_text(values: pl.Series) -> pl.Series:
    """Return the values as text; whole numbers lose a trailing `.0`, bytes that are not UTF-8 become a NUL.

    Raises
    ------
    DataError
        If the column holds lists, which no text column can keep.
    """
    dtype = values.dtype
    if dtype in _NESTED:
        raise DataError(f"column {values.name!r} holds {dtype}; a plain value per row is expected")
    if dtype == pl.Binary:
        return _text_of_bytes(values)
    if dtype.is_float():
        return _text_of_floats(values)
    if dtype.is_decimal():
        return values.cast(pl.String).str.replace(r"\.0+$", "")
    return values.struct.json_encode() if dtype == pl.Struct else values.cast(pl.String)


def _text_of_bytes(values: pl.Series) -> pl.Series:
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError:
        # One bad value stops the cast of all; one by one is slow, and as rare as such values are.
        return pl.Series(values.name, [_decoded(each) for each in values], dtype=pl.String)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return NUL


def _text_of_floats(values: pl.Series) -> pl.Series:
    # A key column with a gap is stored as floats by many writers: 123.0 was 123 before.
    whole = values.is_finite() & (values == values.floor()) & (values.abs() < 2**53)
    column = pl.col(values.name)
    return (
        values.to_frame()
        .select(
            pl.when(whole)
            .then(column.cast(pl.Int64, strict=False).cast(pl.String))
            .when(column.is_nan().not_())
            .then(column.cast(pl.String))
            .alias(values.name)
        )
        .to_series()
    )


def parse_key(values: pl.Series) -> pl.Series:
    """Return the values as text; null where blank."""
    text = parse_text(values)
    return text.set(is_blank(text), None)


def is_blank(values: pl.Series) -> pl.Series:
    """Return whether each value is null, empty or white space only."""
    if values.dtype == pl.String:
        return values.is_null() | (values.str.strip_chars() == "").fill_null(True)
    return values.is_null()


def parse_money(values: pl.Series) -> pl.Series:
    """Return exact numbers of four decimals; null for NaN, infinity, text and what numeric(18,4) cannot hold."""
    numbers = values if values.dtype.is_numeric() else parse_text(values).str.strip_chars()
    money = numbers.cast(_MONEY, strict=False)
    return money.set((money.abs() > MAX_MONEY).fill_null(False), None)


def parse_time(values: pl.Series, *, date_format: str | None = None) -> pl.Series:
    """Return times in UTC, truncated to microseconds; a time without a zone is UTC already.

    Parameters
    ----------
    values : series
        Dates, times, or text in ISO 8601.
    date_format : str, optional
        A strptime format that replaces ISO 8601 for text and numbers.
    """
    if values.dtype.is_temporal():
        return _times_of_temporal(values)
    formats = _ISO_FORMATS if date_format is None else (date_format,)
    text = parse_text(values).str.strip_chars()
    times = pl.Series(values.name, [None], dtype=_TIME).new_from_index(0, text.len())
    for each in formats:
        open_ = times.is_null() & text.is_not_null()
        if not open_.any():
            break
        times = times.zip_with(~open_, _strptime(text, each) if open_.all() else _parse_where(text, each, open_))
    return _within_years(times)


def _parse_where(text: pl.Series, date_format: str, wanted: pl.Series) -> pl.Series:
    indices = wanted.arg_true()
    found = _strptime(text.gather(indices), date_format)
    return pl.Series(text.name, [None], dtype=_TIME).new_from_index(0, text.len()).scatter(indices, found)


def _strptime(text: pl.Series, date_format: str) -> pl.Series:
    times = text.str.to_datetime(date_format, strict=False, time_unit="us", ambiguous="null")
    return times.dt.convert_time_zone("UTC") if _has_zone(times) else times.dt.replace_time_zone("UTC")


def _has_zone(times: pl.Series) -> bool:
    return isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is not None


def _times_of_temporal(values: pl.Series) -> pl.Series:
    if values.dtype not in (pl.Date, pl.Datetime):
        return pl.Series(values.name, [None], dtype=_TIME).new_from_index(0, values.len())
    # The years come first: a far-off date overflows when its unit becomes finer.
    near = _within_years(values)
    times = near.cast(pl.Datetime("us", near.dtype.time_zone if isinstance(near.dtype, pl.Datetime) else None))
    return times.dt.convert_time_zone("UTC") if _has_zone(times) else times.dt.replace_time_zone("UTC")


def _within_years(times: pl.Series) -> pl.Series:
    # A year that overflows the calendar is null.
    return times.set(~times.dt.year().is_between(FIRST_YEAR, LAST_YEAR).fill_null(False), None)


def parse_flag(values: pl.Series) -> pl.Series:
    """Return booleans; text may say true, t, yes, y, 1 or their opposites in any case."""
    if values.dtype == pl.Boolean:
        return values
    return _look_up(parse_text(values).str.to_lowercase(), _FLAGS, pl.Boolean())


def parse_transaction_type(values: pl.Series) -> pl.Series:
    """Return one of `TRANSACTION_TYPES`; the case of letters does not matter."""
    return _look_up(parse_text(values).str.to_uppercase(), _TYPES, pl.String())


def parse_status(values: pl.Series) -> pl.Series:
    """Return one of `STATUSES`; the case of letters does not matter, CANCELED is CANCELLED."""
    return _look_up(parse_text(values).str.to_uppercase(), _STATUSES, pl.String())


def parse_alert_type(values: pl.Series) -> pl.Series:
    """Return one of `catalog.ALERT_KEYS`."""
    return _look_up(parse_text(values), _ALERTS, pl.String())


def parse_time_zone(values: pl.Series) -> pl.Series:
    """Return names of IANA zones, in their own case, that days can be told in; each name is tried once."""
    names = parse_text(values).str.strip_chars()
    known = {name: name for name in names.drop_nulls().unique() if is_time_zone(name)}
    return _look_up(names, known, pl.String())


def _look_up(text: pl.Series, words: Mapping[str, object], dtype: pl.DataType) -> pl.Series:
    return text.str.strip_chars().replace_strict(list(words), list(words.values()), default=None, return_dtype=dtype)


def parse_object(values: pl.Series) -> pl.Series:
    """Return JSON objects as text that PostgreSQL's jsonb takes."""
    text = parse_text(values)
    return pl.Series(values.name, [_normal_json(each) for each in text], dtype=pl.String)


def _normal_json(text: str | None) -> str | None:
    try:
        value: Any = json.loads(text or "null")
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
        written.encode()  # jsonb refuses half a surrogate pair, and so does this
    except (ValueError, RecursionError):
        return None
    return written if isinstance(value, dict) and not _ESCAPED_NUL.search(written) else None
