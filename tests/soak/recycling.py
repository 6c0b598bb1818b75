"""A worker whose processes are soon replaced; run as `-m tests.soak.recycling worker …`."""

from __future__ import annotations

import os

from alertrec.cli import main

TASKS = "SOAK_TASKS_PER_PROCESS"

if __name__ == "__main__":
    from tasks import app

    app.conf.worker_max_tasks_per_child = int(os.environ[TASKS])
    main()
