"""`train`, `refresh`, `recommend`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape

from alertrec.cli.common import AsOfOption, JsonOption, console, parse_as_of, print_json, settings
from alertrec.cli.progress import Report, follow, progress_bars
from alertrec.errors import DataError
from alertrec.runtime import opened
from alertrec.task_names import REFRESH_RECOMMENDATIONS, TRAIN_MODEL

if TYPE_CHECKING:
    from alertrec.explanation import Explanation
    from alertrec.workspace import Workspace

LocalOption = Annotated[bool, typer.Option("--local", help="Do it in this process; no worker is needed.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(refresh)
    app.command()(recommend)


def train(
    force: Annotated[
        bool,
        typer.Option("--force", help="Train even if the last training is recent; replace the champion, better or not."),
    ] = False,
    local: LocalOption = False,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on workers, judge the candidates, and promote the best if it passes the gates."""
    from alertrec import fitting
    from alertrec.sending import send

    moment = parse_as_of(as_of)
    with opened(settings()) as workspace, progress_bars() as report:
        job_id = fitting.request_training(workspace, force=force, as_of=moment, promoted_by="command line")
        if local:
            fitting.run_training(workspace, report)
        else:
            send(workspace, TRAIN_MODEL, force, str(job_id))
        result = _finish(workspace, job_id, report)
    if as_json:
        print_json({"job_id": job_id, **result})
    elif "skipped" in result:
        console.print(f"nothing trained: {result['skipped']}; --force trains all the same")
    elif "refused" in result:
        version = result["version"]
        console.print(f"model [bold]{version}[/] is stored, and does not serve:")
        for reason in result["refused"]:
            console.print(f"  {escape(reason)}", highlight=False)
        console.print(f"`alertrec models report {version}` shows all figures, `alertrec models promote` overrules")
    else:
        console.print(f"model [bold]{result['version']}[/] is champion")


def refresh(local: LocalOption = False, as_of: AsOfOption = None, as_json: JsonOption = False) -> None:
    """Renew everybody's list on workers."""
    from alertrec import service
    from alertrec.sending import send

    moment = parse_as_of(as_of)
    with opened(settings()) as workspace, progress_bars() as report:
        if local:
            job_id = service.refresh_locally(workspace, as_of=moment, progress=report)
        else:
            job_id = service.request_refresh(workspace, as_of=moment)
            send(workspace, REFRESH_RECOMMENDATIONS, service.ALL_USERS, str(job_id))
        result = _finish(workspace, job_id, report)
    if as_json:
        print_json({"job_id": job_id, **result})
    else:
        console.print(f"{result['n_users']:,} users refreshed in {result['n_chunks']} chunks")


def recommend(
    user: str,
    as_of: AsOfOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each offer rests on.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Renew the list of one USER now, and show it."""
    from alertrec import service
    from alertrec.storage.lists import read_items, read_list

    with opened(settings()) as workspace:
        service.generate_recommendations(workspace, user, as_of=parse_as_of(as_of))
        with workspace.engine.connect() as connection:
            row, items = read_list(connection, user), read_items(connection, user)
        if row is None:
            raise DataError(f"user {user!r} is not active, and is served no list")
        explanations = service.explain_list(workspace, user) if explain else {}
    if as_json:
        told = {alert_type: {"explanation": each.to_json()} for alert_type, each in explanations.items()}
        print_json({**row, "recommendations": [{**item, **told.get(item["alert_type"], {})} for item in items]})
    else:
        print_list(user, row["recommendation_type"], items, explanations)


def print_list(
    user: str, recommendation_type: str, items: Any, explanations: Mapping[str, Explanation] = MappingProxyType({})
) -> None:
    """Print what a user is offered and why."""
    from alertrec.rules.cards import CHANGE

    console.print(f"\n[bold]{escape(user)}[/]  [dim]{recommendation_type}[/]", highlight=False)
    if not items:
        console.print("  nothing: this user has or has dismissed every alert")
    for item in items:
        is_advice = item["recommendation_type"] == CHANGE
        judged = "advice" if is_advice else f"{item['probability']:.0%}, {item['confidence_level']} confidence"
        _print_line(f"  {item['rank']}. [bold]{escape(item['title'])}[/]  {judged}")
        _print_line(f"     “{escape(item['natural_language_query'])}”")
        _print_line(f"     [dim]{escape(item['reasoning'])}[/]")
        examples = (item["would_have_fired"] or {}).get("examples", [])
        if len(examples) > 1:  # of a single one, the reasoning tells
            _print_line(f"     [dim]{escape('for example: ' + ', '.join(map(_firing, examples)))}[/]")
        if item["alert_type"] in explanations:
            _print_explanation(explanations[item["alert_type"]])


def _print_line(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _firing(example: Mapping[str, Any]) -> str:
    """Return one firing in a few words; the amount is of the user's own currency, which nobody tells."""
    day = date.fromisoformat(example["date"])
    return " ".join(filter(None, [f"{day:%b} {day.day}", example["merchant"], f"{example['amount']:,.2f}"]))


def _print_explanation(explanation: Explanation) -> None:
    from alertrec.catalog import BY_KEY
    from alertrec.explanation import sentences

    for sentence in sentences(explanation, {key: entry.title for key, entry in BY_KEY.items()}):
        console.print(f"     {escape(sentence)}", highlight=False)
    if explanation.contributions:
        console.print(
            f"     log-odds {explanation.log_odds:+.3f} = {explanation.base:+.3f} to begin with", highlight=False
        )
    for each in explanation.contributions:
        console.print(f"       {each.value:+.3f}  {escape(each.name)}", highlight=False)


def _finish(workspace: Workspace, job_id: UUID, report: Report) -> dict[str, Any]:

    from alertrec.watching import watch

    state = follow(watch(workspace, job_id), report)
    if state.error is not None:
        raise DataError(state.error)
    return state.result or {}
