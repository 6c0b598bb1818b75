"""The report as tables for a terminal of 100 columns, readable without colour as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from alertrec.reporting.contents import AlertScore, ModelScore, Protocol, Report
from alertrec.reporting.plots import (
    MOST_ALERTS,
    MOST_DRIFT,
    PSI_LARGE,
    PSI_WATCH,
    by_quality,
    largest,
    most_drifted,
)
from alertrec.reporting.reading import read_report
from alertrec.reporting.verdict import judgement, verdict
from alertrec.reporting.wording import (
    LISTS,
    NOTHING,
    PROBABILITY,
    RANKING,
    Metric,
    best_models,
    day,
    interval,
    metric_of,
    model_name,
    number,
    percent,
    plus_minus,
    signed,
    words,
)

LEAVE_ONE_OUT, SPLIT_IN_TIME = "Leave one out", "Split in time"


def render_tables(report: Mapping[str, Any]) -> list[Table | str]:
    """Return what to print of a report, in order: sentences (as markup, escaped) and tables.

    Parameters
    ----------
    report : mapping
        The JSON of a report, format 1. Sections that are null or missing are left out.

    Raises
    ------
    DataError
        If a required field is missing or of the wrong kind; it names the field.
    """
    return _tables(read_report(report))


def _tables(report: Report) -> list[Table | str]:
    alerts = report.chosen.by_alert if report.chosen is not None else ()
    shown: list[Table | str] = [escape("\n".join(verdict(report)))]
    shown += _gates(report)
    shown += _protocol(LEAVE_ONE_OUT, report.leave_one_out, report.algorithm)
    shown += _protocol(SPLIT_IN_TIME, report.split_in_time, report.algorithm)
    shown += [*_alerts(alerts, report), *_answers(report), *_groups(report)]
    shown += [*_ablation(report), *_drift(report), *_leaks(report)]
    return shown


def _table(title: str, names: Iterable[str], rows: Iterable[Iterable[str | Text]], *, n_words: int = 1) -> list[Table]:
    """Return a table, none if it has no row; the first `n_words` columns hold words, the rest numbers."""
    table = Table(title=Text(title), title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    for place, name in enumerate(names):
        is_words = place < n_words
        table.add_column(name, justify="left" if is_words else "right", overflow="fold", no_wrap=not is_words)
    for row in rows:
        # Text, not markup: an alert type or a feature may be called anything.
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return [table] if table.row_count else []


def _gates(report: Report) -> list[Table]:
    rows = [
        (
            Text("✓ passed", style="green") if gate.passed else Text("✗ failed", style="bold red"),
            words(gate.name),
            gate.message,
        )
        for gate in report.gates
    ]
    return _table("Gates", ("", "gate", "why"), rows, n_words=3)


def _protocol(name: str, protocol: Protocol | None, chosen: str) -> list[Table | str]:
    if protocol is None:
        return []
    if protocol.skipped is not None:
        return [escape(f"{name}: not judged. {protocol.skipped}")]
    when = f", split at {day(protocol.split_at)}" if protocol.split_at is not None else ""
    heading = f"{name}, {number(protocol.n_users, 0)} users{when}"
    shown: list[Table | str] = []
    for topic, metrics in (("ranking", RANKING), ("probabilities", PROBABILITY), ("the lists", LISTS)):
        shown += _metrics(f"{heading}: {topic}", metrics, protocol, chosen)
    best = f"* best value; ± the wider side of the 95 % interval; → the chosen model. {_directions()}"
    return [*shown, *([escape(best)] if protocol.models else []), *_comparisons(name, protocol)]


def _directions() -> str:
    *most, last = (metric.name.lower() for metric in PROBABILITY)
    return f"Of {', '.join(most)} and {last}, lower is better; of the ranking, higher."


def _metrics(title: str, metrics: tuple[Metric, ...], protocol: Protocol, chosen: str) -> list[Table]:
    best = {metric.key: best_models(metric, protocol.models.values()) for metric in metrics}
    rows = [
        [_name(model, chosen), *(_value(metric, model, model.name in best[metric.key]) for metric in metrics)]
        for model in by_quality(protocol)
    ]
    return _table(title, ("model", *(metric.name for metric in metrics)), rows)


def _name(model: ModelScore, chosen: str) -> Text:
    is_chosen = model.name == chosen
    return Text(("→ " if is_chosen else "  ") + model_name(model.name), style="bold cyan" if is_chosen else "")


def _value(metric: Metric, model: ModelScore, is_best: bool) -> Text:
    text = plus_minus(model.metric(metric.key), metric.decimals)
    return Text(text + ("*" if is_best else " "), style="bold green" if is_best else "")


def _comparisons(name: str, protocol: Protocol) -> list[Table]:
    rows = []
    for each in protocol.comparisons:
        metric, outcome = metric_of(each.metric), judgement(each)
        style = {"better": "green", "worse": "bold red"}.get(outcome, "dim")
        difference = signed(each.difference.value, metric.decimals)
        ends = interval(each.difference, metric.decimals) or NOTHING
        names = model_name(each.model), model_name(each.against), metric.name
        rows.append((*names, Text(outcome, style=style), difference, ends))
    names_ = ("model", "against", "metric", "is", "difference", "interval")
    return _table(f"{name}: compared, user by user", names_, rows, n_words=4)


def _alerts(alerts: Iterable[AlertScore], report: Report) -> list[Table]:
    ordered, rows = sorted(alerts, key=lambda score: (-score.n_wanted, score.alert)), []
    for score in ordered[:MOST_ALERTS]:
        n_enabled = report.n_enabled.get(score.alert)
        share = percent(n_enabled / report.n_users, 1) if n_enabled is not None and report.n_users else NOTHING
        counts = (number(score.n_wanted, 0), number(score.n_offered, 0))
        rows.append((score.alert, share, *counts, number(score.log_loss, 4), number(score.calibration_error, 4)))
    names = ("alert type", "enabled by", "wanted", "offered", "log-loss", "calibration error")
    cut = f", the {MOST_ALERTS} most wanted of {len(ordered)}" if len(ordered) > MOST_ALERTS else ""
    return _table(f"Alert types, by the chosen model{cut}", names, rows)


def _answers(report: Report) -> list[Table]:
    rows = [
        (
            each.alert,
            number(each.n_answers, 0),
            number(each.n_taken, 0),
            percent(each.n_taken / each.n_answers) if each.n_answers else NOTHING,
            signed(each.shift, 2),
        )
        for each in report.answers
    ]
    names = ("alert type", "answers", "taken", "share", "log-odds moved by")
    return _table("What customers answered", names, rows)


def _groups(report: Report) -> list[Table]:
    rows = [
        (words(grouping), group.name, number(group.n_users, 0), plus_minus(group.log_loss, 4), plus_minus(group.mrr))
        for grouping, groups in report.groups.items()
        for group in largest(groups)
    ]
    return _table("Groups of users", ("by", "group", "users", "Log-loss", "MRR"), rows, n_words=2)


def _ablation(report: Report) -> list[Table]:
    rows = [
        (
            words(each.features),
            "earn their place" if each.difference.low > 0 else "may be chance",
            number(each.log_loss_without, 4),
            signed(each.difference.value, 4),
            interval(each.difference, 4) or NOTHING,
        )
        for each in report.ablation
    ]
    names = ("features left out", "so they", "log-loss without", "added", "interval")
    return _table("What each group of features adds", names, rows, n_words=2)


def _drift(report: Report) -> list[Table]:
    rows = [
        (feature, "large" if psi >= PSI_LARGE else "worth a look" if psi >= PSI_WATCH else "small", number(psi))
        for feature, psi in most_drifted(report)
    ]
    n_features = len(report.drift or {})
    cut = f", the {MOST_DRIFT} of {n_features} features that moved most" if n_features > MOST_DRIFT else ""
    return _table(f"Input drift{cut}", ("feature", "drift", "PSI"), rows, n_words=2)


def _leaks(report: Report) -> list[Table]:
    rows = [(leak.feature, leak.alert, number(leak.auc), number(leak.n, 0)) for leak in report.leaks or ()]
    return _table("Suspected leaks of the future", ("feature", "alert type", "AUC", "users"), rows, n_words=2)
