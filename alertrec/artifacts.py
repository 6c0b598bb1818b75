"""A fitted model as a directory of plain files: `card.json` and one `.npy` an array. Never a pickle.

The card names each array file with its SHA-256, and holds a digest of itself, so that the card alone vouches for
everything. Reading checks all of it and runs no code; arrays are memory-mapped, so processes share their pages.
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
_DIGEST = "digest"

Card = dict[str, Any]


def write_artifact(directory: Path, card: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write a model; a reader sees a whole directory or none. A model that is there already is replaced.

    Returns
    -------
    str
        SHA-256 of the file `card.json`, in hexadecimal.

    Raises
    ------
    ModelStoreError
        If something else than a model is there.
    """
    if directory.exists() and not (directory / CARD).is_file():
        raise ModelStoreError(
            directory.name, f"{directory} is there and is no model; choose another path, or remove it"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        files = {}
        for name, array in arrays.items():
            np.save(part / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
            files[f"{name}.npy"] = file_sha256(part / f"{name}.npy")
        content = {**card, "format": FORMAT, "files": files}
        sealed = {**content, _DIGEST: _digest(content)}
        (part / CARD).write_text(json.dumps(sealed, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _sync(part)
        part.chmod(0o755)  # mkdtemp gives 0700; workers of another account read models too
        _replace(directory, part)
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
        found, digest = card["format"], card.pop(_DIGEST)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelStoreError(version, f"{CARD} cannot be read ({type(error).__name__}: {error})") from error
    if found != FORMAT:
        raise ModelStoreError(version, f"its format is {found}; this release reads format {FORMAT}: train again")
    if digest != _digest(card):
        raise ModelStoreError(version, f"{CARD} is not what was saved (its digest differs)")
    return dict(card)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _replace(directory: Path, part: Path) -> None:
    """Put a new model in the place of an old one, which is deleted only once the new one is there."""
    old = part.with_name(part.name + ".old")
    if directory.exists():
        directory.rename(old)
    part.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


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
