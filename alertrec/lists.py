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
from numpy.typing import NDArray

from alertrec.calibration import confidence_level
from alertrec.catalog import BY_KEY, AlertType
from alertrec.explanation.cohort import similar_share
from alertrec.feature_engineering import FEATURES, USER_ID, build_user_features
from alertrec.labels import enabled_matrix
from alertrec.ranking import Offers, choose
from alertrec.recommender import AlertRecommenderModel
from alertrec.scoring import DEFAULT, NEW_USER, Scores

# Recommendations of one user, alert and model are the same recommendation, however often its list is renewed: a
# card that a browser still shows stays answerable.
_NAMESPACE = uuid.UUID("6d0b0a54-3d3c-4f0c-9d7e-1f5a2c8e9b10")


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


@dataclass(frozen=True)
class Evidence:
    """What one recommendation rests on.

    Attributes
    ----------
    probability, low, high : float
        Calibrated, with its 90 % interval.
    kind : str
        The `recommendation_type` of the list.
    cohort_count, cohort_size : int
        How many of the users most similar to this one have the alert.
    features : mapping of str to float
        The user's own; empty without purchases.
    """

    probability: float
    low: float
    high: float
    kind: str
    cohort_count: int
    cohort_size: int
    features: Mapping[str, float]


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
    known = (features["amount_count"] > 0).to_numpy()
    scores = model.score(features, enabled, known=known)
    policy = edition.policy
    offers = choose(scores.probabilities, policy.max_items, exclude=enabled | away, threshold=policy.threshold)
    return Lists(
        lists=_list_rows(user_ids, scores, offers, edition),
        items=_item_rows(features, known, scores, offers, model.alert_columns, edition),
    )


def _list_rows(user_ids: list[str], scores: Scores, offers: Offers, edition: Edition) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": user_ids,
            "recommendation_type": scores.kinds,
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
    features: pl.DataFrame,
    known: NDArray[np.bool_],
    scores: Scores,
    offers: Offers,
    alert_columns: tuple[str, ...],
    edition: Edition,
) -> pl.DataFrame:
    rows, ranks = np.nonzero(offers.alerts >= 0)
    values = features.select(FEATURES).to_numpy()
    user_ids = features[USER_ID].to_list()
    items = []
    for row, rank in zip(rows.tolist(), ranks.tolist(), strict=True):
        alert = int(offers.alerts[row, rank])
        evidence = Evidence(
            probability=float(scores.probabilities[row, alert]),
            low=float(scores.low[row, alert]),
            high=float(scores.high[row, alert]),
            kind=scores.kinds[row],
            cohort_count=int(scores.cohort_count[row, alert]),
            cohort_size=int(scores.cohort_size[row]),
            features=dict(zip(FEATURES, values[row].tolist(), strict=True)) if known[row] else {},
        )
        entry = BY_KEY[alert_columns[alert]]
        items.append(_item(user_ids[row], entry, rank=rank + 1, evidence=evidence, edition=edition))
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


def _item(user_id: str, entry: AlertType, *, rank: int, evidence: Evidence, edition: Edition) -> dict[str, Any]:
    confidence = confidence_level(evidence.probability, evidence.low, edition.policy.threshold)
    recommendation_id = uuid.uuid5(_NAMESPACE, json.dumps([user_id, entry.key, edition.model_version]))
    return {
        "user_id": user_id,
        "alert_type": entry.key,
        "rank": rank,
        "probability": evidence.probability,
        "confidence_level": confidence,
        "parameters": json.dumps(dict(entry.parameters)),
        "reasons": json.dumps(reasons(entry, evidence)),
        "title": entry.title,
        "description": entry.description,
        "natural_language_query": entry.natural_language_query(),
        "category": entry.category,
        # Until value enters the ranking, how sure we are is all that sets one offer above another.
        "priority": confidence,
        "reasoning": reasoning(entry, evidence),
        "recommendation_id": str(recommendation_id),
    }


def reasoning(entry: AlertType, evidence: Evidence) -> str:
    """Return why, for the customer: their own spending, and what customers like them do."""
    sentences = [entry.evidence.format(**evidence.features)] if evidence.features else []
    cohort = similar_share(evidence.cohort_count, evidence.cohort_size)
    if cohort is not None and evidence.cohort_count:
        sentences.append(f"{cohort.sentence()}.")
    if evidence.kind == DEFAULT:
        sentences.append("It goes together with the alerts that you have.")
    if evidence.kind == NEW_USER:
        sentences.append(f"{evidence.probability:.0%} of customers have this alert on.")
    if not evidence.features:
        sentences.append("What you buy will shape this list.")
    return " ".join(sentences)


def reasons(entry: AlertType, evidence: Evidence) -> list[dict[str, Any]]:
    """Return why, as numbers: each can be recomputed from the stored model and the user's transactions and rules."""
    found: list[dict[str, Any]] = [
        {
            "kind": "popularity" if evidence.kind == NEW_USER else "model",
            "probability": evidence.probability,
            "low": evidence.low,
            "high": evidence.high,
        }
    ]
    if (cohort := similar_share(evidence.cohort_count, evidence.cohort_size)) is not None:
        found.append({"kind": "similar_users", **cohort.to_json()})
    if evidence.features:
        own = {name: evidence.features[name] for name in entry.evidence_features}
        found.append({"kind": "own_spending", **own})
    return found
