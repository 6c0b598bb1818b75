"""Clients speak TLS where the URL says so, and tell their secret to none whose certificate they cannot check."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.processes import environment, process, wait_for

SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")  # how PostgreSQL's clients ask for TLS
SECRET = "s3cret-of-the-url"

BROKER = {
    "client": "import tasks; tasks.generate_recommendations.delay('u')",
    "sender": "import tasks; tasks.process_actions.delay()",
    "worker": "from alertrec.cli import main; main(['worker', '--concurrency', '1'])",
    "live": (
        "import asyncio, os; from alertrec.settings import Settings; from alertrec.web.live import Hub\n"
        "asyncio.run(Hub(Settings.from_env(os.environ).redis_url)._run())"
    ),
}
DATABASE = {
    "engine": "from alertrec.cli import main; main(['migrate'])",
    "lists": (
        "import asyncio, os; from alertrec.settings import Settings; from alertrec.web.reading import ListReader\n"
        "async def read():\n"
        "    lists = ListReader(Settings.from_env(os.environ).database_url)\n"
        "    await lists.open(); await lists.read('u')\n"
        "asyncio.run(read())"
    ),
}

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None and "CI" not in os.environ,
    reason="this machine has no openssl to make a certificate",
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of `localhost` that nobody else has signed, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    made, key = directory / "certificate.pem", directory / "key.pem"
    options = [
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-keyout",
        str(key),
        "-out",
        str(made),
    ]
    subprocess.run(["openssl", "req", "-x509", *options], check=True, capture_output=True)  # noqa: S607
    return made, key


@contextmanager
def listener(certificate: tuple[Path, Path]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield a port, and what each who came said first: in clear, or once they had taken the certificate."""
    heard: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def hear(client: socket.socket) -> bytes:
        client.settimeout(20)
        if client.recv(8, socket.MSG_PEEK) == SSL_REQUEST:
            client.recv(8)
            client.sendall(b"S")
        if client.recv(1, socket.MSG_PEEK) not in {b"\x16", b""}:
            return client.recv(1000)  # no TLS
        try:
            with context.wrap_socket(client, server_side=True) as encrypted:
                return encrypted.recv(1000)
        except OSError:
            return b""  # the certificate was refused

    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with contextlib.suppress(OSError):  # it takes no more
                while True:
                    client = server.accept()[0]
                    with client, contextlib.suppress(OSError):  # who went away, or said nothing
                        heard.append(hear(client))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("name", [*BROKER, *DATABASE])
def test_a_secret_is_told_only_to_a_server_whose_certificate_is_known(
    certificate: tuple[Path, Path], name: str, is_known: bool, tmp_path: Path
) -> None:
    with listener(certificate) as (port, heard):
        broker_ca = f"?ssl_ca_certs={certificate[0]}" if is_known else ""  # else those of the machine
        database_ca = f"&sslrootcert={certificate[0] if is_known else ssl_authorities()}"
        urls = {
            "REDIS_URL": f"rediss://:{SECRET}@localhost:{port}/0{broker_ca}",
            "DATABASE_URL": f"postgresql://{SECRET}:any@localhost:{port}/bank?sslmode=verify-full{database_ca}",
        }
        # The other server is none of this, and refuses.
        refusing = {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": "postgresql://127.0.0.1:1/none"}
        env = environment(
            **{key: (urls if (key == "REDIS_URL") == (name in BROKER) else refusing)[key] for key in urls}
        )
        command = [sys.executable, "-c", {**BROKER, **DATABASE}[name]]
        with process(command, env=env, cwd=tmp_path, log=tmp_path / "log"):
            # A pool opens several connections, and is ended while some of them have only begun to talk.
            wait_for(lambda: is_told(heard) if is_known else heard, seconds=30)
    assert is_told(heard) == is_known
    assert SECRET not in (tmp_path / "log").read_text()


def is_told(heard: list[bytes]) -> bool:
    """Return whether anyone told the secret."""
    return any(SECRET.encode() in each for each in heard)


def ssl_authorities() -> str:
    """Return a file of authorities that have not signed the certificate."""
    import certifi

    return certifi.where()
