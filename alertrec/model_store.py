"""Immutable model versions under a path or URL.

On a local path, a version is read where it lies. From anywhere else that fsspec reaches, it is copied once into a
cache and read there. Which version is champion stands in the database, not here.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from numpy.typing import NDArray

from alertrec.artifacts import CARD, Card, parse_card, read_artifact, write_artifact
from alertrec.errors import ModelStoreError


class ModelStore:
    """The model versions of one location.

    Parameters
    ----------
    location : str
        A path, or a URL of a file system that fsspec knows (`s3://bucket/models`, with its package installed).
    cache : Path
        Directory for copies of versions that are not on a local path.
    """

    def __init__(self, location: str, cache: Path) -> None:
        self._fs, self._root = fsspec.url_to_fs(location)
        self._cache = cache
        self._local = "file" in ((self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol)

    def save(self, version: str, card: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
        """Write a new version and return the SHA-256 of its card.

        Raises
        ------
        ModelStoreError
            If the version exists (versions never change), or the location cannot be written to.
        """
        if self._fs.exists(self._path(version, CARD)):
            raise ModelStoreError(version, "exists already, and versions never change")
        try:
            if self._local:
                return write_artifact(Path(self._path(version)), card, arrays)
            return self._upload(version, card, arrays)
        except OSError as error:
            raise ModelStoreError(version, f"cannot be saved: {_told(error)}") from error

    def load(self, version: str, *, sha256: str) -> tuple[Card, dict[str, NDArray[Any]]]:
        """Return a version's card and arrays.

        Raises
        ------
        ModelStoreError
            If it is missing, truncated, altered or out of reach.
        """
        if self._local:
            return read_artifact(Path(self._path(version)), sha256=sha256)
        copy = self._cache / version
        if copy.exists():
            try:
                return read_artifact(copy, sha256=sha256)
            except ModelStoreError:
                shutil.rmtree(copy)  # a copy is only a copy: fetch it again
        self._download(version, copy, sha256=sha256)
        return read_artifact(copy, sha256=sha256)

    def delete(self, version: str) -> None:
        """Remove a version and its copy; one that is not there is no error."""
        if self._fs.exists(self._path(version)):
            self._fs.rm(self._path(version), recursive=True)
        shutil.rmtree(self._cache / version, ignore_errors=True)

    def _path(self, *parts: str) -> str:
        return "/".join((self._root.rstrip("/"), *parts))

    def _upload(self, version: str, card: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
        with tempfile.TemporaryDirectory() as scratch:
            part = Path(scratch) / version
            sha256 = write_artifact(part, card, arrays)
            try:
                self._fs.makedirs(self._path(version), exist_ok=True)
                # The card goes last: a version without a card is not there yet.
                for path in sorted(part.iterdir(), key=lambda path: path.name == CARD):
                    self._fs.put_file(str(path), self._path(version, path.name))
            except BaseException as error:
                with contextlib.suppress(Exception):  # out of reach, what is there stays, and stays without a card
                    self.delete(version)
                if isinstance(error, Exception):
                    raise ModelStoreError(version, f"cannot be saved: {_told(error)}") from error
                raise
        return sha256

    def _download(self, version: str, copy: Path, *, sha256: str) -> None:
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=copy.parent, prefix=f".{version}."))
        try:
            self._fs.get_file(self._path(version, CARD), str(part / CARD))
            for name in parse_card(version, (part / CARD).read_bytes(), sha256=sha256)["files"]:
                self._fs.get_file(self._path(version, name), str(part / name))
            part.rename(copy)
        except ModelStoreError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                return  # another process fetched the same version meanwhile
            raise ModelStoreError(version, f"cannot be fetched: {_told(error)}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _told(error: Exception) -> str:
    """Return what an error says. The clients of object stores have kinds of their own, which are no OSErrors."""
    return str(getattr(error, "strerror", None) or error)
