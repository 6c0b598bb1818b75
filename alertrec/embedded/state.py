"""What a start remembers: ports and passwords, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

FILE = "servers.json"
HOST = "127.0.0.1"
NAME = "alertrec"  # of the database and of its only role


@dataclass(frozen=True)
class Servers:
    """URLs of the two servers, passwords included."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)


@dataclass(frozen=True)
class Access:
    """Ports on the loopback interface and passwords of both servers."""

    postgres_port: int
    valkey_port: int
    postgres_password: str = field(repr=False)
    valkey_password: str = field(repr=False)

    @classmethod
    def new(cls) -> Access:
        """Return fresh passwords; port 0 means that none is chosen yet."""
        return cls(0, 0, secrets.token_urlsafe(24), secrets.token_urlsafe(24))

    def with_free_ports(self) -> Access:
        """Return the same access, each port replaced that is not chosen yet or that another process has taken."""
        with ExitStack() as stack:
            # Both stay bound until both are known, otherwise the second could be the first again.
            postgres = stack.enter_context(_bind(self.postgres_port))
            valkey = stack.enter_context(_bind(self.valkey_port))
            return replace(self, postgres_port=postgres.getsockname()[1], valkey_port=valkey.getsockname()[1])

    def urls(self) -> Servers:
        """Return the URLs that clients connect to."""
        return Servers(
            database_url=f"postgresql://{NAME}:{self.postgres_password}@{HOST}:{self.postgres_port}/{NAME}",
            redis_url=f"redis://:{self.valkey_password}@{HOST}:{self.valkey_port}/0",
        )


def load(home: Path) -> Access | None:
    """Return what the last start wrote, or None if there was none."""
    try:
        return Access(**json.loads((home / FILE).read_text()))
    except FileNotFoundError:
        return None


def save(home: Path, access: Access) -> None:
    """Write the access so that a reader sees all of the old or all of the new, and no other account sees any."""
    descriptor, part = tempfile.mkstemp(dir=home, prefix=f"{FILE}.")  # made with mode 0600
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(access), file)
        file.flush()
        os.fsync(descriptor)
    Path(part).replace(home / FILE)


def _bind(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As the servers do themselves: connections that ended a minute ago must not make the port look taken.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError:
        bound.bind((HOST, 0))
    return bound
