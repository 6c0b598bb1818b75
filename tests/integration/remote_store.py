"""A process of ours with a model store on another machine, `remote://PATH`, which is out of reach at times.

It is run as `python -m tests.integration.remote_store`, like `alertrec`. The files lie in the directory PATH. While
there is a file `away` beside it, whatever is asked of the store fails once as many files are written as it says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

SCHEME = "remote"


class EndpointError(Exception):
    """As the clients of object stores raise it: of their own kind, and no OSError."""


class RemoteFileSystem(LocalFileSystem):
    """Files of this machine that are reached as those of another one are."""

    protocol = SCHEME
    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(auto_mkdir=False, **options)
        self._n_written = 0

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return LocalFileSystem._strip_protocol(str(path).removeprefix(f"{SCHEME}://"))

    def info(self, path: Any, **options: Any) -> Any:
        """As ever, if it is in reach."""
        self._reach(path)
        return super().info(path, **options)

    def get_file(self, path1: Any, *arguments: Any, **options: Any) -> Any:
        """As ever, if it is in reach."""
        self._reach(path1)
        return super().get_file(path1, *arguments, **options)

    def put_file(self, path1: Any, path2: Any, *arguments: Any, **options: Any) -> Any:
        """As ever, if it is in reach."""
        self._reach(path2, written=1)
        return super().put_file(path1, path2, *arguments, **options)

    def makedirs(self, path: Any, exist_ok: bool = False) -> None:
        """As ever."""
        super().makedirs(self._strip_protocol(path), exist_ok=exist_ok)

    def _reach(self, path: Any, *, written: int = 0) -> None:
        signs = [each / "away" for each in Path(self._strip_protocol(path)).parents]
        sign = next((each for each in signs if each.exists()), None)
        if sign is None:
            self._n_written = 0
        elif self._n_written >= int(sign.read_text()):
            raise EndpointError("could not connect to the endpoint")
        self._n_written += written


if __name__ == "__main__":
    fsspec.register_implementation(SCHEME, RemoteFileSystem)
    from alertrec.cli import main

    main()
