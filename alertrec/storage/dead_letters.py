"""Rows of messages that were given up: which task, why, after how many runs; never what they held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, text

# The reason of a letter that tells of no fault of ours, and of nothing lost.
UNKNOWN_USER = "asked for a user that is not known"


@dataclass(frozen=True)
class DeadLetter:
    """A message that is not tried again.

    Attributes
    ----------
    task, message_id : str or None
        As the message has them; None where it has none that can be read.
    reason : str
        The kind of error and the place that it came from. No argument and nothing that an error says: these may be
        customers' data.
    n_runs : int
        How often it was begun; 0 for a message that was refused at the door.
    """

    task: str | None
    queue: str | None
    message_id: str | None
    reason: str
    n_runs: int


# Delivered once more, after whoever wrote the row died before acknowledging the message, it stays one row.
_INSERT = text("""
    INSERT INTO alertrec.dead_letters AS known (id, task, queue, message_id, reason, n_runs)
    VALUES (:id, :task, :queue, :message_id, :reason, :n_runs)
    ON CONFLICT (message_id) DO UPDATE
    SET reason = excluded.reason, n_runs = greatest(known.n_runs, excluded.n_runs), recorded_at = now()
""")
_DELETE_OLD = text("DELETE FROM alertrec.dead_letters WHERE recorded_at < now() - make_interval(days => :days)")


def insert(connection: Connection, letters: Iterable[DeadLetter]) -> None:
    """Write a row for each message; one that has a row already keeps it, with the newer reason."""
    rows: list[dict[str, Any]] = [{"id": uuid4(), **asdict(letter)} for letter in letters]
    if rows:
        connection.execute(text("SET LOCAL statement_timeout = '2s'"))  # who writes watches over workers meanwhile
        connection.execute(_INSERT, rows)


def delete_old(connection: Connection, days: int) -> int:
    """Delete what was written more than `days` ago, and return how many rows."""
    return connection.execute(_DELETE_OLD, {"days": days}).rowcount
