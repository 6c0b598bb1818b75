"""A fitted model as a directory of plain files: `card.json` and one `.npy` an array. Never a pickle.

The card names each array file with its SHA-256, so the digest of the card alone vouches for everything. Reading
checks all of it and runs no code; arrays are memory-mapped, so processes of one machine share their pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alertrec.errors import ModelStoreError

CARD = "card.json"
FORMAT = 1

Card = dict[str, Any]


def write_artifact(directory: Path, card: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write a model; a reader sees a whole directory or none. One that is there already is replaced.

    Returns
    -------
    str
        SHA-256 of the card, in hexadecimal.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        files = {}
        for name, array in arrays.items():
            np.save(part / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
            files[f"{name}.npy"] = file_sha256(part / f"{name}.npy")
        text = json.dumps({"format": FORMAT, **card, "files": files}, indent=2, sort_keys=True, allow_nan=False)
        (part / CARD).write_text(text + "\n", encoding="utf-8")
        _sync(part)
        part.chmod(0o755)  # mkdtemp gives 0700; workers of another account read models too
        if directory.exists():
            shutil.rmtree(directory)
        part.rename(directory)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return file_sha256(directory / CARD)


def read_artifact(directory: Path, *, sha256: str | None = None) -> tuple[Card, dict[str, NDArray[Any]]]:
    """Read a model back, its arrays memory-mapped and read-only.

    Parameters
    ----------
    sha256 : str, optional
        What the card's digest must be.

    Raises
    ------
    ModelStoreError
        If a file is missing, truncated or altered, or the format is of another version.
    """
    version = directory.name
    card = parse_card(version, _read_bytes(version, directory / CARD), sha256=sha256)
    arrays = {}
    for name, digest in card["files"].items():
        path = directory / name
        if not path.is_file():
            raise ModelStoreError(version, f"the file {name} is missing")
        if file_sha256(path) != digest:
            raise ModelStoreError(version, f"the file {name} is not what was saved (its checksum differs)")
        arrays[name.removesuffix(".npy")] = np.load(path, mmap_mode="r", allow_pickle=False)
    return card, arrays


def parse_card(version: str, content: bytes, *, sha256: str | None) -> Card:
    """Return the card in these bytes, once its digest, its syntax and its format are as expected."""
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelStoreError(version, f"{CARD} is not what was saved (its checksum differs)")
    try:
        card = json.loads(content)
        found = card["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelStoreError(version, f"{CARD} cannot be read: {error}") from error
    if found != FORMAT:
        raise ModelStoreError(version, f"its format is {found}; this release reads format {FORMAT}: train again")
    return dict(card)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_bytes(version: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelStoreError(version, f"{path.name} cannot be read ({error.strerror})") from error


def _sync(directory: Path) -> None:
    """Bring the files to the disk before the rename makes them visible."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
