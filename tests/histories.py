"""Hand-made histories of a few users, and a small model: what the tests of rules that fit are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from alertrec.catalog import ALERT_KEYS
from alertrec.feature_engineering import FEATURES
from alertrec.ledger import USER_ID, Ledger
from alertrec.lists import Edition, Lists, build_lists
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.backtests import BackTests
from alertrec.rules.policy import Policy
from alertrec.rules.standing import RULES_SCHEMA, StandingRule, standing_rules
from alertrec.rules.usual import UsualDials
from tests.strategies import TRANSACTIONS_SCHEMA, USERS_SCHEMA

AS_OF = datetime(2026, 3, 15, 12, tzinfo=UTC)  # a Sunday
Row = dict[str, Any]

SPENDER, VOLUME, DIVERSITY, LIMIT, LARGE, NEW, AWAY, RECURRING = ALERT_KEYS

USER: Row = {
    "id": "u",
    "credit_limit": 1000.0,
    "credit_balance": 0.0,
    "address_state": "NY",
    "address_country": "US",
    "time_zone": None,
}
POLICY = Policy(threshold=0.4, max_items=3, ttl=timedelta(hours=24))
_NO_SCHEMA = dict.fromkeys(["user_id", "alert_type", "natural_language_query"], pl.String)
NOTHING = pl.DataFrame(schema=_NO_SCHEMA)


def bought(amount: Any, days_ago: float = 1, merchant: str | None = "Cafe", **other: Any) -> Row:
    """Return a purchase of "u" at home, so many days before `AS_OF`."""
    return {
        "user_id": "u",
        "amount": amount,
        "merchant_name": merchant,
        "merchant_category": "food",
        "merchant_state": "NY",
        "merchant_country": "US",
        "transaction_date": AS_OF.replace(tzinfo=None) - timedelta(days=days_ago),
    } | other


def said_no(*pairs: tuple[str, str]) -> pl.DataFrame:
    """Return what users have said no to: their ids and alert types."""
    return pl.DataFrame([(*pair, None) for pair in pairs], schema=_NO_SCHEMA, orient="row")


# A purchase that fires nothing, of no merchant, so long ago that the history is longer than the window.
LONG_AGO = bought(1.0, 200, None)


def frames(rows: list[Row], users: list[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return users and transactions, numbered where they have no id."""
    numbered = [{"id": f"t{n}"} | row for n, row in enumerate(rows)]
    return (
        pl.DataFrame(users, schema=USERS_SCHEMA | {"time_zone": pl.String}),
        pl.DataFrame(numbered, schema=TRANSACTIONS_SCHEMA),
    )


def ledger(*rows: Row, users: list[Row] | None = None, as_of: datetime | None = AS_OF) -> Ledger:
    """Return the ledger of some users, or of "u"."""
    return Ledger.of(*frames(list(rows), users or [USER]), as_of)


def rule(alert_type: str | None, parameters: Mapping[str, Any] | None = None, **other: Any) -> Row:
    """Return a rule that "u" has on, its parameters stored."""
    stored = None if parameters is None else json.dumps(dict(parameters))
    return {"user_id": "u", "alert_type": alert_type, "parameters": stored} | other


def rules_frame(rules: list[Row]) -> pl.DataFrame:
    """Return the rules, numbered in their order where they have no id."""
    empty = dict.fromkeys(RULES_SCHEMA)
    return pl.DataFrame([empty | {"rule_id": f"r{n}"} | each for n, each in enumerate(rules)], schema=RULES_SCHEMA)


def standing(tests: BackTests, *rules: Row) -> list[StandingRule]:
    """Return the rules of "u", back-tested."""
    return standing_rules(rules_frame(list(rules)), tests.ledger.accounts[USER_ID].to_list(), tests)[0]


def small_model(
    n_users: int = 25,
    *,
    share_on: float = 0.5,
    alert_columns: tuple[str, ...] = ALERT_KEYS,
    dials: Mapping[str, float] | None = None,
    population: Mapping[str, float] | None = None,
) -> AlertRecommenderModel:
    """Return a model of users "c00", "c01", … whose features say nothing.

    Parameters
    ----------
    share_on : float
        Each alert is on for that share of them.
    dials, population : mapping of alert types to values
        What fits every one of the remembered users, and what fits most of a larger population; nothing of others.
    """
    values = np.random.default_rng(1).normal(size=(n_users, len(FEATURES)))
    values[:, FEATURES.index("amount_count")] = 10.0
    features = pl.DataFrame(values, schema=list(FEATURES)).with_columns(
        pl.Series(USER_ID, [f"c{row:02}" for row in range(n_users)])
    )
    labels = np.add.outer(np.arange(n_users), 3 * np.arange(len(alert_columns))) % n_users < share_on * n_users
    model = AlertRecommenderModel()
    model.alert_columns = alert_columns
    model.fit(features, labels)
    if dials is not None or population is not None:
        of_each, of_all = (
            np.array([(given or {}).get(key, np.nan) for key in alert_columns]) for given in (dials, population)
        )
        model.usual = UsualDials(model.user_ids, np.tile(of_each, (n_users, 1)), of_all)
    return model


def lists_of(
    rows: list[Row],
    *,
    users: list[Row] | None = None,
    rules: list[Row] | None = None,
    away: pl.DataFrame = NOTHING,
    model: AlertRecommenderModel | None = None,
    policy: Policy = POLICY,
) -> Lists:
    """Build the lists of some users, or of "u", as of `AS_OF`."""
    return build_lists(
        *frames(rows, users or [USER]),
        rules_frame(rules or []),
        away,
        model=model or small_model(),
        edition=Edition("v1", as_of=AS_OF, generated_at=AS_OF, policy=policy),
    )


def decoded(items: pl.DataFrame) -> list[Row]:
    """Return the items, their JSON columns decoded."""
    columns = ("parameters", "would_have_fired", "change", "reasons")
    return [row | {name: _decoded(row[name]) for name in columns} for row in items.iter_rows(named=True)]


def _decoded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
