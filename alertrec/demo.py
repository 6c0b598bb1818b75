"""The main job from end to end on a sample bank, with everything running that a bank would run."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import webbrowser
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from sqlalchemy import func, select

from alertrec import fitting, service
from alertrec.cli.common import console, notes
from alertrec.cli.progress import follow, progress_bars
from alertrec.cli.work import print_list
from alertrec.errors import AlertrecError
from alertrec.flower_access import FlowerAccess, flower_access, free_port
from alertrec.importing import import_files
from alertrec.processes import (
    beat_role,
    check_alive,
    customers_role,
    flower_role,
    running,
    wait_for_stop,
    web_role,
    worker_roles,
)
from alertrec.promotion import is_due
from alertrec.rules.cards import HIGH
from alertrec.runtime import opened
from alertrec.sample_bank import make_sample_answers, make_sample_bank
from alertrec.sending import send
from alertrec.settings import Settings
from alertrec.storage.frames import copy_frame
from alertrec.storage.lists import read_items, read_list
from alertrec.storage.schema import create_source_relations, migrate
from alertrec.storage.tables import recommendations
from alertrec.task_names import REFRESH_RECOMMENDATIONS, TRAIN_MODEL
from alertrec.watching import watch
from alertrec.workspace import Workspace

N_SHOWN = 3
N_SAMPLE_USERS = 6


def run_demo(settings: Settings, *, n_users: int, seed: int, once: bool) -> None:
    """Load a sample bank, start the system, train, refresh everybody, show what three users are offered.

    Parameters
    ----------
    once : bool
        Stop everything then; otherwise open the web app, with customers who react, and run until Ctrl-C.
    """
    notes.print("[bold]1[/] starting the servers")
    with opened(settings, check_schema=False) as workspace:
        with workspace.engine.begin() as connection:
            migrate(connection)
            create_source_relations(connection, workspace.source)
        _load_bank(workspace, n_users=n_users, seed=seed)
        access = flower_access(workspace.settings)
        notes.print("[bold]3[/] starting workers, Beat and Flower")
        roles = [*worker_roles(), beat_role(), flower_role(access.port)]
        logs = settings.data_dir / "logs"
        with running(workspace.settings, roles) as started:
            _train(workspace, started, logs)
            _refresh(workspace, started, logs)
            _show(workspace)
            if not once:
                _stay_open(workspace, started, logs, access)
            notes.print("stopping")


def served_users(workspace: Workspace) -> list[str]:
    """Return the users who have a list with something in it, those with the most to say to first."""
    item = recommendations.c
    n_urgent = func.count().filter(item.priority == HIGH)
    query = select(item.user_id).group_by(item.user_id).order_by(n_urgent.desc(), func.count().desc(), item.user_id)
    with workspace.engine.connect() as connection:
        return list(connection.scalars(query))


def _stay_open(workspace: Workspace, started: Mapping[str, Popen[bytes]], logs: Path, access: FlowerAccess) -> None:
    notes.print("[bold]6[/] opening the web app; customers visit it")
    port, samples = free_port(workspace.settings.web_port), served_users(workspace)[:N_SAMPLE_USERS]
    url = f"http://127.0.0.1:{port}"
    roles = [web_role(port, flower_url=access.url, sample_users=samples), customers_role(url, without=samples)]
    with running(workspace.settings, roles) as more:
        _wait_for_web(url, more, logs)
        console.print()
        for line in (
            f"web app: {url}  (sign in as a customer, or as the operator: no password in a demo)",
            f"dashboard: {url}/dashboard",
            f"Flower: {access.url}  (user {access.user}, password {access.password})",
            f"logs, models and the servers' data: {workspace.settings.data_dir.absolute()}",
            "Ctrl-C stops all of it.",
        ):
            console.print(line, highlight=False, soft_wrap=True)
        if console.is_terminal and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
            webbrowser.open(url)
        wait_for_stop({**started, **more}, logs)


def _wait_for_web(url: str, started: Mapping[str, Popen[bytes]], logs: Path) -> None:
    while True:
        check_alive(started, logs)
        with contextlib.suppress(OSError), urlopen(f"{url}/health/live", timeout=1):  # noqa: S310  # our own address
            return
        time.sleep(0.1)


def _load_bank(workspace: Workspace, *, n_users: int, seed: int) -> None:
    users = workspace.source.users
    with workspace.engine.connect() as connection:
        is_empty = connection.execute(select(users.c.id).limit(1)).first() is None
    if not is_empty:
        notes.print("[bold]2[/] the bank's data are there already")
        return
    notes.print(f"[bold]2[/] loading a sample bank of {n_users:,} users")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    bank = make_sample_bank(n_users, as_of=midnight, seed=seed)
    with TemporaryDirectory() as scratch, progress_bars() as report:
        # Through files and the import, as a bank's own export would come.
        files = {name: Path(scratch) / f"{name}.parquet" for name in ("users", "transactions", "alert_rules")}
        for name, path in files.items():
            getattr(bank, name).write_parquet(path)
        with workspace.engine.begin() as connection:
            imported = import_files(
                connection,
                schema=workspace.settings.source_schema,
                rejects_path=Path(scratch) / "rejects.jsonl",
                progress=report,
                users=files["users"],
                transactions=files["transactions"],
                alert_rules=files["alert_rules"],
            )
    assert imported.n_rejected == 0, "the sample bank is clean"
    with workspace.engine.begin() as connection:
        copy_frame(connection, "alertrec.alert_actions", make_sample_answers(bank, as_of=midnight, seed=seed))


def _train(workspace: Workspace, started: Mapping[str, Popen[bytes]], logs: Path) -> None:
    with workspace.engine.connect() as connection:
        if not is_due(connection, workspace.settings.retrain_days):
            notes.print("[bold]4[/] the champion is young; nothing to train")
            return
    notes.print("[bold]4[/] training a model on the training worker")
    job_id = fitting.request_training(workspace, promoted_by="demo")
    send(workspace, TRAIN_MODEL, False, str(job_id))
    _finish(workspace, job_id, started, logs)


def _refresh(workspace: Workspace, started: Mapping[str, Popen[bytes]], logs: Path) -> None:
    notes.print("[bold]5[/] refreshing everybody's list on the batch worker")
    job_id = service.request_refresh(workspace)
    send(workspace, REFRESH_RECOMMENDATIONS, service.ALL_USERS, str(job_id))
    _finish(workspace, job_id, started, logs)


def _finish(workspace: Workspace, job_id: Any, started: Mapping[str, Popen[bytes]], logs: Path) -> None:
    with progress_bars() as report:
        state = follow(watch(workspace, job_id, check=lambda: check_alive(started, logs)), report)
    if state.error is not None:
        raise AlertrecError(state.error)


def _show(workspace: Workspace) -> None:
    with workspace.engine.connect() as connection:
        for user_id in served_users(workspace)[:N_SHOWN]:
            row = read_list(connection, user_id)
            assert row is not None
            print_list(user_id, row["recommendation_type"], read_items(connection, user_id))
