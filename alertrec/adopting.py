"""A customer takes a recommendation: the rule is created, or altered as advised, and that is logged with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, Row, RowMapping

from alertrec.action_types import ACCEPTED, CREATED, DISABLED, ENABLED
from alertrec.catalog import BY_KEY
from alertrec.detectors.parameters import checked
from alertrec.errors import ChangedMeanwhileError, DataError, UnknownRecommendationError, UnknownUserError
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

_OUTDATED = "the list was renewed since this was shown; read it again"


@dataclass(frozen=True)
class Wish:
    """What a customer wants switched on.

    Attributes
    ----------
    event_id : UUID
        Of the click; the same one creates one rule, however often it arrives.
    recommendation_id : UUID, optional
        What they take. Without it, an item of their list that says the same.
    alert_type : str, optional
        By default that of the recommendation, or the one that the rule's words speak of.
    parameters : mapping, optional
        As the customer set them; by default those of the words, or of the recommendation.
    """

    event_id: UUID
    title: str
    natural_language_query: str
    recommendation_id: UUID | None = None
    alert_type: str | None = None
    parameters: Mapping[str, Any] | None = None

    @property
    def spoken_type(self) -> str | None:
        """The alert type that the rule's words speak of."""
        return resolve_alert_type(None, self.natural_language_query)


@dataclass(frozen=True)
class Adopted:
    """The rule as it is now; `is_active` is False where the advice was to switch it off."""

    rule_id: str
    name: str
    natural_language_query: str
    alert_type: str
    parameters: Mapping[str, Any] | None
    is_active: bool
    recommendation_id: UUID | None = None


def adopt(workspace: Workspace, user_id: str, wish: Wish) -> Adopted:
    """Create the rule that a customer wants, or alter theirs as advised, and log it, all or nothing.

    What was done already is not done again: for the same click, the same recommendation while its rule is on, or a
    rule of the same parameters without one, the rule that stands is returned.

    Raises
    ------
    UnknownUserError, UnknownRecommendationError
        If there is no such user; if the recommendation was never made to this user.
    ChangedMeanwhileError
        If it was advice, and the list or the rule has changed since it was shown.
    DataError
        If the user is not active, it cannot be told what the rule watches, or its parameters are none of its type.
    TransientError
    """
    with transient_errors("a rule was created"), workspace.engine.begin() as connection:
        active = workspace.source.is_active(connection, user_id)
        if active is None:
            raise UnknownUserError(user_id)
        if not active:
            raise DataError("this account is not active, and has no rules created")
        actions.lock_user(connection, user_id)  # two clicks at once are one after the other
        adopted = _Adoption(workspace, connection, user_id, wish).carry_out()
    logger.info("rule adopted", extra={"action": "rule_adopted", "alert_type": adopted.alert_type})
    return adopted


@dataclass(frozen=True)
class _Adoption:
    """One wish in one transaction."""

    workspace: Workspace
    connection: Connection
    user_id: str
    wish: Wish

    def carry_out(self) -> Adopted:
        if (done := self._done_before()) is not None:
            return done
        item = self._item()
        if item is not None and item["recommendation_type"] == CHANGE:
            return self._follow_advice(item)
        offer = None if item is not None else self._offer_of_an_earlier_list()
        alert_type = self._type_of(item["alert_type"] if item is not None else offer and offer.alert_type)
        parameters = self._parameters_of(alert_type, item)
        recommendation_id = item["recommendation_id"] if item is not None else self.wish.recommendation_id
        standing = self._standing(alert_type, parameters, recommendation_id)
        return standing or self._create(alert_type, parameters, recommendation_id)

    def _done_before(self) -> Adopted | None:
        """Return the rule that this very click led to."""
        events = [self._event(step) for step in (CREATED, ENABLED, DISABLED)]
        rule_id = actions.rule_of_events(self.connection, self.user_id, events)
        return None if rule_id is None else self._stored(rule_id)

    def _item(self) -> RowMapping | None:
        """Return the recommendation that is taken, as far as it stands in the list."""
        wish, items = self.wish, read_items(self.connection, self.user_id)
        if wish.recommendation_id is not None:
            return next((each for each in items if each["recommendation_id"] == wish.recommendation_id), None)
        # Clients of the earlier system send texts alone. Words that only resemble those of advice do not take it.
        said = wish.title, wish.natural_language_query
        of_type = wish.alert_type or wish.spoken_type
        return next(
            (each for each in items if (each["title"], each["natural_language_query"]) == said),
            next((e for e in items if e["alert_type"] == of_type and e["recommendation_type"] != CHANGE), None),
        )

    def _offer_of_an_earlier_list(self) -> Row[Any] | None:
        """Return what was offered under the id before the list was renewed; advice does not outlast its list."""
        if self.wish.recommendation_id is None:
            return None
        found = actions.find_offer(self.connection, self.user_id, self.wish.recommendation_id)
        if found is None:
            raise UnknownRecommendationError(str(self.wish.recommendation_id))
        if found.model_version is not None and found.probability is None:  # only advice has none
            raise ChangedMeanwhileError(_OUTDATED)
        return found

    def _type_of(self, offered: str | None) -> str:
        wish = self.wish
        if offered is not None and wish.alert_type is not None and wish.alert_type != offered:
            raise DataError(f"the recommendation is of the type {offered}, not {wish.alert_type}; leave alert_type out")
        alert_type = offered or wish.alert_type or wish.spoken_type
        if alert_type is None or alert_type not in BY_KEY:
            raise DataError(f"it cannot be told what the rule watches; name its alert_type, one of {', '.join(BY_KEY)}")
        return alert_type

    def _parameters_of(self, alert_type: str, item: RowMapping | None) -> dict[str, Any] | None:
        """Return the parameters that the customer set, or else saw; None where the words alone say what is meant."""
        wish = self.wish
        if wish.parameters is not None:
            return dict(checked(alert_type, wish.parameters))
        if wish.spoken_type == alert_type:
            stated = from_text(alert_type, wish.natural_language_query)
            return dict(stated) if stated is not None else None
        if item is None:
            raise DataError(f"the words speak of another thing than a rule of the type {alert_type}; send parameters")
        return dict(item["parameters"])

    def _standing(
        self, alert_type: str, parameters: Mapping[str, Any] | None, recommendation_id: UUID | None
    ) -> Adopted | None:
        """Return the rule that taking this recommendation, or wanting the same, has led to already, if it is on."""
        source, connection = self.workspace.source, self.connection
        if recommendation_id is not None:
            created = actions.rules_created_for(connection, self.user_id, recommendation_id)
            rows = [source.find_rule(connection, self.user_id, rule_id) for rule_id in created]
            same = [row for row in rows if row is not None and row["is_active"]]
        else:
            rules = source.rules_of_type(connection, self.user_id, alert_type)
            same = [row for row in rules if parameters is not None and _meant_by(row) == parameters]
        return self._adopted(same[0]) if same else None

    def _create(self, alert_type: str, parameters: Mapping[str, Any] | None, recommendation_id: UUID | None) -> Adopted:
        name, query = self._words_of(alert_type, parameters)
        rule_id = str(self._event("rule"))
        self.workspace.source.insert_rule(
            self.connection,
            rule_id=rule_id,
            user_id=self.user_id,
            alert_type=alert_type,
            natural_language_query=query,
            parameters=parameters,
        )
        self._log(CREATED, rule_id, alert_type, recommendation_id)
        return Adopted(rule_id, name, query, alert_type, parameters, True, recommendation_id)

    def _words_of(self, alert_type: str, parameters: Mapping[str, Any] | None) -> tuple[str, str]:
        """Return the name of a rule and its words: the customer's own where they say the same."""
        wish = self.wish
        is_same = wish.spoken_type == alert_type and from_text(alert_type, wish.natural_language_query) == parameters
        if parameters is None or is_same:
            return wish.title, wish.natural_language_query
        return _catalogue_words(self.workspace.policy.words, alert_type, parameters)

    def _follow_advice(self, item: RowMapping) -> Adopted:
        """Alter the rule that the advice is about, if it is still as it was when the advice was given."""
        change, alert_type = item["change"], item["alert_type"]
        row = self.workspace.source.find_rule(self.connection, self.user_id, change["alert_rule_id"])
        if row is None or not row["is_active"] or _meant_by(row) != change["parameters"]:
            raise ChangedMeanwhileError(f"the rule has changed since the advice was given; {_OUTDATED}")
        is_active, parameters = change["advice"] != Advice.RETIRE, dict(change["parameters"])
        values: dict[str, Any] = {"is_active": False}
        if is_active:
            wanted = self.wish.parameters if self.wish.parameters is not None else item["parameters"]
            parameters = dict(checked(alert_type, wanted))
            values = {"parameters": parameters}
        name, query = _catalogue_words(self.workspace.policy.words, alert_type, parameters)
        if is_active:
            values["natural_language_query"] = query
        self.workspace.source.alter_rule(self.connection, row["id"], values)
        self._log(ENABLED if is_active else DISABLED, row["id"], alert_type, item["recommendation_id"])
        return Adopted(row["id"], name, query, alert_type, parameters, is_active, item["recommendation_id"])

    def _log(self, on_rule: str, rule_id: str, alert_type: str, recommendation_id: UUID | None) -> None:
        """Log that the recommendation was accepted, where there was one, and what became of the rule."""
        for step in [ACCEPTED, on_rule] if recommendation_id is not None else [on_rule]:
            action = AlertAction(
                event_id=self._event(step),
                user_id=self.user_id,
                action=step,
                occurred_at=datetime.now(UTC),
                alert_rule_id=rule_id,
                alert_type=alert_type,
                recommendation_id=recommendation_id,
            )
            self.connection.execute(actions.insert_action(action))

    def _event(self, step: str) -> UUID:
        """Return an id that follows from the click, and that nobody else's click leads to."""
        return uuid5(self.wish.event_id, f"{step}:{self.user_id}")

    def _stored(self, rule_id: str) -> Adopted:
        row = self.workspace.source.find_rule(self.connection, self.user_id, rule_id)
        if row is None:
            raise ChangedMeanwhileError("the rule that this led to was deleted since; read the list again")
        return self._adopted(row)

    def _adopted(self, row: RowMapping) -> Adopted:
        """Return a rule as it stands."""
        alert_type, parameters, query = _type_of_rule(row), _meant_by(row), row["natural_language_query"]
        name = query
        if parameters is not None:
            name, _ = _catalogue_words(self.workspace.policy.words, alert_type, parameters)
        recommendation_id = self.wish.recommendation_id
        return Adopted(row["id"], name, query, alert_type, parameters, row["is_active"], recommendation_id)


def _type_of_rule(row: RowMapping) -> str:
    return resolve_alert_type(row["alert_type"], row["natural_language_query"]) or ""


def _meant_by(row: RowMapping) -> dict[str, Any] | None:
    """Return the parameters of a stored rule; None where nothing tells them."""
    found = parameters_of(_type_of_rule(row), row["parameters"], row["natural_language_query"])
    return None if found is None else dict(found)


def _catalogue_words(words: Words, alert_type: str, parameters: Mapping[str, Any]) -> tuple[str, str]:
    texts = rule_texts(BY_KEY[alert_type], parameters, words)
    return texts["title"], texts["natural_language_query"]
