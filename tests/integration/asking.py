"""Users who ask for their lists at a steady rate, and how long each waits until the row is there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import redis
from sqlalchemy import Engine, text

from alertrec.announcing import channel_of
from tests.integration.processes import Environment, Send, wait_for


class Asking:
    """Asks for lists, and listens for who is told that theirs was written; then looks whether it was."""

    def __init__(self, env: Environment, engine: Engine, send: Send) -> None:
        self._url, self._engine, self._send = env["ALERTREC_REDIS_URL"], engine, send
        self._asked: dict[str, tuple[float, datetime]] = {}
        self._waited: list[float] = []
        self._over = threading.Event()

    def seconds_waited(self, user_ids: Sequence[str], *, a_second: float) -> list[float]:
        """Return how long each user waited, from before the message was sent; the shortest first."""
        self._waited = []
        started = time.perf_counter()
        for number, user_id in enumerate(user_ids):
            time.sleep(max(0.0, started + number / a_second - time.perf_counter()))
            self._asked[user_id] = time.perf_counter(), datetime.now(UTC)
            self._send("generate_recommendations", user_id)
        wait_for(lambda: len(self._waited) == len(user_ids))
        return sorted(self._waited)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen in a thread."""
        with redis.Redis.from_url(self._url) as client, client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.subscribe(channel_of(self._url))
            thread = threading.Thread(target=self._listen, args=[heard], name="listening")
            thread.start()
            try:
                yield
            finally:
                self._over.set()
                thread.join()

    def _listen(self, heard: redis.client.PubSub) -> None:
        while not self._over.is_set():
            message = heard.get_message(timeout=0.2)
            if message is not None:
                for user_id in self._asked.keys() & set(json.loads(message["data"])["user_ids"]):
                    self._look(user_id)

    def _look(self, user_id: str) -> None:
        """Note how long it took if the list that stands was made after it was asked for."""
        query = text("SELECT generated_at FROM alertrec.recommendation_lists WHERE user_id = :user_id")
        with self._engine.connect() as connection:
            made_at = connection.scalar(query, {"user_id": user_id})
        asked, asked_at = self._asked[user_id]
        if made_at is not None and made_at >= asked_at:
            self._waited.append(time.perf_counter() - asked)
            del self._asked[user_id]


def quantile(sorted_values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    return sorted_values[min(int(len(sorted_values) * share), len(sorted_values) - 1)]
