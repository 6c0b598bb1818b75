"""Users' data → the rows of their lists. Pure: frames and arrays in, frames out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from alertrec.catalog import BY_KEY, AlertType
from alertrec.feature_engineering import FEATURES, USER_ID, build_user_features
from alertrec.labels import enabled_matrix
from alertrec.models.base import AlertMatrix
from alertrec.ranking import Offers, choose
from alertrec.recommender import AlertRecommenderModel, Scores, confidence_level

# Recommendations of one user, alert and model are the same recommendation, however often its list is renewed: a
# card that a browser still shows stays answerable.
_NAMESPACE = uuid.UUID("6d0b0a54-3d3c-4f0c-9d7e-1f5a2c8e9b10")

COLLABORATIVE = "ml_collaborative_filtering"
NEW_USER = "new_user"


@dataclass(frozen=True)
class Policy:
    """What is offered of what the model says."""

    threshold: float
    max_items: int
    ttl: timedelta


@dataclass(frozen=True)
class Edition:
    """What all lists of one run have in common."""

    model_version: str
    as_of: datetime
    generated_at: datetime
    policy: Policy

    @property
    def expires_at(self) -> datetime:
        """The moment from which the lists are no longer current."""
        return self.generated_at + self.policy.ttl


@dataclass(frozen=True)
class Lists:
    """Rows for the tables `recommendation_lists` and `recommendations`, columns named as there."""

    lists: pl.DataFrame
    items: pl.DataFrame


def build_lists(
    users: pl.DataFrame,
    transactions: pl.DataFrame,
    rules: pl.DataFrame,
    dismissed: pl.DataFrame,
    *,
    model: AlertRecommenderModel,
    edition: Edition,
) -> Lists:
    """Build the lists of all `users`.

    Parameters
    ----------
    users, transactions : frames as `build_user_features` takes them
    rules : frame of the rules that are on, with `user_id`, `alert_type`, `natural_language_query`
    dismissed : frame with `user_id`, `alert_type`: what is not offered though the user lacks it
    """
    features = build_user_features(users, transactions, as_of=edition.as_of)
    user_ids = features[USER_ID].to_list()
    enabled = enabled_matrix(user_ids, rules, model.alert_columns)
    typed = dismissed.with_columns(pl.lit(None, pl.String).alias("natural_language_query"))
    # A type that the catalogue has dropped since the training has no words to be offered in.
    gone = np.array([key not in BY_KEY for key in model.alert_columns])
    away = enabled_matrix(user_ids, typed, model.alert_columns) | gone
    scores = model.score(
        user_ids,
        features.select(model.feature_columns).to_numpy(),
        enabled,
        known=(features["amount_count"] > 0).to_numpy(),
    )
    offers = _choose(scores, enabled | away, edition.policy)
    return Lists(
        lists=_list_rows(user_ids, scores, offers, edition),
        items=_item_rows(features, scores, offers, model.alert_columns, edition),
    )


def _choose(scores: Scores, exclude: AlertMatrix, policy: Policy) -> Offers:
    return choose(scores.probabilities, policy.max_items, exclude=exclude, threshold=policy.threshold)


def _list_rows(user_ids: list[str], scores: Scores, offers: Offers, edition: Edition) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": user_ids,
            "recommendation_type": np.where(scores.n_similar > 0, COLLABORATIVE, NEW_USER).tolist(),
            "n_items": (offers.alerts >= 0).sum(axis=1),
        },
        schema_overrides={"user_id": pl.String, "recommendation_type": pl.String},
    ).with_columns(
        model_version=pl.lit(edition.model_version),
        generated_at=pl.lit(edition.generated_at),
        expires_at=pl.lit(edition.expires_at),
        as_of=pl.lit(edition.as_of),
    )


def _item_rows(
    features: pl.DataFrame, scores: Scores, offers: Offers, alert_columns: tuple[str, ...], edition: Edition
) -> pl.DataFrame:
    rows, ranks = np.nonzero(offers.alerts >= 0)
    values = features.select(FEATURES).to_numpy()
    user_ids = features[USER_ID].to_list()
    items = [
        _item(
            user_ids[row],
            BY_KEY[alert_columns[offers.alerts[row, rank]]],
            rank=int(rank) + 1,
            probability=float(offers.probabilities[row, rank]),
            n_similar=int(scores.n_similar[row]),
            features=dict(zip(FEATURES, values[row].tolist(), strict=True)),
            model_version=edition.model_version,
        )
        for row, rank in zip(rows, ranks, strict=True)
    ]
    return pl.DataFrame(items, schema=_ITEM_SCHEMA).with_columns(
        model_version=pl.lit(edition.model_version),
        generated_at=pl.lit(edition.generated_at),
        expires_at=pl.lit(edition.expires_at),
    )


_ITEM_SCHEMA = {
    "user_id": pl.String,
    "alert_type": pl.String,
    "rank": pl.Int64,
    "probability": pl.Float64,
    "confidence_level": pl.String,
    "parameters": pl.String,
    "reasons": pl.String,
    "title": pl.String,
    "description": pl.String,
    "natural_language_query": pl.String,
    "category": pl.String,
    "priority": pl.String,
    "reasoning": pl.String,
    "recommendation_id": pl.String,
}


def _item(
    user_id: str,
    entry: AlertType,
    *,
    rank: int,
    probability: float,
    n_similar: int,
    features: Mapping[str, float],
    model_version: str,
) -> dict[str, Any]:
    confidence = confidence_level(probability, n_similar)
    return {
        "user_id": user_id,
        "alert_type": entry.key,
        "rank": rank,
        "probability": probability,
        "confidence_level": confidence,
        "parameters": json.dumps(dict(entry.parameters)),
        "reasons": json.dumps(reasons(entry, probability=probability, n_similar=n_similar, features=features)),
        "title": entry.title,
        "description": entry.description,
        "natural_language_query": entry.natural_language_query(),
        "category": entry.category,
        # Until value enters the ranking, how sure we are is all that sets one offer above another.
        "priority": confidence,
        "reasoning": reasoning(entry, probability=probability, n_similar=n_similar, features=features),
        "recommendation_id": str(uuid.uuid5(_NAMESPACE, json.dumps([user_id, entry.key, model_version]))),
    }


def reasoning(entry: AlertType, *, probability: float, n_similar: int, features: Mapping[str, float]) -> str:
    """Return why, in a sentence for the customer: about their own spending, or that nothing is known of it yet."""
    if n_similar == 0:
        return f"{probability:.0%} of customers have this alert on; what you buy will shape this list."
    return entry.evidence.format(**features)


def reasons(
    entry: AlertType, *, probability: float, n_similar: int, features: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return why, as numbers: each can be recomputed from the stored model and the user's transactions."""
    if n_similar == 0:
        return [{"kind": "popularity", "share": probability}]
    own = {name: features[name] for name in entry.evidence_features}
    return [{"kind": "similar_users", "share": probability, "n_similar": n_similar}, {"kind": "own_spending", **own}]
