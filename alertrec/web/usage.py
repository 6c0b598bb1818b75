"""How the list is asked for, counted over all web processes: each adds its counts to the broker's, minute by minute."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from alertrec.errors import TransientError, first_line

logger = logging.getLogger(__name__)

MAX_MINUTES = 24 * 60
_FLUSH_SECONDS = 2.0
_PREFIX = "alertrec:usage:"
_REQUESTS, _FAILURES, _MICROSECONDS, _HITS, _TYPE = "requests", "failures", "microseconds", "hits", "type:"


class Usage:
    """Counts requests for lists; of what was not yet handed on, a process that is killed loses two seconds."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._client = self._connect()
        self._counts: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def count(self, seconds: float, *, kind: str | None, is_hit: bool) -> None:
        """Count a request, answered with a list of a kind; None for one that failed."""
        self._counts[_REQUESTS] += 1
        self._counts[_MICROSECONDS] += round(seconds * 1e6)
        self._counts[_HITS] += is_hit
        self._counts[_FAILURES if kind is None else _TYPE + kind] += 1

    def start(self) -> None:
        """Begin to hand counts on."""
        self._client = self._connect()
        self._task = asyncio.create_task(self._run(), name="usage")

    async def stop(self) -> None:
        """Hand the last counts on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._flush()
        await self._client.aclose()

    async def read(self, n_minutes: int) -> dict[str, Any]:
        """Return the figures of the last minutes, the present one included.

        Raises
        ------
        TransientError
            If the broker does not answer.
        """
        await self._flush()
        now = int(time.time() // 60)
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for minute in range(now - n_minutes + 1, now + 1):
                    pipeline.hgetall(f"{_PREFIX}{minute}")
                stored = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise TransientError(f"the broker failed while metrics were read: {first_line(error)}") from error
        counts: Counter[str] = Counter()
        for minute in stored:
            counts.update({name.decode(): int(value) for name, value in minute.items()})
        return _figures(counts)

    def _connect(self) -> redis.Redis:
        return redis.Redis.from_url(self._url, socket_timeout=1.0, socket_connect_timeout=1.0)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        key = f"{_PREFIX}{int(time.time() // 60)}"
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                for name, value in counts.items():
                    pipeline.hincrby(key, name, value)
                pipeline.expire(key, (MAX_MINUTES + 5) * 60)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            self._counts.update(counts)  # for the next time
            logger.warning("the broker did not take counts: %s", first_line(error), extra={"action": "usage_waits"})


def _figures(counts: Counter[str]) -> dict[str, Any]:
    n_requests = counts[_REQUESTS]
    return {
        "total_requests": n_requests,
        "success_rate": 1 - counts[_FAILURES] / n_requests if n_requests else None,
        "avg_duration": counts[_MICROSECONDS] / 1e6 / n_requests if n_requests else None,
        "cache_hit_rate": counts[_HITS] / n_requests if n_requests else None,
        "recommendation_types": {
            name.removeprefix(_TYPE): count for name, count in sorted(counts.items()) if name.startswith(_TYPE)
        },
    }
