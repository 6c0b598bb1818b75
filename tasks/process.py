"""What one process keeps between tasks: its workspace, opened at first use and never across a fork."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alertrec.workspace import Workspace

_workspace: Workspace | None = None


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


def forget_workspace() -> None:
    """Drop what a parent process opened: its sockets are not ours to use or to close."""
    global _workspace  # noqa: PLW0603
    if _workspace is not None:
        _workspace.engine.dispose(close=False)
        _workspace = None
