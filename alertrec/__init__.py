"""Recommends to each bank customer the few alert rules worth switching on.

Importing the package loads nothing heavy; each name below brings what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alertrec.background import BackgroundRecommendationService
    from alertrec.feature_engineering import build_user_features, get_similarity_feature_columns
    from alertrec.labels import (
        extract_alert_types_from_rules,
        generate_initial_alert_labels,
        get_alert_columns,
        merge_real_alert_labels,
    )
    from alertrec.recommender import AlertRecommenderModel
    from alertrec.training import log_user_alert_action, retrain_model, should_retrain_model, train_model

__all__ = [
    "AlertRecommenderModel",
    "BackgroundRecommendationService",
    "build_user_features",
    "extract_alert_types_from_rules",
    "generate_initial_alert_labels",
    "get_alert_columns",
    "get_similarity_feature_columns",
    "log_user_alert_action",
    "merge_real_alert_labels",
    "retrain_model",
    "should_retrain_model",
    "train_model",
]

_MODULE_OF = {
    "AlertRecommenderModel": "recommender",
    "BackgroundRecommendationService": "background",
    "build_user_features": "feature_engineering",
    "extract_alert_types_from_rules": "labels",
    "generate_initial_alert_labels": "labels",
    "get_alert_columns": "labels",
    "get_similarity_feature_columns": "feature_engineering",
    "log_user_alert_action": "training",
    "merge_real_alert_labels": "labels",
    "retrain_model": "training",
    "should_retrain_model": "training",
    "train_model": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'alertrec' has no attribute {name!r}")
    return getattr(import_module(f"alertrec.{_MODULE_OF[name]}"), name)
