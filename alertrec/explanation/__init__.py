"""Why a model says what it says of a user and an alert: in numbers that recompute, and in plain English."""

from __future__ import annotations

from alertrec.explanation.cohort import MIN_COHORT, Cohort, similar_share
from alertrec.explanation.explaining import Change, Contribution, Evidence, Explanation, explain
from alertrec.explanation.groups import FEATURE_GROUPS, feature_groups
from alertrec.explanation.wording import sentences

__all__ = [
    "FEATURE_GROUPS",
    "MIN_COHORT",
    "Change",
    "Cohort",
    "Contribution",
    "Evidence",
    "Explanation",
    "explain",
    "feature_groups",
    "sentences",
    "similar_share",
]
