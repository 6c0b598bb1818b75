"""The Celery app of a workspace, for processes that are no workers."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from alertrec.errors import QueueUnavailableError
from alertrec.runtime import child_environment
from alertrec.settings import Settings
from alertrec.workspace import Workspace


def celery_app(settings: Settings) -> Celery:
    """Return the app, on the broker of these settings."""
    # The app reads its broker from the environment when it is first used, as in every process of ours.
    os.environ.update(child_environment(settings, {}))
    from tasks import app

    return app


def send(workspace: Workspace, task: str, *args: Any) -> None:
    """Send a task to the workers of a workspace.

    Raises
    ------
    QueueUnavailableError
        If the broker does not take it.
    """
    celery_app(workspace.settings).tasks[task].apply_async(args)


def send_if_possible(workspace: Workspace, task: str, *args: Any) -> bool:
    """Send what stands in the tables, so that a tick would send it as well; False where the broker does not take it."""
    try:
        send(workspace, task, *args)
    except QueueUnavailableError:
        return False
    return True
