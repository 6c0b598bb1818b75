"""One customer, for support and the product owner: what is known, which rules, which list, what was answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import Connection

from alertrec.catalog import BY_KEY, Parameters
from alertrec.detectors.parameters import checked
from alertrec.errors import UnknownUserError
from alertrec.ledger import UNITS, Ints, Ledger
from alertrec.monitoring import short_title
from alertrec.rules.backtests import WINDOW_DAYS, BackTests, would_have_fired
from alertrec.rules.cards import plain, rule_texts
from alertrec.rules.standing import StandingRule, standing_rules
from alertrec.storage import jobs
from alertrec.storage.database import transient_errors
from alertrec.storage.engagement import read_answers
from alertrec.storage.lists import read_items, read_list
from alertrec.storage.source import UserRange
from alertrec.wording import Words
from alertrec.workspace import Workspace

N_ANSWERS = 20


@dataclass(frozen=True)
class DaySpending:
    """What one user bought on one of their own days."""

    day: date
    amount: float
    n_purchases: int


@dataclass(frozen=True)
class Firing:
    """A purchase at which a rule would have fired, on a day of the user's own."""

    day: date
    merchant: str | None
    amount: float


@dataclass(frozen=True)
class RuleStory:
    """One rule that a user has on, and when it fired in the last 90 days, the oldest first.

    Attributes
    ----------
    title : str
        The catalogue's words with the rule's parameters; where those are not understood, the customer's own words.
    parameters : mapping or None
        None where the rule's text says nothing that can be tested.
    """

    rule_id: str | None
    alert_type: str
    title: str
    text: str | None
    parameters: Parameters | None
    fired: tuple[Firing, ...]


@dataclass(frozen=True)
class Answer:
    """One thing that a user did with a rule or a recommendation."""

    at: datetime
    action: str
    alert_type: str | None


@dataclass(frozen=True)
class StoredList:
    """A user's list as it stands in the tables, current or not; `items` are rows of `alertrec.recommendations`."""

    recommendation_type: str
    generated_at: datetime
    expires_at: datetime
    model_version: str
    items: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class UserStory:
    """What is known of one user.

    Attributes
    ----------
    facts : mapping
        `credit_limit`, `credit_balance`, `home_state`, `home_country`, `time_zone`, `n_purchases` and
        `total_spending` of the 90 days.
    spending : tuple
        The 90 days up to today, in the user's own days, the oldest first. Rules are tried on as many times 24 hours, so
        one may have fired in the last hours of the day before the first.
    stored_list : StoredList or None
    answers : tuple
        The last 20, the latest first.
    """

    user_id: str
    is_active: bool
    facts: Mapping[str, float | str | None]
    spending: tuple[DaySpending, ...]
    rules: tuple[RuleStory, ...]
    stored_list: StoredList | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Preview:
    """What a rule with these parameters would have done for one user in the last 90 days.

    Attributes
    ----------
    would_have_fired : mapping
        As `alertrec.rules.backtests.would_have_fired` returns it: the count, and up to three examples.
    dates : tuple of date
        Of every firing, in the user's own days, the oldest first.
    """

    alert_type: str
    parameters: Parameters
    title: str
    description: str
    natural_language_query: str
    would_have_fired: Mapping[str, Any]
    dates: tuple[date, ...]


def user_story(workspace: Workspace, user_id: str, *, now: datetime | None = None) -> UserStory:
    """Return what is known of one user at a moment, by default now; the list is the one that is stored.

    Of a user who is not active only the purchases, rules and answers are known: no facts, and days are those of UTC.

    Raises
    ------
    UnknownUserError, TransientError
    """
    with transient_errors("a user was looked at"), workspace.engine.connect() as connection:
        now = now or jobs.database_time(connection)
        known = _known_of(workspace, connection, user_id, now)
        rules = workspace.source.rules(connection, UserRange(user_id, user_id), as_of=now)
        answers = read_answers(connection, user_id, until=now, limit=N_ANSWERS)
        stored_list = _stored_list(connection, user_id)
    spending = _spending(known.ledger)
    return UserStory(
        user_id=user_id,
        is_active=known.is_active,
        facts=_facts(known.account, spending),
        spending=spending,
        rules=_rules(rules, user_id, known.ledger, workspace.policy.words),
        stored_list=stored_list,
        answers=tuple(Answer(row["occurred_at"], row["action"], row["alert_type"]) for row in answers),
    )


def preview(
    workspace: Workspace,
    user_id: str,
    alert_type: str,
    parameters: Mapping[str, Any],
    *,
    now: datetime | None = None,
) -> Preview:
    """Return what a rule with these parameters would have done for one user in the last 90 days.

    Parameters
    ----------
    parameters : mapping
        As `alertrec.detectors.parameters.checked` takes them.
    now : datetime, optional
        Up to when; by default now. The `as_of` of a list gives what that list says.

    Raises
    ------
    DataError
        If there is no such alert type, or its rules have no such parameters.
    UnknownUserError, TransientError
    """
    rule = checked(alert_type, parameters)
    entry = BY_KEY[alert_type]
    with transient_errors("a rule was tried"), workspace.engine.connect() as connection:
        now = now or jobs.database_time(connection)
        ledger = _known_of(workspace, connection, user_id, now).ledger
    fired = BackTests(ledger).of(alert_type, rule).fired(0, float(rule[entry.dial.name]))
    return Preview(
        alert_type=alert_type,
        parameters=rule,
        **rule_texts(entry, rule, workspace.policy.words),
        would_have_fired=would_have_fired(ledger, fired),
        dates=tuple(_date(day) for day in ledger.day[fired].tolist()),
    )


@dataclass(frozen=True)
class _Known:
    """One user's account as it is read, and their ledger; of one who is not active, the account is not known."""

    is_active: bool
    account: Mapping[str, Any]
    ledger: Ledger


def _known_of(workspace: Workspace, connection: Connection, user_id: str, now: datetime) -> _Known:
    """Return what is known of a user; raise `UnknownUserError` where there is none."""
    if "\x00" in user_id:  # which no text in PostgreSQL has
        raise UnknownUserError(user_id)
    users, transactions = workspace.source.history(connection, UserRange(user_id, user_id), as_of=now)
    is_active = not users.is_empty()
    if not is_active:
        if workspace.source.is_active(connection, user_id) is None:
            raise UnknownUserError(user_id)
        users = pl.DataFrame({"id": [user_id]}).join(users, on="id", how="left")
    return _Known(is_active, users.row(0, named=True), Ledger.of(users, transactions, now))


def _stored_list(connection: Connection, user_id: str) -> StoredList | None:
    row = read_list(connection, user_id)
    if row is None:
        return None
    return StoredList(
        recommendation_type=row["recommendation_type"],
        generated_at=row["generated_at"],
        expires_at=row["expires_at"],
        model_version=row["model_version"],
        items=tuple({str(key): item[key] for key in item} for item in read_items(connection, user_id)),
    )


def _spending(ledger: Ledger) -> tuple[DaySpending, ...]:
    assert ledger.until is not None
    today = int(ledger.days_at(ledger.until)[0])
    place = ledger.day[ledger.purchases] - (today - WINDOW_DAYS + 1)
    kept = (place >= 0) & (place < WINDOW_DAYS)
    n_purchases = np.bincount(place[kept], minlength=WINDOW_DAYS).tolist()
    units = np.zeros(WINDOW_DAYS, dtype=np.int64)
    np.add.at(units, place[kept], ledger.units[ledger.purchases][kept])
    days = range(today - WINDOW_DAYS + 1, today + 1)
    return tuple(
        DaySpending(_date(day), amount / UNITS, n)
        for day, amount, n in zip(days, units.tolist(), n_purchases, strict=True)
    )


def _facts(account: Mapping[str, Any], spending: tuple[DaySpending, ...]) -> Mapping[str, float | str | None]:
    return {
        "credit_limit": account["credit_limit"],
        "credit_balance": account["credit_balance"],
        "home_state": account["address_state"],
        "home_country": account["address_country"],
        "time_zone": account["time_zone"],
        "n_purchases": sum(day.n_purchases for day in spending),
        "total_spending": round(sum(day.amount for day in spending), 4),
    }


def _rules(rules: pl.DataFrame, user_id: str, ledger: Ledger, words: Words) -> tuple[RuleStory, ...]:
    text_of = dict(rules.select("rule_id", "natural_language_query").iter_rows())
    (standing,) = standing_rules(rules, [user_id], BackTests(ledger))
    return tuple(_rule_story(rule, text_of[rule.rule_id], ledger, words) for rule in standing)


def _rule_story(rule: StandingRule, text: str | None, ledger: Ledger, words: Words) -> RuleStory:
    told = rule_texts(BY_KEY[rule.alert_type], rule.parameters, words)["title"] if rule.parameters else None
    return RuleStory(
        rule_id=rule.rule_id,
        alert_type=rule.alert_type,
        title=told or text or short_title(rule.alert_type),
        text=text,
        parameters=rule.parameters,
        fired=_firings(ledger, rule.fired),
    )


def _firings(ledger: Ledger, fired: Ints) -> tuple[Firing, ...]:
    days, amounts = ledger.day[fired].tolist(), ledger.amount[fired].tolist()
    names = ledger.merchant_name.gather(fired)
    return tuple(
        Firing(_date(day), plain(name), amount) for day, name, amount in zip(days, names, amounts, strict=True)
    )


def _date(day: int) -> date:
    """Return a day that is told in days since the epoch."""
    return date(1970, 1, 1) + timedelta(days=day)
