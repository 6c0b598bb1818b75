"""A TCP proxy on a free port of the loopback interface, which breaks connections in the ways that a network does."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from urllib.parse import urlsplit

_HOST = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: closing says RST


class _Link:
    """A connection to the proxy, and the one from there to the server."""

    def __init__(self, near: socket.socket, far: socket.socket, *, is_dead: bool) -> None:
        self._ends = (near, far)
        self.is_dead = is_dead

    def start(self) -> None:
        near, far = self._ends
        for source, sink in ((near, far), (far, near)):
            Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def reset(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)  # who waits for bytes would keep it open
            end.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not self.is_dead:
                    sink.sendall(data)
            if not self.is_dead:
                sink.shutdown(socket.SHUT_WR)


class Proxy:
    """Passes on what it is sent, until it is told otherwise.

    Parameters
    ----------
    address : host and port of the server
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._links: list[_Link] = []
        self._is_silent = False
        self._listening = self._bound(0)
        self.port: int = self._listening.getsockname()[1]
        self.accept()

    @property
    def n_links(self) -> int:
        """How many connections were made since the last reset."""
        return len(self._links)

    def go_silent(self) -> None:
        """Lose all bytes from now on, and tell nobody: connections stay open and are dead, for ever, to both sides."""
        self._is_silent = True
        for link in self._links:
            link.is_dead = True

    def speak(self) -> None:
        """Pass on what comes over new connections; those that were open while it was silent stay dead."""
        self._is_silent = False

    def reset(self) -> None:
        """Break all connections; both sides are told."""
        links, self._links = self._links, []
        for link in links:
            link.reset()

    def refuse(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # who accepts would keep it open
        self._listening.close()
        self._listening = self._bound(self.port)  # without listening, so that nobody else takes the port

    def accept(self) -> None:
        """Take connections, again."""
        self._listening.listen()
        Thread(target=self._take, args=(self._listening,), daemon=True).start()

    def close(self) -> None:
        """End everything."""
        self.refuse()
        self.reset()
        self._listening.close()

    def _take(self, listening: socket.socket) -> None:
        with suppress(OSError):  # it takes no more
            while True:
                self._connect(listening.accept()[0])

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._address)
        except OSError:  # the server is away; it may be there for the next one
            near.close()
            return
        link = _Link(near, far, is_dead=self._is_silent)
        self._links.append(link)
        link.start()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((_HOST, port))
        return bound


@contextmanager
def proxy_to(url: str) -> Iterator[tuple[Proxy, str]]:
    """Run a proxy to the server of a URL, and yield it with the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy((parts.hostname, parts.port))
    try:
        yield proxy, parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")).geturl()
    finally:
        proxy.close()
