"""The processes of a running system: workers, Beat, web app and Flower, started together and stopped together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alertrec.errors import AlertrecError
from alertrec.runtime import child_environment
from alertrec.settings import Settings
from alertrec.task_names import ACTIONS, BATCH, CONTROL, INTERACTIVE, TRAINING

# Workers finish what they are at; what takes longer is found in the tables by the next ones.
GRACE_SECONDS = 30
_PARENT = "_ALERTREC_PARENT_PID"  # not a setting, hence the underscore
# Nobody sits and waits for what is done there.
_PATIENT_QUEUES = {BATCH, TRAINING}
_NICENESS = 10


class ProcessError(AlertrecError):
    """A process of the system ended on its own."""


@dataclass(frozen=True)
class Role:
    """One process of the system; `arguments` follow `alertrec` on its command line."""

    name: str
    arguments: Sequence[str]


def worker_roles() -> list[Role]:
    """Return one worker for users who wait, one for batches, one for training: none holds up another."""
    n_cores = os.cpu_count() or 1
    return [
        Role("interactive", _worker("interactive", [INTERACTIVE, ACTIONS, CONTROL], concurrency=min(n_cores, 4))),
        Role("batch", _worker("batch", [BATCH], concurrency=n_cores)),
        Role("training", _worker("training", [TRAINING], concurrency=1)),
    ]


def beat_role() -> Role:
    """Return Beat."""
    return Role("beat", ["beat"])


def web_role(port: int, *, flower_url: str, sample_users: Sequence[str] = ()) -> Role:
    """Return the web app on a port; sample users of a demo are those as whom everybody may sign in."""
    samples = ["--sample-users", ",".join(sample_users)] if sample_users else []
    return Role("web", ["serve", "--port", str(port), "--flower-url", flower_url, *samples])


def customers_role(url: str, *, without: Sequence[str]) -> Role:
    """Return made-up customers who visit the web app; some are left to visitors."""
    return Role("customers", ["simulate", url, "--without", ",".join(without)])


def flower_role(port: int) -> Role:
    """Return Flower on a port."""
    return Role("flower", ["flower", "--port", str(port)])


@contextmanager
def running(settings: Settings, roles: Sequence[Role]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start the processes, their output in `logs/` of the data directory, and stop them all afterwards.

    They get a session of their own: Ctrl-C reaches only this process, which then stops them in order.
    """
    logs = settings.data_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for role in roles:
            started[role.name] = _start(settings, role, logs / f"{role.name}.log")
        yield started
    finally:
        stop(list(started.values()))


def check_alive(started: Mapping[str, subprocess.Popen[bytes]], logs: Path) -> None:
    """Raise `ProcessError` with the end of its log if one of the processes has ended."""
    for name, process in started.items():
        if (code := process.poll()) is not None:
            log = logs / f"{name}.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise ProcessError(f"the process {name} ended with status {code}; its log {log} ends:\n{tail}")


def wait_for_stop(started: Mapping[str, subprocess.Popen[bytes]], logs: Path) -> None:
    """Wait until this process is told to stop, by Ctrl-C or a signal.

    Raises
    ------
    ProcessError
        If one of the processes ends before.
    """
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(1):
        check_alive(started, logs)


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask the processes to finish, and end what has not after the grace period."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its session: the children of its pool too
            process.wait()


def stop_with_parent() -> None:
    """End this process, in order, when the one that started it is gone, however that ended.

    Only a process that `running` has started is bound to its parent; Linux could tell by a signal, but no other
    system, so this looks once a second.
    """
    parent = os.environ.get(_PARENT)
    if parent is not None:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True, name="stop with parent").start()


def give_way(queues: Sequence[str]) -> None:
    """Have a worker of queues for which nobody waits leave the processors to whoever on this machine needs them."""
    if not set(queues) <= _PATIENT_QUEUES:
        return
    os.nice(_NICENESS)
    if os.getsid(0) == os.getpid():
        # Linux may share out its processors by sessions first, and by niceness only within one.
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICENESS))


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _worker(name: str, queues: Sequence[str], *, concurrency: int) -> list[str]:
    return ["worker", "--name", name, "--queues", ",".join(queues), "--concurrency", str(concurrency)]


def _start(settings: Settings, role: Role, log: Path) -> subprocess.Popen[bytes]:
    environment = {**child_environment(settings), _PARENT: str(os.getpid())}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "alertrec", *role.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
