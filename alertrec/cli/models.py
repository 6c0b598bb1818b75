"""`models list`, `show`, `report`, `promote`, `rollback`."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from alertrec.cli.common import JsonOption, console, print_json, print_table, settings
from alertrec.cli.reports import HtmlOption, show_report
from alertrec.runtime import opened

app = typer.Typer(help="The model versions: list, show, report, promote, roll back.", no_args_is_help=True)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the versions, the newest first."""
    from alertrec.storage.models import all_versions

    with opened(settings()) as workspace, workspace.engine.connect() as connection:
        versions = all_versions(connection)
    if as_json:
        print_json([version.__dict__ for version in versions])
        return
    rows = [
        {
            "version": version.version,
            "alias": version.alias,
            "algorithm": version.algorithm,
            "log_loss": f"{version.metrics['log_loss']['value']:.4f}" if version.metrics else None,
            "users": f"{version.data_counts['n_users']:,}",
            "labels": version.data_counts["label_source"],
            "created_at": version.created_at,
            "promoted_at": version.promoted_at,
            "promoted_by": version.promoted_by,
        }
        for version in versions
    ]
    print_table("models", rows, empty="no model yet; `alertrec train` makes one")


@app.command()
def show(version: str) -> None:
    """Show the card of a VERSION, as JSON, once its files have been checked."""
    from alertrec.errors import DataError
    from alertrec.storage.models import find

    with opened(settings()) as workspace, workspace.engine.connect() as connection:
        found = find(connection, version)
        if found is None:
            raise DataError(f"there is no model {version!r}; `alertrec models list` shows which there are")
        print_json(workspace.champions.load(found).card)


@app.command()
def report(
    version: Annotated[str | None, typer.Argument(help="By default the champion.")] = None,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a VERSION was judged when it was trained."""
    from alertrec.errors import DataError, NoChampionError
    from alertrec.storage.models import champion, find

    with opened(settings()) as workspace, workspace.engine.connect() as connection:
        found = champion(connection) if version is None else find(connection, version)
        if found is None and version is None:
            raise NoChampionError
        if found is None:
            raise DataError(f"there is no model {version!r}; `alertrec models list` shows which there are")
        card = workspace.champions.load(found).card
    if "report" not in card:
        raise DataError(f"model {found.version} has no report; it was trained by an earlier release")
    show_report(card["report"], html=html, as_json=as_json)


@app.command()
def promote(version: str) -> None:
    """Make a VERSION the champion; workers serve it from their next task on."""
    from alertrec.promotion import promote as promote_version

    with opened(settings()) as workspace:
        promote_version(workspace, version, promoted_by=getpass.getuser())
    console.print(f"model [bold]{version}[/] is champion")


@app.command()
def rollback() -> None:
    """Make the champion before the present one champion again."""
    from alertrec.promotion import roll_back

    with opened(settings()) as workspace:
        version = roll_back(workspace, promoted_by=getpass.getuser())
    console.print(f"model [bold]{version}[/] is champion again")
