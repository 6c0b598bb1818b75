"""Servers of a test's own, which may be killed, frozen, emptied, and started again on the same address."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from alertrec.embedded import postgres, valkey
from alertrec.embedded.processes import Recipe, Server, run
from alertrec.embedded.state import Access
from alertrec.embedded.users import prepare
from tests.integration.processes import wait_for


class Breakable:
    """A server that can be broken; its `url` stays the same.

    It is started by the main thread only: it ends with the thread that started it.
    """

    def __init__(self, url: str, recipe: Recipe, data: Path) -> None:
        self.url = url
        self._recipe = recipe
        self._data = data
        self._running = ExitStack()
        self._server: Server | None = None

    @property
    def pid(self) -> int:
        """Its first process, of the last start."""
        assert self._server is not None
        return self._server.process.pid

    def start(self, *, empty: bool = False) -> None:
        """Start it, with what it had or without, and wait until it takes connections."""
        if empty:
            shutil.rmtree(self._data)
        server = self._server = self._running.enter_context(run(self._recipe))

        def is_up() -> bool:
            server.check()
            return server.is_ready()

        wait_for(is_up)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal, by default as a power cut does, and wait until it is gone."""
        assert self._server is not None
        self._server.process.send_signal(number)
        self._server.process.wait()
        self._running.close()

    def freeze(self) -> None:
        """Stop all its processes where they are: connections are taken by the kernel, and nobody answers."""
        for each in self._family():
            each.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for each in self._family():
            each.resume()

    def close(self) -> None:
        """Stop it in order, whatever was done to it."""
        if self._server is not None and self._server.process.poll() is None:
            self.thaw()
        self._running.close()

    def _family(self) -> list[psutil.Process]:
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


@contextmanager
def own_broker(home: Path) -> Iterator[Breakable]:
    """Run a Valkey as the embedded one, which keeps what it has unless it is started empty."""
    prepare(home)
    access = Access.new().with_free_ports()
    yield from _run(Breakable(access.urls().redis_url, valkey.recipe(home, access), home / "valkey" / "appendonlydir"))


@contextmanager
def own_postgres(home: Path, **settings: object) -> Iterator[Breakable]:
    """Run a PostgreSQL as the embedded one, with these settings besides; its database has no tables yet."""
    prepare(home)
    access = Access.new().with_free_ports()
    where = postgres.place(home)
    try:
        postgres.make_cluster(where, access, home / "logs" / "initdb.log")
        usual = postgres.recipe(home, where, access)
        command = [*usual.command, *(f"--{name}={value}" for name, value in settings.items())]
        yield from _run(Breakable(access.urls().database_url, replace(usual, command=command), where.cluster))
    finally:
        shutil.rmtree(where.room)  # run by root, it lies outside of `home`


def _run(server: Breakable) -> Iterator[Breakable]:
    try:
        server.start()
        yield server
    finally:
        server.close()
