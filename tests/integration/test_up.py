"""`alertrec up`: everything comes up, and nothing is left behind however it ends."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from alertrec.embedded import Servers
from tests.integration.processes import (
    alive,
    broker,
    database,
    environment,
    family_of,
    forget,
    process,
    wait_for,
)

WORKERS = {"interactive", "batch", "training"}


class System:
    """A running `alertrec up`."""

    def __init__(self, started: subprocess.Popen[bytes], home: Path, log: Path) -> None:
        self.process, self.home, self.log = started, home, log
        self.family: list[psutil.Process] = []

    def output(self) -> str:
        return self.log.read_text()

    def wait_until_up(self) -> None:
        """Wait until each worker has said that it is ready, and Beat, Flower and web app that they run."""
        logs = {name: self.home / "logs" / f"{name}.log" for name in (*WORKERS, "beat", "flower", "web")}
        says = dict.fromkeys(WORKERS, "ready.") | {"beat": "beat: Starting", "flower": "Visit me", "web": "running on"}

        def is_up() -> bool:
            assert self.process.poll() is None, self.output()
            return all(log.exists() and says[name] in log.read_text() for name, log in logs.items())

        wait_for(is_up)
        self.family = family_of(self.process.pid, self.home)

    def flower(self, path: str, *, password: str | None = None) -> tuple[int, str]:
        """Ask Flower; with a password, as its user."""
        found = re.search(r"Flower: http://127\.0\.0\.1:(\d+)  \(user (\w+), password (\S+)\)", self.output())
        assert found is not None, self.output()
        port, user, right = found.groups()
        headers = {}
        if password is not None:
            credentials = f"{user}:{password.replace('RIGHT', right)}"
            headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def web(self, path: str) -> tuple[int, str]:
        """Ask the web app."""
        found = re.search(r"web app: (http://127\.0\.0\.1:\d+)", self.output())
        assert found is not None, self.output()
        with contextlib.closing(http.client.HTTPConnection(urlsplit(found[1]).netloc, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def workers_in_flower(self) -> set[str]:
        status, body = self.flower("/api/workers?refresh=1", password="RIGHT")
        assert status == 200
        return {name.partition("@")[0] for name in json.loads(body)}


@contextmanager
def up(home: Path, cwd: Path, **settings: Any) -> Iterator[System]:
    env = environment(DATA_DIR=home, **settings)
    log = cwd / "up.log"
    shutil.rmtree(home / "logs", ignore_errors=True)  # what an earlier one said is no sign of this one
    with process([sys.executable, "-m", "alertrec", "up"], env=env, cwd=cwd, log=log) as started:
        system = System(started, home, log)
        try:
            system.wait_until_up()
            yield system
        finally:
            for one in alive(system.family):
                # Only what a failed test has left.
                if started.poll() is not None:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.terminate()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory that the first test finds empty, and the next ones with a cluster."""
    home = tmp_path_factory.mktemp("up") / "data"
    yield home
    forget(home)


def test_up_runs_everything_and_ctrl_c_stops_it(home: Path, tmp_path: Path):
    with up(home, tmp_path) as system:
        assert system.flower("/workers")[0] == 401
        assert system.flower("/api/workers", password="wrong")[0] == 401
        assert system.flower("/workers", password="RIGHT")[0] == 200
        wait_for(lambda: system.workers_in_flower() == WORKERS)
        assert system.web("/health/ready")[0] == 200
        status, page = system.web("/")
        assert status == 200
        assert "Sign in" in page
        assert "sample" not in page  # with a token only
        names = {one.name() for one in system.family}
        # As the terminal does: to everything in its group.
        os.killpg(system.process.pid, signal.SIGINT)
        assert system.process.wait(timeout=60) == 0
        assert alive(system.family) == []
    assert {name for name in names if "postgres" in name}
    assert {name for name in names if "valkey" in name}
    assert "Traceback" not in system.output()
    for worker in WORKERS:
        assert "Warm shutdown" in (home / "logs" / f"{worker}.log").read_text()


def test_up_killed_leaves_no_process_behind(home: Path, tmp_path: Path):
    with up(home, tmp_path) as system:
        assert len(alive(system.family)) > 2 * len(WORKERS)
        system.process.kill()
        system.process.wait()
        wait_for(lambda: not alive(system.family))


@pytest.mark.usefixtures("_template")
def test_up_ends_with_a_reason_when_a_process_of_it_dies(running_servers: Servers, home: Path, tmp_path: Path):
    with database(running_servers) as database_url, broker(running_servers) as redis_url:
        with up(home, tmp_path, DATABASE_URL=database_url, REDIS_URL=redis_url) as system:
            (worker,) = [one for one in psutil.Process(system.process.pid).children() if "training" in one.cmdline()]
            worker.kill()
            assert system.process.wait(timeout=60) == 1
            wait_for(lambda: not alive(system.family))
        assert "error: the process training ended with status -9; its log " in system.output()
        assert "Traceback" not in system.output()
