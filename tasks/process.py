"""What one process keeps: its workspace, opened at first use and never across a fork, and its dead letters."""

from __future__ import annotations

import mmap
import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from alertrec.dead_letters import DeadLetterBox
    from alertrec.workspace import Workspace

_workspace: Workspace | None = None
_stopping = mmap.mmap(-1, 1)  # one byte that a worker shares with the processes that it forks


def workspace() -> Workspace:
    """Return the workspace of this process.

    Raises
    ------
    ConfigError
        If the settings name no database and no embedded one has been started.
    """
    global _workspace  # noqa: PLW0603  # one a process is the point
    if _workspace is None:
        from alertrec.runtime import remembered_settings
        from alertrec.workspace import open_workspace

        _workspace = open_workspace(remembered_settings(os.environ), application_name="alertrec worker")
    return _workspace


def model_version() -> str | None:
    """Return the version of the model that this process holds in memory, if it holds one."""
    return None if _workspace is None else _workspace.champions.version


def forget_workspace() -> None:
    """Drop what a parent process opened: its sockets are not ours to use or to close."""
    global _workspace  # noqa: PLW0603
    if _workspace is not None:
        _workspace.engine.dispose(close=False)
        _workspace = None


def stop() -> None:
    """Say to the processes of this worker that it is to stop: who only waits need not wait any longer."""
    _stopping[0] = 1


def is_stopping() -> bool:
    """Return whether this process' worker is to stop."""
    return bool(_stopping[0])


def give_up(task: str | None, queue: str | None, message_id: str | None, reason: str, *, n_runs: int) -> None:
    """Record that a message is not tried again; see `alertrec.storage.dead_letters.DeadLetter`."""
    from alertrec.storage.dead_letters import DeadLetter

    dead_letters().add(DeadLetter(task, queue, message_id, reason, n_runs))


@cache
def dead_letters() -> DeadLetterBox:
    """Return the dead letters of this process."""
    from alertrec.dead_letters import DeadLetterBox

    return DeadLetterBox(_letters_engine)


def _letters_engine() -> Engine:
    # Not the workspace, which loads libraries with threads: the process that watches over workers forks them.
    from alertrec.runtime import remembered_settings
    from alertrec.storage.database import create_engine

    settings = remembered_settings(os.environ)
    assert settings.database_url is not None  # a worker does not start without
    return create_engine(settings.database_url, application_name="alertrec worker: dead letters")
