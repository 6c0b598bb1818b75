"""The main job on the export `sparkov/`, as its users run it: import, train, refresh, one user, one call.

Servers are embedded and new; workers are real processes. Times are wall times as a client sees them, from the
request to the rows. Run on an otherwise idle machine: `make bench`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from alertrec import fitting, service
from alertrec.doctor import workers
from alertrec.feature_engineering import features_of
from alertrec.importing import import_files
from alertrec.labels import enabled_matrix
from alertrec.ledger import Ledger
from alertrec.lists import Edition, build_lists
from alertrec.processes import running, worker_roles
from alertrec.runtime import opened
from alertrec.sending import celery_app, send
from alertrec.settings import Settings
from alertrec.storage.lists import counts
from alertrec.storage.tables import recommendation_lists
from alertrec.task_names import GENERATE_RECOMMENDATIONS, REFRESH_RECOMMENDATIONS, TRAIN_MODEL
from alertrec.training_data import read_training_data
from alertrec.watching import watch
from alertrec.workspace import Workspace

EXPORT_ENDS = datetime(2026, 10, 1, 23, 59, 59, tzinfo=UTC)
N_USERS_ASKED = 60
N_CALLS = 2000


def main() -> None:
    """Measure and print one row a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export", type=Path, default=Path("../shared/data/sparkov"))
    export = parser.parse_args().export
    if not export.is_dir():
        sys.exit(f"error: the export {export} is not there; give its directory with --export")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        data_dir = Path(scratch) / "data"
        with opened(replace(Settings(), data_dir=data_dir)) as workspace:
            _row("import of 503,122 transactions", 15, _seconds(lambda: _import(workspace, export, data_dir)))
            with running(workspace.settings, worker_roles()):
                _wait_for_workers(workspace)
                _measure_workers(workspace)
            _row("warm recommendation in process, median", 0.001, _in_process(workspace))
            _measure_rules(workspace)


def _measure_workers(workspace: Workspace) -> None:
    for state in ("just started", "warm"):  # just started: the pool's children still load their libraries
        _row(f"train, worker {state}", 5, _seconds(lambda: _train(workspace)))
        _row(f"refresh of everyone, worker {state}", 5, _seconds(lambda: _refresh(workspace)))
    with workspace.engine.connect() as connection:
        n_current, _ = counts(connection)
        users = connection.scalars(select(recommendation_lists.c.user_id).limit(N_USERS_ASKED)).all()
    times = sorted(_seconds(partial(_ask, workspace, user)) for user in users)
    _row("one user, from enqueueing to the row, median", 0.050, statistics.median(times))
    _row("one user, from enqueueing to the row, 90th percentile", None, times[int(len(times) * 0.9)])
    print(f"\n{n_current} current lists")


def _measure_rules(workspace: Workspace) -> None:
    """Show what fitting and testing rules adds to a refresh: everybody's lists in process, and the same without."""
    with workspace.engine.connect() as connection:
        model = workspace.champions.current(connection).model
        data = workspace.source.read(connection, None, as_of=EXPORT_ENDS)
    edition = Edition("measured", as_of=EXPORT_ENDS, generated_at=EXPORT_ENDS, policy=workspace.policy)

    def score() -> None:
        features = features_of(Ledger.of(data.users, data.transactions, EXPORT_ENDS))
        enabled = enabled_matrix(features["user_id"].to_list(), data.rules, model.alert_columns)
        model.score(features, enabled, known=(features["amount_count"] > 0).to_numpy())

    def lists() -> None:
        build_lists(data.users, data.transactions, data.rules, data.away, model=model, edition=edition)

    for what, action in (("features and scores", score), ("lists with rules that fit", lists)):
        _row(f"everybody's {what}, in process", None, min(_seconds(action) for _ in range(3)))


def _import(workspace: Workspace, export: Path, data_dir: Path) -> None:
    with workspace.engine.begin() as connection:
        import_files(
            connection,
            schema="public",
            users=export / "users.parquet",
            transactions=export / "transactions.parquet",
            alert_rules=export / "alert_rules.parquet",
            rejects_path=data_dir / "rejects.jsonl",
        )


def _train(workspace: Workspace) -> None:
    job_id = fitting.request_training(workspace, force=True, as_of=EXPORT_ENDS)
    send(workspace, TRAIN_MODEL, True, str(job_id))
    _wait(workspace, job_id)


def _refresh(workspace: Workspace) -> None:
    job_id = service.request_refresh(workspace, as_of=EXPORT_ENDS)
    send(workspace, REFRESH_RECOMMENDATIONS, service.ALL_USERS, str(job_id))
    _wait(workspace, job_id)


def _ask(workspace: Workspace, user_id: str) -> None:
    """Enqueue one user, and wait until a newer list can be read."""
    query = select(recommendation_lists.c.generated_at).where(recommendation_lists.c.user_id == user_id)
    with workspace.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        before = connection.scalar(query)
        celery_app(workspace.settings).tasks[GENERATE_RECOMMENDATIONS].apply_async((user_id,))
        while connection.scalar(query) == before:
            time.sleep(0.0005)


def _in_process(workspace: Workspace) -> float:
    """Return the median seconds of `recommend_for_user` on a frame of all users."""
    users = read_training_data(workspace, as_of=EXPORT_ENDS).users.features.to_pandas()
    with workspace.engine.connect() as connection:
        model = workspace.champions.current(connection).model
    user_ids = users["user_id"].to_list()
    calls = [
        _seconds(partial(model.recommend_for_user, user_id=user_id, user_features_df=users))
        for user_id in islice(cycle(user_ids), N_CALLS)
    ]
    return statistics.median(calls)


def _wait(workspace: Workspace, job_id: UUID) -> None:
    *_, last = watch(workspace, job_id)
    assert last.error is None, last.error


def _wait_for_workers(workspace: Workspace) -> None:
    while len(workers(workspace.settings)) < len(worker_roles()):
        time.sleep(0.1)


def _seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _row(what: str, limit: float | None, seconds: float) -> None:
    bound = "" if limit is None else f"at most {limit * 1000:,.0f} ms"
    print(f"{what:<58}{seconds * 1000:>10,.1f} ms   {bound}", flush=True)


if __name__ == "__main__":
    main()
