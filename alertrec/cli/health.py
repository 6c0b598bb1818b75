"""`status`, `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from alertrec.cli.common import JsonOption, console, notes, print_json, print_table, settings
from alertrec.errors import TransientError
from alertrec.runtime import opened, require_schema

if TYPE_CHECKING:
    from alertrec.vitals import Vital
    from alertrec.workspace import Workspace

_ALARMS = "docs/operations.md"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(doctor)


def status(as_json: JsonOption = False) -> None:
    """Show lists, champion, jobs, queues, workers and whether promises are in danger. Exit status 1 if one is."""
    from alertrec.storage.database import transient_errors
    from alertrec.vitals import read_vitals

    with opened(settings(), check_schema=False) as workspace:
        vitals = read_vitals(workspace)
        try:
            with transient_errors("the status was read"):
                require_schema(workspace)
                found = _status(workspace, vitals)
        except TransientError as error:
            found = {}
            notes.print(
                f"error: {error}, and check ALERTREC_DATABASE_URL", soft_wrap=True, highlight=False, markup=False
            )
    if as_json:
        print_json({**found, "vitals": [_as_json(vital) for vital in vitals]})
    else:
        if found:
            _print_status(found)
        _print_vitals(vitals)
    if any(vital.queue and vital.is_missing for vital in vitals):
        notes.print("error: the broker cannot be reached; check ALERTREC_REDIS_URL", soft_wrap=True, highlight=False)
    if any(vital.is_in_danger for vital in vitals):
        raise typer.Exit(1)


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


def _status(workspace: Workspace, vitals: Sequence[Vital]) -> dict[str, Any]:
    from alertrec.doctor import workers
    from alertrec.storage import actions, jobs, lists, models

    with workspace.engine.connect() as connection:
        current, expired = lists.counts(connection)
        champion = models.champion(connection)
        recent = jobs.recent_runs(connection)
        waiting = actions.count_unprocessed(connection)
    queues = {vital.queue: vital.value for vital in vitals if vital.queue}
    is_away = None in queues.values()
    tick_age = next(vital.value for vital in vitals if vital.name == "last_tick_seconds")
    return {
        "lists": {"current": current, "expired": expired},
        "champion": champion and {"version": champion.version, "created_at": champion.created_at},
        "actions_waiting": waiting,
        "queues": None if is_away else queues,
        "workers": [] if is_away else workers(workspace.settings),
        "last_tick": None if tick_age is None else datetime.now(UTC) - timedelta(seconds=tick_age),
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


def _print_status(found: dict[str, Any]) -> None:
    champion, queues = found["champion"], found["queues"] or {}
    console.print(f"lists: {found['lists']['current']:,} current, {found['lists']['expired']:,} expired")
    console.print(
        f"champion: {champion['version']} of {champion['created_at']:%Y-%m-%d}" if champion else "champion: none"
    )
    console.print(f"actions waiting: {found['actions_waiting']:,}")
    console.print("queues: " + (", ".join(f"{name} {length}" for name, length in queues.items()) or "not known"))
    console.print("workers: " + (", ".join(found["workers"]) or "none answers"))
    print_table("jobs", found["jobs"], empty="no jobs yet")


def _print_vitals(vitals: Sequence[Vital]) -> None:
    print_table("vitals", [_as_row(vital) for vital in vitals], empty="")
    in_danger = dict.fromkeys(vital.name for vital in vitals if vital.is_in_danger)
    for name in in_danger:
        console.print(f"→ {name}: what to do is in {_ALARMS}#{name}", highlight=False, soft_wrap=True)


def _as_json(vital: Vital) -> dict[str, Any]:
    return {
        "name": vital.name,
        "queue": vital.queue,
        "value": vital.value,
        "limit": vital.limit,
        "unit": vital.unit,
        "meaning": vital.meaning,
        "is_in_danger": vital.is_in_danger,
        "what_to_do": f"{_ALARMS}#{vital.name}",
    }


def _as_row(vital: Vital) -> dict[str, Any]:
    return {
        "": "DANGER" if vital.is_in_danger else "ok",
        "vital": f"{vital.name} {vital.queue}" if vital.queue else vital.name,
        "now": "not known" if vital.is_missing else _number(vital.value),
        "limit": _number(vital.limit),
        "meaning": f"{vital.unit} {vital.meaning}".strip(),
    }


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.2f}"
