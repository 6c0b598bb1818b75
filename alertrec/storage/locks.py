"""What only one process of the whole fleet does at a time: locks that the database frees when their holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, func, select

MIGRATION = 0x616C7274_00000001  # two processes that migrate at once wait for each other
TRAINING = 0x616C7274_00000002
TRAINING_REQUESTS = 0x616C7274_00000003
PROMOTION = 0x616C7274_00000004
CLEANUP = 0x616C7274_00000005


@contextmanager
def alone(engine: Engine, key: int) -> Iterator[bool]:
    """Hold a lock on a connection of its own; yields False at once where another process holds it."""
    with engine.connect() as connection:
        is_held = bool(connection.scalar(select(func.pg_try_advisory_lock(key))))
        connection.commit()  # the lock is the session's; an open transaction would only hold back vacuum
        try:
            yield is_held
        finally:
            if is_held:
                connection.execute(select(func.pg_advisory_unlock(key)))
                connection.commit()
