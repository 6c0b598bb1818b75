"""Which plots the page shows, and what of the report goes into each."""

from __future__ import annotations

import math

from alertrec.reporting.charts import BAD, CHOSEN, FIRM, PLAIN, WARNED, Mark, Reference, RowChart, row_chart
from alertrec.reporting.contents import Estimate, Group, ModelScore, Protocol, Report
from alertrec.reporting.wording import METRICS, metric_of, model_name, number, words

PSI_WATCH, PSI_LARGE = 0.1, 0.25
MOST_ALERTS, MOST_DRIFT, MOST_LEVELS = 30, 20, 12


def by_quality(protocol: Protocol, metric: str = "log_loss") -> list[ModelScore]:
    """Return the models, the lowest log-loss first; those of unknown quality last, by name."""

    def place(model: ModelScore) -> tuple[float, str]:
        estimate = model.metric(metric)
        return estimate.value if estimate.is_known else math.inf, model.name

    return sorted(protocol.models.values(), key=place)


def comparison_plots(protocol: Protocol, chosen: str) -> list[RowChart]:
    """Return log-loss and MRR of each model, the chosen one marked."""
    charts = []
    for key in ("log_loss", "mrr"):
        metric = METRICS[key]
        marks = [
            Mark(model_name(model.name), model.metric(key), CHOSEN if model.name == chosen else PLAIN)
            for model in by_quality(protocol)
        ]
        arrow = f"← {metric.better}" if key == "log_loss" else f"{metric.better} →"
        charts.append(row_chart(f"{metric.name} of each model", marks, unit=arrow, decimals=metric.decimals))
    return [chart for chart in charts if chart is not None]


def group_plots(report: Report) -> list[RowChart]:
    """Return log-loss and MRR of each group of users, with a line where all users together stand."""
    charts = []
    for key, arrow in (("log_loss", "← lower is better"), ("mrr", "higher is better →")):
        marks: list[Mark | str] = []
        for grouping, groups in report.groups.items():
            marks.append(words(grouping))
            marks += [
                Mark(group.name, getattr(group, key), FIRM, number(group.n_users, 0)) for group in largest(groups)
            ]
        overall = report.chosen.metric(key) if report.chosen is not None else None
        references = [Reference(overall.value, "all users")] if overall is not None and overall.is_known else []
        metric = metric_of(key)
        charts.append(
            row_chart(f"{metric.name} by group", marks, unit=arrow, decimals=metric.decimals, references=references)
        )
    return [chart for chart in charts if chart is not None]


def largest(groups: tuple[Group, ...]) -> list[Group]:
    """Return the groups in their own order; of many, the largest, the largest first."""
    if len(groups) <= MOST_LEVELS:
        return list(groups)
    return sorted(groups, key=lambda group: -group.n_users)[:MOST_LEVELS]


def ablation_plot(report: Report) -> RowChart | None:
    """Return what leaving each group of features out costs, the costliest first."""
    ordered = sorted(report.ablation, key=lambda each: -each.difference.value if each.difference.is_known else math.inf)
    marks = [
        Mark(words(each.features), each.difference, FIRM if each.difference.low > 0 else PLAIN) for each in ordered
    ]
    return row_chart(
        "Log-loss added by leaving features out",
        marks,
        unit="worse without them →",
        decimals=4,
        references=[Reference(0.0, "no difference")],
    )


def drift_plot(report: Report) -> RowChart | None:
    """Return the features that moved most since the champion was trained, by population stability index."""
    marks = [Mark(feature, Estimate(psi), drift_tone(psi)) for feature, psi in most_drifted(report)]
    bounds = [Reference(PSI_WATCH, "0.1"), Reference(PSI_LARGE, "0.25")]
    return row_chart("Input drift by feature", marks, unit="PSI", references=bounds, bars=True)


def most_drifted(report: Report) -> list[tuple[str, float]]:
    """Return the features that moved most with their PSI, at most twenty; an unknown PSI counts as none."""
    known = [(feature, psi) for feature, psi in (report.drift or {}).items() if math.isfinite(psi)]
    return sorted(known, key=lambda item: (-item[1], item[0]))[:MOST_DRIFT]


def drift_tone(psi: float) -> str:
    """Return how a PSI is to look: as a rule of thumb, 0.1 is worth a look and 0.25 is large."""
    if psi >= PSI_LARGE:
        return BAD
    return WARNED if psi >= PSI_WATCH else PLAIN
