"""What is live: who has the page open learns that their list was written, by any worker, in any web process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import redis.asyncio as redis

from alertrec.announcing import channel_of
from alertrec.errors import first_line

logger = logging.getLogger(__name__)

_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_SILENCE_SECONDS = 10.0  # after which the broker is asked whether it is there

Signal = asyncio.Event


class Hub:
    """Hands announcements on to the browsers that this process serves; for one event loop."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._listeners: dict[str, set[Signal]] = {}
        self._task: asyncio.Task[None] | None = None
        self.is_live = False  # whether the broker is heard; without it, nobody listens to anything

    @property
    def n_listeners(self) -> int:
        """How many browsers listen."""
        return sum(map(len, self._listeners.values()))

    def start(self) -> None:
        """Begin to listen to the broker, and go on for as long as the process runs, whatever becomes of the broker."""
        self._task = asyncio.create_task(self._run(), name="announcements")

    async def stop(self) -> None:
        """Let go of the broker and of all who listen."""
        self._lose()
        # A client that is about to connect may swallow the first request to end.
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)

    async def wait(self, signal: Signal, seconds: float) -> bool:
        """Wait until a listener is told something; False after that time, or once the broker is no longer heard."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(signal.wait(), seconds)
        was_told = signal.is_set() and self.is_live
        signal.clear()
        return was_told

    @contextmanager
    def listening(self, user_id: str) -> Iterator[Signal]:
        """Yield a signal for `wait`, which is set whenever the user's list was written."""
        signal = Signal()
        self._listeners.setdefault(user_id, set()).add(signal)
        try:
            yield signal
        finally:
            self._listeners[user_id].discard(signal)
            if not self._listeners[user_id]:
                del self._listeners[user_id]

    async def _run(self) -> None:
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                async with redis.Redis.from_url(self._url, socket_connect_timeout=5) as client, client.pubsub() as sub:
                    await sub.subscribe(channel_of(self._url))
                    self.is_live, pause = True, _SHORTEST_PAUSE_SECONDS
                    await self._hear(sub)
            except Exception as error:  # whatever it is, not to listen any more would be worse
                logger.warning("the broker is away: %s", first_line(error), extra={"action": "announcements_lost"})
            self._lose()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _lose(self) -> None:
        """End all listening: browsers say so, connect anew, and look for what they missed."""
        self.is_live = False
        self._tell(list(self._listeners))

    async def _hear(self, sub: redis.client.PubSub) -> None:
        """Hand on what is said, until the broker is silent though it was asked: the connection is dead then."""
        was_asked = False
        while True:
            message = await sub.get_message(ignore_subscribe_messages=True, timeout=_SILENCE_SECONDS)
            if message is not None:
                was_asked = False
                if message["type"] == "message":
                    self._tell(_users_of(message["data"]))
            elif was_asked:
                raise ConnectionError(f"the broker said nothing for {_SILENCE_SECONDS:.0f} s")
            else:
                await sub.ping()
                was_asked = True

    def _tell(self, user_ids: list[str]) -> None:
        for user_id in user_ids:
            for signal in self._listeners.get(user_id, ()):
                signal.set()


def _users_of(message: bytes) -> list[str]:
    """Return the users that a message names; none where it is not one of ours."""
    try:
        user_ids = json.loads(message)["user_ids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [user_id for user_id in user_ids if isinstance(user_id, str)] if isinstance(user_ids, list) else []
