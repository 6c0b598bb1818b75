"""Where the parameters of those begin whose own history is too short to tell what fits them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from alertrec.catalog import BY_KEY
from alertrec.ledger import Floats, Mask
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.cards import Basis
from alertrec.rules.usual import UsualDials

OWN: Basis = "own_history"
_SOURCES: tuple[Basis, ...] = ("similar_users", "population", "catalogue")


@dataclass(frozen=True)
class StartingPoints:
    """From where on each user's dials are tried, and whose history says so.

    Attributes
    ----------
    dials : float64 array, shape (n_users, n_alerts)
        NaN where the user's own history decides alone.
    bases : list of sequences
        Of each user, one word an alert.
    """

    dials: Floats
    bases: list[Sequence[Basis]]

    def basis(self, user: int, alert: int) -> Basis:
        """Return whose history says where the dial of an alert starts."""
        return self.bases[user][alert]

    def basis_of(self, user: int, alert: int, dial: float, steps: Sequence[float]) -> Basis:
        """Return whose history gave a dial its value: the user's own, where that moved it on from the start."""
        start = self.dials[user, alert]
        moved = not np.isnan(start) and dial > steps[bisect_left(steps, start)]
        return OWN if moved else self.basis(user, alert)


def starting_points(model: AlertRecommenderModel, features: pl.DataFrame, *, knows_window: Mask) -> StartingPoints:
    """Return where the dials of users begin whose own history is too short.

    First those of similar users say; where these are too few, those of all; without either, the catalogue.

    Parameters
    ----------
    features : frame as `AlertRecommenderModel.score` takes it
    knows_window : bool array, shape (n_users,)
        Whose own history decides.
    """
    n_alerts = len(model.alert_columns)
    dials = np.full((features.height, n_alerts), np.nan)
    bases: list[Sequence[Basis]] = [(OWN,) * n_alerts] * features.height
    short = np.flatnonzero(~knows_window)
    if not len(short):
        return StartingPoints(dials, bases)
    nothing = np.full(n_alerts, np.nan)
    usual = model.usual or UsualDials([], np.empty((0, n_alerts)), nothing)
    defaults = np.array([_default(alert_type) for alert_type in model.alert_columns])
    buys = (features["amount_count"] > 0).to_numpy()
    alike = model.similar_users(features[short])
    for user, similar in zip(short.tolist(), alike, strict=True):
        of_similar = usual.among(similar) if buys[user] else nothing
        told = np.array([of_similar, usual.population, defaults])
        source = (~np.isnan(told)).argmax(axis=0)
        dials[user] = told[source, np.arange(n_alerts)]
        bases[user] = [_SOURCES[each] for each in source]
    return StartingPoints(dials, bases)


def _default(alert_type: str) -> float:
    entry = BY_KEY.get(alert_type)
    return float(entry.parameters[entry.dial.name]) if entry is not None else 0.0
