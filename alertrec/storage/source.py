"""What is read of the source relations: users, their transactions, the alerts they have and have dismissed.

Rows are filtered here and numbers are computed in `feature_engineering`; the one filter that matters to features,
the days of history, stands there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    MetaData,
    RowMapping,
    Select,
    Table,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on

from alertrec.action_types import REFUSED, RULE_ACTIONS, SNOOZED, SWITCHED_ON
from alertrec.feature_engineering import HISTORY_DAYS
from alertrec.rules.standing import RULES_SCHEMA
from alertrec.storage.frames import read_frame
from alertrec.storage.tables import alert_actions, source_metadata


@dataclass(frozen=True)
class UserRange:
    """Users whose ids lie between two, both included; with equal ends, one user."""

    first: str
    last: str

    def covers(self, user_id: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that a column is in the range."""
        # An equality lets the planner count on one user, and the index gives that user's rows at once.
        return user_id == self.first if self.first == self.last else user_id.between(self.first, self.last)


@dataclass(frozen=True)
class UserIds:
    """Users by their ids."""

    user_ids: Sequence[str]

    def covers(self, user_id: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that a column is one of them."""
        return user_id == func.any(literal(list(self.user_ids), ARRAY(Text)))


Users = UserRange | UserIds


@dataclass(frozen=True)
class Rest:
    """For how long what a user has said no to stays away.

    Attributes
    ----------
    at : datetime
        What has come to an end by then is offered again.
    refused, snoozed : timedelta
        From the moment at which it was dismissed, disabled or deleted, or snoozed; unless the action says otherwise.
    """

    at: datetime
    refused: timedelta
    snoozed: timedelta


@dataclass(frozen=True)
class UserData:
    """Everything that is known of some users at one moment; all frames may be empty."""

    users: pl.DataFrame
    transactions: pl.DataFrame
    rules: pl.DataFrame
    away: pl.DataFrame


_USERS_SCHEMA = {
    "id": pl.String,
    "credit_limit": pl.Float64,
    "credit_balance": pl.Float64,
    "address_state": pl.String,
    "address_country": pl.String,
    "time_zone": pl.String,
}
_TRANSACTIONS_SCHEMA = {
    "user_id": pl.String,
    "amount": pl.Float64,
    "merchant_name": pl.String,
    "merchant_category": pl.String,
    "merchant_state": pl.String,
    "merchant_country": pl.String,
    "transaction_date": pl.Int64,
    "transaction_type": pl.String,
    "status": pl.String,
}
_AWAY_SCHEMA = {"user_id": pl.String, "alert_type": pl.String, "natural_language_query": pl.String}


class Source:
    """The source relations in one schema."""

    def __init__(self, schema: str) -> None:
        metadata = MetaData(schema=schema)
        tables = {name: table.to_metadata(metadata, schema=schema) for name, table in source_metadata.tables.items()}
        self.users: Table = tables["users"]
        self.transactions: Table = tables["transactions"]
        self.alert_rules: Table = tables["alert_rules"]
        self.metadata = metadata

    def read(
        self,
        connection: Connection,
        users: Users | None,
        *,
        as_of: datetime,
        rest: Rest | None = None,
    ) -> UserData:
        """Read active users, of a range or all, and what was known of them at `as_of`.

        What they have said no to is read only where it is told for how long that counts: training has no use for it.
        """
        away = pl.DataFrame(schema=_AWAY_SCHEMA) if rest is None else self.away(connection, users, rest)
        accounts, transactions = self.history(connection, users, as_of=as_of)
        return UserData(accounts, transactions, rules=self.rules(connection, users, as_of=as_of), away=away)

    def history(
        self, connection: Connection, users: Users | None, *, as_of: datetime
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Read active users and transactions alone, which is all that firings hang on."""
        transactions = read_frame(connection, self._transactions(users, as_of), _TRANSACTIONS_SCHEMA)
        return (
            read_frame(connection, self._users(users), _USERS_SCHEMA),
            transactions.with_columns(pl.col("transaction_date").cast(pl.Datetime("us"))),
        )

    def rules(self, connection: Connection, users: Users | None, *, as_of: datetime) -> pl.DataFrame:
        """Read the rules that were on at `as_of`."""
        return read_frame(connection, self._rules(users, as_of), RULES_SCHEMA)

    def away(self, connection: Connection, users: Users | None, rest: Rest) -> pl.DataFrame:
        """Read the types that users have said no to."""
        return read_frame(connection, self._away(users, rest), _AWAY_SCHEMA)

    def n_active(self, connection: Connection) -> int:
        """Return how many users are active."""
        return connection.scalar(select(func.count()).select_from(self.users).where(self.users.c.is_active)) or 0

    def n_users_by_type(self, connection: Connection) -> dict[str, int]:
        """Return how many users have each alert type on, by the typed column."""
        rule = self.alert_rules.c
        query = select(rule.alert_type, func.count(rule.user_id.distinct())).where(
            rule.is_active, rule.alert_type.is_not(None)
        )
        return {row[0]: int(row[1]) for row in connection.execute(query.group_by(rule.alert_type))}

    def find_rule(self, connection: Connection, user_id: str, rule_id: str) -> RowMapping | None:
        """Return a rule of a user, on or off."""
        rule = self.alert_rules
        query = select(rule).where(rule.c.id == rule_id, rule.c.user_id == user_id)
        return connection.execute(query).mappings().first()

    def rules_of_type(self, connection: Connection, user_id: str, alert_type: str) -> list[RowMapping]:
        """Return the rules of a type that a user has on, the oldest first."""
        rule = self.alert_rules
        mine = rule.c.user_id == user_id, rule.c.alert_type == alert_type, rule.c.is_active
        return list(connection.execute(select(rule).where(*mine).order_by(rule.c.created_at, rule.c.id)).mappings())

    def insert_rule(self, connection: Connection, *, rule_id: str, **values: Any) -> None:
        """Insert a rule that is on."""
        connection.execute(insert(self.alert_rules).values({"id": rule_id, "is_active": True, **values}))

    def alter_rule(self, connection: Connection, rule_id: str, values: Mapping[str, Any]) -> None:
        """Alter a rule."""
        rule = self.alert_rules
        connection.execute(update(rule).where(rule.c.id == rule_id).values({**values, "updated_at": func.now()}))

    def is_active(self, connection: Connection, user_id: str) -> bool | None:
        """Return whether a user is active; None if there is no such user."""
        active = func.coalesce(self.users.c.is_active, literal(value=False))
        found: bool | None = connection.scalar(select(active).where(self.users.c.id == user_id))
        return found

    def changed_since(self, connection: Connection, since: datetime, *, limit: int) -> list[str]:
        """Return users who came, or acted on their alerts, after a moment; the latest first."""
        action = alert_actions.c
        acted = select(action.user_id, action.recorded_at.label("at")).where(
            action.recorded_at > since, action.action.in_(RULE_ACTIONS)
        )
        came = select(self.users.c.id, self.users.c.created_at).where(self.users.c.created_at > since)
        both = union_all(acted, came).subquery()
        latest = select(both.c.user_id).group_by(both.c.user_id).order_by(func.max(both.c.at).desc(), both.c.user_id)
        return list(connection.execute(latest.limit(limit)).scalars())

    def inactive_among(self, connection: Connection, user_ids: Sequence[str]) -> list[str]:
        """Return those of some users who are there and not active."""
        mine = UserIds(user_ids).covers(self.users.c.id)
        inactive = select(self.users.c.id).where(mine, self.users.c.is_active.is_not(True))
        return list(connection.execute(inactive).scalars())

    def ranges(self, size: int) -> Select[Any]:
        """Return the query that divides all active users, in the order of ids, into ranges of at most `size`.

        Its columns are the number of the range, its first and last user and its number of users.
        """
        number = (func.row_number().over(order_by=self.users.c.id) - 1) // size
        ranked = select(self.users.c.id, number.label("number")).where(self.users.c.is_active).subquery()
        user = ranked.c.id
        return (
            select(
                ranked.c.number, func.min(user).label("first"), func.max(user).label("last"), func.count().label("n")
            )
            .group_by(ranked.c.number)
            .order_by(ranked.c.number)
        )

    def _users(self, users: Users | None) -> Select[Any]:
        """Return the query of active users; the zone is NULL where the relation has no such column.

        A name that stands without its table is looked for in the relation first, and then in what is joined to it
        laterally. Taking the whole row apart as JSON would do as well, but asks for the right to read every column of
        it, and computes them all where it is a view.
        """
        table = self.users.c
        absent = select(cast(null(), Text).label("time_zone")).subquery("absent")
        there = (
            select(
                table.id,
                table.credit_limit,
                table.credit_balance,
                table.address_state,
                table.address_country,
                cast(literal_column("time_zone"), Text).label("time_zone"),
            )
            .where(table.is_active, _within(users, table.id))
            .lateral("there")
        )
        return select(*there.c).select_from(absent.join(there, true())).order_by(there.c.id)

    def _transactions(self, users: Users | None, as_of: datetime) -> Select[Any]:
        table = self.transactions.c
        microseconds = cast(func.date_part("epoch", table.transaction_date) * 1_000_000, BigInteger)
        return select(
            table.user_id,
            table.amount,
            table.merchant_name,
            table.merchant_category,
            table.merchant_state,
            table.merchant_country,
            microseconds,
            table.transaction_type,
            table.status,
        ).where(
            _within(users, table.user_id),
            table.transaction_date <= as_of,
            table.transaction_date > as_of - timedelta(days=HISTORY_DAYS),
        )

    def _rules(self, users: Users | None, as_of: datetime) -> Select[Any]:
        """Return the rules that were on at `as_of`, by the table and by what was logged since it was written.

        A web app that does not share the database only logs actions; its rules are known by them alone.
        """
        rule, action = self.alert_rules.c, alert_actions.c
        latest = (
            select(action.alert_rule_id, action.user_id, action.alert_type, action.action, action.occurred_at)
            .where(
                _within(users, action.user_id),
                action.alert_rule_id.is_not(None),
                action.action.in_(RULE_ACTIONS),
                action.occurred_at <= as_of,
            )
            .ext(distinct_on(action.user_id, action.alert_rule_id))
            .order_by(action.user_id, action.alert_rule_id, action.occurred_at.desc(), action.recorded_at.desc())
            .cte("latest")
        )
        same_rule = and_(latest.c.alert_rule_id == rule.id, latest.c.user_id == rule.user_id)
        logged_on = latest.c.action.in_(SWITCHED_ON)
        by_table = or_(rule.is_active, rule.updated_at > as_of)  # what was switched off later was on then
        stored = (
            select(
                rule.user_id,
                rule.alert_type,
                rule.natural_language_query,
                rule.id.label("rule_id"),
                cast(rule.parameters, Text).label("parameters"),
            )
            .select_from(self.alert_rules.outerjoin(latest, same_rule))
            .where(
                _within(users, rule.user_id),
                or_(rule.created_at.is_(None), rule.created_at <= as_of),
                case((latest.c.occurred_at > rule.updated_at, logged_on), else_=by_table),
            )
        )
        unknown = cast(null(), Text)
        only_logged = select(
            latest.c.user_id, latest.c.alert_type, unknown, latest.c.alert_rule_id, unknown.label("parameters")
        ).where(logged_on, latest.c.alert_type.is_not(None), ~exists().where(same_rule).correlate(latest))
        both = union_all(stored, only_logged).subquery()
        return select(*both.c)

    def _away(self, users: Users | None, rest: Rest) -> CompoundSelect[Any]:
        """Return the types that users have said no to: dismissed or snoozed, or a rule of theirs switched off.

        Whether a rule was switched off is told by the log, and by its row where nobody logs.
        """
        action, rule = alert_actions.c, self.alert_rules.c
        same_rule = and_(rule.id == action.alert_rule_id, rule.user_id == action.user_id)
        ends = case(
            (action.action == SNOOZED, action.occurred_at + rest.snoozed), else_=action.occurred_at + rest.refused
        )
        logged = (
            select(action.user_id, func.coalesce(action.alert_type, rule.alert_type), rule.natural_language_query)
            .select_from(alert_actions.outerjoin(self.alert_rules, same_rule))
            .where(
                _within(users, action.user_id),
                action.action.in_((SNOOZED, *REFUSED)),
                func.coalesce(action.due_at, ends) > rest.at,
            )
        )
        stored = select(rule.user_id, rule.alert_type, rule.natural_language_query).where(
            _within(users, rule.user_id), rule.is_active.is_(False), rule.updated_at + rest.refused > rest.at
        )
        return union_all(logged, stored)


def _within(users: Users | None, user_id: ColumnElement[str]) -> ColumnElement[bool]:
    return users.covers(user_id) if users is not None else literal(value=True)
