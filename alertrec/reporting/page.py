"""The report as one HTML page that needs nothing else: no script, no font, no file, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from alertrec.reporting import wording
from alertrec.reporting.charts import RowChart
from alertrec.reporting.contents import POPULARITY, AlertScore, Protocol, Report
from alertrec.reporting.plots import (
    MOST_ALERTS,
    MOST_DRIFT,
    MOST_LEVELS,
    ablation_plot,
    by_quality,
    comparison_plots,
    drift_plot,
    group_plots,
)
from alertrec.reporting.reading import read_report
from alertrec.reporting.reliability import ReliabilityChart, reliability_chart
from alertrec.reporting.verdict import compared, judgement, measured_in_words, verdict


@dataclass(frozen=True)
class Cell:
    """One value of the table of metrics."""

    value: str
    interval: str
    is_best: bool
    is_chosen: bool


@dataclass(frozen=True)
class ProtocolView:
    """A protocol as the page shows it."""

    key: str
    protocol: Protocol
    plots: list[RowChart]
    sentences: list[str]
    names: list[tuple[str, bool]]
    rows: list[tuple[wording.Metric, list[Cell]]]


@dataclass(frozen=True)
class Tile:
    """A number that stands out at the top, and what popularity reaches where that is known."""

    metric: wording.Metric
    value: str
    interval: str
    base: str | None


def render_page(report: Mapping[str, Any]) -> str:
    """Return the report as an HTML page.

    Parameters
    ----------
    report : mapping
        The JSON of a report, format 1. Sections that are null or missing are left out, unknown numbers are dashes.
        A comparison's difference is the metric of `model` minus that of `against`.

    Raises
    ------
    DataError
        If a required field is missing or of the wrong kind; it names the field.
    """
    return _page(read_report(report))


def _page(report: Report) -> str:
    alerts = _alerts(report)
    chosen = report.chosen
    return _template().render(
        report=report,
        chosen=chosen,
        verdict=verdict(report),
        n_failed=sum(not gate.passed for gate in report.gates),
        tiles=_tiles(report),
        leave_one_out=_protocol("leave-one-out", report.leave_one_out, report),
        split_in_time=_protocol("split-in-time", report.split_in_time, report),
        overall=reliability_chart("Reliability of the chosen model", chosen.reliability, large=True)
        if chosen
        else None,
        alerts=alerts,
        alert_plots=_alert_plots(alerts),
        groups=group_plots(report),
        cut_groupings=[name for name, groups in report.groups.items() if len(groups) > MOST_LEVELS],
        ablation=ablation_plot(report),
        drift=drift_plot(report),
        limits={"drift": MOST_DRIFT, "levels": MOST_LEVELS, "alerts": MOST_ALERTS},
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("alertrec.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"w": wording, "judgement": judgement, "measured_in_words": measured_in_words}
    return environment.get_template("report.html.j2")


def _tiles(report: Report) -> list[Tile]:
    protocol, chosen = report.judged, report.chosen
    if protocol is None or chosen is None:
        return []
    base = protocol.models.get(POPULARITY) if report.algorithm != POPULARITY else None
    tiles = []
    for key in ("hit_at_3", "mrr", "log_loss", "calibration_error"):
        metric, estimate = wording.METRICS[key], chosen.metric(key)
        theirs = wording.number(base.metric(key).value, metric.decimals) if base is not None else None
        value, ends = wording.number(estimate.value, metric.decimals), wording.interval(estimate, metric.decimals)
        tiles.append(Tile(metric, value, ends, theirs))
    return tiles


def _protocol(key: str, protocol: Protocol | None, report: Report) -> ProtocolView | None:
    if protocol is None:
        return None
    models = by_quality(protocol)
    return ProtocolView(
        key=key,
        protocol=protocol,
        plots=comparison_plots(protocol, report.algorithm),
        # The verdict at the top has them already for the protocol that it rests on.
        sentences=compared(report.algorithm, protocol) if protocol is not report.judged else [],
        names=[(wording.model_name(model.name), model.name == report.algorithm) for model in models],
        rows=[(metric, _cells(metric, protocol, report.algorithm)) for metric in wording.METRICS.values()],
    )


def _cells(metric: wording.Metric, protocol: Protocol, chosen: str) -> list[Cell]:
    best = wording.best_models(metric, protocol.models.values())
    return [
        Cell(
            value=wording.number(model.metric(metric.key).value, metric.decimals),
            interval=wording.interval(model.metric(metric.key), metric.decimals),
            is_best=model.name in best,
            is_chosen=model.name == chosen,
        )
        for model in by_quality(protocol)
    ]


def _alerts(report: Report) -> list[AlertScore]:
    """Return the alert types of the chosen model, the most wanted first."""
    scores = report.chosen.by_alert if report.chosen is not None else ()
    return sorted(scores, key=lambda score: (-score.n_wanted, score.alert))


def _alert_plots(alerts: list[AlertScore]) -> list[tuple[AlertScore, ReliabilityChart | None]]:
    return [(score, reliability_chart(score.alert, score.reliability, large=False)) for score in alerts[:MOST_ALERTS]]
