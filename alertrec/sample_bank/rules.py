"""Which alerts the users of a made-up bank keep, and in which words."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alertrec.sample_bank.behaviour import Charges, Ints, Users
from alertrec.sample_bank.vocabulary import CATEGORIES, KINDS, NOWHERE, PER_CATEGORY, SEGMENTS, TEXTS
from alertrec.transactions import PURCHASE

# A type that is new in the catalogue does not occur until it has texts here.
ALERTS = tuple(TEXTS)


def measure_habits(users: Users, charges: Charges) -> pl.DataFrame:
    """Measure each user's purchases: one row a user, in order, no nulls."""
    n_users = len(users.home)
    bought = charges.where(charges.kind == KINDS.index(PURCHASE))
    rows = pl.DataFrame({**vars(bought), "home": users.home[bought.user]})
    first = len(CATEGORIES) * PER_CATEGORY
    measured = rows.group_by("user").agg(
        # In cents: a sum of floats depends on how threads share the rows.
        (pl.col("amount") * 100).round().cast(pl.Int64).sum().cast(pl.Float64).truediv(100).alias("spent"),
        pl.col("amount").max().alias("largest"),
        pl.len().cast(pl.Float64).alias("count"),
        pl.col("merchant").n_unique().cast(pl.Float64).alias("merchants"),
        ((pl.col("place") != pl.col("home")) & (pl.col("place") != NOWHERE)).mean().alias("away"),
        (pl.col("merchant") >= first).sum().cast(pl.Float64).alias("subscribed"),
    )
    everyone = pl.DataFrame({"user": np.arange(n_users), "utilization": users.utilization})
    return everyone.join(measured, on="user", how="left", maintain_order="left").fill_null(0.0)


def draw_alerts(rng: np.random.Generator, users: Users, habits: pl.DataFrame) -> NDArray[np.bool_]:
    """Return who enabled what, shape (n_users, n_alerts)."""
    n_users = habits.height
    drivers = ("spent", "count", "merchants", "utilization", "largest", "merchants", "away", "subscribed")
    ranks = habits.select(
        (pl.col(name).rank("average") / n_users - 0.5).alias(str(position)) for position, name in enumerate(drivers)
    ).to_numpy()
    # Who already visits many merchants does not mind one more.
    strength = np.array([2.0, 2.5, 2.5, 2.5, 2.0, -1.5, 3.0, 2.5])
    tendency = np.array([each.alerts for each in SEGMENTS])[users.segment] + strength * ranks - 1.5
    tendency += rng.normal(0, 0.6, n_users)[:, None]
    owned = np.zeros((n_users, len(ALERTS)), dtype=bool)
    noise = rng.logistic(size=owned.shape)
    for alert in rng.permutation(len(ALERTS)):
        owned[:, alert] = tendency[:, alert] + 0.35 * owned.sum(axis=1) + noise[:, alert] > 0
    nothing_yet = np.flatnonzero(~owned.any(axis=1))
    owned[nothing_yet, np.argmax((tendency + noise)[nothing_yet], axis=1)] = True
    owned[rng.random(n_users) < 0.3] = False
    return owned


def write_texts(rng: np.random.Generator, keys: list[str], habits: pl.DataFrame, *, user: Ints, days: int) -> list[str]:
    """Return the rules in customers' words, with thresholds that fit the habits of the users they belong to."""
    mine = habits[user]
    slack = rng.uniform(0.9, 1.6, len(keys))
    weekly = mine["spent"].to_numpy() / days * 7
    single = mine["largest"].to_numpy() * 0.5
    busiest = 3 + mine["count"].to_numpy() / days * 4
    styles = rng.random(len(keys))
    percents, scopes = rng.choice([50, 60, 70, 75, 80, 90], len(keys)), rng.choice(["state", "country"], len(keys))
    texts = []
    for index, key in enumerate(keys):
        amount = (weekly if key == "alert_high_spender" else single)[index] * slack[index]
        rises = key == "alert_subscription_monitoring"
        text = TEXTS[key][int(styles[index] ** 1.5 * len(TEXTS[key]))]
        texts.append(
            text.format(
                amount=max(25, round(amount / 25) * 25),
                count=max(3, round(busiest[index] * slack[index])),
                percent=percents[index] // 5 if rises else percents[index],
                scope=scopes[index],
            )
        )
    return texts
