"""Following a job to its end by its rows, whoever does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping

from alertrec.errors import TransientError
from alertrec.storage import jobs
from alertrec.workspace import Workspace

POLL_SECONDS = 0.1
# A worker takes a job within a second; after this it is not going to.
NOBODY_AFTER_SECONDS = 60


@dataclass(frozen=True)
class JobState:
    """How far a job is: `done` of `total` of the present `step`, and how it ended once `finished`."""

    step: str
    done: int
    total: int
    finished: bool
    result: dict[str, Any] | None
    error: str | None


def read_state(workspace: Workspace, job_id: UUID) -> JobState:
    """Return the state of a job as its rows have it now."""
    with workspace.engine.connect() as connection:
        row = jobs.read_run(connection, job_id)
    assert row is not None, "jobs are deleted months after they finished"
    return state_of(row)


def state_of(row: RowMapping) -> JobState:
    """Return the state that the row of a job tells, as `jobs.read_run` gives it."""
    progress = row["progress"] or {}
    if row["n_chunks"]:
        step, done, total = "refreshing", int(row["n_users_done"]), int(row["n_users"])
    else:
        step, done, total = progress.get("step", row["status"]), progress.get("done", 0), progress.get("of", 1)
    return JobState(step, done, total, row["finished_at"] is not None, row["result"], row["error"])


def watch(
    workspace: Workspace,
    job_id: UUID,
    *,
    check: Callable[[], None] = lambda: None,
    patience: float = NOBODY_AFTER_SECONDS,
) -> Iterator[JobState]:
    """Yield the state of a job until it has finished.

    Parameters
    ----------
    check : callable
        Called between looks; what it raises ends the watch, as when the workers have died.

    Raises
    ------
    TransientError
        If nobody takes the job for `patience` seconds; it stays in the tables, to be done when a worker comes.
    """
    deadline = time.monotonic() + patience
    while True:
        state = read_state(workspace, job_id)
        yield state
        if state.finished:
            return
        check()
        if state.step == jobs.PENDING and time.monotonic() > deadline:
            raise TransientError(
                f"no worker took the job {job_id} in {patience:.0f} s; start workers with `alertrec up` "
                f"(the job waits for them), or do it in this process with --local"
            )
        time.sleep(POLL_SECONDS)
