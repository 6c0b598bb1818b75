"""The class of all tasks: bounded publishing, bounded failure, and nothing about customers in headers or logs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import redis
from celery import Task
from celery.result import AsyncResult
from celery.utils import uuid
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from alertrec.errors import AlertrecError, QueueUnavailableError, TransientError

# A waiting request for a user's list stands for all that come meanwhile; after this, a lost one is asked for again.
_WAITING_SECONDS = 60
_TIMEOUT_SECONDS = 0.75


class OutOfMemoryError(AlertrecError):
    """A task needed more memory than there is; raised in place of MemoryError, which would end the whole worker."""


if TYPE_CHECKING:
    _Task = Task[Any, Any]
    _Result = AsyncResult[Any]
else:  # the classes take type arguments in their stubs only
    _Task, _Result = Task, AsyncResult


class AlertrecTask(_Task):
    """A task whose publishing ends within two seconds, and which may run twice.

    Attributes
    ----------
    shows_arguments : bool
        Whether arguments may stand in message headers, events and Flower: ids of jobs may, what concerns a customer
        may not.
    """

    autoretry_for = (TransientError,)
    retry_backoff = 1
    retry_backoff_max = 60
    retry_jitter = True
    max_retries = 5
    default_retry_delay = 5  # after a lost worker
    shows_arguments = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and let a lack of memory be an ordinary failure of this one task."""
        try:
            return super().__call__(*args, **kwargs)
        except MemoryError as error:
            raise OutOfMemoryError(f"{self.name} ran out of memory") from error

    def apply_async(  # type: ignore[override]  # the stub lists each option by name
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> _Result:
        """Send the task.

        Raises
        ------
        QueueUnavailableError
            If the broker does not take it, within two seconds.
        """
        if not self.shows_arguments:
            options.setdefault("argsrepr", "(...)")
            options.setdefault("kwargsrepr", "{...}")
        try:
            return super().apply_async(tuple(args or ()), dict(kwargs or {}), **options)
        except (OperationalError, redis.RedisError, OSError) as error:
            raise QueueUnavailableError(f"the broker did not take {self.name}: {_first_line(error)}") from error


class OncePerUserTask(AlertrecTask):
    """A task with a user's id as its only argument, sent once while it waits."""

    def apply_async(  # type: ignore[override]  # the stub lists each option by name
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> _Result:
        """Send the task, unless the same one waits already; then that one's result is returned."""
        (user_id,) = [*(args or ()), *(kwargs or {}).values()]
        key, task_id = self._waiting_key(user_id), options.setdefault("task_id", uuid())
        try:
            if not broker_client(self.app.conf.broker_url).set(key, task_id, nx=True, ex=_WAITING_SECONDS):
                waiting = broker_client(self.app.conf.broker_url).get(key)
                return AsyncResult(str(waiting or task_id), app=self.app)
            return super().apply_async(args, kwargs, **options)
        except QueueUnavailableError:
            with contextlib.suppress(redis.RedisError):
                broker_client(self.app.conf.broker_url).delete(key)  # what was not sent does not wait
            raise
        except redis.RedisError as error:
            raise QueueUnavailableError(f"the broker did not take {self.name}: {_first_line(error)}") from error

    def begin(self, user_id: str) -> None:
        """Say that the work has begun: a request from now on is about a newer state, and is sent again."""
        broker_client(self.app.conf.broker_url).delete(self._waiting_key(user_id))

    def _waiting_key(self, user_id: str) -> str:
        return f"{self.name}:waiting:{user_id}"


@lru_cache(maxsize=4)
def broker_client(url: str) -> redis.Redis:
    """Return a client of the broker that gives up in under a second."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
