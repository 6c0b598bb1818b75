"""Telling web processes whose list was written, through the broker: what is live in a browser.

A message may be lost, and nothing hangs on it: the list stands in the table, and a browser that connects anew looks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from alertrec.errors import first_line

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 0.75
# Users in one message: it stays below a hundred kilobytes.
_USERS_A_MESSAGE = 1_000


def channel_of(redis_url: str) -> str:
    """Return the channel of a broker; the number of its database is part of it, since channels know none."""
    return f"alertrec:{urlsplit(redis_url).path.strip('/') or 0}:lists_written"


class Announcer:
    """Says on the broker whose list was written; without one, says nothing."""

    def __init__(self, redis_url: str | None) -> None:
        self._url = redis_url

    def __call__(self, user_ids: Sequence[str]) -> bool:
        """Announce, after the commit; False, and a warning in the log, where the broker does not answer."""
        if self._url is None or not user_ids:
            return False
        try:
            for start in range(0, len(user_ids), _USERS_A_MESSAGE):
                message = json.dumps({"user_ids": user_ids[start : start + _USERS_A_MESSAGE]})
                self._client.publish(channel_of(self._url), message)
        except (redis.RedisError, OSError) as error:
            facts = {"action": "announcement_lost", "n_users": len(user_ids)}
            logger.warning("lists were written unannounced: %s", first_line(error), extra=facts)
            return False
        return True

    @cached_property
    def _client(self) -> redis.Redis:
        assert self._url is not None
        timeouts = {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _TIMEOUT_SECONDS}
        return redis.Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **timeouts)
