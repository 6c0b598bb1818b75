"""Where Flower listens and what opens it."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from alertrec.generated_secrets import remembered_secret
from alertrec.settings import Settings

USER = "alertrec"


@dataclass(frozen=True)
class FlowerAccess:
    """Port, user and password of Flower, and where the password can be read."""

    port: int
    user: str
    password: str = field(repr=False)
    password_source: str

    @property
    def url(self) -> str:
        """The address to open."""
        return f"http://127.0.0.1:{self.port}"


def flower_access(settings: Settings, *, port: int = 0) -> FlowerAccess:
    """Return the access as set, with a free port and a remembered password where nothing is.

    Parameters
    ----------
    port : int
        0 for the port of the settings if it is free, else any free one.
    """
    if settings.flower_password is not None:
        password, source = settings.flower_password, "ALERTREC_FLOWER_PASSWORD"
    else:
        path = settings.data_dir / "flower_password"
        password, source = remembered_secret(path, 16), str(path)
    return FlowerAccess(port or free_port(settings.flower_port), USER, password, source)


def free_port(wanted: int) -> int:
    """Return a port of the loopback interface if it is free, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("port 0 is always free")
