"""Secrets that nobody has set: made once, and remembered where only their owner reads them."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def remembered_secret(path: Path, n_bytes: int) -> str:
    """Return the secret in a file, made of so many random bytes where there is none yet.

    Of processes that start at once, the quickest gives the file its name, and all have the same secret.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(n_bytes))
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
        scratch.unlink()
    return path.read_text().strip()
