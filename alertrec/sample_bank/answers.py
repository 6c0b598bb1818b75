"""What the customers of a made-up bank did with earlier recommendations: most of their rules were such ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl

from alertrec.action_types import ACCEPTED, CREATED, DISABLED, DISMISSED, EXPANDED, SHOWN, SNOOZED
from alertrec.sample_bank.bank import SampleBank
from alertrec.sample_bank.rules import ALERTS

DAYS = 75
_MODEL = "sample"
# Offers that were not taken, for each that was; and what became of them.
_NOT_TAKEN = 1.6
_OUTCOMES = (None, DISMISSED, SNOOZED)
_SHARES = (0.62, 0.23, 0.15)

Row = dict[str, Any]


def make_sample_answers(bank: SampleBank, *, as_of: datetime, seed: int = 0) -> pl.DataFrame:
    """Return the actions of the last `DAYS` days, the oldest first; the same arguments give the same rows.

    A rule that was created in that time is taken for a recommendation that was accepted; one that is off, for one that
    was given up since. What was promised of offers that were taken is higher, as of a model that knows something.

    Returns
    -------
    frame with the columns of `alertrec.alert_actions`
    """
    rng = np.random.default_rng([seed, 1])
    now = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    rules = bank.alert_rules.filter(
        pl.col("alert_type").is_not_null(), pl.col("created_at") > now - timedelta(days=DAYS)
    ).sort("id")
    rows = [row for rule in rules.iter_rows(named=True) for row in _taken(rng, rule, now)]
    owned = set(bank.alert_rules.select("user_id", "alert_type").iter_rows())
    user_ids = bank.users.filter("is_active")["id"].to_list()
    for _ in range(round(_NOT_TAKEN * rules.height)):
        user_id, alert_type = user_ids[rng.integers(len(user_ids))], ALERTS[rng.integers(len(ALERTS))]
        if (user_id, alert_type) not in owned:
            rows += _not_taken(rng, user_id, alert_type, now)
    return pl.DataFrame(rows, schema=_SCHEMA).sort("occurred_at", "event_id")


def _taken(rng: np.random.Generator, rule: Row, now: datetime) -> Iterator[Row]:
    at = rule["created_at"]
    offer = {
        "user_id": rule["user_id"],
        "alert_type": rule["alert_type"],
        "recommendation_id": _id(rng),
        "probability": float(rng.beta(4, 3)),
    }
    yield _action(rng, SHOWN, at - timedelta(minutes=float(rng.exponential(600))), offer)
    if rng.random() < 0.5:
        yield _action(rng, EXPANDED, at - timedelta(seconds=40), offer)
    yield _action(rng, ACCEPTED, at, offer | {"alert_rule_id": rule["id"]})
    yield _action(rng, CREATED, at, offer | {"alert_rule_id": rule["id"]})
    given_up = min(at + timedelta(days=float(rng.uniform(1, 40))), now - timedelta(minutes=1))
    if not rule["is_active"] and given_up > at:
        yield _action(rng, DISABLED, given_up, offer | {"alert_rule_id": rule["id"], "recommendation_id": None})


def _not_taken(rng: np.random.Generator, user_id: str, alert_type: str, now: datetime) -> Iterator[Row]:
    at = now - timedelta(days=float(rng.uniform(0, DAYS)))
    offer = {
        "user_id": user_id,
        "alert_type": alert_type,
        "recommendation_id": _id(rng),
        "probability": float(rng.beta(3, 4)),
    }
    yield _action(rng, SHOWN, at, offer)
    if rng.random() < 0.25:
        yield _action(rng, EXPANDED, at + timedelta(seconds=15), offer)
    outcome = _OUTCOMES[rng.choice(len(_OUTCOMES), p=_SHARES)]
    if outcome is not None and at + timedelta(seconds=30) < now:
        yield _action(rng, outcome, at + timedelta(seconds=30), offer)


def _action(rng: np.random.Generator, action: str, at: datetime, fields: Row) -> Row:
    told = {"alert_rule_id": None, "model_version": _MODEL, **fields}
    return {"event_id": _id(rng), "action": action, "occurred_at": at, "recorded_at": at, "processed_at": at} | told


def _id(rng: np.random.Generator) -> str:
    return str(UUID(bytes=rng.bytes(16), version=4))


_MOMENT = pl.Datetime("us", "UTC")
_SCHEMA: dict[str, Any] = {
    "event_id": pl.String,
    "user_id": pl.String,
    "alert_rule_id": pl.String,
    "alert_type": pl.String,
    "action": pl.String,
    "recommendation_id": pl.String,
    "occurred_at": _MOMENT,
    "recorded_at": _MOMENT,
    "processed_at": _MOMENT,
    "probability": pl.Float64,
    "model_version": pl.String,
}
