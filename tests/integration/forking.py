"""Commands, each in a process forked from one that has loaded what they need: most of a short command is its imports.

Run as `-m tests.integration.forking`, it takes lines of JSON, runs the command that each tells, and prints its status.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.integration.processes import ROOT, WAIT_SECONDS, Environment, environment

# What commands load. Not `tasks`, which reads the settings while it is loaded.
_LOADED = (
    "alertrec.cli",
    "alertrec.doctor",
    "alertrec.fitting",
    "alertrec.importing",
    "alertrec.reporting",
    "alertrec.service",
    "alertrec.storage.schema",
    "alertrec.vitals",
    "kombu.transport.redis",
)


@dataclass(frozen=True)
class Commands:
    """Runs commands, one at a time."""

    process: subprocess.Popen[str]

    def run(
        self, *arguments: str, env: Environment, cwd: Path, module: str = "alertrec"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as `processes.run` does."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        out, err = cwd / ".stdout", cwd / ".stderr"
        told = {"module": module, "arguments": arguments, "env": dict(env), "cwd": str(cwd)}
        self.process.stdin.write(json.dumps({**told, "out": str(out), "err": str(err)}) + "\n")
        self.process.stdin.flush()
        answered, _, _ = select.select([self.process.stdout], [], [], WAIT_SECONDS)
        assert answered, f"{module} {' '.join(arguments)} did not end"
        status = int(self.process.stdout.readline())
        done = subprocess.CompletedProcess((module, *arguments), status, out.read_text(), err.read_text())
        out.unlink()
        err.unlink()
        return done


@contextlib.contextmanager
def commands() -> Iterator[Commands]:
    """Start the process that others are forked from, and stop it afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            yield Commands(started)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def _serve() -> None:
    """Fork for each line; return in the child, whose command is about to be run, and at the end."""
    for name in _LOADED:
        import_module(name)
    for line in sys.stdin:
        if not (pid := os.fork()):
            _become(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _become(told: dict[str, Any]) -> None:
    """Be a process as it is when a command begins."""
    for number, path, how in ((0, os.devnull, os.O_RDONLY), (1, told["out"], _WRITE), (2, told["err"], _WRITE)):
        opened = os.open(path, how)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])
    sys.argv[1:] = told["arguments"]
    sys.path[0] = os.getcwd()
    runpy.run_module(told["module"], run_name="__main__", alter_sys=True)


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

if __name__ == "__main__":
    _serve()
