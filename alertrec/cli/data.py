"""`import`, `export`, `migrate`."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from alertrec.cli.common import JsonOption, console, notes, print_json, print_table, settings
from alertrec.cli.progress import progress_bars
from alertrec.runtime import opened

# Some rows were refused: neither success nor failure, and a script must be able to tell.
STATUS_REJECTS = 3


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_)
    app.command()(export)
    app.command()(migrate)


def import_(
    users: Annotated[Path | None, typer.Option(help="Parquet or CSV file of users.")] = None,
    transactions: Annotated[Path | None, typer.Option(help="Parquet or CSV file of transactions.")] = None,
    alert_rules: Annotated[Path | None, typer.Option(help="Parquet or CSV file of alert rules.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="TOML file that maps foreign columns (docs/import.md).")] = None,
    rejects: Annotated[Path | None, typer.Option(help="File for refused rows. Default: in the data directory.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Load a bank's export; repeatable. Exit status 3 if rows were refused."""
    from alertrec.importing import import_files, load_mapping
    from alertrec.storage.schema import create_source_relations

    if users is None and transactions is None and alert_rules is None:
        raise typer.BadParameter("give at least one of --users, --transactions, --alert-rules")
    given = settings()
    rejects_path = rejects or given.data_dir / f"rejects-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
    started = time.perf_counter()
    with opened(given) as workspace, progress_bars() as report, workspace.engine.begin() as connection:
        create_source_relations(connection, workspace.source)
        result = import_files(
            connection,
            schema=given.source_schema,
            users=users,
            transactions=transactions,
            alert_rules=alert_rules,
            mapping=load_mapping(mapping) if mapping else None,
            rejects_path=rejects_path,
            progress=report,
        )
    if as_json:
        print_json(
            {"relations": asdict(result)["relations"], "n_rejected": result.n_rejected, "rejects": str(rejects_path)}
        )
    else:
        rows = [
            {
                "relation": name,
                "read": f"{report.n_read:,}",
                "new": f"{report.n_inserted:,}",
                "updated": f"{report.n_updated:,}",
                "unchanged": f"{report.n_unchanged:,}",
                "refused": ", ".join(f"{n:,} {reason}" for reason, n in report.rejected.items()) or "0",
            }
            for name, report in result.relations.items()
        ]
        print_table(f"imported in {time.perf_counter() - started:.1f} s", rows, empty="nothing imported")
        if result.n_rejected:
            notes.print(f"{result.n_rejected:,} rows were refused; they are in {rejects_path}, each with the reason")
    if result.n_rejected:
        raise typer.Exit(STATUS_REJECTS)


def export(
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .csv or .jsonl.")],
    as_json: JsonOption = False,
) -> None:
    """Write all current lists to a file, columns as the table's."""
    from alertrec.exporting import export_lists

    with opened(settings()) as workspace:
        n_rows = export_lists(workspace, out)
    if as_json:
        print_json({"n_rows": n_rows, "out": str(out)})
    else:
        console.print(f"{n_rows:,} recommendations written to {out}")


def migrate() -> None:
    """Bring the database to the schema of this release."""
    from alertrec.storage.schema import current_revision
    from alertrec.storage.schema import migrate as run_migrations

    with opened(settings(), check_schema=False) as workspace, workspace.engine.begin() as connection:
        before = current_revision(connection)
        run_migrations(connection)
        console.print(f"alertrec's tables: revision {before or 'none'} → {current_revision(connection)}")
