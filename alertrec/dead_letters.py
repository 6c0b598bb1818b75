"""Messages that were given up are written down, as soon as there is a database to write them to."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from sqlalchemy import Engine

from alertrec.storage.dead_letters import DeadLetter, insert

logger = logging.getLogger(__name__)

MAX_KEPT = 1000  # what is kept while the database is away; the oldest go first, and stand in the log
WAIT_SECONDS = 10


class DeadLetterBox:
    """Holds dead letters until the database has them; neither raises nor waits long.

    For the process that watches over workers, which must live on whatever happens and which forks: no connection stays
    open.

    Parameters
    ----------
    open_engine : callable
        Called once, at the first letter.
    clock : callable
        Seconds that only grow.
    """

    def __init__(self, open_engine: Callable[[], Engine], clock: Callable[[], float] = time.monotonic) -> None:
        self._open_engine = open_engine
        self._clock = clock
        self._engine: Engine | None = None
        self._kept: deque[DeadLetter] = deque(maxlen=MAX_KEPT)
        self._not_before = 0.0

    def add(self, letter: DeadLetter) -> None:
        """Take a letter, and write it down now if the database is there."""
        facts = {"task": letter.task, "queue": letter.queue, "message_id": letter.message_id, "n_runs": letter.n_runs}
        logger.error(
            "message given up: %s[%s] after %d runs: %s",
            letter.task,
            letter.message_id,
            letter.n_runs,
            letter.reason,
            extra={"action": "message_given_up", "reason": letter.reason, **facts},
        )
        self._kept.append(letter)
        self.flush()

    def flush(self) -> None:
        """Write down what is kept, unless the database failed a moment ago."""
        if not self._kept or self._clock() < self._not_before:
            return
        try:
            self._write()
        except Exception as error:  # a worker lives on, whatever is wrong with the database
            self._not_before = self._clock() + WAIT_SECONDS
            n_kept, kind = len(self._kept), type(getattr(error, "orig", None) or error).__name__
            logger.error(  # noqa: TRY400  # what a driver says may show what is bound
                "dead letters wait for the database: %s", kind, extra={"action": "dead_letters_wait", "n_kept": n_kept}
            )

    def _write(self) -> None:
        if self._engine is None:
            self._engine = self._open_engine()
        try:
            with self._engine.begin() as connection:
                insert(connection, self._kept)
        finally:
            self._engine.dispose()
        self._kept.clear()
