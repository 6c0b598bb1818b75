"""The mapping that a bank writes once: which of its columns and words are which of ours."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from reprlib import repr as shortened

import polars as pl

from alertrec.errors import DataError
from alertrec.importing.parsing import is_blank, parse_text, parse_time
from alertrec.importing.relations import FIELDS, Field
from alertrec.importing.validation import ROW

_MOST_SHOWN = 20


@dataclass(frozen=True)
class RelationMapping:
    """How the file of one relation is read.

    Attributes
    ----------
    separator : str
        The one character between the fields of a CSV file.
    date_format : str or None
        The strptime format of times written as text; None means ISO 8601.
    columns : dict
        Target column → the source columns of which the first that is not blank counts. A target that is not named
        is taken from the source column of the same name, if there is one.
    constants : dict
        Target column → the value of every row.
    values : dict
        Target column → source value → the value to read in its place; one that becomes empty counts as blank.
    """

    separator: str = ","
    date_format: str | None = None
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, str]] = field(default_factory=dict)

    def sources(self, target: str, found: list[str]) -> tuple[str, ...]:
        """Return the source columns of a target; empty where the file has none and no constant stands in."""
        return self.columns.get(target, (target,) if target in found else ())


@dataclass(frozen=True)
class Mapping:
    """The mappings of the three relations; the default reads files that have our names already."""

    users: RelationMapping = field(default_factory=RelationMapping)
    transactions: RelationMapping = field(default_factory=RelationMapping)
    alert_rules: RelationMapping = field(default_factory=RelationMapping)

    def of(self, relation: str) -> RelationMapping:
        """Return the mapping of a relation by its name."""
        mapping: RelationMapping = getattr(self, relation)
        return mapping


def load_mapping(path: Path) -> Mapping:
    """Read a mapping from a TOML file; `docs/import.md` describes it.

    Raises
    ------
    DataError
        Naming the key that is unknown or has a value of the wrong kind.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the mapping {path} cannot be read: {error}") from error
    _check_keys(document, list(FIELDS), f"{path}: ")
    return Mapping(**{relation: _relation(section, relation, path) for relation, section in document.items()})


def _relation(section: object, relation: str, path: Path) -> RelationMapping:
    where = f"{path}: {relation}."
    table = _table(section, where)
    _check_keys(table, [each.name for each in fields(RelationMapping)], where)
    targets = [each.name for each in FIELDS[relation]]
    for key in ("columns", "constants", "values"):
        _check_keys(_table(table.get(key, {}), f"{where}{key}."), targets, f"{where}{key}.")
    columns = _table(table.get("columns", {}), where)
    constants = _table(table.get("constants", {}), where)
    for target in set(columns) & set(constants):
        raise DataError(f"{where}constants.{target} is also in {relation}.columns; keep one of the two")
    values = _table(table.get("values", {}), where)
    return RelationMapping(
        separator=_separator(table.get("separator", ","), where),
        date_format=_date_format(table.get("date_format"), where),
        columns={target: _names(names, f"{where}columns.{target}") for target, names in columns.items()},
        constants={target: _scalar(value, f"{where}constants.{target}") for target, value in constants.items()},
        values={
            target: {
                raw: _scalar(value, f"{where}values.{target}.{raw}") for raw, value in _table(words, where).items()
            }
            for target, words in values.items()
        },
    )


def _table(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"{where.removesuffix('.')} must be a table of keys and values; {value!r} is not")
    return value


def _check_keys(table: dict[str, object], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise DataError(f"{where}{key} is not known; known are {', '.join(known)}")


def _separator(value: object, where: str) -> str:
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in '"\r\n':
        raise DataError(f'{where}separator must be one character such as ";" or "\\t"; {value!r} is not')
    return value


def _date_format(value: object, where: str) -> str | None:
    if value is None:
        return None
    day = datetime(1996, 7, 28, tzinfo=UTC)
    if isinstance(value, str) and _reads_what_it_writes(value, day):
        return value
    raise DataError(f'{where}date_format must be a strptime format of a whole date, such as "%d.%m.%Y"; got {value!r}')


def _reads_what_it_writes(date_format: str, day: datetime) -> bool:
    try:
        written = pl.Series([day]).dt.strftime(date_format)
        return parse_time(written, date_format=date_format).dt.date().to_list() == [day.date()]
    except pl.exceptions.PolarsError:
        return False


def _names(value: object, where: str) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where} must be the name of a source column or a list of names; {value!r} is not")
    return tuple(names)


def _scalar(value: object, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise DataError(f"{where} must be a text, a number, true or false; {value!r} is not")
    return str(value)


def project(source: pl.DataFrame, relation: str, mapping: RelationMapping) -> pl.DataFrame:
    """Return the row numbers and the relation's columns of a slice, as `validate` expects them."""
    columns = [source[ROW]]
    for target in (each.name for each in FIELDS[relation]):
        sources = mapping.sources(target, source.columns)
        if target in mapping.constants:
            columns.append(pl.Series(target, [mapping.constants[target]]).new_from_index(0, source.height))
        elif len(sources) == 1 and target not in mapping.values:
            columns.append(source[sources[0]].alias(target))
        elif sources:
            words = mapping.values.get(target, {})
            columns.append(_first_given([source[name] for name in sources], words).alias(target))
    return pl.DataFrame(columns)


def _first_given(columns: list[pl.Series], words: dict[str, str]) -> pl.Series:
    result: pl.Series | None = None
    for column in columns:
        text = parse_text(column).replace(list(words), list(words.values()))
        text = text.set(is_blank(text), None)
        result = text if result is None else result.zip_with(result.is_not_null(), text)
    assert result is not None
    return result


def check_columns(found: list[str], relation: str, mapping: RelationMapping, *, path: Path) -> None:
    """Refuse a file that lacks a column which is required or which the mapping names.

    Raises
    ------
    DataError
        Saying what was found and what was expected.
    """
    shown = _shown(found)
    for target, names in mapping.columns.items():
        for name in set(names) - set(found):
            raise DataError(
                f"{path}: the mapping takes {relation}.{target} from a column {name!r}, which the file has not; "
                f"found: {shown}"
            )
    missing = [each.name for each in FIELDS[relation] if _is_missing(each, found, mapping)]
    if missing:
        expected = ", ".join(each.name for each in FIELDS[relation] if each.required)
        raise DataError(
            f"{path}: no column {', '.join(missing)}; found: {shown}; {relation} needs {expected}. "
            f"Name the columns, and the separator if it is not a comma, in a mapping (--mapping)"
        )


def _shown(names: list[str]) -> str:
    """Return names as an error shows them; those of a file that is none of ours may be many and long."""
    first = [shortened(name) for name in names[:_MOST_SHOWN]]
    more = [f"and {len(names) - _MOST_SHOWN} more"] if len(names) > _MOST_SHOWN else []
    return ", ".join([*first, *more]) or "none"


def _is_missing(each: Field, found: list[str], mapping: RelationMapping) -> bool:
    return each.required and each.name not in mapping.constants and not mapping.sources(each.name, found)
