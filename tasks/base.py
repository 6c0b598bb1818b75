"""The class of all tasks: bounded publishing, bounded failure, and nothing about customers in headers or logs."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Task
from celery.exceptions import CeleryError, Reject
from celery.exceptions import Retry as TryAgain
from celery.result import AsyncResult
from celery.utils import uuid
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps
from redis.backoff import NoBackoff
from redis.retry import Retry

from alertrec import tracing
from alertrec.errors import (
    AlertrecError,
    DataError,
    QueueUnavailableError,
    TransientError,
    UnknownUserError,
    first_line,
)
from tasks.envelope import MAX_BODY_BYTES

# Of one message: the first and three more, whether an error that passes or the death of its process ended one.
MAX_RUNS = 4

# A waiting request for a user's list stands for all that come meanwhile; after this, a lost one is asked for again.
_WAITING_SECONDS = 60
_TIMEOUT_SECONDS = 0.75


class AskedForNobodyError(DataError):
    """A message names a user that is not known. It does not say which, since logs and Flower show it."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return f"{self.task} was asked for a user that is not known"


class TaskFailedError(AlertrecError):
    """A task failed in a way that nobody foresaw; says what kind of error came from where, and not what it said."""

    def __init__(self, task: str, kind: str, place: str) -> None:
        super().__init__(task, kind, place)
        self.task, self.kind, self.place = task, kind, place

    def __str__(self) -> str:
        return f"{self.task} failed with {self.kind} at {self.place}"


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
    max_retries = MAX_RUNS - 1
    default_retry_delay = 5  # after a lost worker
    shows_arguments = False
    Request = "tasks.request:CheckedRequest"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and let only such errors out as tell nothing of a customer: they go to logs, events and Flower.

        MemoryError would end the whole worker; it becomes an ordinary failure of this one task.
        """
        try:
            with self._traced():
                return super().__call__(*args, **kwargs)
        except UnknownUserError:
            raise AskedForNobodyError(self.name) from None
        except (AlertrecError, CeleryError, SoftTimeLimitExceeded):
            raise
        except Exception as error:
            raise TaskFailedError(self.name, type(error).__name__, _place(error)) from None

    def retry(self, *args: Any, **options: Any) -> Any:
        """Send the task again for later; where the broker does not take it, the present message goes back as it is."""
        try:
            return super().retry(*args, **options)
        except Reject as error:
            # Celery would drop the message, and an event with it.
            raise Reject(error.args[0], requeue=True) from None

    def apply_async(  # type: ignore[override]  # the stub lists each option by name
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> _Result:
        """Send the task.

        Raises
        ------
        DataError
            If the arguments are no JSON, or too large for a message: a message names what is to be done, and what it
            is to be done with stands in the tables.
        QueueUnavailableError
            If the broker does not take it, within two seconds.
        """
        self._check_size(args, kwargs)
        if not self.shows_arguments:
            options.setdefault("argsrepr", "(...)")
            options.setdefault("kwargsrepr", "{...}")
        try:
            with tracing.sending(self.name) as headers:
                if headers:
                    options["headers"] = {**(options.get("headers") or {}), **headers}
                return super().apply_async(tuple(args or ()), dict(kwargs or {}), **options)
        except (OperationalError, redis.RedisError, OSError) as error:
            raise QueueUnavailableError(f"the broker did not take {self.name}: {first_line(error)}") from error

    def _traced(self) -> AbstractContextManager[None]:
        request = self.request
        return tracing.running(
            self.name,
            sent_by=request.get("traceparent"),
            task_id=request.id,
            n_retries=request.retries,
            no_failures=(TryAgain,),
        )

    def _check_size(self, *arguments: object) -> None:
        try:
            n_bytes = len(dumps(arguments).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"the arguments of {self.name} are no JSON ({type(error).__name__})") from None
        if n_bytes > MAX_BODY_BYTES:
            raise DataError(f"the arguments of {self.name} have {n_bytes} bytes; at most {MAX_BODY_BYTES} are taken")


class EventTask(AlertrecTask):
    """A task with an event as its only argument, which gets its id and time when it is sent.

    Its message is all that there is of the event: it is tried for some eight hours, every half minute in the end.
    """

    max_retries = 1000

    def apply_async(  # type: ignore[override]  # the stub lists each option by name
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> _Result:
        """Send the task; delivered twice, it is one event."""
        given = [*(args or ()), *(kwargs or {}).values()]
        if len(given) == 1 and isinstance(given[0], dict):
            defaults = {"event_id": uuid(), "occurred_at": datetime.now(UTC).isoformat()}
            known = {name: value for name, value in given[0].items() if value is not None}
            given = [{**defaults, **known}]
        return super().apply_async(given, None, **options)


class TrainingTask(AlertrecTask):
    """A task whose message says when it was asked for: a training that began later answers it.

    It is a header, of which workers of the last release, who know no such argument, take no notice.
    """

    def apply_async(  # type: ignore[override]  # the stub lists each option by name
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> _Result:
        """Send the task."""
        asked = {"asked_at": self.request.get("asked_at") or self._now()}
        return super().apply_async(args, kwargs, **{**options, "headers": {**asked, **(options.get("headers") or {})}})

    def _now(self) -> str:
        try:
            return broker_time(self.app.conf.broker_url).isoformat()
        except (redis.RedisError, OSError) as error:
            raise QueueUnavailableError(f"the broker did not take {self.name}: {first_line(error)}") from error

    def age_of_request(self) -> timedelta | None:
        """Return how long ago the message that is worked on was sent; None where it does not say."""
        asked_at = self.request.get("asked_at")
        if not asked_at:
            return None
        return broker_time(self.app.conf.broker_url) - datetime.fromisoformat(asked_at)


class OncePerUserTask(AlertrecTask):
    """A task with a user's id as its only argument, sent once while it waits."""

    def apply_async(  # type: ignore[override]  # the stub lists each option by name
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> _Result:
        """Send the task, unless the same one waits already; then that one's result is returned."""
        given = [*(args or ()), *(kwargs or {}).values()]
        if len(given) != 1 or not isinstance(given[0], str):
            raise DataError(f"{self.name} takes one argument, the user's id as a text")
        user_id = given[0]
        self._check_size(given)
        key, task_id = self._waiting_key(user_id), options.setdefault("task_id", uuid())
        try:
            client = broker_client(self.app.conf.broker_url)
            if not client.set(key, task_id, nx=True, ex=_WAITING_SECONDS):
                waiting = str(client.get(key) or task_id)
                if waiting != task_id:  # its own mark must not hold back a retry
                    return AsyncResult(waiting, app=self.app)
            return super().apply_async(args, kwargs, **options)
        except QueueUnavailableError:
            with contextlib.suppress(redis.RedisError):
                broker_client(self.app.conf.broker_url).delete(key)  # what was not sent does not wait
            raise
        except redis.RedisError as error:
            raise QueueUnavailableError(f"the broker did not take {self.name}: {first_line(error)}") from error

    def begin(self, user_id: str) -> None:
        """Say that the work has begun: a request from now on is about a newer state, and is sent again."""
        with contextlib.suppress(redis.RedisError):  # the mark ends by itself; the work is what matters
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


def broker_time(url: str) -> datetime:
    """Return the time by the broker's clock, which senders and workers share; raises `redis.RedisError`."""
    seconds, microseconds = broker_client(url).time()
    return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)


def _place(error: Exception) -> str:
    """Return the module and line that an error comes from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
