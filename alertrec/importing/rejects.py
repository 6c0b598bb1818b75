"""The file of refused rows: JSON lines that only their owner can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from alertrec.errors import DataError


class RejectsFile:
    """Appears with the first row written to it, so that an import without rejects leaves no file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def write(self, relation: str, row: int, told: Mapping[str, object], *, record: Mapping[str, object]) -> None:
        """Append one row, with what is told of it.

        Raises
        ------
        DataError
            If the file cannot be made.
        """
        if self._file is None:
            self._file = _create(self._path)
        line = {"relation": relation, "row": row, **told, "record": _plain(record)}
        self._file.write(json.dumps(line, ensure_ascii=False, default=_shown) + "\n")

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()


@contextmanager
def rejects_file(path: Path) -> Iterator[RejectsFile]:
    """Open a file of rejects in place of the one of an earlier import.

    Raises
    ------
    DataError
        If the earlier file cannot be removed.
    """
    if path.is_file() and not path.is_symlink():
        try:
            path.unlink()
        except OSError as error:
            raise DataError(f"the rejects file {path} cannot be replaced: {error.strerror}; name another") from error
    rejects = RejectsFile(path)
    try:
        yield rejects
    finally:
        rejects.close()


def _create(path: Path) -> IO[str]:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise DataError(f"the rejects file {path} cannot be written: {error.strerror}; name another") from error
    # Half a surrogate pair has no UTF-8; written with an escape it can be looked at.
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")


def _plain(record: Mapping[str, object]) -> dict[str, object]:
    # JSON has no NaN and no infinity.
    return {
        key: str(value) if isinstance(value, float) and not -1e308 < value < 1e308 else value
        for key, value in record.items()
    }


def _shown(value: object) -> str:
    return value.decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else str(value)
