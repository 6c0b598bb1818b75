"""How well a model foretells what users enable: held-out users, metrics, their intervals, and features that leak."""

from __future__ import annotations

from alertrec.evaluation.bootstrap import by_alert, by_group, compare, summarise
from alertrec.evaluation.leaks import Leak, find_leaks
from alertrec.evaluation.metrics import METRICS, Judgement, judge
from alertrec.evaluation.protocols import Trial, folds, leave_one_out, split_in_time
from alertrec.evaluation.reliability import reliability

__all__ = [
    "METRICS",
    "Judgement",
    "Leak",
    "Trial",
    "by_alert",
    "by_group",
    "compare",
    "find_leaks",
    "folds",
    "judge",
    "leave_one_out",
    "reliability",
    "split_in_time",
    "summarise",
]
