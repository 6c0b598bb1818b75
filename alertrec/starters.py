"""What is shown to a customer while their own list is being made: what most customers have, in common words."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from alertrec.catalog import ALERT_TYPES, AlertType
from alertrec.errors import UnknownUserError
from alertrec.labels import enabled_matrix
from alertrec.rules.cards import LOW, MEDIUM, rule_texts
from alertrec.storage import jobs
from alertrec.storage.database import transient_errors
from alertrec.storage.source import UserRange
from alertrec.wording import Words
from alertrec.workspace import Workspace

PLACEHOLDER = "placeholder"  # the recommendation_type of starters
N_STARTERS = 4
_REASONING = "Many customers have this alert on. What fits your own spending is being worked out."
# What everybody has changes slowly, and counting it reads all rules.
_POPULARITY_GOOD_FOR_SECONDS = 3600


class Starters:
    """Makes starters; knows for an hour how many customers have each alert."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._popularity: Mapping[str, int] = {}
        self._good_until = 0.0

    def of(self, user_id: str) -> list[dict[str, Any]] | None:
        """Return starters for a user, the most popular first: types that they lack and have not said no to.

        Returns
        -------
        list of dict or None
            With the fields of a recommendation, those that rest on the user being None. None for a user who is not
            active, and is served nothing.

        Raises
        ------
        UnknownUserError, TransientError
        """
        workspace = self._workspace
        with transient_errors("starters were chosen"), workspace.engine.connect() as connection:
            active = workspace.source.is_active(connection, user_id)
            if active is None:
                raise UnknownUserError(user_id)
            if not active:
                return None
            now, user = jobs.database_time(connection), UserRange(user_id, user_id)
            rules = workspace.source.rules(connection, user, as_of=now)
            away = workspace.source.away(connection, user, workspace.rest(now))
            popularity = self._popularity_of(connection)
        excluded = enabled_matrix([user_id], rules)[0] | enabled_matrix([user_id], away)[0]
        lacking = [entry for entry, out in zip(ALERT_TYPES, excluded.tolist(), strict=True) if not out]
        lacking.sort(key=lambda entry: -popularity.get(entry.key, 0))
        return [_starter(entry, workspace.policy.words) for entry in lacking[:N_STARTERS]]

    def _popularity_of(self, connection: Any) -> Mapping[str, int]:
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._popularity = self._workspace.source.n_users_by_type(connection)
                self._good_until = time.monotonic() + _POPULARITY_GOOD_FOR_SECONDS
            return self._popularity


def _starter(entry: AlertType, words: Words) -> dict[str, Any]:
    parameters = dict(entry.parameters)
    return {
        "recommendation_id": None,
        "alert_type": entry.key,
        "recommendation_type": PLACEHOLDER,
        **rule_texts(entry, parameters, words),
        "category": entry.category,
        "priority": MEDIUM,
        "reasoning": _REASONING,
        "probability": None,
        "confidence_level": LOW,
        "parameters": parameters,
        "would_have_fired": None,
        "reasons": [],
        "change": None,
        "model_version": None,
        "experiment": None,
        "variant": None,
        "expires_at": None,
    }
