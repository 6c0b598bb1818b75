"""What is counted of users' answers and of the system's freshness; each query looks at a bounded time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Connection,
    Date,
    Float,
    Integer,
    Select,
    Text,
    and_,
    cast,
    exists,
    func,
    or_,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, distinct_on

from alertrec.action_types import (
    ACCEPTED,
    DELETED,
    DISABLED,
    DISMISSED,
    EXPANDED,
    RECOMMENDATION_ACTIONS,
    RULE_ACTIONS,
    SHOWN,
    SNOOZED,
)
from alertrec.schedule import TRAINING
from alertrec.storage.source import Source
from alertrec.storage.tables import alert_actions, job_runs

# An offer that was first shown longer than this before the time asked for, and is answered in it, counts as new.
LOOK_BACK = timedelta(days=90)
# By how much the clock of a caller may be ahead of the database's.
_AHEAD = timedelta(days=1)

_ANSWERS = (EXPANDED, ACCEPTED, DISMISSED, SNOOZED)

Counts = Mapping[str, Any]  # column → value

_action = alert_actions.c


def count_offers(connection: Connection, *, since: datetime, until: datetime) -> list[Counts]:
    """Return what became of the offers first shown from `since` on: of each day, of each alert type, and of all.

    An offer is one recommendation to one user; one that was never shown counts from the first action on it.

    Returns
    -------
    list of rows
        `is_of_day`, `day` (in UTC), `is_of_type`, `alert_type` (NULL where no action tells it), `n_offers`,
        `n_customers`, `n_` and the name of each action, and of the offers shown `n_shown_engaged` (any answer),
        `n_shown_accepted` and `n_shown_dismissed`.
    """
    offers = _offers(since, until).cte("offers")
    offer = offers.c
    day = cast(func.timezone("UTC", offer.first_at), Date)
    days = select(*offer, day.label("day")).cte("days")
    dated = days.c
    shown, each = dated[SHOWN], {name: dated[name] for name in RECOMMENDATION_ACTIONS}
    query = select(
        (func.grouping(dated.day) == 0).label("is_of_day"),
        dated.day,
        (func.grouping(dated.alert_type) == 0).label("is_of_type"),
        dated.alert_type,
        func.count().label("n_offers"),
        func.count(dated.user_id.distinct()).label("n_customers"),
        *(_count(has).label(f"n_{name}") for name, has in each.items()),
        _count(and_(shown, or_(*(each[name] for name in _ANSWERS)))).label("n_shown_engaged"),
        _count(and_(shown, each[ACCEPTED])).label("n_shown_accepted"),
        _count(and_(shown, each[DISMISSED])).label("n_shown_dismissed"),
    ).group_by(func.grouping_sets(tuple_(dated.day), tuple_(dated.alert_type), text("()")))
    return [row._asdict() for row in connection.execute(query)]


def count_retained(
    connection: Connection, source: Source, *, since: datetime, until: datetime, kept_for: timedelta
) -> list[Counts]:
    """Return of how many offers accepted in a time the rule was still on a while later, by alert type.

    Offers whose rule is not told are left out, and so is accepted advice, which may be to switch a rule off.

    A rule is no longer on where the last that was logged of it by then is that it was disabled or deleted; where its
    row is inactive and was so by then, and nothing newer or later is logged; or where its row is missing. A missing row
    says nothing where something was logged of the rule later, and where no row was written since `since`: that app, or
    that import, keeps no rows of what is accepted.

    Returns
    -------
    list of rows
        `alert_type` (NULL where not known), `n_known`, `n_retained`.
    """
    accepted = _accepted(since, until, kept_for).cte("accepted")
    mine, rule = accepted.c, source.alert_rules.c
    latest = (
        select(_action.action, _action.occurred_at)
        .where(_of_rule(mine), _action.occurred_at >= mine.at, _action.occurred_at <= mine.judged_at)
        .order_by(_action.occurred_at.desc(), _action.recorded_at.desc())
        .limit(1)
        .lateral("latest")
    )
    is_off = _is_off(mine, latest.c, rule, since=since)
    joined = accepted.outerjoin(latest, true()).outerjoin(
        source.alert_rules, and_(rule.id == mine.alert_rule_id, rule.user_id == mine.user_id)
    )
    query = (
        select(mine.alert_type, func.count().label("n_known"), _count(~is_off).label("n_retained"))
        .select_from(joined)
        .group_by(mine.alert_type)
    )
    return [row._asdict() for row in connection.execute(query)]


def _accepted(since: datetime, until: datetime, kept_for: timedelta) -> Select[Any]:
    """Return the query of offers accepted in a time, each once, and until when their rule had to be on."""
    return (
        select(
            _action.user_id,
            _action.alert_type,
            _action.alert_rule_id,
            _action.occurred_at.label("at"),
            (_action.occurred_at + kept_for).label("judged_at"),
        )
        .where(
            _within(since, until),
            _action.action == ACCEPTED,
            _action.recommendation_id.is_not(None),
            _action.alert_rule_id.is_not(None),
            # Of advice the model is known and no probability.
            or_(_action.probability.is_not(None), _action.model_version.is_(None)),
        )
        .ext(distinct_on(_action.user_id, _action.recommendation_id))
        .order_by(_action.user_id, _action.recommendation_id, _action.occurred_at, _action.event_id)
    )


def _of_rule(accepted: Any) -> ColumnElement[bool]:
    return and_(
        _action.user_id == accepted.user_id,
        _action.alert_rule_id == accepted.alert_rule_id,
        _action.action.in_(RULE_ACTIONS),
    )


def _is_off(accepted: Any, latest: Any, rule: Any, *, since: datetime) -> ColumnElement[bool]:
    """Return the condition that a rule was off when it was judged; see `count_retained`."""
    heard_of_later = exists().where(_of_rule(accepted), _action.occurred_at > accepted.judged_at)
    keeps_rows = exists().where(or_(rule.created_at > since, rule.updated_at > since))
    changed_at = func.coalesce(rule.updated_at, accepted.at)
    return or_(
        func.coalesce(latest.action.in_((DISABLED, DELETED)), False),
        and_(
            rule.id.is_not(None),
            rule.is_active.is_not(True),
            changed_at <= accepted.judged_at,
            func.coalesce(latest.occurred_at <= changed_at, True),
            ~heard_of_later,
        ),
        and_(rule.id.is_(None), keeps_rows, ~heard_of_later),
    )


def count_by_probability(
    connection: Connection, *, since: datetime, until: datetime, settled_by: datetime, n_bins: int
) -> list[Counts]:
    """Return how often offers of some probability were accepted, by bins of equal width.

    Counted are offers that were shown, first from `since` on and until `settled_by`: those answered since as well would
    count before those that are not. The probability is the one that was first promised.

    Returns
    -------
    list of rows
        `bin` (from 0), `n`, `n_accepted` and `predicted` (mean, NULL where n is 0) of those that are settled;
        `n_waiting`.
    """
    offers = _offers(since, until).cte("offers")
    offer = offers.c
    settled = offer.first_at <= settled_by
    bin_ = func.least(cast(func.floor(offer.probability * n_bins), Integer), n_bins - 1)
    query = (
        select(
            bin_.label("bin"),
            _count(settled).label("n"),
            _count(and_(settled, offer[ACCEPTED])).label("n_accepted"),
            func.avg(offer.probability).filter(settled).label("predicted"),
            _count(~settled).label("n_waiting"),
        )
        .where(offer[SHOWN], offer.probability.is_not(None))
        .group_by(text("1"))
        .order_by(text("1"))
    )
    return [row._asdict() for row in connection.execute(query)]


def refusals_by_version(connection: Connection) -> Mapping[str, Sequence[str]]:
    """Return why the gates kept models from serving, as far as the trainings that made these are still remembered."""
    result = job_runs.c.result
    version, refused = result["version"].as_string(), result["refused"]
    query = select(version, refused).where(job_runs.c.job == TRAINING, version.is_not(None), refused.is_not(None))
    return {row[0]: row[1] for row in connection.execute(query) if row[1]}


def read_freshness(connection: Connection, *, snoozed: timedelta) -> Counts:
    """Return how many lists are current and expired, how many actions wait, and for how long the oldest work does.

    A snoozed action that has fallen due waits again, since then.
    """
    return connection.execute(_FRESHNESS, {"snoozed": snoozed}).one()._asdict()


def read_answers(connection: Connection, user_id: str, *, until: datetime, limit: int) -> list[Counts]:
    """Return the last actions of a user, the latest first: `occurred_at`, `action`, `alert_type`."""
    query = (
        select(_action.occurred_at, _action.action, _action.alert_type)
        .where(_action.user_id == user_id, _action.occurred_at <= until)
        .order_by(_action.occurred_at.desc(), _action.recorded_at.desc(), _action.event_id)
        .limit(limit)
    )
    return [row._asdict() for row in connection.execute(query)]


_FRESHNESS = text("""
    SELECT
        (SELECT count(*) FROM alertrec.recommendation_lists WHERE expires_at > now()) AS lists_current,
        (SELECT count(*) FROM alertrec.recommendation_lists WHERE expires_at <= now()) AS lists_expired,
        waiting.n AS actions_waiting,
        CAST(extract(epoch FROM now() - waiting.since) AS double precision) AS oldest_action_seconds,
        (
            SELECT CAST(extract(epoch FROM now() - min(runs.created_at)) AS double precision)
            FROM alertrec.job_chunks AS chunks JOIN alertrec.job_runs AS runs USING (job_id)
            WHERE chunks.finished_at IS NULL AND runs.finished_at IS NULL
        ) AS oldest_chunk_seconds
    FROM (
        SELECT count(*) AS n, min(
            CASE WHEN action = 'snoozed' AND coalesce(due_at, occurred_at + :snoozed) <= now()
                THEN greatest(recorded_at, coalesce(due_at, occurred_at + :snoozed)) ELSE recorded_at END
        ) AS since
        FROM alertrec.alert_actions WHERE processed_at IS NULL
    ) AS waiting
""")


def _offers(since: datetime, until: datetime) -> Select[Any]:
    """Return the query of the offers first shown in a time: whose, of what, since when, and a truth an action."""
    is_shown = _action.action == SHOWN
    first_at = func.coalesce(func.min(_action.occurred_at).filter(is_shown), func.min(_action.occurred_at))
    promised = func.array_agg(aggregate_order_by(_action.probability, _action.occurred_at), type_=ARRAY(Float))
    return (
        select(
            _action.user_id,
            _action.recommendation_id,
            func.max(_action.alert_type, type_=Text).label("alert_type"),
            promised.filter(_action.probability.is_not(None))[1].label("probability"),
            first_at.label("first_at"),
            *(func.bool_or(_action.action == name, type_=Boolean).label(name) for name in RECOMMENDATION_ACTIONS),
        )
        .where(
            _within(since - LOOK_BACK, until),
            _action.recommendation_id.is_not(None),
            _action.action.in_(RECOMMENDATION_ACTIONS),
        )
        .group_by(_action.user_id, _action.recommendation_id)
        .having(first_at >= since)
    )


def _within(since: datetime, until: datetime) -> ColumnElement[bool]:
    """Return the condition that an action occurred in a time; the index is on when it was recorded, which is later."""
    return and_(_action.occurred_at >= since, _action.occurred_at <= until, _action.recorded_at >= since - _AHEAD)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)
