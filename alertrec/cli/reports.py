"""`evaluate`, and how a report is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from alertrec.cli.common import AsOfOption, JsonOption, console, notes, parse_as_of, print_json, settings
from alertrec.cli.progress import progress_bars
from alertrec.errors import DataError
from alertrec.runtime import opened

HtmlOption = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", dir_okay=False, writable=True, help="Write the report as one web page."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(as_of: AsOfOption = None, html: HtmlOption = None, as_json: JsonOption = False) -> None:
    """Judge all models on users held out and on what was enabled later; nothing is stored."""
    from alertrec.judging import evaluate as judge_all

    moment = parse_as_of(as_of)
    refuse_no_directory(html)  # rather now than when all has been judged
    with opened(settings()) as workspace, progress_bars() as report:
        found = judge_all(workspace, as_of=moment, progress=report)
    show_report(found, html=html, as_json=as_json)


def refuse_no_directory(path: Path | None) -> None:
    """Raise `DataError` where a file cannot be written for want of its directory."""
    if path is not None and not path.absolute().parent.is_dir():
        raise DataError(f"{path} cannot be written: there is no directory {path.absolute().parent}; make it first")


def show_report(report: Mapping[str, Any], *, html: Path | None, as_json: bool) -> None:
    """Print a report as tables or JSON, and write it as a page where one is asked for."""
    from alertrec.reporting import render_page, render_tables

    refuse_no_directory(html)
    if html is not None:
        html.write_text(render_page(report), encoding="utf-8")
        notes.print(f"written to {html}")
    if as_json:
        print_json(report)
    elif html is None:
        for each in render_tables(report):
            console.print(each)
