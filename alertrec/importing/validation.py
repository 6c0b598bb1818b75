"""A slice of a file → the rows to load, and the rows refused with their reason."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import polars as pl

from alertrec.importing.parsing import NUL, is_blank, parse_text, parse_time
from alertrec.importing.relations import (
    ALERT_RULES,
    CREATED_AT,
    CREDIT_LIMIT,
    DUPLICATE_ID,
    FIELDS,
    ID,
    INVALID_TEXT,
    NEGATIVE_LIMIT,
    REASONS,
    UNKNOWN_USER,
    UPDATED_AT,
    USER_ID,
    Field,
)

# Names that no file has.
ROW = "alertrec:row"
REASON = "alertrec:reason"
COLUMN = "alertrec:column"

# A key longer than this does not fit into PostgreSQL's indexes, and one such row would undo the whole import.
MAX_KEY_BYTES = 1000

_NO_IDS = pl.Series(ID, [], dtype=pl.String)

Problems = dict[str, list[tuple[str, pl.Series]]]  # reason → column and where it is wrong


@dataclass(frozen=True)
class Checked:
    """The outcome of `validate`.

    Attributes
    ----------
    accepted : DataFrame
        The parsed columns of the rows to load.
    rejected : DataFrame
        The columns `ROW`, `REASON` and `COLUMN` of the others.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame


def validate(
    frame: pl.DataFrame,
    relation: str,
    *,
    user_ids: pl.Series = _NO_IDS,
    taken_ids: pl.Series = _NO_IDS,
    date_format: str | None = None,
) -> Checked:
    """Parse the columns of a relation and tell the good rows from the bad ones.

    Parameters
    ----------
    frame : DataFrame
        The column `ROW` (number of the row in its file) and columns of `relation`, of any type; columns that are
        required must be there.
    user_ids : series of text
        The users that rows may belong to; not looked at for the relation `users`.
    taken_ids : series of text
        The ids accepted from the same file before.
    date_format : str, optional
        The strptime format of times written as text, in place of ISO 8601.
    """
    parsed: dict[str, pl.Series] = {}
    problems: Problems = {reason: [] for reason in REASONS}
    for field in FIELDS[relation]:
        if field.name in frame.columns:
            parsed[field.name] = _check(field, frame[field.name], problems, date_format=date_format)
    _check_values(parsed, problems, user_ids)
    rejected = _first_reason(frame[ROW], problems)
    rejected = _with_duplicates(parsed[ID], rejected, taken_ids)
    accepted = pl.DataFrame(list(parsed.values())).filter(rejected[REASON].is_null())
    return Checked(_filled_in(accepted, relation), rejected.drop_nulls(REASON))


def _check(field: Field, values: pl.Series, problems: Problems, *, date_format: str | None) -> pl.Series:
    if values.dtype in (pl.String, pl.Binary):
        values = parse_text(values)
        problems[INVALID_TEXT].append((field.name, values.str.contains(NUL, literal=True)))
    parse = partial(parse_time, date_format=date_format) if field.parse is parse_time else field.parse
    result = parse(values)
    is_wrong = result.is_null() if field.required else result.is_null() & ~is_blank(values)
    problems[field.reason].append((field.name, is_wrong))
    return result if field.default is None else result.fill_null(pl.lit(field.default))


def _check_values(parsed: dict[str, pl.Series], problems: Problems, user_ids: pl.Series) -> None:
    problems[INVALID_TEXT].append((ID, parsed[ID].str.len_bytes() > MAX_KEY_BYTES))
    if USER_ID in parsed:
        problems[UNKNOWN_USER].append((USER_ID, ~parsed[USER_ID].is_in(user_ids.implode())))
    if CREDIT_LIMIT in parsed:
        problems[NEGATIVE_LIMIT].append((CREDIT_LIMIT, parsed[CREDIT_LIMIT] < 0))


def _first_reason(rows: pl.Series, problems: Problems) -> pl.DataFrame:
    found = [(reason, column, mask) for reason, masks in problems.items() for column, mask in masks]
    reasons = pl.coalesce([pl.when(mask).then(pl.lit(reason)) for reason, _, mask in found])
    columns = pl.coalesce([pl.when(mask).then(pl.lit(column)) for _, column, mask in found])
    return rows.to_frame().with_columns(reasons.alias(REASON), columns.alias(COLUMN))


def _with_duplicates(ids: pl.Series, rejected: pl.DataFrame, taken_ids: pl.Series) -> pl.DataFrame:
    # A refused row takes no id: a good row after a bad one of the same id is loaded. The ids taken can be
    # millions, so they are searched for this slice's few and not the other way round.
    repeated = taken_ids.filter(taken_ids.is_in(ids.implode()))
    usable = ids.set(rejected[REASON].is_not_null(), None)
    again = usable.is_not_null() & (~usable.is_first_distinct() | usable.is_in(repeated.implode()))
    again = again.fill_null(False)
    return rejected.with_columns(rejected[REASON].set(again, DUPLICATE_ID), rejected[COLUMN].set(again, ID))


def _filled_in(accepted: pl.DataFrame, relation: str) -> pl.DataFrame:
    """A rule whose last change is unknown was last changed when it was made."""
    if relation != ALERT_RULES or CREATED_AT not in accepted.columns:
        return accepted
    changed = pl.coalesce(*(pl.col(name) for name in (UPDATED_AT, CREATED_AT) if name in accepted.columns))
    return accepted.with_columns(changed.alias(UPDATED_AT))
