"""The Celery app, and what happens when one of its processes starts."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

from alertrec import tracing
from alertrec.task_names import TRAINING

WORKER_SOCKET_TIMEOUT = 5
DEAD_LETTERS_SECONDS = 5  # what the database could not take is tried again this often
# One thread of linear algebra a process: Celery runs as many processes as there are cores already.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")

app = Celery("alertrec")
app.config_from_object("celeryconfig")


@signals.celeryd_init.connect
def _prepare_worker(conf: Any, **_: Any) -> None:
    """Before the worker connects or forks; the libraries concerned are loaded only in its children."""
    for variable in _ONE_THREAD:
        os.environ.setdefault(variable, "1")
    options = {name: value for name, value in conf.broker_transport_options.items() if name != "max_retries"}
    timeouts = {"socket_timeout": WORKER_SOCKET_TIMEOUT, "socket_connect_timeout": WORKER_SOCKET_TIMEOUT}
    conf.broker_transport_options = options | timeouts
    tracing.say_obstacle(os.environ)
    from tasks.transport import check_what_comes_in

    check_what_comes_in()
    conf.worker_consumer = "tasks.consumer:CheckedConsumer"


@signals.worker_ready.connect
def _keep_writing_dead_letters(sender: Any, **_: Any) -> None:
    from tasks.process import dead_letters

    sender.timer.call_repeatedly(DEAD_LETTERS_SECONDS, lambda: dead_letters().flush())


@signals.worker_ready.connect
def _take_up_training(sender: Any, **_: Any) -> None:
    """Go on with a training that the worker before this one was killed at; where there is none, nothing happens."""
    from tasks.arguments import WHAT_WAITS
    from tasks.definitions import train_model

    if sender.task_consumer.consuming_from(TRAINING):
        train_model.apply_async((False, WHAT_WAITS))


@signals.worker_shutting_down.connect
def _stop_waiting(**_: Any) -> None:
    from tasks.process import stop

    stop()


@signals.worker_shutdown.connect
def _write_dead_letters(**_: Any) -> None:
    from tasks.process import dead_letters

    dead_letters().flush()


@signals.worker_process_init.connect
def _prepare_child(**_: Any) -> None:
    """Load what tasks need, so that the first one does not wait for it."""
    import alertrec.actions
    import alertrec.fitting
    import alertrec.service
    import alertrec.upkeep  # noqa: F401
    from tasks.process import forget_workspace

    forget_workspace()
    tracing.start("alertrec worker", os.environ)  # here, since it starts a thread, which no fork takes along


@signals.worker_process_shutdown.connect
def _send_last_spans(**_: Any) -> None:
    tracing.stop()
