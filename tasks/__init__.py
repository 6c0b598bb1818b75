"""The Celery app and its tasks; importing them loads neither pandas nor scikit-learn.

A web process sends them as any Celery task::

    from tasks import generate_recommendations

    generate_recommendations.delay("u-0001")

and from async code with `send_async`. Both raise `alertrec.errors.QueueUnavailableError` within two seconds where the
broker does not answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tasks.base import AlertrecTask
from tasks.celery_app import app
from tasks.definitions import (
    cleanup_expired,
    generate_recommendations,
    log_alert_action,
    process_actions,
    refresh_chunk,
    refresh_recommendations,
    tick,
    train_model,
)

if TYPE_CHECKING:
    from celery.result import AsyncResult

__all__ = [
    "app",
    "cleanup_expired",
    "generate_recommendations",
    "log_alert_action",
    "process_actions",
    "refresh_chunk",
    "refresh_recommendations",
    "send_async",
    "tick",
    "train_model",
]


async def send_async(task: AlertrecTask, *args: Any) -> AsyncResult[Any]:
    """Send a task without blocking the event loop.

    Raises
    ------
    QueueUnavailableError
        If the broker does not take it, within two seconds.
    """
    # A thread, since Celery's publishing is synchronous; it is bounded, so threads do not pile up.
    return await asyncio.to_thread(task.apply_async, args)
