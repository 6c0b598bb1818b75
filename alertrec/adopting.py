"""A customer takes a recommendation: the rule is created, or altered as advised, and that is logged with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, RowMapping

from alertrec.action_types import ACCEPTED, CREATED, DISABLED, ENABLED
from alertrec.catalog import BY_KEY
from alertrec.detectors.parameters import checked
from alertrec.errors import DataError, UnknownRecommendationError, UnknownUserError
from alertrec.labels import resolve_alert_type
from alertrec.rules.advice import Advice
from alertrec.rules.cards import CHANGE, rule_texts
from alertrec.rules.texts import from_text, parameters_of
from alertrec.storage import actions
from alertrec.storage.actions import AlertAction
from alertrec.storage.database import transient_errors
from alertrec.storage.lists import read_items
from alertrec.wording import Words
from alertrec.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What a customer wants switched on.

    Attributes
    ----------
    event_id : UUID
        Of the click; the same one creates one rule, however often it arrives.
    recommendation_id : UUID, optional
        What they take. Without it, an item of their list that is of the same type.
    alert_type : str, optional
        By default that of the recommendation, or the one that the rule's words speak of.
    parameters : mapping, optional
        As the customer set them; by default those of the recommendation, or of the words.
    """

    event_id: UUID
    title: str
    natural_language_query: str
    recommendation_id: UUID | None = None
    alert_type: str | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Adopted:
    """The rule as it is now; `is_active` is False where the advice was to switch it off."""

    rule_id: str
    name: str
    natural_language_query: str
    alert_type: str
    parameters: Mapping[str, Any] | None
    recommendation_id: UUID | None
    is_active: bool


def adopt(workspace: Workspace, user_id: str, wish: Wish) -> Adopted:
    """Create the rule that a customer wants, or alter theirs as advised, and log it, all or nothing.

    Raises
    ------
    UnknownUserError, UnknownRecommendationError
        If there is no such user; if the recommendation was never made to this user.
    DataError
        If it cannot be told what the rule watches, or the parameters are none that its type takes.
    TransientError
    """
    with transient_errors("a rule was created"), workspace.engine.begin() as connection:
        if workspace.source.is_active(connection, user_id) is None:
            raise UnknownUserError(user_id)
        items = read_items(connection, user_id)
        item = _item_of(items, wish)
        alert_type = _type_of(connection, user_id, item, wish)
        if item is not None and item["recommendation_type"] == CHANGE:
            adopted = _follow_advice(workspace, connection, user_id, item, wish)
        else:
            adopted = _create(workspace, connection, user_id, alert_type, item, wish)
        _log(connection, user_id, adopted, wish, is_new=item is None or item["recommendation_type"] != CHANGE)
    logger.info("rule adopted", extra={"action": "rule_adopted", "alert_type": alert_type})
    return adopted


def _item_of(items: list[RowMapping], wish: Wish) -> RowMapping | None:
    """Return the recommendation that is taken, as far as it still stands in the list."""
    if wish.recommendation_id is not None:
        return next((each for each in items if each["recommendation_id"] == wish.recommendation_id), None)
    # Clients of the earlier system send the words alone. Advice is not taken by words that may just resemble it.
    alert_type = wish.alert_type or resolve_alert_type(None, wish.natural_language_query)
    return next(
        (each for each in items if each["alert_type"] == alert_type and each["recommendation_type"] != CHANGE), None
    )


def _type_of(connection: Connection, user_id: str, item: RowMapping | None, wish: Wish) -> str:
    offered = item["alert_type"] if item is not None else None
    if offered is None and wish.recommendation_id is not None:  # the list was replaced since the card was shown
        found = actions.find_offer(connection, user_id, wish.recommendation_id)
        if found is None:
            raise UnknownRecommendationError(str(wish.recommendation_id))
        offered = found.alert_type
    if offered is not None and wish.alert_type is not None and wish.alert_type != offered:
        raise DataError(f"the recommendation is of the type {offered}, not {wish.alert_type}; leave alert_type out")
    alert_type = offered or wish.alert_type or resolve_alert_type(None, wish.natural_language_query)
    if alert_type is None or alert_type not in BY_KEY:
        raise DataError(f"it cannot be told what the rule watches; name its alert_type, one of {', '.join(BY_KEY)}")
    return alert_type


def _create(
    workspace: Workspace, connection: Connection, user_id: str, alert_type: str, item: RowMapping | None, wish: Wish
) -> Adopted:
    parameters = _parameters_of(alert_type, item, wish)
    name, query = _words_of(workspace.policy.words, alert_type, parameters, wish)
    adopted = Adopted(
        rule_id=str(_derived(wish.event_id, user_id, "rule")),
        name=name,
        natural_language_query=query,
        alert_type=alert_type,
        parameters=parameters,
        recommendation_id=item["recommendation_id"] if item is not None else wish.recommendation_id,
        is_active=True,
    )
    workspace.source.insert_rule(
        connection,
        rule_id=adopted.rule_id,
        user_id=user_id,
        alert_type=alert_type,
        natural_language_query=query,
        parameters=parameters,
    )
    return adopted


def _parameters_of(alert_type: str, item: RowMapping | None, wish: Wish) -> dict[str, Any] | None:
    """Return the parameters that the customer set, or else saw; None where the words alone say what is meant."""
    if wish.parameters is not None:
        return dict(checked(alert_type, wish.parameters))
    stated = from_text(alert_type, wish.natural_language_query)
    if stated is not None:
        return dict(stated)
    return dict(item["parameters"]) if item is not None else None


def _words_of(words: Words, alert_type: str, parameters: Mapping[str, Any] | None, wish: Wish) -> tuple[str, str]:
    """Return the name of a rule and its words: the customer's own where they say the same, else the catalogue's."""
    if parameters is None or parameters_of(alert_type, None, wish.natural_language_query) == parameters:
        return wish.title, wish.natural_language_query
    return _catalogue_words(words, alert_type, parameters)


def _catalogue_words(words: Words, alert_type: str, parameters: Mapping[str, Any]) -> tuple[str, str]:
    texts = rule_texts(BY_KEY[alert_type], parameters, words)
    return texts["title"], texts["natural_language_query"]


def _follow_advice(workspace: Workspace, connection: Connection, user_id: str, item: RowMapping, wish: Wish) -> Adopted:
    alert_type, is_active = item["alert_type"], item["change"]["advice"] != Advice.RETIRE
    parameters = dict(item["change"]["parameters"])
    if is_active:
        parameters = dict(checked(alert_type, wish.parameters if wish.parameters is not None else item["parameters"]))
    name, query = _catalogue_words(workspace.policy.words, alert_type, parameters)
    rule_id = item["change"]["alert_rule_id"]
    values = {"parameters": parameters, "natural_language_query": query} if is_active else {"is_active": False}
    workspace.source.alter_rule(connection, rule_id=rule_id, user_id=user_id, values=values)
    return Adopted(rule_id, name, query, alert_type, parameters, item["recommendation_id"], is_active)


def _log(connection: Connection, user_id: str, adopted: Adopted, wish: Wish, *, is_new: bool) -> None:
    """Log that the recommendation was accepted, where there was one, and what became of the rule."""
    on_rule = CREATED if is_new else ENABLED if adopted.is_active else DISABLED
    steps = [ACCEPTED, on_rule] if adopted.recommendation_id is not None else [on_rule]
    for step in steps:
        action = AlertAction(
            event_id=_derived(wish.event_id, user_id, step),
            user_id=user_id,
            action=step,
            occurred_at=datetime.now(UTC),
            alert_rule_id=adopted.rule_id,
            alert_type=adopted.alert_type,
            recommendation_id=adopted.recommendation_id,
        )
        connection.execute(actions.insert_action(action))


def _derived(event_id: UUID, user_id: str, name: str) -> UUID:
    """Return an id that follows from a click, and that nobody else's click leads to."""
    return uuid5(event_id, f"{name}:{user_id}")
