"""File locks that vanish with their process, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

USERS = "users.lock"  # shared: a process inside `servers`; exclusive: the supervisor that found none
START = "start.lock"  # exclusive: the user who decides whether to start a supervisor
SUPERVISOR = "supervisor.lock"  # exclusive: the supervisor, for its whole life
SERVING = "serving.lock"  # exclusive: the supervisor, from ready servers to the decision to stop

SHARED = fcntl.LOCK_SH
EXCLUSIVE = fcntl.LOCK_EX


def open_file(path: Path) -> int:
    """Open a lock file, making it if need be; the descriptor is not inherited by child processes."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def acquire(descriptor: int, kind: int) -> bool:
    """Take the lock, or change the kind of the one held, without waiting.

    Where a change is refused, the kernel has dropped the lock held before.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def hold(path: Path, kind: int, *, seconds: float) -> int | None:
    """Open and lock a file; return its descriptor, or None if others held it for all the time."""
    descriptor = open_file(path)
    if wait_until(lambda: acquire(descriptor, kind), seconds):
        return descriptor
    os.close(descriptor)
    return None


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock exclusively; a file that does not exist is held by nobody."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not see each other.
        return not acquire(descriptor, SHARED)
    finally:
        os.close(descriptor)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask until the condition holds; return False if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
