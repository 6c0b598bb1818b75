"""`status`, `doctor`."""

from __future__ import annotations

from typing import Any

import typer

from alertrec.cli.common import JsonOption, console, print_json, print_table, settings
from alertrec.runtime import opened


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(doctor)


def status(as_json: JsonOption = False) -> None:
    """Show lists, champion, jobs, queues and workers."""
    with opened(settings()) as workspace:
        found = _status(workspace)
    if as_json:
        print_json(found)
        return
    champion = found["champion"]
    console.print(f"lists: {found['lists']['current']:,} current, {found['lists']['expired']:,} expired")
    console.print(
        f"champion: {champion['version']} of {champion['created_at']:%Y-%m-%d}" if champion else "champion: none"
    )
    console.print(f"actions waiting: {found['actions_waiting']:,}")
    console.print("queues: " + ", ".join(f"{name} {length}" for name, length in found["queues"].items()))
    console.print("workers: " + (", ".join(found["workers"]) or "none answers"))
    print_table("jobs", found["jobs"], empty="no jobs yet")


def doctor(as_json: JsonOption = False) -> None:
    """Check everything that the system needs; say what to do for each failure. Exit status 1 if one fails."""
    from alertrec.doctor import examine

    with opened(settings(), check_schema=False) as workspace:
        findings = list(examine(workspace))
    if as_json:
        print_json([finding.__dict__ for finding in findings])
    for finding in () if as_json else findings:
        mark = "[green]ok  [/]" if finding.ok else "[red]FAIL[/]"
        console.print(f"{mark} {finding.check}: {finding.found}", highlight=False)
        if not finding.ok:
            console.print(f"     → {finding.remedy}", highlight=False)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _status(workspace: Any) -> dict[str, Any]:
    from alertrec.doctor import last_tick, queue_lengths, workers
    from alertrec.storage import actions, jobs, lists, models

    with workspace.engine.connect() as connection:
        current, expired = lists.counts(connection)
        champion = models.champion(connection)
        recent = jobs.recent_runs(connection)
        waiting = actions.count_unprocessed(connection)
    return {
        "lists": {"current": current, "expired": expired},
        "champion": champion and {"version": champion.version, "created_at": champion.created_at},
        "actions_waiting": waiting,
        "queues": queue_lengths(workspace.settings),
        "workers": workers(workspace.settings),
        "last_tick": last_tick(workspace.settings),
        "jobs": [
            {
                "job": run["job"],
                "status": run["status"],
                "created_at": run["created_at"],
                "finished_at": run["finished_at"],
                "chunks": f"{run['n_chunks_done']}/{run['n_chunks']}" if run["n_chunks"] else None,
                "error": run["error"],
                "job_id": run["job_id"],
            }
            for run in recent
        ],
    }
