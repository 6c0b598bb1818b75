"""What the README says is what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from alertrec.cli import app
from alertrec.settings import Settings, variable_name

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
DOCUMENTS = [README, *sorted((README.parent / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(snippet, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL))
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_each_python_example_runs_and_prints_what_it_says(snippet: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippet, str(README), "exec"), {})  # noqa: S102  # our own README
    promised = re.findall(r"print\(.*\)  # (.*)", snippet)
    assert capsys.readouterr().out.splitlines() == promised


def test_there_is_an_example_that_prints() -> None:
    assert any("print(" in snippet for parameter in SNIPPETS for snippet in parameter.values)


def test_the_table_of_settings_is_the_settings() -> None:
    rows = re.findall(r"^\| `(ALERTREC_\w+)` \| (.*?) ?\| (.*?) \|$", TEXT, flags=re.MULTILINE)
    expected = [
        (variable_name(each), "" if each.default is None else f"`{each.default}`", each.metadata["meaning"])
        for each in fields(Settings)
    ]
    assert rows == expected


def test_the_table_of_commands_names_every_command() -> None:
    table = TEXT.split("## Command line")[1].split("`train`, `refresh`")[0]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has commands
    for name in (name for name, command in commands.items() if not command.hidden):
        assert re.search(rf"`(alertrec )?{name}\b", table), f"the README has no row for `alertrec {name}`"
