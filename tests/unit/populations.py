"""Users with every feature and every alert type, as random numbers: quicker than purchases, and known to the digit."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alertrec.catalog import ALERT_KEYS
from alertrec.feature_engineering import FEATURES
from alertrec.ledger import USER_ID

N_ALERTS = len(ALERT_KEYS)


def users_frame(values: NDArray[np.float64], prefix: str = "u") -> pl.DataFrame:
    """Return a frame of users with these features, named in the order of the rows."""
    return pl.DataFrame(values, schema=list(FEATURES)).with_columns(
        pl.Series(USER_ID, [f"{prefix}{row:04}" for row in range(len(values))])
    )


def random_values(n_users: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return features, shape (n_users, n_features), that say nothing of anything; all users have purchases."""
    values = rng.normal(size=(n_users, len(FEATURES)))
    values[:, FEATURES.index("amount_count")] = rng.integers(1, 60, n_users)
    return values


def draw(log_odds: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return alerts that are on with the probabilities of these log-odds."""
    found: NDArray[np.bool_] = rng.random(log_odds.shape) < 1 / (1 + np.exp(-log_odds))
    return found
