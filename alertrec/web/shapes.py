"""The shapes of requests and answers, as the OpenAPI document tells them; clients of the earlier system know most."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, Strict, StringConstraints

from alertrec.action_types import RECOMMENDATION_ACTIONS
from alertrec.catalog import ALERT_KEYS, ALERT_TYPES

# Without NUL, which PostgreSQL's texts cannot hold.
_PLAIN = r"^[^\x00]*$"
Key = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_PLAIN)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=_PLAIN)]
Text = Annotated[str, StringConstraints(max_length=10_000, pattern=_PLAIN)]
AlertKey = Literal[ALERT_KEYS]  # type: ignore[valid-type]  # the catalogue's, whatever they are
_Short = Annotated[str, StringConstraints(max_length=50)]
Parameters = dict[_Short, Annotated[float, Strict()] | _Short]  # strict: true is no number


def _in_time(moment: datetime) -> datetime:
    """Refuse what no calendar of ours has room for, in UTC."""
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a moment between the years 2000 and 9999 is expected") from None
    if moment.year < 2000:
        raise ValueError("a moment between the years 2000 and 9999 is expected")
    return moment


def _lately(moment: datetime) -> datetime:
    now = datetime.now(UTC)
    if not now - timedelta(days=30) <= moment <= now + timedelta(days=1):
        raise ValueError("a moment of the last 30 days is expected")
    return min(moment, now)


InTime = Annotated[AwareDatetime, AfterValidator(_in_time)]
Lately = Annotated[InTime, AfterValidator(_lately)]

_EXAMPLE = next(entry for entry in ALERT_TYPES if entry.detector == "purchase")
_PARAMETERS = {"amount": 250.0}
_FIRED = {
    "count": 3,
    "window_days": 90,
    "until": "2026-11-22T03:20:00+00:00",
    "examples": [{"date": "2026-11-02", "merchant": "Garden Centre", "amount": 312.4}],
}
_ITEM: dict[str, Any] = {
    "recommendation_id": "1b0cbb0e-52ab-5be5-9d55-6a1c5ab1a6b1",
    "alert_type": _EXAMPLE.key,
    "recommendation_type": "ml_hybrid",
    "title": "Purchases over $250",
    "description": "Tells you about any single purchase of more than $250.",
    "natural_language_query": "Alert me about any purchase over $250",
    "category": "fraud_protection",
    "priority": "high",
    "reasoning": "Your largest purchase was $312.40. It would have fired 3 times in the last 90 days.",
    "probability": 0.62,
    "confidence_level": "high",
    "parameters": _PARAMETERS,
    "would_have_fired": _FIRED,
    "reasons": [{"kind": "model", "probability": 0.62, "low": 0.55, "high": 0.69}],
    "change": None,
    "model_version": "m-20261122-031500-1",
    "experiment": None,
    "variant": None,
    "expires_at": "2026-11-24T03:20:00+00:00",
}
_LIST = {
    "user_id": "u-0001",
    "recommendation_type": "ml_hybrid",
    "recommendations": [_ITEM],
    "generated_at": "2026-11-22T03:20:00+00:00",
    "expires_at": "2026-11-24T03:20:00+00:00",
    "is_placeholder": False,
    "message": None,
}


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": value})


class Fired(BaseModel):
    """How often a rule would have fired in a window, and at most three of the customer's own purchases at which."""

    count: int
    window_days: int
    until: datetime = Field(description="The end of the window.")
    examples: list[dict[str, Any]]


class Recommendation(BaseModel):
    """One card. Of a `recommendation_type` of "change", it is advice on the rule `change.alert_rule_id`."""

    recommendation_id: UUID | None = Field(description="None for a starter, which is nobody's own.")
    alert_type: str
    recommendation_type: str
    title: str
    description: str
    natural_language_query: str
    category: str
    priority: Literal["high", "medium", "low"]
    reasoning: str
    probability: float | None = Field(description="Calibrated; none for advice and starters.")
    confidence_level: Literal["high", "medium", "low"]
    parameters: dict[str, Any]
    would_have_fired: Fired | None
    reasons: list[dict[str, Any]]
    change: dict[str, Any] | None = None
    model_version: str | None = None
    experiment: str | None = None
    variant: str | None = None
    expires_at: datetime | None = None
    explanation: dict[str, Any] | None = Field(
        default=None, description="With `explain`: what the probability rests on."
    )

    model_config = _example(_ITEM)


class RecommendationList(BaseModel):
    """What is offered to one customer now."""

    user_id: str
    recommendation_type: str
    recommendations: list[Recommendation]
    generated_at: datetime
    expires_at: datetime | None = None
    is_placeholder: bool = Field(description="True for starters, while the customer's own list is being made.")
    message: str | None = None

    model_config = _example(_LIST)


class Categories(BaseModel):
    """The kinds of alerts, each with what its rules say."""

    categories: dict[str, list[str]]

    model_config = _example({"categories": {"fraud_protection": ["Alert me about any purchase over $500"]}})


class Dial(BaseModel):
    """The one number of a rule that a customer may turn, and the steps at which."""

    name: Literal["amount", "count", "percent"]
    steps: list[float]
    is_optional: bool


class AlertTypeShape(BaseModel):
    """One alert type of the catalogue."""

    category: str
    title: str
    dial: Dial


class AlertTypes(BaseModel):
    """The catalogue, as far as a page needs it to offer thresholds."""

    currency: str
    locale: str
    alert_types: dict[str, AlertTypeShape]


class RuleWish(BaseModel):
    """A recommendation that the customer takes. Clients of the earlier system send its texts; newer ones its id too."""

    title: Words
    description: Text | None = ""
    natural_language_query: Words
    category: Text | None = ""
    priority: Text | None = ""
    reasoning: Text | None = ""
    recommendation_id: UUID | None = None
    alert_type: AlertKey | None = None
    parameters: Parameters | None = Field(default=None, description="As the customer set them; else those offered.")
    event_id: UUID | None = Field(default=None, description="Of the click; the same one creates one rule.")

    model_config = _example(
        {name: _ITEM[name] for name in ("title", "description", "natural_language_query", "category", "priority")}
        | {"reasoning": "", "recommendation_id": _ITEM["recommendation_id"], "parameters": {"amount": 300.0}}
        | {"event_id": "0f0c6f9e-2a1b-4b68-9a55-1f6f0d8c2f11"}
    )


class CreatedRule(BaseModel):
    """The rule as it stands in the bank's table."""

    message: str
    rule_id: str
    rule_name: str
    recommendation_used: dict[str, Any]

    model_config = _example(
        {
            "message": "The rule is on.",
            "rule_id": "7c1d8a52-3d55-5f0e-8f0f-0c1fb0cf4a10",
            "rule_name": "Purchases over $300",
            "recommendation_used": {"recommendation_id": _ITEM["recommendation_id"], "parameters": {"amount": 300.0}},
        }
    )


class Feedback(BaseModel):
    """What a customer did with a recommendation."""

    event_id: UUID = Field(description="Of the click; the same one is logged once.")
    action: Literal[RECOMMENDATION_ACTIONS]  # type: ignore[valid-type]  # closed, and named in one place
    occurred_at: Lately | None = Field(default=None, description="By default now; at most 30 days ago.")
    due_at: InTime | None = Field(
        default=None,
        description="When what is dismissed or snoozed may come back; else after the days of the settings.",
    )

    model_config = _example({"event_id": "5f7de3a2-6a9b-4f0a-8a76-1f0a4b5a3c21", "action": "dismissed"})


class Recorded(BaseModel):
    """`recorded` is false where the event had been logged before."""

    event_id: UUID
    recorded: bool


class PreviewWish(BaseModel):
    """A rule that a customer thinks of."""

    alert_type: AlertKey
    parameters: Parameters

    model_config = _example({"alert_type": _EXAMPLE.key, "parameters": {"amount": 300.0}})


class PreviewShape(BaseModel):
    """What that rule would have told the customer lately."""

    alert_type: str
    parameters: dict[str, Any]
    title: str
    description: str
    natural_language_query: str
    would_have_fired: Fired
    dates: list[date] = Field(description="The day of each firing in the window.")


class Triggered(BaseModel):
    """The list is being made; `result.status` is "queued"."""

    message: str
    user_id: str
    result: dict[str, Any]


class RefreshStarted(BaseModel):
    """A refresh of everybody; `GET jobs/{job_id}` follows it."""

    status: str
    total_users: int
    success_count: int
    error_count: int
    message: str
    job_id: UUID


class JobStarted(BaseModel):
    """A job that waits for a worker."""

    job_id: UUID
    status: str
    message: str


class Job(BaseModel):
    """How a job is doing."""

    job_id: UUID
    job_type: Literal["single_user", "all_users", "cleanup_expired", "training"]
    user_id: str | None
    status: Literal["pending", "processing", "completed", "failed"]
    step: str
    done: int
    total: int
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime


class Metrics(BaseModel):
    """Of all web processes together."""

    time_range_minutes: int
    metrics: dict[str, Any]
    generated_at: datetime

    model_config = _example(
        {
            "time_range_minutes": 60,
            "metrics": {
                "total_requests": 1840,
                "success_rate": 1.0,
                "avg_duration": 0.0021,
                "thread_pool_usage": 0.0,
                "cache_hit_rate": 0.98,
                "recommendation_types": {"ml_hybrid": 1710, "placeholder": 36},
            },
            "generated_at": "2026-11-22T12:00:00+00:00",
        }
    )


class ModelShape(BaseModel):
    """One stored model."""

    version: str
    algorithm: str
    created_at: datetime
    alias: str | None
    promoted_by: str | None
    promoted_at: datetime | None
    metrics: dict[str, Any]


class Models(BaseModel):
    """All that are kept, the newest first."""

    models: list[ModelShape]


class Champion(BaseModel):
    """The model that serves now."""

    version: str
    message: str


class SocketTest(BaseModel):
    """An announcement was sent to whoever listens as that user."""

    status: str
    message: str
    user_id: str


class Readiness(BaseModel):
    """Whether lists can be read, and how each server is doing: "ok", or the kind of its error."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]
