"""The champion as of now: what it learnt, and the users who came or acted since.

The neighbour model remembers users. One who opens an account, or switches an alert on, is somebody's neighbour at
once and not only after the next training: their rows are laid over the champion's in memory, which gives the model
that a rebuild with the same rows would give. Nothing of it is stored; each process reads it from the tables.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime

from sqlalchemy import Connection

from alertrec.feature_engineering import build_user_features
from alertrec.labels import enabled_matrix
from alertrec.ledger import USER_ID
from alertrec.recommender import AlertRecommenderModel
from alertrec.storage import jobs
from alertrec.storage.source import Source, UserIds

logger = logging.getLogger(__name__)

# How long what was read is good for, and how much longer than the reading took, so that looking stays cheap.
_GOOD_FOR_SECONDS = 2.0
_TIMES_AS_LONG = 20
# Changed users that are laid over at most; where there are more, it is time to train.
_MAX_USERS = 2_000


class Live:
    """Keeps one champion as of now; safe to ask from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version: str | None = None
        self._model: AlertRecommenderModel | None = None
        self._good_until = 0.0

    def model(
        self, connection: Connection, source: Source, version: str, champion: AlertRecommenderModel
    ) -> AlertRecommenderModel:
        """Return the champion with the users who came, acted or left since its training, some seconds old at most."""
        with self._lock:
            if self._version != version or self._model is None or time.monotonic() >= self._good_until:
                started = time.monotonic()
                self._model, self._version = brought_forward(connection, source, champion), version
                took = time.monotonic() - started
                self._good_until = time.monotonic() + max(_GOOD_FOR_SECONDS, _TIMES_AS_LONG * took)
            return self._model


def brought_forward(connection: Connection, source: Source, champion: AlertRecommenderModel) -> AlertRecommenderModel:
    """Return the champion with everybody who came, acted or left since its training, read anew.

    Always from the champion and never from what was laid over before, so that a process that has run for long knows
    what one that has just started does.
    """
    until = champion.card.get("training_window", {}).get("until")
    if until is None:
        return champion
    changed = source.changed_since(connection, datetime.fromisoformat(until), limit=_MAX_USERS)
    gone = source.inactive_among(connection, champion.user_ids)
    if len(changed) == _MAX_USERS:
        facts = {"action": "live_users_cut", "n_users": _MAX_USERS}
        logger.warning("more users changed since the training than are laid over it", extra=facts)
    if not changed and not gone:
        return champion
    now = jobs.database_time(connection)
    data = source.read(connection, UserIds(changed), as_of=now)
    features = build_user_features(data.users, data.transactions, as_of=now)
    features = features.filter(features["amount_count"] > 0)  # who has no purchases is nobody's neighbour
    user_ids = features[USER_ID].to_list()
    labels = enabled_matrix(user_ids, data.rules, champion.alert_columns)
    return champion.with_users(features, labels, gone={*changed, *gone} - set(user_ids))
