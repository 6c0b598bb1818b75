"""A worker with tasks that none of ours should be like; run as `-m tests.integration.deadly_tasks worker …`."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from billiard.exceptions import SoftTimeLimitExceeded

from alertrec.cli import main
from alertrec.errors import TransientError
from tasks import app
from tasks.base import AlertrecTask, EventTask, broker_client

RUNS = "runs:"


def count_run(name: str) -> None:
    """Count in the broker, which outlives the process."""
    broker_client(app.conf.broker_url).incr(RUNS + name)


@app.task(name="tests.live", base=AlertrecTask)
def live(which: str) -> None:
    """Do what a task should."""
    count_run(f"live:{which}")


@app.task(name="tests.exhaust_memory", base=AlertrecTask)
def exhaust_memory() -> None:
    """Raise what numpy raises."""
    count_run("exhaust_memory")
    raise MemoryError("no room for Jane Doe")


# Celery looks at a hard limit only once the soft one has passed.
@app.task(name="tests.hang", base=AlertrecTask, soft_time_limit=1, time_limit=2)
def hang() -> None:
    """Take longer than the hard limit, as what is deaf to the soft one does."""
    count_run("hang")
    while True:
        with contextlib.suppress(SoftTimeLimitExceeded):
            time.sleep(60)


@app.task(name="tests.segfault", base=AlertrecTask, default_retry_delay=0)
def segfault() -> None:
    """Die as a process does whose library is broken."""
    count_run("segfault")
    os.kill(os.getpid(), signal.SIGSEGV)


@app.task(name="tests.segfault_on_event", base=EventTask, default_retry_delay=0)
def segfault_on_event(event: dict[str, str]) -> None:
    """Die likewise, as a task that is else tried for hours."""
    del event
    count_run("segfault_on_event")
    os.kill(os.getpid(), signal.SIGSEGV)


@app.task(name="tests.find_the_database_away", base=AlertrecTask, retry_backoff=False, default_retry_delay=0)
def find_the_database_away() -> None:
    """Fail in a way that may pass, and does not."""
    count_run("find_the_database_away")
    raise TransientError("the database of Jane Doe is away")


@app.task(name="tests.recover", base=AlertrecTask, bind=True, retry_backoff=False, default_retry_delay=0)
def recover(self: AlertrecTask) -> None:
    """Fail once in a way that passes."""
    count_run("recover")
    if not self.request.retries:
        raise TransientError("the database is away for a moment")


@app.task(name="tests.fail_when_told", base=AlertrecTask, retry_backoff=False, default_retry_delay=0)
def fail_when_told(path: str) -> None:
    """Fail once in a way that passes, when a file is there."""
    count_run("fail_when_told")
    while not Path(path).exists():
        time.sleep(0.05)
    if not Path(path).read_text():
        Path(path).write_text("failed")
        raise TransientError("the database is away for a moment")


if __name__ == "__main__":
    main()
