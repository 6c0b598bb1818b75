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
from alertrec.ledger import USER_ID, Ints, Ledger
from alertrec.models.base import AlertMatrix
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.advice import MAX_CHANGES, Change, loosen, quieten
from alertrec.rules.backtests import BackTests, days_of_budget, history_days, knows_window, would_have_fired
from alertrec.rules.cards import CHANGE, LEVELS, Evidence, Fit, advice_card, offer_card
from alertrec.rules.offers import Offer, Room, choose_offers
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
    away: pl.DataFrame,
    *,
    model: AlertRecommenderModel,
    edition: Edition,
) -> Lists:
    """Build the lists of all `users`.

    Parameters
    ----------
    users, transactions : frames as `build_user_features` takes them
    rules : frame of the rules that are on, as `standing_rules` takes it
    away : frame with `user_id`, `alert_type`, `natural_language_query`
        What the user has said no to: it is not offered though they lack it, nor advised on.
    """
    policy = edition.policy
    known = _Known.of(Ledger.of(users, transactions, edition.as_of), rules, away, model)
    # Advice that makes rules quieter comes first: what a list says, taken as a whole, keeps to the budget.
    quieter = [known.quieter(user, policy) for user in range(len(known.user_ids))]
    rooms = [known.room(user, changes, policy) for user, changes in enumerate(quieter)]
    offers = choose_offers(
        known.scores.probabilities,
        known.enabled | known.away,
        alert_types=model.alert_columns,
        rooms=rooms,
        first_dials=known.starts.dials,
        tests=known.tests,
        threshold=policy.threshold,
    )
    items, n_items = [], []
    for user, mine in enumerate(offers):
        changes = quieter[user] + known.louder(user, quieter[user], rooms[user], mine)
        cards = [_offer_item(known, user, offer, edition) for offer in mine]
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
    refused: AlertMatrix  # what is not advised on, by those of the catalogue
    scores: Scores
    tests: BackTests
    standing: list[list[StandingRule]]
    starts: StartingPoints
    knows_window: list[bool]

    @classmethod
    def of(cls, ledger: Ledger, rules: pl.DataFrame, away: pl.DataFrame, model: AlertRecommenderModel) -> _Known:
        features = features_of(ledger)
        user_ids = features[USER_ID].to_list()
        enabled = enabled_matrix(user_ids, rules, model.alert_columns)
        # A type that the catalogue has dropped since the training has no words to be offered in.
        gone = np.array([key not in BY_KEY for key in model.alert_columns])
        buys = (features["amount_count"] > 0).to_numpy()
        tests, knows = BackTests(ledger), knows_window(ledger)
        return cls(
            ledger=ledger,
            model=model,
            features=features,
            enabled=enabled,
            away=enabled_matrix(user_ids, away, model.alert_columns) | gone,
            refused=enabled_matrix(user_ids, away),
            scores=model.score(features, enabled, known=buys),
            tests=tests,
            standing=standing_rules(rules, user_ids, tests),
            starts=starting_points(model, features, knows_window=knows),
            knows_window=knows.tolist(),
        )

    @cached_property
    def user_ids(self) -> list[str]:
        return self.features[USER_ID].to_list()

    @cached_property
    def history_days(self) -> list[int]:
        days: list[int] = history_days(self.ledger).tolist()
        return days

    @cached_property
    def _values(self) -> Any:
        return self.features.select(FEATURES).to_numpy()

    def quieter(self, user: int, policy: Policy) -> list[Change]:
        """Return the advice that makes a user's rules keep to the budgets."""
        days = days_of_budget(self.history_days[user])
        return quieten(
            self.standing[user],
            of_a_rule=policy.budget.of_a_rule(days),
            of_a_user=policy.budget.of_a_user(days),
            tests=self.tests,
            without=self._without_advice(user),
        )[: policy.max_items]

    def room(self, user: int, changes: Sequence[Change], policy: Policy) -> Room:
        """Return what a user's rules, as they are advised to be, leave to offers."""
        days = days_of_budget(self.history_days[user])
        fired = self._fired_after(user, changes)
        return Room(
            n_items=policy.max_items - len(changes),
            of_a_rule=policy.budget.of_a_rule(days),
            left=max(0, policy.budget.of_a_user(days) - sum(map(len, fired))),
            told={int(entry) for entries in fired for entry in entries},
        )

    def louder(self, user: int, quieter: Sequence[Change], room: Room, offers: Sequence[Offer]) -> list[Change]:
        """Return the advice on rules that never fired, as far as list and budget have room for it."""
        n_free = min(MAX_CHANGES - len(quieter), room.n_items - len(offers))
        if not self.knows_window[user] or n_free <= 0:
            return []
        left = max(0, room.left - sum(len(offer.fired) for offer in offers))
        return loosen(
            self.standing[user],
            of_a_rule=room.of_a_rule,
            left=left,
            told=room.told,
            tests=self.tests,
            without={*self._without_advice(user), *(change.rule.alert_type for change in quieter)},
        )[:n_free]

    def _without_advice(self, user: int) -> set[str]:
        return {key for key, is_away in zip(ALERT_KEYS, self.refused[user], strict=True) if is_away}

    def _fired_after(self, user: int, changes: Sequence[Change]) -> list[Ints]:
        """Return where each rule of a user fires, those that are to be changed as they would then."""
        after = {id(change.rule): change.fired_after for change in changes}
        return [after.get(id(rule), rule.fired) for rule in self.standing[user]]

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
            n_customers=int(self.model.card["n_users"]),
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
    told = {
        "alert_rule_id": rule.rule_id,
        "advice": str(change.advice),
        "parameters": dict(rule.parameters),
        "fired": fired_now,
    }
    # Another advice on the same rule is another recommendation: who still sees the first must not get the second.
    said = [rule.rule_id, str(change.advice), dict(rule.parameters), dict(change.parameters)]
    identity = [known.user_ids[rule.user], rule.alert_type, edition.model_version, CHANGE, *said]
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
