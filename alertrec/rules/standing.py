"""The rules that users have on, and what these would have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from alertrec.catalog import BY_KEY, Parameters
from alertrec.labels import resolve_alert_type
from alertrec.ledger import USER_ID, Ints
from alertrec.rules.backtests import BackTests
from alertrec.rules.texts import parameters_of

RULES_SCHEMA = {
    "user_id": pl.String,
    "alert_type": pl.String,
    "natural_language_query": pl.String,
    "rule_id": pl.String,
    "parameters": pl.String,
}


@dataclass(frozen=True)
class StandingRule:
    """A rule that a user has on.

    Attributes
    ----------
    user : int
        Row of the ledger's accounts.
    parameters : mapping or None
        None where neither the stored ones nor its text tell them; such a rule is not back-tested.
    fired : int array
        Places in the ledger at which it would have fired in the window.
    """

    user: int
    rule_id: str | None
    alert_type: str
    parameters: Parameters | None
    fired: Ints

    @property
    def dial(self) -> float:
        """The number above which it fires."""
        assert self.parameters is not None
        return float(self.parameters[BY_KEY[self.alert_type].dial.name])


def standing_rules(rules: pl.DataFrame, user_ids: Sequence[str], tests: BackTests) -> list[list[StandingRule]]:
    """Return each user's rules, back-tested, in the order of their ids.

    Parameters
    ----------
    rules : frame of the rules that are on
        `user_id`, `alert_type`, `natural_language_query`; optionally `rule_id` and `parameters` (JSON text). Rules
        whose type nothing tells are left out.
    """
    row_of = {user_id: row for row, user_id in enumerate(user_ids)}
    found: list[list[StandingRule]] = [[] for _ in user_ids]
    given = rules.select(
        pl.col(name) if name in rules.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in RULES_SCHEMA.items()
    )
    for user_id, alert_type, text, rule_id, stored in given.sort(USER_ID, "rule_id", *RULES_SCHEMA).rows():
        key, parameters = _read(alert_type, text, stored)
        if key is None or user_id not in row_of:
            continue
        user, fired = row_of[user_id], np.empty(0, dtype=np.int64)
        if parameters is not None:
            fired = tests.of(key, parameters).fired(user, float(parameters[BY_KEY[key].dial.name]))
        found[user].append(StandingRule(user, rule_id, key, parameters, fired))
    return found


@lru_cache(maxsize=65_536)
def _read(alert_type: Any, text: str | None, stored: str | None) -> tuple[str | None, Parameters | None]:
    key = resolve_alert_type(alert_type, text)
    return key, parameters_of(key, stored, text) if key is not None else None
