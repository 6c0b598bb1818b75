"""Reading users' lists, the one thing that a bank's web app does all day.

PostgreSQL makes the JSON, so that a row passes through as it is. Requests that arrive while a query is under way are
answered by the next one, together: one round trip serves them all, which at some thousand requests a second costs a
third of a query for each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from alertrec import tracing
from alertrec.errors import DataError, TransientError, first_line
from alertrec.storage.database import NETWORK_OPTIONS, SESSION_OPTIONS

# Queries at the same time. Two keep one process busy: what one parses, the other waits for.
_CONNECTIONS = 2
_TIMEOUT_SECONDS = 3.0
_FIELDS = (
    "recommendation_id", "alert_type", "recommendation_type", "title", "description", "natural_language_query",
    "category", "priority", "reasoning", "probability", "confidence_level", "parameters", "would_have_fired", "reasons",
    "change", "model_version", "experiment", "variant", "expires_at",
)  # fmt: skip
_ITEM = ", ".join(f"'{name}', item.{name}" for name in _FIELDS)  # names of our own
_QUERY = f"""
    SELECT list.user_id, json_build_object(
        'user_id', list.user_id, 'recommendation_type', list.recommendation_type,
        'recommendations', coalesce(
            (SELECT json_agg(json_build_object({_ITEM}) ORDER BY item.rank)
             FROM alertrec.recommendations AS item WHERE item.user_id = list.user_id), '[]'::json),
        'generated_at', list.generated_at, 'expires_at', list.expires_at, 'is_placeholder', false, 'message', null
    )::text
    FROM alertrec.recommendation_lists AS list
    WHERE list.user_id = ANY(%s) AND list.expires_at > now()
"""  # noqa: S608  # no value stands in it


class ListReader:
    """Reads current lists as JSON; for one event loop, between `open` and `close`."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._pool: AsyncConnectionPool[Any] | None = None
        self._waiting: dict[str, asyncio.Future[str | None]] = {}
        self._asker: object = None  # the place in a trace to which the next query belongs
        self._n_queries = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop itself keeps no hold of them

    async def open(self) -> None:
        """Begin to connect; a database that is away is an error of `read`, not of this."""
        self._pool = AsyncConnectionPool(
            self._url,
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            open=False,
            kwargs={
                "autocommit": True,
                **NETWORK_OPTIONS,
                "options": SESSION_OPTIONS,
                "application_name": "alertrec web",
                "prepare_threshold": 0,
            },
        )
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Give the connections back."""
        if self._pool is not None:
            await self._pool.close(timeout=1.0)

    async def read(self, user_id: str) -> str | None:
        """Return the answer to a user's request for their list, as JSON; None without a current one.

        Raises
        ------
        DataError
            If the id is none that a user can have.
        TransientError
            If the database does not answer.
        """
        _check_id(user_id)  # what PostgreSQL would refuse must not fail all who are asked for together
        waiting = self._waiting.get(user_id)
        if waiting is None:
            if not self._waiting:
                self._asker = tracing.here()
            waiting = self._waiting[user_id] = asyncio.get_running_loop().create_future()
            if self._n_queries < _CONNECTIONS:
                self._n_queries += 1
                task = asyncio.create_task(self._answer())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        # Whoever asks may go away; others may wait for the same answer.
        return await asyncio.shield(waiting)

    async def _answer(self) -> None:
        """Answer all who wait, and who have come meanwhile."""
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, {}
                with tracing.at(self._asker):
                    await self._answer_together(asked)
        finally:
            # In the same turn of the loop in which nobody waits any more: who comes next starts a query.
            self._n_queries -= 1

    async def _answer_together(self, asked: Mapping[str, asyncio.Future[str | None]]) -> None:
        try:
            found = await self._query(list(asked))
        except (psycopg.Error, PoolTimeout, OSError) as error:
            _fail(asked, TransientError(f"the database failed while lists were read: {first_line(error)}"))
        except BaseException:
            _fail(asked, TransientError("the server is being stopped"))
            raise
        else:
            for user_id, waiting in asked.items():
                waiting.set_result(found.get(user_id))

    async def _query(self, user_ids: list[str]) -> dict[str, str]:
        # Asking a connection whether it lives, before each query, would double the round trips; after a restart of the
        # server, each of the pool's fails once and is replaced.
        for _ in range(_CONNECTIONS):
            with contextlib.suppress(psycopg.OperationalError):
                return await self._query_once(user_ids)
        return await self._query_once(user_ids)

    async def _query_once(self, user_ids: list[str]) -> dict[str, str]:
        assert self._pool is not None, "lists are read between `open` and `close`"
        async with asyncio.timeout(_TIMEOUT_SECONDS), self._pool.connection() as connection:
            cursor = await connection.execute(_QUERY, (user_ids,), prepare=True)
            return dict(await cursor.fetchall())


def _check_id(user_id: str) -> None:
    try:
        is_text = "\x00" not in user_id and bool(user_id.encode())
    except (TypeError, AttributeError, UnicodeEncodeError):
        is_text = False
    if not is_text:
        raise DataError(f"a user's id is a text that a database can hold, not {type(user_id).__name__} of this kind")


def _fail(asked: Mapping[str, asyncio.Future[Any]], error: TransientError) -> None:
    for waiting in asked.values():
        waiting.set_exception(error)
        waiting.exception()  # somebody may have gone away, and then nobody fetches it
