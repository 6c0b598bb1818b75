"""Log files of the servers: one of this run, one of the run before."""

from __future__ import annotations

import os
from io import BufferedWriter
from pathlib import Path

TAIL_BYTES = 3000


def fresh_log(path: Path) -> BufferedWriter:
    """Open an empty log file that only its owner can read; the one of the last run is kept beside it."""
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")


def tail(path: Path) -> str:
    """Return the end of a log with its path, as a part of an error message."""
    end = path.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip() if path.exists() else ""
    return f"the end of {path}:\n{end or '(empty)'}"
