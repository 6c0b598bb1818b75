"""The users' side: enter, join or start, leave."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import alertrec
from alertrec.embedded import locks, state
from alertrec.embedded.logs import fresh_log, tail
from alertrec.errors import ConfigError, TransientError

START_SECONDS = 120.0
NOTICE_SECONDS = 5.0  # many times what a supervisor needs to see that nobody is left
STOP_SECONDS = 15.0

_memberships: set[int] = set()


def prepare(home: Path) -> None:
    """Make the data directory, private to this account; one that exists is left as it is."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the data directory {home} cannot be used: {error.strerror}") from error


def enter(home: Path) -> int:
    """Become a user: from here on no supervisor decides to stop. Return the membership, for `leave`."""
    # A supervisor that is stopping keeps the lock to itself until it is gone.
    membership = locks.hold(home / locks.USERS, locks.SHARED, seconds=START_SECONDS)
    if membership is None:
        raise TransientError(f"the embedded servers of {home} have been stopping for {START_SECONDS:.0f} s; try again")
    _leave_memberships_to_the_parent()
    _memberships.add(membership)
    return membership


def join(home: Path) -> state.Servers:
    """Return the URLs of servers that are up, started here if nobody else has."""
    deciding = locks.hold(home / locks.START, locks.EXCLUSIVE, seconds=START_SECONDS)
    if deciding is None:
        raise TransientError(f"another process has been starting the embedded servers of {home} for too long")
    try:
        # A supervisor that does not serve is starting, its starter killed, or stopping, by a signal.
        locks.wait_until(lambda: _is_serving(home) or not _is_running(home), START_SECONDS)
        if not _is_serving(home):
            _start(home)
    finally:
        os.close(deciding)
    access = state.load(home)
    assert access is not None, "servers are up whose ports were not written"
    return access.urls()


def leave(home: Path, membership: int) -> None:
    """Stop being a user; the last one waits, within limits, until the supervisor is gone."""
    if membership not in _memberships:
        return  # a forked child: the lock is its parent's
    _memberships.discard(membership)
    # The change from shared to exclusive succeeds for the last user only; if it is refused and not even a shared
    # lock is to be had, the supervisor has already taken over, so this was the last user too.
    last = locks.acquire(membership, locks.EXCLUSIVE) or not locks.acquire(membership, locks.SHARED)
    os.close(membership)
    # Still serving after the notice: a new user has come. Serving again: a new user has started anew.
    if last and locks.wait_until(lambda: not _is_serving(home), NOTICE_SECONDS):
        locks.wait_until(lambda: not _is_running(home) or _is_serving(home), STOP_SECONDS)


def _is_serving(home: Path) -> bool:
    return locks.is_held(home / locks.SERVING)


def _is_running(home: Path) -> bool:
    return locks.is_held(home / locks.SUPERVISOR)


def _start(home: Path) -> None:
    log = home / "logs" / "supervisor.log"
    command = [sys.executable, "-m", "alertrec.embedded", str(home)]
    # A session of its own: Ctrl-C in the terminal must reach the servers' users only, who still have to drain.
    # The working directory makes this very package importable, also from a checkout that is not installed.
    with (
        fresh_log(log) as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            cwd=Path(alertrec.__file__).parents[1],
        ) as process,
    ):
        try:
            answer = process.communicate(timeout=START_SECONDS)[0].decode()
        except subprocess.TimeoutExpired as error:
            problem = f"the embedded servers did not start within {START_SECONDS:.0f} s; {tail(log)}"
            raise TransientError(problem) from error
    if answer != "ready":
        kind, _, message = answer.partition(": ")
        raise {"ConfigError": ConfigError}.get(kind, TransientError)(
            message or f"the embedded servers did not start; {tail(log)}"
        )


@functools.cache
def _leave_memberships_to_the_parent() -> None:
    # A pool's forked workers must not keep the servers up when their parent has been killed.
    def forget() -> None:
        for membership in _memberships:
            os.close(membership)
        _memberships.clear()

    os.register_at_fork(after_in_child=forget)
