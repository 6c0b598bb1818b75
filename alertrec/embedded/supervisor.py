"""The supervisor: starts both servers, and stops them when no user is left."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from alertrec.embedded import locks, postgres, state, valkey
from alertrec.embedded.processes import Server, run
from alertrec.errors import AlertrecError, TransientError

READY_SECONDS = 90.0
POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


def main(home: Path) -> None:
    """Supervise in the background; the starter reads `ready`, or an error, from standard output."""
    if os.fork():
        os._exit(0)  # an orphan, so that it leaves no zombie to whoever happened to start it
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    try:
        supervise(home)
    except AlertrecError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all; a traceback would hide it
        _tell_starter(f"{type(error).__name__}: {error}")
        sys.exit(1)


def supervise(home: Path) -> None:
    """Run both servers of a data directory until it has no users.

    Raises
    ------
    TransientError
        If another supervisor is alive, a server does not come up in time, or one ends on its own.
    """
    # Kept open until the process ends: who finds the lock free can be sure that everything has stopped.
    if (alive := locks.hold(home / locks.SUPERVISOR, locks.EXCLUSIVE, seconds=5)) is None:
        raise TransientError(f"another supervisor of {home} is alive; try again")
    os.ftruncate(alive, 0)
    os.write(alive, f"{os.getpid()}\n".encode())
    users = locks.open_file(home / locks.USERS)
    directory = os.open(home, os.O_RDONLY)
    where = postgres.place(home)
    access = _prepare(home, where)
    with ExitStack() as stack:
        recipes = (postgres.recipe(home, where, access), valkey.recipe(home, access))
        servers = [stack.enter_context(run(each)) for each in recipes]
        _serve(home, users, servers)
    logger.info("stopped")
    if where.room != home and os.fstat(directory).st_nlink == 0:
        # The data directory was deleted, not moved: nobody can find this cluster any more.
        shutil.rmtree(where.room)


def _prepare(home: Path, where: postgres.Place) -> state.Access:
    log = home / "logs" / "initdb.log"
    known = state.load(home)
    access = known or state.Access.new()
    if not where.cluster.exists():
        postgres.make_cluster(where, access, log)
    elif known is None:
        postgres.set_password(where, access, log)
    access = access.with_free_ports()
    if access != known:
        state.save(home, access)
    return access


def _serve(home: Path, users: int, servers: Sequence[Server]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not all(each.is_ready() for each in servers):
        _pause(servers)
        if time.monotonic() > deadline:
            late = next(each for each in servers if not each.is_ready())
            raise TransientError(f"{late.name} was not ready after {READY_SECONDS:.0f} s; see {late.log}")
    if locks.acquire(users, locks.EXCLUSIVE):
        return  # whoever wanted the servers has gone meanwhile
    serving = locks.hold(home / locks.SERVING, locks.EXCLUSIVE, seconds=5)
    assert serving is not None, "only a supervisor holds this lock, and there is one"
    logger.info("ready")
    _tell_starter("ready")
    # The exclusive lock is kept until the process ends: who comes now waits, and then starts anew.
    try:
        while not locks.acquire(users, locks.EXCLUSIVE):
            _pause(servers)
    finally:
        os.close(serving)


def _pause(servers: Sequence[Server]) -> None:
    for each in servers:
        each.check()
    time.sleep(POLL_SECONDS)


def _tell_starter(answer: str) -> None:
    try:
        os.write(1, answer.encode())
    except BrokenPipeError:
        logger.info("the starter has gone")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _leave(_number: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)
