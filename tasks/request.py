"""How a worker takes a message that is no call of a task."""

from __future__ import annotations

from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.request import Request


class CheckedRequest(Request):
    """A request whose message may be any JSON: what is no call is rejected, where Celery would end the worker."""

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(message, *args, **kwargs)
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidTaskError(f"the body of a message is no call of a task ({type(error).__name__})") from None
