"""What users answered to offers, as training learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from sqlalchemy import Connection, Integer, Select, Subquery, and_, case, cast, false, func, or_, select, union_all
from sqlalchemy.dialects.postgresql import distinct_on

from alertrec.action_types import ACCEPTED, DISMISSED, RULE_ACTIONS, SWITCHED_ON
from alertrec.storage import models
from alertrec.storage.frames import read_frame
from alertrec.storage.source import Source
from alertrec.storage.tables import alert_actions

# What was refused half a year ago may be wanted now; and a type that is no longer offered gets no answers that could
# raise it again, so that forgetting is its way back.
LOOK_BACK_DAYS = 180

_SCHEMA = {"alert_type": pl.String, "probability": pl.Float64, "model_version": pl.String, "taken": pl.Int8}


def read_answers(connection: Connection, source: Source, *, as_of: datetime) -> pl.DataFrame:
    """Return the offers that users answered in the `LOOK_BACK_DAYS` up to a moment, and what was known of them then.

    Taken is what was accepted, or switched on under the id of its recommendation, and dismissed is not. What was taken
    and is off again, as the log tells or the rule's row where nobody logs, was not taken. Shown, expanded and snoozed
    are no answers. Of what a user answered to offers of one type the last counts: who dismisses an offer each month is
    one witness.

    Returns
    -------
    frame of `alert_type`, `probability` and `model_version` of the offer, and `taken` (0 or 1), in no order
    """
    answer = _answers(as_of).subquery()
    later = _switched(answer, source, as_of)
    same = and_(later.c.user_id == answer.c.user_id, later.c.alert_type == answer.c.alert_type)
    kept = and_(answer.c.taken, or_(later.c.is_on.is_(None), later.c.is_on))
    query = select(answer.c.alert_type, answer.c.probability, answer.c.model_version, cast(kept, Integer)).select_from(
        answer.outerjoin(later, same)
    )
    return read_frame(connection, query, _SCHEMA).with_columns(pl.col("taken").cast(pl.Boolean))


def shifts_of_versions(connection: Connection) -> dict[str, Mapping[str, float]]:
    """Return the shifts that models promised with, by version and alert type; versions that had none are left out.

    Each version also keeps those of the versions whose promises were answered when it was trained, for rows of old
    versions are deleted while their promises are still learnt from.
    """
    found: dict[str, Mapping[str, float]] = {}
    for version in models.all_versions(connection):
        found |= version.data_counts.get("shifts", {})
    return found


def _answers(as_of: datetime) -> Select[Any]:
    """Return the last answer of each user to offers of each type."""
    action = alert_actions.c
    switched_on = and_(action.action.in_(SWITCHED_ON), action.recommendation_id.is_not(None))
    return (
        select(
            action.user_id,
            action.alert_type,
            action.probability,
            action.model_version,
            action.occurred_at,
            (action.action != DISMISSED).label("taken"),
        )
        .where(
            or_(action.action.in_((ACCEPTED, DISMISSED)), switched_on),
            action.alert_type.is_not(None),
            action.probability.between(0, 1),  # NULL is not: advice on a rule promises nothing
            action.occurred_at <= as_of,
            action.occurred_at > as_of - timedelta(days=LOOK_BACK_DAYS),
        )
        .ext(distinct_on(action.user_id, action.alert_type))
        .order_by(
            action.user_id, action.alert_type, action.occurred_at.desc(), action.recorded_at.desc(), action.event_id
        )
    )


def _switched(answer: Subquery, source: Source, as_of: datetime) -> Subquery:
    """Return whether the latest switch of a rule since each offer was taken, of its user and type, was on."""
    action, rule = alert_actions.c, source.alert_rules.c
    same_rule = and_(rule.id == action.alert_rule_id, rule.user_id == action.user_id)
    logged = (
        select(
            action.user_id,
            func.coalesce(action.alert_type, rule.alert_type).label("alert_type"),
            action.occurred_at.label("at"),
            action.action.in_(SWITCHED_ON).label("is_on"),
        )
        .select_from(alert_actions.outerjoin(source.alert_rules, same_rule))
        .where(
            action.action.in_(RULE_ACTIONS),
            action.occurred_at <= as_of,
            action.occurred_at > as_of - timedelta(days=LOOK_BACK_DAYS),
        )
    )
    stored = select(rule.user_id, rule.alert_type, rule.updated_at, func.coalesce(rule.is_active, false())).where(
        rule.updated_at <= as_of
    )
    switch = union_all(logged, stored).subquery()
    same = and_(switch.c.user_id == answer.c.user_id, switch.c.alert_type == answer.c.alert_type)
    return (
        select(switch.c.user_id, switch.c.alert_type, switch.c.is_on)
        .select_from(answer.join(switch, same))
        .where(answer.c.taken, switch.c.at > answer.c.occurred_at)
        .ext(distinct_on(switch.c.user_id, switch.c.alert_type))
        # What is said to be on and off at one moment is off: it was switched on first.
        .order_by(switch.c.user_id, switch.c.alert_type, switch.c.at.desc(), case((switch.c.is_on, 1), else_=0))
        .subquery()
    )
