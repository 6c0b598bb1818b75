"""Who asks for their list does not wait for everybody's."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from statistics import median

import psutil
import pytest
from sqlalchemy import Engine, text

from alertrec.embedded import Servers
from alertrec.processes import running, worker_roles
from alertrec.settings import Settings
from tests.integration.asking import Asking, quantile
from tests.integration.processes import Send, broker, connected, database, environment, load_bank, wait_for, web_app
from tests.integration.worlds import train, workspace_on

# In proportion, as a bank of 12,000 users is refreshed with the settings that one gets.
N_USERS, CHUNK_SIZE = 3_000, 500
A_SECOND, N_ASK, ROUNDS = 10.0, 100, 3
PROMISED_RATIO = 3.0

pytestmark = [pytest.mark.slow, pytest.mark.alone]  # beside other tests, it would be them who make one wait


@dataclass(frozen=True)
class System:
    """What `alertrec up` runs, and who asks it."""

    engine: Engine
    send: Send
    asking: Asking
    users: Iterator[str]
    pids: dict[str, int]


@pytest.fixture(scope="module")
def system(running_servers: Servers, _template: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The workers of `alertrec up`, at a bank large enough for its refresh to take some seconds."""
    scratch = tmp_path_factory.mktemp("interactive")
    with database(running_servers) as url, broker(running_servers) as broker_url, pytest.MonkeyPatch.context() as patch:
        load_bank(url, scratch, n_users=N_USERS)
        with workspace_on(url, scratch / "data") as workspace:
            train(workspace, as_of=datetime.now(UTC))
        patch.setenv("ALERTREC_CHUNK_SIZE", str(CHUNK_SIZE))  # these processes inherit their other settings
        settings = Settings(database_url=url, redis_url=broker_url, data_dir=scratch / "data")
        env = environment(DATABASE_URL=url, REDIS_URL=broker_url, DATA_DIR=scratch / "data")
        with connected(url) as engine, web_app(env) as unsafe, running(settings, worker_roles()) as started:
            send = in_turn(unsafe)
            asking = Asking(env, engine, send)
            with engine.connect() as connection:
                users = connection.scalars(text("SELECT id FROM users WHERE is_active ORDER BY md5(id)")).all()
            with asking.listening():
                pids = {name: process.pid for name, process in started.items()}
                yield System(engine, send, asking, iter(users), pids)


def in_turn(send: Send) -> Send:
    """Make sending safe for several threads."""
    lock = threading.Lock()

    def send_in_turn(name: str, *arguments: object) -> str:
        with lock:
            return send(name, *arguments)

    return send_in_turn


@contextmanager
def refreshes(system: System) -> Iterator[None]:
    """Have everybody's lists refreshed again and again."""
    over = threading.Event()

    def keep_refreshing() -> None:
        while not over.is_set():
            system.send("refresh_recommendations")
            wait_for(lambda: n_unfinished(system) > 0 or over.is_set())
            while n_unfinished(system) > 0 and not over.is_set():
                over.wait(0.1)

    thread = threading.Thread(target=keep_refreshing)
    thread.start()
    try:
        wait_for(lambda: n_unfinished(system) > 0)
        yield
    finally:
        over.set()
        thread.join()
        wait_for(lambda: n_unfinished(system) == 0)


def n_unfinished(system: System) -> int:
    return count(system, "SELECT count(*) FROM alertrec.job_runs WHERE job = 'refresh' AND finished_at IS NULL")


def n_chunks_done(system: System) -> int:
    return count(system, "SELECT count(*) FROM alertrec.job_chunks WHERE status = 'done'")


def count(system: System, query: str) -> int:
    with system.engine.connect() as connection:
        return int(connection.scalar(text(query)) or 0)


def ask(system: System, n_users: int = N_ASK) -> list[float]:
    """Have users who have not asked before ask, at a steady rate."""
    return system.asking.seconds_waited(list(islice(system.users, n_users)), a_second=A_SECOND)


def tell(name: str, waited: Sequence[float]) -> None:
    shares = (0.5, 0.9, 0.99, 1.0)
    print(f"{name}: " + ", ".join(f"p{share * 100:g} {quantile(waited, share) * 1e3:.0f} ms" for share in shares))


def test_while_everybody_is_refreshed_who_asks_waits_at_most_three_times_as_long(system: System):
    with refreshes(system):
        ask(system, 60)  # until all that is loaded at first use has been
    ratios = []
    # By turns, since what else the machine does comes and goes.
    for _ in range(ROUNDS):
        idle, n_before = ask(system), n_chunks_done(system)
        with refreshes(system):
            busy = ask(system)
            assert n_chunks_done(system) > n_before
        ratios.append(quantile(busy, 0.99) / quantile(idle, 0.99))
        tell("idle", idle)
        tell("busy", busy)
        print(f"ratio {ratios[-1]:.2f}, {n_chunks_done(system) - n_before} chunks")
    assert median(ratios) <= PROMISED_RATIO, ratios


def test_workers_for_whom_nobody_waits_leave_the_processor_to_those_for_whom_somebody_does(system: System):
    own = psutil.Process().nice()
    patient = min(own + 10, 19)  # which is the most there is
    wait_for(lambda: {psutil.Process(system.pids[name]).nice() for name in ("batch", "training")} == {patient})
    wait_for(lambda: len(psutil.Process(system.pids["batch"]).children()) > 0)
    assert all(child.nice() == patient for child in psutil.Process(system.pids["batch"]).children())
    assert psutil.Process(system.pids["interactive"]).nice() == own
