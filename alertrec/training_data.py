"""What a model learns from, read from the database as of a moment, some thousand users at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from alertrec.catalog import ALERT_KEYS
from alertrec.errors import NotEnoughDataError
from alertrec.feature_engineering import FEATURES, features_of
from alertrec.feedback import Answers
from alertrec.labels import enabled_matrix, heuristic_matrix
from alertrec.ledger import USER_ID, Floats, Ledger
from alertrec.models.base import AlertMatrix
from alertrec.rules.backtests import Budget, fitted_dials
from alertrec.selection import Population, Progress
from alertrec.storage.answers import read_answers, shifts_of_versions
from alertrec.storage.source import UserRange
from alertrec.workspace import Workspace

MIN_USERS = 10
MIN_TRANSACTIONS = 100
FROM_RULES = "alert rules"
FROM_HEURISTICS = "heuristics"


@dataclass(frozen=True)
class TrainingData:
    """Users with purchases, one row each in the order of ids, and where their labels come from.

    Attributes
    ----------
    dials : float64 array, shape (n_users, n_alerts), see `fitted_dials`
    answers : Answers
        What all users answered to offers, with purchases or without.
    promised_with : mapping of versions to the shift of each alert type
        Of the models whose offers they answered; those that had none are left out.
    """

    users: Population
    dials: Floats
    label_source: str
    n_transactions: int
    n_rules: int
    answers: Answers
    promised_with: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class _Read:
    """All active users: features, alerts, parameters that would fit them, home states."""

    features: pl.DataFrame
    enabled: AlertMatrix
    dials: Floats
    home_state: list[str | None]
    n_rules: int


def read_training_data(
    workspace: Workspace, *, as_of: datetime, use_real_alerts: bool = True, progress: Progress = lambda *_: None
) -> TrainingData:
    """Read what is known at `as_of` of all active users with purchases.

    Raises
    ------
    NotEnoughDataError
        Under 10 users with purchases, or 100 purchases.
    """
    everybody = _read(workspace, as_of, progress, budget=workspace.policy.budget)
    count = everybody.features["amount_count"]
    spends = (count > 0).to_numpy()
    n_users, n_transactions = int(spends.sum()), int(count.sum() or 0)
    if n_users < MIN_USERS or n_transactions < MIN_TRANSACTIONS:
        raise NotEnoughDataError(n_users, n_transactions, MIN_USERS, MIN_TRANSACTIONS)
    spenders, labels = everybody.features.filter(pl.Series(spends)), everybody.enabled[spends]
    from_rules = use_real_alerts and bool(labels.any())
    groups = {
        "activity": _thirds(spenders["amount_count"]),
        "credit_limit": _thirds(spenders["credit_limit"]),
        "home_state": [state for state, kept in zip(everybody.home_state, spends.tolist(), strict=True) if kept],
    }
    answers, promised_with = _read_answers(workspace, as_of)
    return TrainingData(
        users=Population(spenders, labels if from_rules else heuristic_matrix(spenders), groups),
        dials=everybody.dials[spends],
        label_source=FROM_RULES if from_rules else FROM_HEURISTICS,
        n_transactions=n_transactions,
        n_rules=everybody.n_rules,
        answers=answers,
        promised_with=promised_with,
    )


def read_earlier(workspace: Workspace, users: Population, *, as_of: datetime, progress: Progress) -> Population:
    """Read the same users, row by row, as they were at a moment before; who was not there yet has nothing."""
    then = _read(workspace, as_of, progress)
    row_of = {user_id: row for row, user_id in enumerate(then.features[USER_ID].to_list())}
    rows = np.array([row_of.get(user_id, -1) for user_id in users.features[USER_ID].to_list()], dtype=np.intp)
    features = users.features.select(USER_ID).join(then.features, on=USER_ID, how="left", maintain_order="left")
    labels = np.zeros_like(users.labels)
    labels[rows >= 0] = then.enabled[rows[rows >= 0]]
    return Population(features.with_columns(pl.col(FEATURES).fill_null(0.0)), labels)


def _read(workspace: Workspace, as_of: datetime, progress: Progress, *, budget: Budget | None = None) -> _Read:
    """Read all active users; parameters are fitted where there is a budget to fit them to."""
    features = [pl.DataFrame(schema={USER_ID: pl.String} | dict.fromkeys(FEATURES, pl.Float64))]
    enabled, states, n_rules = [enabled_matrix([], _NO_RULES)], list[str | None](), 0
    dials = [np.empty((0, len(ALERT_KEYS)))]
    with workspace.engine.connect() as connection:
        ranges = connection.execute(workspace.source.ranges(workspace.settings.chunk_size)).all()
        for done, (_, first, last, _) in enumerate(ranges):
            progress("reading", done, len(ranges))
            data = workspace.source.read(connection, UserRange(first, last), as_of=as_of)
            connection.commit()  # a transaction over the whole of reading would hold back vacuum
            ledger = Ledger.of(data.users, data.transactions, as_of)
            features.append(features_of(ledger))
            if budget is not None:
                dials.append(fitted_dials(ledger, ALERT_KEYS, budget))
            enabled.append(enabled_matrix(features[-1][USER_ID].to_list(), data.rules))
            states += data.users["address_state"].to_list()
            n_rules += data.rules.join(data.users, left_on="user_id", right_on="id", how="semi").height
    return _Read(pl.concat(features), np.concatenate(enabled), np.concatenate(dials), states, n_rules)


def _read_answers(workspace: Workspace, as_of: datetime) -> tuple[Answers, Mapping[str, Mapping[str, float]]]:
    """Return what users answered by then, and the shifts of the models that had made the offers."""
    with workspace.engine.connect() as connection:
        read = read_answers(connection, workspace.source, as_of=as_of)
        shifts_of = shifts_of_versions(connection)
    answers = read.filter(pl.col("alert_type").is_in(ALERT_KEYS))  # a type may have left the catalogue
    rows = [(version, alert, shift) for version, shifts in shifts_of.items() for alert, shift in shifts.items()]
    names = {"model_version": pl.String, "alert_type": pl.String, "shift": pl.Float64}
    # Of a model that nobody knows any more, what it said is taken for what it would have said without shifts.
    answers = answers.join(pl.DataFrame(rows, names, orient="row"), list(names)[:2], "left").fill_null(0.0)
    columns = [ALERT_KEYS.index(alert) for alert in answers["alert_type"].to_list()]
    found = Answers(
        np.array(columns, dtype=np.intp),
        answers["probability"].to_numpy(),
        answers["taken"].to_numpy(),
        answers["shift"].to_numpy(),
    )
    answered = set(read["model_version"].to_list())
    return found, {version: shifts for version, shifts in shifts_of.items() if version in answered}


_NO_RULES = pl.DataFrame(schema=dict.fromkeys(("user_id", "alert_type", "natural_language_query"), pl.String))


def _thirds(values: pl.Series) -> Sequence[str]:
    """Return whether each value is in the low, middle or high third of its column."""
    low, high = values.quantile(1 / 3), values.quantile(2 / 3)
    return ["low" if value <= low else "middle" if value <= high else "high" for value in values]
