"""How a worker refuses a message: recorded, never run, and without its body in the log, where Celery shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from kombu.exceptions import ContentDisallowed
from kombu.message import Message

from tasks.envelope import ERRORS_OF_MESSAGES, readable
from tasks.process import give_up
from tasks.request import RefusedError

logger = logging.getLogger(__name__)

_Consumer: Any = Consumer  # its stub lacks much of what is used here


class CheckedConsumer(_Consumer):  # type: ignore[misc]  # see above
    """A consumer that no message can bring down."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:
        """Return what is called with each message."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_any(message: Message) -> None:
            try:
                handle(message)
            except ERRORS_OF_MESSAGES as error:
                self._refuse(message, _reason(error))

        return handle_any

    def on_unknown_message(self, body: Any, message: Message) -> None:  # noqa: ARG002  # as Celery calls it
        """Refuse what is no call of a task."""
        self._refuse(message, "a message that is no call of a task")

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:  # noqa: ARG002  # as Celery calls it
        """Refuse a call of a task that there is none of."""
        self._refuse(message, "an unknown task")

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:  # noqa: ARG002  # as Celery calls it
        """Refuse a call that cannot be made."""
        self._refuse(message, _reason(exc))

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Refuse what cannot be read."""
        self._refuse(message, _reason(exc))

    def _refuse(self, message: Message, reason: str) -> None:
        headers, delivery = message.headers, message.delivery_info
        queue = readable(delivery.get("routing_key"))
        give_up(readable(headers.get("task")), queue, readable(headers.get("id")), reason, n_runs=0)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError):
        return str(error)
    if isinstance(error, ContentDisallowed):
        return "a body of a type that is not taken (ContentDisallowed)"
    return f"a message that cannot be read ({type(error).__name__})"
