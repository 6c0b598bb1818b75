"""The Celery app, and what happens when one of its processes starts."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

WORKER_SOCKET_TIMEOUT = 5
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


@signals.worker_process_init.connect
def _prepare_child(**_: Any) -> None:
    """Load what tasks need, so that the first one does not wait for it."""
    import alertrec.actions
    import alertrec.fitting
    import alertrec.service
    import alertrec.upkeep  # noqa: F401
    from tasks.process import forget_workspace

    forget_workspace()
