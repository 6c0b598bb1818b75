"""How numbers, models and metrics are called and written, on the page and in the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from alertrec.reporting.contents import CHAMPION, KNN, Estimate, ModelScore

NOTHING = "–"
HIGHER, LOWER = "higher is better", "lower is better"


@dataclass(frozen=True)
class Metric:
    """A metric's name, which direction is better (None: it describes, it does not judge), and what it means."""

    key: str
    name: str
    better: str | None
    meaning: str
    decimals: int = 3

    def is_better(self, value: float, than: float) -> bool:
        """Whether a value is the better one; never for a metric that only describes."""
        return (self.better == HIGHER and value > than) or (self.better == LOWER and value < than)


RANKING = (
    Metric("hit_at_1", "Hit@1", HIGHER, "The share of users whose wanted alert is the first one offered."),
    Metric("hit_at_3", "Hit@3", HIGHER, "The share of users whose wanted alert is among the first three offered."),
    Metric(
        "mrr", "MRR", HIGHER,
        "Mean reciprocal rank: 1 if the wanted alert always comes first, ½ if always second, ⅓ if always third.",
    ),
    Metric(
        "ndcg_at_3", "NDCG@3", HIGHER,
        "Like Hit@3, but a wanted alert counts less in second place than in first, and less again in third.",
    ),
)  # fmt: skip
PROBABILITY = (
    Metric(
        "log_loss", "Log-loss", LOWER,
        "How surprised the model is by what users really enabled, alert by alert; being sure and wrong costs most.", 4,
    ),
    Metric(
        "brier", "Brier", LOWER,
        "The mean squared distance between the predicted probability and what happened (1 enabled, 0 not).", 4,
    ),
    Metric(
        "calibration_error", "Calibration error", LOWER,
        "How far predicted probabilities are from observed shares, on average: at 0, of those told 70 %, 70 % enable.",
        4,
    ),
)  # fmt: skip
LISTS = (
    Metric("coverage", "Coverage", None, "The share of the alert types that appear in at least one user's list."),
    Metric(
        "novelty",
        "Novelty",
        None,
        "How uncommon the offered alerts are, in bits: one that half of the users have counts 1, a quarter 2.",
    ),
    Metric(
        "popularity_bias",
        "Popularity bias",
        None,
        "The share of users who have what is offered, less that of what is wanted: best at 0.",
    ),
)
METRICS = {metric.key: metric for metric in (*RANKING, *PROBABILITY, *LISTS)}

_MODELS = {
    "popularity": "Popularity", KNN: "KNN (promised)", "cooccurrence": "Co-occurrence", "linear": "Linear",
    "boosting": "Boosting", "neural": "Neural", "ensemble": "Ensemble", CHAMPION: "Champion in force",
}  # fmt: skip
_IN_A_SENTENCE = {
    KNN: "the promised KNN", "cooccurrence": "co-occurrence", "linear": "the linear model",
    "neural": "the neural network", "ensemble": "the ensemble", CHAMPION: "the champion in force",
}  # fmt: skip


def model_name(key: str) -> str:
    """Return a model's name as a label."""
    return _MODELS.get(key, key)


def model_in_a_sentence(key: str) -> str:
    """Return a model's name as it stands within a sentence."""
    return _IN_A_SENTENCE.get(key, key)


def metric_of(key: str) -> Metric:
    """Return what is known about a metric; an unknown one keeps its key and judges nothing."""
    return METRICS.get(key) or Metric(key, words(key), None, "")


def words(key: str) -> str:
    """Return a key such as `credit_limit` as words: "Credit limit"."""
    text = key.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def number(value: float, decimals: int = 3) -> str:
    """Return a number with a true minus sign and thousands apart; a dash if it is unknown."""
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float, decimals: int = 3) -> str:
    """Return a difference, its sign always written."""
    text = number(value, decimals)
    return text if text in {NOTHING, number(0.0, decimals)} or text.startswith("−") else f"+{text}"


def interval(estimate: Estimate, decimals: int = 3) -> str:
    """Return "0.081 to 0.088"; nothing if an end is unknown."""
    if not (estimate.is_known and estimate.has_interval):
        return ""
    return f"{number(estimate.low, decimals)} to {number(estimate.high, decimals)}"


def plus_minus(estimate: Estimate, decimals: int = 3) -> str:
    """Return "0.085 ±0.003", the wider side of the interval where the two differ."""
    text = number(estimate.value, decimals)
    if not (estimate.is_known and estimate.has_interval):
        return text
    half = max(estimate.value - estimate.low, estimate.high - estimate.value)
    return f"{text} ±{number(half, decimals)}"


def percent(share: float, decimals: int = 0) -> str:
    """Return a share as a percentage; a dash if it is unknown."""
    return f"{number(100 * share, decimals)} %" if math.isfinite(share) else NOTHING


def day(moment: datetime) -> str:
    """Return "1 October 2026, 12:00 UTC"."""
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return "1 user" or "1,200 users"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def best_models(metric: Metric, models: Iterable[ModelScore]) -> frozenset[str]:
    """Return who has the best value of a metric; nobody where it only describes, or only one model is known."""
    known: Mapping[str, float] = {
        model.name: model.metric(metric.key).value for model in models if model.metric(metric.key).is_known
    }
    if metric.better is None or len(known) < 2:
        return frozenset()
    best = (max if metric.better == HIGHER else min)(known.values())
    return frozenset(name for name, value in known.items() if value == best)
