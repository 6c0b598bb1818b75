"""How tables that are in use are migrated: in steps, each a transaction of its own, none of which locks for long.

What a step has done stays done. A migration that was broken off is run again from its beginning, so each of its steps
may find its work done.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import psycopg
from psycopg.errors import LockNotAvailable
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection

from alertrec.storage import locks
from alertrec.storage.database import driver_connection
from alertrec.storage.tables import OWN_SCHEMA

_PATIENCE_MS = 200
_PAUSE_SECONDS = 0.3
_MOST_TRIES = 120

Commit = Callable[[], None]


@contextlib.contextmanager
def in_steps(connection: Connection) -> Iterator[Commit]:
    """Yield what ends a step and begins the next; the last one is committed by the caller, with the new revision.

    What was migrated before is committed first.
    """
    # The driver's own commit, beneath SQLAlchemy: to whoever called, it is one transaction still.
    driver = driver_connection(connection)

    def commit() -> None:
        driver.commit()
        driver.execute("SELECT pg_advisory_xact_lock(%s)", [locks.MIGRATION])

    # The lock of a transaction ends with each of them; that of the session keeps others out in between.
    driver.execute("SELECT pg_advisory_lock(%s)", [locks.MIGRATION])
    try:
        commit()
        yield commit
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            driver.rollback()
            driver.execute("SELECT pg_advisory_unlock(%s)", [locks.MIGRATION])
        raise
    driver.execute("SELECT pg_advisory_unlock(%s)", [locks.MIGRATION])


def lock(connection: Connection, *tables: str) -> None:
    """Lock tables of ours for the rest of this step, which is to be a short one, and to have done nothing before.

    Whoever comes after one who waits for such a lock waits as well, readers too: so the wait is short, and tried again
    between the transactions of workers. Where these leave no gap for more than a minute, it is waited for.
    """
    driver = driver_connection(connection)
    names = SQL(", ").join(Identifier(OWN_SCHEMA, table) for table in tables)
    statement = SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names)
    for _ in range(_MOST_TRIES):
        with contextlib.suppress(LockNotAvailable), driver.transaction():
            driver.execute(SQL("SET LOCAL lock_timeout = {}").format(_PATIENCE_MS))
            driver.execute(statement)
            driver.execute("SET LOCAL lock_timeout = 0")
            return
        time.sleep(_PAUSE_SECONDS)
    driver.execute(statement)
