"""What commands share: settings, the moment to judge as of, tables and JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from alertrec.errors import DataError
from alertrec.settings import Settings

# In a pipe or a log, no sentence is broken; on a terminal, or where COLUMNS is set, lines are as wide as that.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
console = Console(width=_WIDTH)
notes = Console(stderr=True)  # progress and remarks, so that what a script reads stays clean

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="TIME", help="Judge as of this moment (ISO; a date means its end, UTC). Default: now."
    ),
]


def settings() -> Settings:
    """Read the settings; the command line is an entry point."""
    return Settings.from_env(os.environ)


def parse_as_of(value: str | None) -> datetime | None:
    """Return the moment that `--as-of` names.

    Raises
    ------
    DataError
        If it is neither an ISO date nor an ISO time.
    """
    if value is None:
        return None
    try:
        if len(value) == len("2026-10-01"):
            day = date.fromisoformat(value)
            return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) - timedelta(microseconds=1)
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise DataError(
            f"--as-of takes a date or time such as 2026-10-01 or 2026-10-01T12:00, not {value!r}"
        ) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def print_json(value: Any) -> None:
    """Print a value as JSON; moments in ISO format."""
    json.dump(value, sys.stdout, default=_plain, indent=2)
    sys.stdout.write("\n")


def print_table(title: str, rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """Print rows as a table, or a sentence where there are none."""
    if not rows:
        console.print(empty)
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
