"""How a worker takes a message, and what it does when the process that ran its task is gone."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import redis
from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # its stub lacks it
from celery.exceptions import Ignore, InvalidTaskError, Reject, Retry, Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from alertrec.storage.dead_letters import UNKNOWN_USER
from tasks.base import MAX_RUNS, AskedForNobodyError, TaskFailedError, broker_client
from tasks.envelope import MAX_BODY_BYTES
from tasks.process import give_up

logger = logging.getLogger(__name__)

_LOSSES_KEPT_SECONDS = 86_400
_Request: Any = Request  # its stub lacks much of what is used here
_NOT_GIVEN_UP = (Retry, Ignore, Terminated)


class RefusedError(InvalidTaskError):
    """A message that is no call of its task; says nothing of what it holds."""


class CheckedRequest(_Request):  # type: ignore[misc]  # see above
    """A request whose message may be anything, which is run a bounded number of times, and leaves a row if in vain."""

    _comes_back = False

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        if len(message.body) > MAX_BODY_BYTES:
            raise RefusedError(f"a body of {len(message.body)} bytes; at most {MAX_BODY_BYTES} are taken")
        try:
            super().__init__(message, *args, **kwargs)
            _, _, embedded = self._payload
            self.time_limits = (None, None)  # those of the task: whoever sends a message has no say in it
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise RefusedError(f"a body that is no call of a task ({type(error).__name__})") from None
        if not (isinstance(self.args, list) and isinstance(self.kwargs, dict) and isinstance(embedded, dict)):
            raise RefusedError("a body that is no call of a task")
        if any(embedded.values()):
            raise RefusedError("a call that brings further calls with it, which none of ours does")
        self._check_arguments()

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Do what Celery does, and record a task that will not run again."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        ended_by_us = self._already_cancelled or self._already_revoked
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        if not (self._comes_back or ended_by_us or isinstance(error, _NOT_GIVEN_UP)):
            self._give_up(reason_of_failure(error, exc_info.tb))

    def reject(self, requeue: bool = False) -> None:
        """Hand the message back to the broker, which delivers it again or drops it."""
        self._comes_back = self._comes_back or requeue
        try:
            super().reject(requeue=requeue)
        except redis.RedisError:
            # Taken, and not acknowledged, it is delivered again once this worker, or the broker, has come back.
            logger.warning("a message could not be handed back yet", extra={"action": "message_kept"})

    def _retry_worker_lost(self, exc: Exception, exc_info: Any) -> bool:
        if self._n_lost() >= MAX_RUNS:
            # Celery counts these together with the retries of errors that pass, of which an event may have many.
            self.acknowledge()
            self.send_event("task-failed", exception=type(exc).__name__, traceback="")
            return True
        self._comes_back = super()._retry_worker_lost(exc, exc_info)
        return bool(self._comes_back)

    def _n_lost(self) -> int:
        """Return how many processes this message has cost, the present one included."""
        key = f"alertrec:lost:{self.id}"
        try:
            client = broker_client(self.app.conf.broker_url)
            n_lost = client.incr(key)
            client.expire(key, _LOSSES_KEPT_SECONDS)
        except redis.RedisError:
            return 1  # then the retry cannot be sent either, and the message goes back as it is
        return int(n_lost)

    def _check_arguments(self) -> None:
        try:
            self.task.__header__(*self.args, **self.kwargs)
        except TypeError:
            raise RefusedError(
                f"arguments that this version's task does not take ({len(self.args)} by position, "
                f"{len(self.kwargs)} by name): a message of another version"
            ) from None

    def _give_up(self, reason: str) -> None:
        queue = self.delivery_info.get("routing_key")
        give_up(self.type, queue, self.id, reason, n_runs=(self.request_dict.get("retries") or 0) + 1)


def reason_of_failure(error: BaseException, trace: Any) -> str:
    """Return the kind of error and where it came from, and nothing that it says: that may tell of a customer."""
    if isinstance(error, TaskFailedError):
        return f"{error.kind} at {error.place}"
    if isinstance(error, AskedForNobodyError):
        return UNKNOWN_USER
    if isinstance(error, TimeLimitExceeded):
        return "over its hard time limit (TimeLimitExceeded)"
    if isinstance(error, WorkerLostError):
        how = re.search(r"(signal|exitcode) -?\d+( \(\w+\))?", str(error))
        return f"its process died of {how.group() if how else 'itself'} (WorkerLostError)"
    if isinstance(error, Reject):
        return "rejected by the task (Reject)"
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return f"{type(error).__name__}{place}"
