"""The append-only log of what users do with rules and recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Connection, Row, ScalarSelect, Select, func, null, select, text, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert

from alertrec.action_types import CREATED, LOOKED_AT
from alertrec.storage.tables import alert_actions, recommendations


@dataclass(frozen=True)
class AlertAction:
    """Something a user did; `event_id` comes from the caller, and the same one is stored once.

    `due_at` is when what was dismissed or snoozed may come back; by default, after the days of the settings.
    """

    event_id: UUID
    user_id: str
    action: str
    occurred_at: datetime
    alert_rule_id: str | None = None
    alert_type: str | None = None
    recommendation_id: UUID | None = None
    due_at: datetime | None = None


def insert_action(action: AlertAction) -> ReturningInsert[tuple[UUID]]:
    """Return the statement that logs an action; executed twice, it logs once, and then returns no row.

    Where the caller names no type, it is that of the recommendation, or of what was logged of the same rule before.
    The probability and the model of the recommendation are kept with it, since lists are replaced.
    """
    offer = offer_of(action.user_id, action.recommendation_id).subquery()

    def of_offer(name: str) -> ScalarSelect[Any]:
        return select(offer.c[name]).scalar_subquery()

    same_rule = alert_actions.c.alert_rule_id == action.alert_rule_id
    of_rule = _typed(action.user_id, alert_actions.c.alert_type).where(same_rule).limit(1).scalar_subquery()
    values = {
        **action.__dict__,
        "alert_type": func.coalesce(action.alert_type, of_offer("alert_type"), of_rule),
        # Looking changes no list, and there is nothing to apply.
        "processed_at": func.clock_timestamp() if action.action in LOOKED_AT else null(),
        "probability": of_offer("probability"),
        "model_version": of_offer("model_version"),
    }
    statement = insert(alert_actions).values(values).on_conflict_do_nothing(index_elements=["event_id"])
    return statement.returning(alert_actions.c.event_id)


def offer_of(user_id: str, recommendation_id: UUID | None) -> Select[Any]:
    """Return the query of what was offered to a user under an id: `alert_type`, `probability`, `model_version`.

    One row or none. Lists are replaced while a browser still shows them: what is no longer there is known by what the
    user did with it.
    """
    names = ("alert_type", "probability", "model_version")
    offered = select(*(recommendations.c[name] for name in names)).where(
        recommendations.c.user_id == user_id, recommendations.c.recommendation_id == recommendation_id
    )
    answered = _typed(user_id, *(alert_actions.c[name] for name in names)).where(
        alert_actions.c.recommendation_id == recommendation_id
    )
    both = union_all(offered, answered).subquery()
    return select(*both.c).limit(1)


def find_offer(connection: Connection, user_id: str, recommendation_id: UUID) -> Row[Any] | None:
    """Return what was offered to a user under an id, as `offer_of` does."""
    return connection.execute(offer_of(user_id, recommendation_id)).first()


def lock_user(connection: Connection, user_id: str) -> None:
    """Have whoever acts for the same user at once wait until this transaction has ended."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"acts:{user_id}", 0))))


def rule_of_events(connection: Connection, user_id: str, event_ids: Sequence[UUID]) -> str | None:
    """Return the rule that one of some events of a user was about."""
    action = alert_actions.c
    mine = action.event_id.in_(event_ids), action.user_id == user_id, action.alert_rule_id.is_not(None)
    found: str | None = connection.scalar(select(action.alert_rule_id).where(*mine).limit(1))
    return found


def user_of_event(connection: Connection, event_id: UUID) -> str | None:
    """Return whose action an event is."""
    found: str | None = connection.scalar(select(alert_actions.c.user_id).where(alert_actions.c.event_id == event_id))
    return found


def rules_created_for(connection: Connection, user_id: str, recommendation_id: UUID) -> list[str]:
    """Return the rules that a user has created by taking a recommendation, the latest first."""
    action = alert_actions.c
    mine = action.user_id == user_id, action.recommendation_id == recommendation_id, action.action == CREATED
    return list(connection.scalars(select(action.alert_rule_id).where(*mine).order_by(action.occurred_at.desc())))


def _typed(user_id: str, *columns: Column[Any]) -> Select[Any]:
    return select(*columns).where(alert_actions.c.user_id == user_id, alert_actions.c.alert_type.is_not(None))


_TAKE = text("""
    WITH taken AS MATERIALIZED (
        SELECT event_id FROM alertrec.alert_actions WHERE processed_at IS NULL
        ORDER BY recorded_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE alertrec.alert_actions AS actions SET processed_at = clock_timestamp()
    FROM taken WHERE actions.event_id = taken.event_id
    RETURNING actions.user_id
""")
_WAKE = text("""
    UPDATE alertrec.alert_actions SET processed_at = NULL
    WHERE (action = 'snoozed' OR action = 'dismissed' AND due_at IS NOT NULL)
      AND coalesce(due_at, occurred_at + :snoozed) <= now() AND processed_at < coalesce(due_at, occurred_at + :snoozed)
""")
_DELETE_OLD = text("""
    DELETE FROM alertrec.alert_actions
    WHERE processed_at IS NOT NULL AND occurred_at < now() - make_interval(days => :days)
      AND (due_at IS NULL OR due_at < now())
""")


def take_unprocessed(connection: Connection, limit: int) -> tuple[int, list[str]]:
    """Mark the oldest unprocessed actions that nobody else holds, and return their number and users.

    The marks and what the caller makes of them commit together, or neither does.
    """
    user_ids = list(connection.execute(_TAKE, {"limit": limit}).scalars())
    return len(user_ids), sorted(set(user_ids))


def wake_due(connection: Connection, snoozed: timedelta) -> None:
    """Mark as unprocessed what was put off and has fallen due, so that its users' lists are renewed."""
    connection.execute(_WAKE, {"snoozed": snoozed})


def count_unprocessed(connection: Connection) -> int:
    """Return how many actions wait."""
    query = select(func.count()).where(alert_actions.c.processed_at.is_(None))
    return connection.scalar(query) or 0


def delete_old(connection: Connection, days: int) -> Any:
    """Delete processed actions of more than `days` ago, and return how many."""
    return connection.execute(_DELETE_OLD, {"days": days}).rowcount
