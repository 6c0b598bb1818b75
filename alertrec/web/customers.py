"""What a customer may ask for: their own list, and nobody else's. Whose it is, only the authentication says."""

# No `from __future__ import annotations`: FastAPI evaluates the annotations, and a dependency is a local name here.

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from alertrec.action_types import LOOKED_AT
from alertrec.actions import answer
from alertrec.adopting import Adopted, Wish, adopt
from alertrec.catalog import ALERT_TYPES, CATEGORIES
from alertrec.errors import DataError, TransientError
from alertrec.scoring import DEFAULT
from alertrec.starters import PLACEHOLDER
from alertrec.storage.actions import AlertAction
from alertrec.task_names import GENERATE_RECOMMENDATIONS
from alertrec.user_story import preview
from alertrec.web.limits import Gates
from alertrec.web.problems import responses
from alertrec.web.resources import Web
from alertrec.web.shapes import (
    AlertTypes,
    Categories,
    CreatedRule,
    Feedback,
    PreviewShape,
    PreviewWish,
    RecommendationList,
    Recorded,
    RuleWish,
    Triggered,
)

READY = "recommendations_ready"
STREAM_SECONDS = 300.0
_BEING_MADE = "Your own recommendations are being made; until then, these are what most customers choose."
_WILL_BE_MADE = "Your own recommendations will be made soon; until then, these are what most customers choose."
_BEING_RENEWED = "This list is being renewed."
_WILL_BE_RENEWED = "This list will be renewed soon."


def add_customer_routes(router: APIRouter, web: Web, current_user: Any, gates: Gates) -> None:
    """Add the routes of customers."""
    user = Annotated[str, Depends(current_user)]
    signed_in = responses(401, 403, 503)

    @router.get(
        "/alerts/recommendations",
        response_model=RecommendationList,
        responses={**signed_in, **responses(404, 422, 429)},
        summary="The list of the signed-in customer",
    )
    async def get_recommendations(
        user_id: user,
        force_refresh: Annotated[
            bool, Query(description="Have the list renewed; the present one is answered.")
        ] = False,
        explain: Annotated[bool, Query(description="Add what each probability rests on.")] = False,
    ) -> Response:
        """Return the current list at once. Where there is none, starters, while the customer's own list is made:
        `is_placeholder` is true then, and `recommendations_ready` is sent when it stands.
        """
        started = time.perf_counter()
        kind, is_hit = None, False
        try:
            stored = await web.lists.read(user_id)
            is_hit = stored is not None
            if stored is not None and not (force_refresh or explain):
                kind = _kind_of(stored)
                return Response(stored, media_type="application/json")
            found = await _answer_at_length(
                web, user_id, stored, gates=gates, force_refresh=force_refresh, explain=explain
            )
            kind = found["recommendation_type"]
            return JSONResponse(found)
        finally:
            web.usage.count(time.perf_counter() - started, kind=kind, is_hit=is_hit)

    @router.get(
        "/alerts/recommendations/categories",
        dependencies=[gates.anybody],
        responses=responses(429),
        summary="What kinds of alerts there are; public",
    )
    def get_categories() -> Categories:
        """Return for each category what its rules say."""
        words = web.workspace.policy.words
        return Categories(
            categories={
                category: [
                    words.fill(entry.query_for(entry.parameters), entry.parameters)
                    for entry in ALERT_TYPES
                    if entry.category == category
                ]
                for category in CATEGORIES
            }
        )

    @router.get(
        "/alerts/recommendations/alert-types",
        dependencies=[gates.anybody],
        responses=responses(429),
        summary="What thresholds may be chosen; public",
    )
    def get_alert_types() -> AlertTypes:
        """Return for each alert type its number, and the steps at which it is offered."""
        return AlertTypes.model_validate(_alert_types(web))

    def announcements_are_heard(user_id: user) -> None:  # after it is known who asks
        del user_id
        if not web.hub.is_live:
            raise TransientError("announcements are not heard, the broker is away")

    @router.get(
        "/alerts/recommendations/stream",
        response_class=EventSourceResponse,
        dependencies=[Depends(announcements_are_heard), gates.stream],
        responses={**signed_in, **responses(429)},
        summary="Server-sent events: the customer's list was written",
    )
    async def stream_recommendations(user_id: user) -> AsyncIterator[ServerSentEvent]:
        """Send `recommendations_ready`, with the list, whenever it was written, whichever worker did.

        It ends after some minutes, or when announcements are not heard; connect anew then, which asks again who it is.
        """
        yield ServerSentEvent(comment="connected")
        async for message in ready_messages(web, user_id):
            yield ServerSentEvent(event=READY, data=message)

    @router.post(
        "/alerts/recommendations/create-rule",
        dependencies=[gates.rule],
        responses={**signed_in, **responses(400, 404, 409, 422, 429)},
    )
    def create_rule(user_id: user, wish: RuleWish, after_the_answer: BackgroundTasks) -> CreatedRule:
        """Switch on what was recommended, with the threshold that the customer chose.

        The rule and what is logged of it are written together or not at all. Where the recommendation is advice, the
        rule that it is about is altered, or switched off. Sent twice with one `event_id`, it creates one rule.
        """
        adopted = adopt(web.workspace, user_id, _wish(wish))
        after_the_answer.add_task(web.hint_at_actions)
        message = "The rule is on." if adopted.is_active else "The rule is off."
        return CreatedRule(
            message=message, rule_id=adopted.rule_id, rule_name=adopted.name, recommendation_used=_used(wish, adopted)
        )

    @router.post(
        "/alerts/recommendations/preview",
        dependencies=[gates.preview],
        responses={**signed_in, **responses(400, 404, 422, 429)},
    )
    def preview_rule(user_id: user, wish: PreviewWish) -> PreviewShape:
        """Return what a rule would have told the customer in the last 90 days; nothing is stored."""
        found = preview(web.workspace, user_id, wish.alert_type, wish.parameters)
        return PreviewShape.model_validate(found, from_attributes=True)

    @router.post(
        "/alerts/recommendations/{recommendation_id}/feedback",
        dependencies=[gates.feedback],
        responses={**signed_in, **responses(400, 404, 422, 429)},
    )
    def give_feedback(
        user_id: user, recommendation_id: UUID, feedback: Feedback, after_the_answer: BackgroundTasks
    ) -> Recorded:
        """Log what the customer did with a recommendation. What is dismissed or snoozed leaves the list for a while."""
        action = AlertAction(
            event_id=feedback.event_id,
            user_id=user_id,
            action=feedback.action,
            occurred_at=feedback.occurred_at or datetime.now(UTC),
            recommendation_id=recommendation_id,
            due_at=feedback.due_at,
        )
        recorded = answer(web.workspace, action)
        if feedback.action not in LOOKED_AT:
            after_the_answer.add_task(web.hint_at_actions)
        return Recorded(event_id=feedback.event_id, recorded=recorded)

    @router.post(
        "/alerts/recommendations/trigger-generation",
        dependencies=[gates.renewal],
        responses={**signed_in, **responses(404, 422, 429)},
    )
    def trigger_generation(user_id: user) -> Triggered:
        """Have the list of the signed-in customer renewed now."""
        if web.starters.of(user_id) is None:  # which says so where there is no such user
            raise DataError("this account is not active, and has no list made")
        web.send(GENERATE_RECOMMENDATIONS, user_id)
        message = "Your recommendations are being made."
        return Triggered(message=message, user_id=user_id, result={"status": "queued"})


async def ready_messages(web: Web, user_id: str) -> AsyncIterator[dict[str, Any]]:
    """Yield what browsers, and the sockets of the earlier system, are sent when a list was written.

    It ends after `STREAM_SECONDS`, so that nobody listens on for long who may no longer, and where the broker is lost.
    """
    ends = time.monotonic() + STREAM_SECONDS
    with web.hub.listening(user_id) as signal:
        while web.hub.is_live and await web.hub.wait(signal, ends - time.monotonic()):
            try:
                stored = await web.lists.read(user_id)
            except TransientError:
                return
            items = json.loads(stored)["recommendations"] if stored is not None else []
            now = datetime.now(UTC).isoformat()
            yield {"type": READY, "user_id": user_id, "recommendations": items, "timestamp": now}


async def _answer_at_length(
    web: Web, user_id: str, stored: str | None, *, gates: Gates, force_refresh: bool, explain: bool
) -> dict[str, Any]:
    """Answer where the row alone does not: it is missing, to be renewed, or to be explained."""
    if stored is None:
        return await asyncio.to_thread(_placeholder, web, user_id)
    found: dict[str, Any] = json.loads(stored)
    if explain:
        gates.explanations.take(user_id)
    if force_refresh:
        gates.renewals.take(user_id)
        is_sent = await asyncio.to_thread(web.send_if_possible, GENERATE_RECOMMENDATIONS, user_id)
        found["message"] = _BEING_RENEWED if is_sent else _WILL_BE_RENEWED
    if explain:
        explanations = await asyncio.to_thread(_explanations, web, user_id)
        for item in found["recommendations"]:
            item["explanation"] = explanations.get(item["alert_type"])
    return found


def _placeholder(web: Web, user_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "user_id": user_id,
        "recommendation_type": DEFAULT,
        "recommendations": [],
        "generated_at": datetime.now(UTC).isoformat(),
        "expires_at": None,
        "is_placeholder": False,
        "message": None,
    }
    starters = web.starters.of(user_id)
    if starters is None:
        return found  # who is not active is offered nothing, and no list is made
    # Without the broker, by the next refresh at the latest; starters are better than an error.
    message = _BEING_MADE if web.send_if_possible(GENERATE_RECOMMENDATIONS, user_id) else _WILL_BE_MADE
    starting = {"recommendation_type": PLACEHOLDER, "recommendations": starters}
    return found | starting | {"is_placeholder": True, "message": message}


def _explanations(web: Web, user_id: str) -> dict[str, Any]:
    from alertrec.service import explain_list  # loads the model and all that it needs

    return {key: each.to_json() for key, each in explain_list(web.workspace, user_id).items()}


def _kind_of(stored: str) -> str:
    """Return the `recommendation_type` of an answer without parsing all of it."""
    return stored.split('"recommendation_type" : "', 1)[1].split('"', 1)[0]


def _alert_types(web: Web) -> dict[str, Any]:
    words = web.workspace.policy.words
    return {
        "currency": words.currency,
        "locale": words.locale.replace("_", "-"),
        "alert_types": {
            entry.key: {
                "category": entry.category,
                "title": words.fill(entry.title_for(entry.parameters), entry.parameters),
                "dial": entry.dial.__dict__,
            }
            for entry in ALERT_TYPES
        },
    }


def _wish(wish: RuleWish) -> Wish:
    return Wish(
        event_id=wish.event_id or uuid4(),
        title=wish.title,
        natural_language_query=wish.natural_language_query,
        recommendation_id=wish.recommendation_id,
        alert_type=wish.alert_type,
        parameters=wish.parameters,
    )


def _used(wish: RuleWish, adopted: Adopted) -> dict[str, Any]:
    told = {"title", "description", "category", "priority", "reasoning"}
    return {
        **wish.model_dump(include=told),
        "natural_language_query": adopted.natural_language_query,
        "recommendation_id": str(adopted.recommendation_id) if adopted.recommendation_id else None,
        "alert_type": adopted.alert_type,
        "parameters": adopted.parameters,
    }
