"""Tasks that keep lists fresh, log what users do, and look after the tables. As thin as web views."""

from __future__ import annotations

import time
from typing import Any

from alertrec import task_names
from alertrec.errors import DataError
from tasks.arguments import WHAT_WAITS, chunk_of, flag_of, job_of, user_of
from tasks.base import AlertrecTask, EventTask, OncePerUserTask, TrainingTask, broker_client
from tasks.celery_app import app
from tasks.process import is_stopping, workspace

# Beyond what any training takes. Its message is acknowledged early, so this need not stay under the broker's limit.
TRAINING_LIMIT_SECONDS = 6 * 3600

LOOK_AGAIN_SECONDS = 5  # whether a training is still under way in another process


def enqueue(task_name: str, *args: Any) -> None:
    """Send a task by name: what the use cases are handed as their queue."""
    app.tasks[task_name].apply_async(args)


@app.task(name=task_names.GENERATE_RECOMMENDATIONS, base=OncePerUserTask, bind=True, time_limit=60, soft_time_limit=45)
def generate_recommendations(self: OncePerUserTask, user_id: str) -> None:
    """Renew the list of one user."""
    from alertrec import service

    self.begin(user_of(user_id))
    service.generate_recommendations(workspace(), user_id)


@app.task(name=task_names.LOG_ALERT_ACTION, base=EventTask, time_limit=60, soft_time_limit=45)
def log_alert_action(event: dict[str, Any]) -> None:
    """Store what a user did, once for each `event_id`, and have it applied."""
    from alertrec import actions

    if actions.log_action(workspace(), actions.parse_action(event)):
        enqueue(task_names.PROCESS_ACTIONS)


@app.task(name=task_names.PROCESS_ACTIONS, base=AlertrecTask, time_limit=60, soft_time_limit=45)
def process_actions() -> None:
    """Apply the actions that wait, and go on while there are more."""
    from alertrec import actions

    while actions.process_actions(workspace()) == actions.BATCH_SIZE:
        pass


@app.task(name=task_names.REFRESH_RECOMMENDATIONS, base=AlertrecTask, bind=True, shows_arguments=True)
def refresh_recommendations(self: AlertrecTask, scope: str = "all", job_id: str | None = None) -> None:
    """Divide a refresh of everybody into chunks and send them; without a job, ask for one first."""
    from alertrec import service

    job = job_of(job_id) or service.request_refresh(workspace(), scope=scope, request_id=self.request.id)
    service.plan_refresh(workspace(), job, enqueue)


@app.task(name=task_names.REFRESH_CHUNK, base=AlertrecTask, bind=True, shows_arguments=True)
def refresh_chunk(self: AlertrecTask, job_id: str, chunk: int) -> None:
    """Renew the lists of one chunk of users."""
    from alertrec import service

    job, number = job_of(job_id), chunk_of(chunk)
    if job is None:
        raise DataError("a chunk is one of a job, and job_id names none")
    service.refresh_chunk(workspace(), job, number, claimed_by=str(self.request.id))


@app.task(
    name=task_names.TRAIN_MODEL,
    base=TrainingTask,
    bind=True,
    shows_arguments=True,
    time_limit=TRAINING_LIMIT_SECONDS,
    soft_time_limit=TRAINING_LIMIT_SECONDS - 60,
)
def train_model(self: TrainingTask, force: bool = False, job_id: str | None = None) -> None:
    """Do the training that waits; without a job, ask for one first. One at a time in the whole fleet.

    While another process trains, this one waits, and takes over should that one die.
    """
    from alertrec import fitting
    from alertrec.schedule import TRAINING
    from alertrec.storage import jobs

    flag_of("force", force)
    if job_id != WHAT_WAITS and job_of(job_id) is None:
        fitting.request_training(workspace(), force=force, waited=self.age_of_request())
    while fitting.run_training(workspace()) is None and not is_stopping():
        with workspace().engine.connect() as connection:
            if jobs.unfinished_run(connection, TRAINING) is None:
                return
        # Not by a message for later: who trains would fetch it ahead, and take it with it when it is killed.
        time.sleep(LOOK_AGAIN_SECONDS)


@app.task(name=task_names.TICK, base=AlertrecTask, time_limit=60, soft_time_limit=45)
def tick() -> None:
    """Start what is due and send again what was lost."""
    from alertrec import upkeep

    upkeep.tick(workspace(), enqueue)
    broker_client(app.conf.broker_url).set(task_names.LAST_TICK, "", ex=task_names.LAST_TICK_KEPT_SECONDS)


@app.task(name=task_names.CLEANUP_EXPIRED, base=AlertrecTask, shows_arguments=True)
def cleanup_expired(job_id: str | None = None) -> None:
    """Delete what is past its retention."""
    from alertrec import upkeep

    job_of(job_id)  # the row that waits is claimed, whichever message comes first
    upkeep.run_cleanup(workspace())
