"""`models list`, `show`, `promote`, `rollback`."""

from __future__ import annotations

import getpass

import typer

from alertrec.cli.common import JsonOption, console, print_json, print_table, settings
from alertrec.runtime import opened

app = typer.Typer(help="The model versions: list, show, promote, roll back.", no_args_is_help=True)


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
