"""What a report holds, once it has been checked; numbers that are unknown are NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

POPULARITY, KNN, CHAMPION = "popularity", "knn", "champion"


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its bootstrap interval."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether there is a value to show or to plot."""
        return math.isfinite(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether both ends of the interval are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero; never so if an end is unknown."""
        return self.has_interval and (self.low > 0 or self.high < 0)


UNKNOWN = Estimate(math.nan)


@dataclass(frozen=True)
class Bin:
    """One point of a reliability curve: `n` predictions near `predicted`, of which `observed` came true."""

    predicted: float
    observed: Estimate
    n: int


@dataclass(frozen=True)
class AlertScore:
    """How well one alert type is predicted: hidden from `n_wanted` users, offered to `n_offered`."""

    alert: str
    n_wanted: int
    n_offered: int
    log_loss: float
    calibration_error: float
    reliability: tuple[Bin, ...]


@dataclass(frozen=True)
class ModelScore:
    """What one model reached under one protocol."""

    name: str
    metrics: Mapping[str, Estimate]
    reliability: tuple[Bin, ...]
    by_alert: tuple[AlertScore, ...]
    calibrated: bool

    def metric(self, key: str) -> Estimate:
        """Return a metric; unknown if the report does not have it."""
        return self.metrics.get(key, UNKNOWN)


@dataclass(frozen=True)
class Comparison:
    """The metric of `model` minus that of `against`, paired by user."""

    model: str
    against: str
    metric: str
    difference: Estimate


@dataclass(frozen=True)
class Protocol:
    """One way of judging the models; `skipped` says in words why it was not gone, None if it was."""

    skipped: str | None
    split_at: datetime | None = None
    n_users: int = 0
    n_folds: int | None = None
    models: Mapping[str, ModelScore] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class Group:
    """How well the users of one group are served by the chosen model."""

    name: str
    n_users: int
    log_loss: Estimate
    mrr: Estimate


@dataclass(frozen=True)
class Gate:
    """A condition for promotion, with what was measured and the bound where they are numbers."""

    name: str
    passed: bool
    measured: float
    bound: float
    message: str


@dataclass(frozen=True)
class Ablation:
    """What leaving a group of features out does to log-loss; a positive difference makes it worse."""

    features: str
    columns: tuple[str, ...]
    log_loss_without: float
    difference: Estimate


@dataclass(frozen=True)
class Leak:
    """A feature that alone tells who has an alert suspiciously well."""

    feature: str
    alert: str
    auc: float
    n: int


@dataclass(frozen=True)
class Answered:
    """How often offers of an alert type were answered and taken, and by how much that moves its log-odds."""

    alert: str
    n_answers: int
    n_taken: int
    shift: float


@dataclass(frozen=True)
class Report:
    """The whole report; a section that it does not have is None or empty."""

    created_at: datetime
    as_of: datetime
    version: str | None
    algorithm: str
    n_users: int
    n_enabled: Mapping[str, int]
    leave_one_out: Protocol | None
    split_in_time: Protocol | None
    groups: Mapping[str, tuple[Group, ...]]
    gates: tuple[Gate, ...]
    drift: Mapping[str, float] | None
    ablation: tuple[Ablation, ...]
    leaks: tuple[Leak, ...] | None
    answers: tuple[Answered, ...] = ()

    @property
    def judged(self) -> Protocol | None:
        """The protocol that the verdict rests on: leave-one-out, else the split in time, else none."""
        for protocol in (self.leave_one_out, self.split_in_time):
            if protocol is not None and protocol.skipped is None:
                return protocol
        return None

    @property
    def chosen(self) -> ModelScore | None:
        """What the chosen model reached under the protocol that the verdict rests on."""
        return self.judged.models.get(self.algorithm) if self.judged is not None else None
