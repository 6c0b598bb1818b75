"""Valkey: configuration and readiness."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from alertrec.embedded import binaries
from alertrec.embedded.processes import Recipe
from alertrec.embedded.state import HOST, Access


def recipe(home: Path, access: Access) -> Recipe:
    """Write the configuration and return how to start the server."""
    directory = home / "valkey"
    directory.mkdir(mode=0o700, exist_ok=True)
    pid_file = directory / "valkey.pid"
    configuration = directory / "valkey.conf"
    # A file, not arguments: everyone can read a command line.
    configuration.unlink(missing_ok=True)
    with os.fdopen(os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_configuration(directory, pid_file, access))
    return Recipe(
        name="Valkey",
        command=[binaries.valkey(), configuration],
        log=home / "logs" / "valkey.log",
        lock=home / "valkey.lock",
        pid_file=pid_file,
        stop_signal=signal.SIGTERM,
        is_ready=lambda _pid: _answers(access),
    )


def _configuration(directory: Path, pid_file: Path, access: Access) -> str:
    lines = [
        f"bind {HOST}",
        "protected-mode yes",
        f"port {access.valkey_port}",
        f"requirepass {access.valkey_password}",
        "daemonize no",
        f"dir {_quoted(directory)}",
        f"pidfile {_quoted(pid_file)}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",  # a queue must refuse new messages rather than forget old ones
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _answers(access: Access) -> bool:
    # Four lines of the protocol; a client library would double the supervisor's memory for them.
    try:
        with socket.create_connection((HOST, access.valkey_port), timeout=1) as connection:
            connection.sendall(f"AUTH {access.valkey_password}\r\nPING\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as replies:
                return b"+PONG" in replies.read()
    except OSError:
        return False
