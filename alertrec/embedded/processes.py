"""A server's process: started so that it does not outlive its supervisor, and stopped step by step."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alertrec.embedded import locks
from alertrec.embedded.logs import fresh_log, tail
from alertrec.errors import TransientError

# Nothing of the caller's environment: neither its locale nor its PG* variables may change a server.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
STOP_SECONDS = 30.0  # to write everything to a slow disk
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Account:
    """The account that a process runs as; None in both: the account of the supervisor."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def nobody(cls) -> Account:
        """Return the account without rights that every Unix has."""
        entry = pwd.getpwnam("nobody")
        return cls(entry.pw_uid, entry.pw_gid)

    def give(self, path: Path) -> None:
        """Make this account the owner of a path that the supervisor has just made."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True)
class Server:
    """A server that was started; `is_ready` says whether it takes connections yet."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    is_ready: Callable[[], bool]

    def check(self) -> None:
        """Raise TransientError if the process has ended."""
        if self.process.poll() is not None:
            raise TransientError(f"{self.name} ended with status {self.process.returncode}; {tail(self.log)}")


@dataclass(frozen=True)
class Recipe:
    """How to start and stop a server."""

    name: str
    command: Sequence[str | Path]
    log: Path
    lock: Path
    pid_file: Path
    stop_signal: signal.Signals
    is_ready: Callable[[int], bool]
    account: Account = Account()


@contextlib.contextmanager
def run(recipe: Recipe) -> Iterator[Server]:
    """Start a server and stop it in the end, after a leftover of a killed supervisor, if there is one."""
    lock = _lock_without_leftover(recipe)
    try:
        with fresh_log(recipe.log) as log:
            # The server inherits the lock: it is free again at the moment at which the last of its processes ends.
            process = spawn(recipe.command, recipe.stop_signal, recipe.account, output=log.fileno(), keep=(lock,))
        try:
            yield Server(recipe.name, process, recipe.log, lambda: recipe.is_ready(process.pid))
        finally:
            _stop(process, recipe.stop_signal)
    finally:
        os.close(lock)


def spawn(
    command: Sequence[str | Path],
    stop_signal: signal.Signals,
    account: Account,
    *,
    output: int,
    keep: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a process that, on Linux, gets `stop_signal` when the supervisor dies."""
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=output,
        stderr=output,
        pass_fds=keep,
        env=ENVIRONMENT,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=None if account.uid is None else [],
        # The supervisor has one thread, which is what makes this safe.
        preexec_fn=_die_with_parent(stop_signal, os.getpid()),  # noqa: PLW1509
    )


def complete(command: Sequence[str | Path], account: Account, log: Path, *, script: str = "") -> None:
    """Run a program to its end, with `script` as its input.

    Raises
    ------
    TransientError
        If it ends with another status than 0; the message carries the end of its log.
    """
    with fresh_log(log) as output:
        process = spawn(command, signal.SIGTERM, account, output=output.fileno(), stdin=subprocess.PIPE)
    try:
        process.communicate(script.encode())
    finally:
        _stop(process, signal.SIGTERM)
    if process.returncode:
        raise TransientError(f"{Path(command[0]).name} ended with status {process.returncode}; {tail(log)}")


def _die_with_parent(stop_signal: signal.Signals, parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None  # there the next start stops what was left over
    prctl = ctypes.CDLL(None).prctl

    def ask_for_signal() -> None:
        # Runs after the change of account, which would take the wish back.
        prctl(PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_for_signal


def _stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    for number in (stop_signal, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def _lock_without_leftover(recipe: Recipe) -> int:
    lock = locks.hold(recipe.lock, locks.EXCLUSIVE, seconds=0)
    for number in (recipe.stop_signal, signal.SIGKILL):
        if lock is None:
            # The lock is inherited by this server alone, so while it is held, the pid in the file is not stale.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(int(recipe.pid_file.read_text().split()[0]), number)
            lock = locks.hold(recipe.lock, locks.EXCLUSIVE, seconds=STOP_SECONDS)
    if lock is None:
        raise TransientError(f"{recipe.name} of an earlier start still runs and does not stop; see {recipe.pid_file}")
    # What is left of the file is stale, even if its number has been given to another process since.
    recipe.pid_file.unlink(missing_ok=True)
    return lock
