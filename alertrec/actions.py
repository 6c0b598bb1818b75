"""What users do: logged once, applied once."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from alertrec.action_types import ACTIONS
from alertrec.catalog import ALERT_KEYS
from alertrec.errors import DataError, TransientError, UnknownRecommendationError
from alertrec.service import renew_lists
from alertrec.storage import actions, models
from alertrec.storage.actions import AlertAction
from alertrec.storage.database import transient_errors
from alertrec.storage.source import UserIds
from alertrec.workspace import Workspace

logger = logging.getLogger(__name__)

BATCH_SIZE = 500
FIRST_YEAR = 1900  # as of what is imported


def parse_action(event: Any) -> AlertAction:
    """Check an event as it comes from outside.

    Parameters
    ----------
    event : mapping
        `user_id` and `action`; optionally `event_id` (UUID; the same one is logged once), `alert_rule_id`,
        `alert_type`, `recommendation_id` (UUID), `occurred_at` (ISO time with a zone; by default now) and `due_at`
        (likewise; when what is dismissed or snoozed may come back, by default after the days of the settings).

    Raises
    ------
    DataError
        Naming the field, what it holds and what it may hold.
    """
    if not isinstance(event, dict):
        raise DataError(f"an alert action is an object with user_id and action, not {type(event).__name__}")
    unknown = sorted(set(event) - set(AlertAction.__dataclass_fields__))
    if unknown:
        known = ", ".join(AlertAction.__dataclass_fields__)
        raise DataError(f"an alert action has unknown fields ({len(unknown)} of them); known are {known}")
    return AlertAction(
        event_id=_uuid(event, "event_id") or uuid4(),
        user_id=_text(event, "user_id", required=True) or "",
        action=_one_of(event, "action", ACTIONS, required=True) or "",
        occurred_at=_moment(event, "occurred_at") or datetime.now(UTC),
        alert_rule_id=_text(event, "alert_rule_id"),
        alert_type=_one_of(event, "alert_type", ALERT_KEYS),
        recommendation_id=_uuid(event, "recommendation_id"),
        due_at=_moment(event, "due_at"),
    )


def log_action(workspace: Workspace, action: AlertAction) -> bool:
    """Store an action; False if one with its `event_id` is there already."""
    with transient_errors("an action was logged"), workspace.engine.begin() as connection:
        return connection.execute(actions.insert_action(action)).first() is not None


def answer(workspace: Workspace, action: AlertAction) -> bool:
    """Store what a user did with a recommendation; False if an action with its `event_id` is there already.

    Raises
    ------
    UnknownRecommendationError, TransientError
        If it was never made to this user.
    DataError
        If another user's action has the `event_id`.
    """
    assert action.recommendation_id is not None
    with transient_errors("an answer was logged"), workspace.engine.begin() as connection:
        if actions.find_offer(connection, action.user_id, action.recommendation_id) is None:
            raise UnknownRecommendationError(str(action.recommendation_id))
        is_new = connection.execute(actions.insert_action(action)).first() is not None
        if not is_new and actions.user_of_event(connection, action.event_id) != action.user_id:
            raise DataError("the event_id is in use; make a new one, a random UUID, for each click")
        return is_new


def process_actions(workspace: Workspace) -> int:
    """Apply the oldest actions that wait: renew the lists of their users. Returns how many were applied.

    They are applied together. Where that fails for a reason that does not pass, they are applied one by one, and one
    that cannot be applied is marked as processed all the same: the log keeps it, and the next refresh sees it.
    """
    try:
        return _apply(workspace, BATCH_SIZE)
    except TransientError:
        raise
    except Exception as error:
        logger.warning("actions failed together: %s", type(error).__name__, extra={"action": "actions_failed"})
        return sum(_apply_or_pass_over(workspace) for _ in range(BATCH_SIZE))


def _apply(workspace: Workspace, limit: int) -> int:
    written: list[str] = []
    with transient_errors("actions were applied"), workspace.engine.begin() as connection:
        n_actions, user_ids = actions.take_unprocessed(connection, limit)
        if user_ids and models.champion(connection) is not None:  # else the first refresh will see what was done
            written = renew_lists(workspace, connection, UserIds(user_ids), as_of=None)
    workspace.announce(written)
    if n_actions:
        facts = {"n_actions": n_actions, "n_users": len(user_ids)}
        logger.info("actions processed", extra={"action": "actions_processed", **facts})
    return n_actions


def _apply_or_pass_over(workspace: Workspace) -> int:
    try:
        return _apply(workspace, 1)
    except TransientError:
        raise
    except Exception as error:
        logger.error("an action was passed over: %s", type(error).__name__, extra={"action": "action_passed_over"})  # noqa: TRY400  # the traceback may tell of a customer
    with transient_errors("an action was passed over"), workspace.engine.begin() as connection:
        return actions.take_unprocessed(connection, 1)[0]


def _text(event: dict[str, Any], field: str, *, required: bool = False) -> str | None:
    value = event.get(field)
    if value is None and not required:
        return None
    if not (isinstance(value, str) and value.strip() and len(value) <= 255 and can_be_stored(value)):
        raise DataError(f"{field} of an alert action must be a text of 1 to 255 characters, not {_kind(value)}")
    return value


def _one_of(event: dict[str, Any], field: str, known: tuple[str, ...], *, required: bool = False) -> str | None:
    value = _text(event, field, required=required)
    if value is not None and value not in known:
        raise DataError(f"{field} of an alert action must be one of {', '.join(known)}, not {_kind(value)}")
    return value


def _uuid(event: dict[str, Any], field: str) -> UUID | None:
    value = _text(event, field)
    try:
        return UUID(value) if value is not None else None
    except ValueError as error:
        raise DataError(f"{field} of an alert action must be a UUID, not {_kind(value)}") from error


def _moment(event: dict[str, Any], field: str) -> datetime | None:
    value = _text(event, field)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        example = "an ISO time such as 2026-10-01T12:00:00+00:00"
        raise DataError(f"{field} of an alert action must be {example}, not {_kind(value)}") from error
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except OverflowError:  # no year of our calendar in UTC
        moment = datetime.min.replace(tzinfo=UTC)
    if moment.year < FIRST_YEAR:
        raise DataError(f"{field} of an alert action must be of the years {FIRST_YEAR} to 9999 in UTC")
    return moment


def can_be_stored(value: str) -> bool:
    """Return whether PostgreSQL takes a text: no NUL, and no half of a surrogate pair."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _kind(value: Any) -> str:
    """Describe a value that came without repeating it: it may tell of a customer, and errors end in logs."""
    return (
        f"another text of {len(value)} characters"
        if isinstance(value, str)
        else f"a value of type {type(value).__name__}"
    )
