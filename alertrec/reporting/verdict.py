"""The report in a few plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable

from alertrec.reporting.contents import CHAMPION, KNN, POPULARITY, Comparison, Gate, Protocol, Report
from alertrec.reporting.wording import (
    HIGHER,
    NOTHING,
    counted,
    interval,
    metric_of,
    model_in_a_sentence,
    number,
    percent,
    signed,
    words,
)

RIVALS = (POPULARITY, KNN, CHAMPION)


def verdict(report: Report) -> list[str]:
    """Return the sentences that stand at the top: the model, by how much it is better, and the gates."""
    protocol = report.judged
    if protocol is None or report.chosen is None:
        opening = [f"The model is {model_in_a_sentence(report.algorithm)}; this report holds no evaluation of it."]
    else:
        opening = [_headline(report, protocol), *compared(report.algorithm, protocol)]
    return [*opening, gates_in_words(report.gates)]


def _headline(report: Report, protocol: Protocol) -> str:
    assert report.chosen is not None
    start = f"The chosen model is {model_in_a_sentence(report.algorithm)}"
    hits = report.chosen.metric("hit_at_3")
    if not hits.is_known:
        return f"{start}, judged on {counted(protocol.n_users, 'user')}."
    found = f"{start}: of 100 users, {100 * hits.value:.0f} find the alert they want among the first three offered"
    base = protocol.models.get(POPULARITY)
    if base is None or report.algorithm == POPULARITY or not base.metric("hit_at_3").is_known:
        return f"{found}."
    return f"{found}; offering everyone the most popular alerts, it would be {100 * base.metric('hit_at_3').value:.0f}."


def compared(algorithm: str, protocol: Protocol, metric: str = "log_loss") -> list[str]:
    """Return a sentence on each rival: popularity, the promised KNN, and the champion in force, where known."""
    found = {
        comparison.against: comparison
        for comparison in protocol.comparisons
        if (comparison.model, comparison.metric) == (algorithm, metric)
    }
    return [_against(found[rival], protocol) for rival in RIVALS if rival in found and rival != algorithm]


def _against(comparison: Comparison, protocol: Protocol) -> str:
    metric = metric_of(comparison.metric)
    rival = model_in_a_sentence(comparison.against)
    low_and_high = interval(comparison.difference, metric.decimals)
    measured = f"difference {signed(comparison.difference.value, metric.decimals)}"
    measured += f", 95 % interval {low_and_high}" if low_and_high else ""
    if not comparison.difference.excludes_zero:
        return f"Its {metric.name.lower()} cannot be told apart from that of {rival}: {measured}."
    direction = "lower" if comparison.difference.value < 0 else "higher"
    size = _relative(comparison, protocol)
    outcome = judgement(comparison)
    return f"Its {metric.name.lower()} is {size}{direction} ({outcome}) than that of {rival}: {measured}."


def _relative(comparison: Comparison, protocol: Protocol) -> str:
    rival = protocol.models.get(comparison.against)
    value = rival.metric(comparison.metric).value if rival is not None else 0.0
    return f"{percent(abs(comparison.difference.value) / value)} " if value > 0 else ""


def judgement(comparison: Comparison) -> str:
    """Return "better", "worse" or "no clear difference"; "different" for a metric that does not judge."""
    if not comparison.difference.excludes_zero:
        return "no clear difference"
    better = metric_of(comparison.metric).better
    if better is None:
        return "different"
    return "better" if (comparison.difference.value > 0) == (better == HIGHER) else "worse"


def gates_in_words(gates: Iterable[Gate]) -> str:
    """Return whether all gates pass, else which do not."""
    all_gates = list(gates)
    failed = [words(gate.name).lower() for gate in all_gates if not gate.passed]
    if not all_gates:
        return "No gate was checked."
    if failed:
        return f"{len(failed)} of {counted(len(all_gates), 'gate')} failed: {', '.join(failed)}."
    return "The one gate passes." if len(all_gates) == 1 else f"All {len(all_gates)} gates pass."


def measured_in_words(gate: Gate) -> str:
    """Return "measured 0.012, bound 0.03", as far as they are known."""
    parts = [f"{word} {short(value)}" for word, value in (("measured", gate.measured), ("bound", gate.bound))]
    return ", ".join(part for part in parts if not part.endswith(NOTHING))


def short(value: float) -> str:
    """Return a number of unknown size with as many digits as tell something."""
    if math.isfinite(value) and (abs(value) >= 100 or value == round(value)):
        return number(value, 0)
    return number(value, 4 if abs(value) < 0.1 else 3)
