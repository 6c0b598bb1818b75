"""The list endpoint under load: latency at 300 requests a second, and throughput beside that of a constant.

Server and load generator are processes of their own on one machine. The generator opens connections that stay, asks
for the lists of many customers in turn, and reads every answer to its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from sqlalchemy import select

from alertrec import demo, fitting, service
from alertrec.runtime import child_environment, opened
from alertrec.settings import Settings
from alertrec.storage.tables import recommendation_lists
from alertrec.web.access import Viewer, sign_token, web_secret

N_USERS = 1000
CONNECTIONS = 16
RATE = 300
SECONDS = 10.0
ROUNDS = 3
LIST, CONSTANT = "/api/alerts/recommendations", "/health/live"


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, request: bytes) -> None:
        """Send a request and read its answer, which must be a list or a constant."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        await self._reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))

    def close(self) -> None:
        self._writer.close()


def requests_for(path: str, tokens: Sequence[str]) -> list[bytes]:
    return [
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode() for token in tokens
    ]


async def as_fast_as_it_goes(port: int, requests: Sequence[bytes]) -> float:
    """Return requests a second with all connections busy."""
    until, n_done = time.perf_counter() + SECONDS, 0

    async def work(number: int) -> None:
        nonlocal n_done
        client = await Client.connect(port)
        while time.perf_counter() < until:
            await client.get(requests[number % len(requests)])
            number, n_done = number + CONNECTIONS, n_done + 1
        client.close()

    await asyncio.gather(*(work(number) for number in range(CONNECTIONS)))
    return n_done / SECONDS


async def at_a_rate(port: int, requests: Sequence[bytes]) -> list[float]:
    """Return the seconds that each request took from when it was due; who waits for a connection, waits."""
    free: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await Client.connect(port))
    started, took = time.perf_counter(), list[float]()

    async def send(number: int) -> None:
        due = started + number / RATE
        await asyncio.sleep(due - time.perf_counter())
        client = await free.get()
        await client.get(requests[number % len(requests)])
        took.append(time.perf_counter() - due)
        free.put_nowait(client)

    await asyncio.gather(*(send(number) for number in range(int(RATE * SECONDS))))
    while not free.empty():
        free.get_nowait().close()
    return sorted(took)


def generate(port: int, tokens: Path) -> None:
    """Be the load generator, and print what was seen."""
    lists, constant = (requests_for(path, json.loads(tokens.read_text())) for path in (LIST, CONSTANT))
    uvloop.run(as_fast_as_it_goes(port, lists))  # everything is warm then
    for _ in range(ROUNDS):
        took = uvloop.run(at_a_rate(port, lists))
        p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
        of_constant, of_lists = (uvloop.run(as_fast_as_it_goes(port, each)) for each in (constant, lists))
        print(
            f"at {RATE}/s: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms; as fast as it goes: "
            f"lists {of_lists:,.0f}/s, constant {of_constant:,.0f}/s, ratio {of_lists / of_constant:.2f}"
        )


def main() -> None:
    """Make a sample bank with lists, serve it, and measure."""
    with TemporaryDirectory() as scratch, opened(replace(Settings(), data_dir=Path(scratch))) as workspace:
        demo._load_bank(workspace, n_users=N_USERS, seed=0)
        fitting.request_training(workspace, force=True, promoted_by="benchmark")
        fitting.run_training(workspace)
        service.refresh_locally(workspace)
        with workspace.engine.connect() as connection:
            user_ids = connection.scalars(select(recommendation_lists.c.user_id)).all()
        secret, tokens = web_secret(workspace.settings), Path(scratch) / "tokens.json"
        tokens.write_text(json.dumps([sign_token(secret, Viewer(user_id)) for user_id in user_ids]))
        command = [sys.executable, "-m", "alertrec", "serve", "--port", "0"]
        log = Path(scratch) / "serve.log"
        environment = child_environment(workspace.settings, os.environ)
        with (
            log.open("wb") as output,
            subprocess.Popen(command, env=environment, stdout=output, stderr=output) as server,
        ):
            try:
                while not (found := re.search(r"running on http://127.0.0.1:(\d+)", log.read_text())):
                    time.sleep(0.1)
                subprocess.run([sys.executable, __file__, found[1], str(tokens)], check=True)
            finally:
                server.terminate()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        generate(int(sys.argv[1]), Path(sys.argv[2]))
