"""Users' data → the rows of their lists. Pure: frames and arrays in, frames out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from alertrec.catalog import ALERT_KEYS, BY_KEY
from alertrec.feature_engineering import FEATURES, features_of
from alertrec.labels import enabled_matrix
from alertrec.ledger import USER_ID, Ledger
from alertrec.models.base import AlertMatrix
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.advice import MAX_CHANGES, Change, advise
from alertrec.rules.backtests import BackTests, has_long_history, history_days, would_have_fired
from alertrec.rules.cards import CHANGE, LEVELS, Evidence, Fit, advice_card, offer_card
from alertrec.rules.offers import Offer, choose_offers, left_of_budget
from alertrec.rules.policy import Policy
from alertrec.rules.standing import StandingRule, standing_rules
from alertrec.rules.starting_points import StartingPoints, starting_points
from alertrec.scoring import Scores

# Recommendations of one user, alert and model are the same recommendation, however often its list is renewed: a
# card that a browser still shows stays answerable.
_NAMESPACE = uuid.UUID("6d0b0a54-3d3c-4f0c-9d7e-1f5a2c8e9b10")


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
    rules : frame of the rules that are on, as `standing_rules` takes it
    dismissed : frame with `user_id`, `alert_type`: what is not offered though the user lacks it, nor advised on
    """
    known = _Known.of(Ledger.of(users, transactions, edition.as_of), rules, dismissed, model)
    offers = choose_offers(
        known.scores.probabilities,
        known.enabled | known.away,
        alert_types=model.alert_columns,
        standing=known.standing,
        first_dials=known.starts.dials,
        tests=known.tests,
        policy=edition.policy,
    )
    items, n_items = [], []
    for user, mine in enumerate(offers):
        cards = [_offer_item(known, user, offer, edition) for offer in mine]
        changes = known.changes(user, mine, edition.policy)[: edition.policy.max_items - len(mine)]
        cards += [_change_item(known, change, edition) for change in changes]
        cards.sort(key=lambda card: LEVELS.index(card["priority"]))  # stable: of one priority, the more valuable first
        items += [{"user_id": known.user_ids[user], "rank": rank, **card} for rank, card in enumerate(cards, start=1)]
        n_items.append(len(cards))
    rows = pl.DataFrame(items, schema=_ITEM_SCHEMA).with_columns(
        model_version=pl.lit(edition.model_version),
        generated_at=pl.lit(edition.generated_at),
        expires_at=pl.lit(edition.expires_at),
    )
    return Lists(lists=_list_rows(known, n_items, edition), items=rows)


@dataclass(frozen=True)
class _Known:
    """All that is known of the users of one run, row by row."""

    ledger: Ledger
    model: AlertRecommenderModel
    features: pl.DataFrame
    enabled: AlertMatrix
    away: AlertMatrix  # what is not offered, by the columns of the model
    dismissed: AlertMatrix  # by those of the catalogue
    scores: Scores
    tests: BackTests
    standing: list[list[StandingRule]]
    starts: StartingPoints

    @classmethod
    def of(cls, ledger: Ledger, rules: pl.DataFrame, dismissed: pl.DataFrame, model: AlertRecommenderModel) -> _Known:
        features = features_of(ledger)
        user_ids = features[USER_ID].to_list()
        enabled = enabled_matrix(user_ids, rules, model.alert_columns)
        typed = dismissed.with_columns(pl.lit(None, pl.String).alias("natural_language_query"))
        # A type that the catalogue has dropped since the training has no words to be offered in.
        gone = np.array([key not in BY_KEY for key in model.alert_columns])
        buys = (features["amount_count"] > 0).to_numpy()
        tests = BackTests(ledger)
        return cls(
            ledger=ledger,
            model=model,
            features=features,
            enabled=enabled,
            away=enabled_matrix(user_ids, typed, model.alert_columns) | gone,
            dismissed=enabled_matrix(user_ids, typed),
            scores=model.score(features, enabled, known=buys),
            tests=tests,
            standing=standing_rules(rules, user_ids, tests),
            starts=starting_points(model, features, knows_window=has_long_history(ledger)),
        )

    @cached_property
    def user_ids(self) -> list[str]:
        return self.features[USER_ID].to_list()

    @cached_property
    def knows_window(self) -> list[bool]:
        known: list[bool] = has_long_history(self.ledger).tolist()
        return known

    @cached_property
    def history_days(self) -> list[int]:
        days: list[int] = history_days(self.ledger).tolist()
        return days

    @cached_property
    def _values(self) -> Any:
        return self.features.select(FEATURES).to_numpy()

    def changes(self, user: int, offers: Sequence[Offer], policy: Policy) -> list[Change]:
        left = left_of_budget(self.standing[user], policy) - sum(len(offer.fired) for offer in offers)
        changes = advise(
            self.standing[user], knows_window=self.knows_window[user], left=left, tests=self.tests, policy=policy
        )
        away = self.dismissed[user]
        return [change for change in changes if not away[ALERT_KEYS.index(change.rule.alert_type)]][:MAX_CHANGES]

    def evidence(self, user: int, alert: int) -> Evidence:
        scores = self.scores
        buys = self._values[user, FEATURES.index("amount_count")] > 0
        return Evidence(
            probability=float(scores.probabilities[user, alert]),
            low=float(scores.low[user, alert]),
            high=float(scores.high[user, alert]),
            kind=scores.kinds[user],
            cohort_count=int(scores.cohort_count[user, alert]),
            cohort_size=int(scores.cohort_size[user]),
            features=dict(zip(FEATURES, self._values[user].tolist(), strict=True)) if buys else {},
        )


def _list_rows(known: _Known, n_items: list[int], edition: Edition) -> pl.DataFrame:
    columns = {"user_id": known.user_ids, "recommendation_type": known.scores.kinds, "n_items": n_items}
    schema = {"user_id": pl.String, "recommendation_type": pl.String, "n_items": pl.Int64}
    return pl.DataFrame(columns, schema=schema).with_columns(
        model_version=pl.lit(edition.model_version),
        generated_at=pl.lit(edition.generated_at),
        expires_at=pl.lit(edition.expires_at),
        as_of=pl.lit(edition.as_of),
    )


_ITEM_SCHEMA = {
    "user_id": pl.String,
    "alert_type": pl.String,
    "rank": pl.Int64,
    "recommendation_type": pl.String,
    "probability": pl.Float64,
    "confidence_level": pl.String,
    "parameters": pl.String,
    "would_have_fired": pl.String,
    "change": pl.String,
    "reasons": pl.String,
    "title": pl.String,
    "description": pl.String,
    "natural_language_query": pl.String,
    "category": pl.String,
    "priority": pl.String,
    "reasoning": pl.String,
    "recommendation_id": pl.String,
}


def _offer_item(known: _Known, user: int, offer: Offer, edition: Edition) -> dict[str, Any]:
    alert_type = known.model.alert_columns[offer.alert]
    fit = Fit(
        parameters=offer.parameters,
        fired=would_have_fired(known.ledger, offer.fired),
        n_known=offer.n_known,
        basis=known.starts.basis_of(user, offer.alert, offer.dial, BY_KEY[alert_type].dial.steps),
        history_days=known.history_days[user],
    )
    card = offer_card(BY_KEY[alert_type], known.evidence(user, offer.alert), fit, edition.policy)
    identity = [known.user_ids[user], alert_type, edition.model_version]
    return _item(alert_type, card, fit, identity) | {"change": None}


def _change_item(known: _Known, change: Change, edition: Edition) -> dict[str, Any]:
    rule = change.rule
    assert rule.parameters is not None
    fit = Fit(
        parameters=change.parameters,
        fired=would_have_fired(known.ledger, change.fired),
        n_known=0,
        basis="own_history",
        history_days=known.history_days[rule.user],
    )
    fired_now = would_have_fired(known.ledger, rule.fired)
    card = advice_card(BY_KEY[rule.alert_type], change.advice, rule.parameters, fired_now, fit, edition.policy)
    identity = [known.user_ids[rule.user], rule.alert_type, edition.model_version, CHANGE, rule.rule_id]
    told = {
        "alert_rule_id": rule.rule_id,
        "advice": str(change.advice),
        "parameters": dict(rule.parameters),
        "fired": fired_now,
    }
    return _item(rule.alert_type, card, fit, identity) | {"change": json.dumps(told)}


def _item(alert_type: str, card: dict[str, Any], fit: Fit, identity: list[Any]) -> dict[str, Any]:
    return {
        **card,
        "alert_type": alert_type,
        "category": BY_KEY[alert_type].category,
        "parameters": json.dumps(dict(fit.parameters)),
        "would_have_fired": json.dumps(fit.fired),
        "reasons": json.dumps(card["reasons"]),
        "recommendation_id": str(uuid.uuid5(_NAMESPACE, json.dumps(identity))),
    }
