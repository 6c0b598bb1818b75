"""The append-only log of what users do with rules and recommendations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert

from alertrec.storage.tables import alert_actions, recommendations


@dataclass(frozen=True)
class AlertAction:
    """Something a user did; `event_id` comes from the caller, and the same one is stored once."""

    event_id: UUID
    user_id: str
    action: str
    occurred_at: datetime
    alert_rule_id: str | None = None
    alert_type: str | None = None
    recommendation_id: UUID | None = None


def insert_action(action: AlertAction) -> ReturningInsert[tuple[UUID]]:
    """Return the statement that logs an action; executed twice, it logs once, and then returns no row.

    The type of an action on a recommendation is that of the recommendation, where the caller names none.
    """
    offered = select(recommendations.c.alert_type).where(
        recommendations.c.recommendation_id == action.recommendation_id, recommendations.c.user_id == action.user_id
    )
    values = {**action.__dict__, "alert_type": func.coalesce(action.alert_type, offered.scalar_subquery())}
    statement = insert(alert_actions).values(values).on_conflict_do_nothing(index_elements=["event_id"])
    return statement.returning(alert_actions.c.event_id)


_TAKE = text("""
    WITH taken AS MATERIALIZED (
        SELECT event_id FROM alertrec.alert_actions WHERE processed_at IS NULL
        ORDER BY recorded_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE alertrec.alert_actions AS actions SET processed_at = clock_timestamp()
    FROM taken WHERE actions.event_id = taken.event_id
    RETURNING actions.user_id
""")
_DELETE_OLD = text("""
    DELETE FROM alertrec.alert_actions
    WHERE processed_at IS NOT NULL AND occurred_at < now() - make_interval(days => :days)
""")


def take_unprocessed(connection: Connection, limit: int) -> tuple[int, list[str]]:
    """Mark the oldest unprocessed actions that nobody else holds, and return their number and users.

    The marks and what the caller makes of them commit together, or neither does.
    """
    user_ids = list(connection.execute(_TAKE, {"limit": limit}).scalars())
    return len(user_ids), sorted(set(user_ids))


def count_unprocessed(connection: Connection) -> int:
    """Return how many actions wait."""
    query = select(func.count()).where(alert_actions.c.processed_at.is_(None))
    return connection.scalar(query) or 0


def delete_old(connection: Connection, days: int) -> Any:
    """Delete processed actions of more than `days` ago, and return how many."""
    return connection.execute(_DELETE_OLD, {"days": days}).rowcount
