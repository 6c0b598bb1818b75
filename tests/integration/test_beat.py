"""Beat doubled, dead for an hour, or by a wrong clock, and servers that are away when it matters: one run a period."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine

from alertrec.embedded import Servers
from alertrec.schedule import SCHEDULE
from alertrec.storage.schema import create_source_relations, migrate
from alertrec.storage.source import Source
from alertrec.task_names import CONTROL, TRAINING
from tests.integration.breakable import own_broker, own_postgres
from tests.integration.moved_clock import CLOCK, TICK_SECONDS, set_clock
from tests.integration.processes import (
    Environment,
    Worker,
    broker,
    connected,
    database,
    environment,
    load_bank,
    n_versions,
    process,
    rows,
    wait_for,
    web_app,
    worker,
)
from tests.integration.worlds import train, workspace_on

N_USERS = 60
MOVED_CLOCK = "tests.integration.moved_clock"
FIVE_MINUTES = 300.0
PROMISED_SECONDS = 120  # from the recovery of a server to the start of the training


@dataclass(frozen=True)
class Beat:
    """A Beat that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    def n_ticks(self) -> int:
        """Return how many ticks it has sent or tried to."""
        return self.text().count("Sending due task tick")

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def beat(env: Environment, cwd: Path, name: str = "beat", *, module: str = MOVED_CLOCK) -> Iterator[Beat]:
    log = cwd / f"{name}.log"
    with process([sys.executable, "-m", module, "beat"], env=env, cwd=cwd, log=log) as started:
        yield Beat(started, log)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beat")


@pytest.fixture(scope="module")
def database_url(running_servers: Servers, _template: None, scratch: Path) -> Iterator[str]:
    with database(running_servers) as url:
        load_bank(url, scratch, n_users=N_USERS)
        with workspace_on(url, scratch / "data") as workspace:
            train(workspace, as_of=datetime.now(UTC))
        yield url


@pytest.fixture(scope="module")
def redis_url(running_servers: Servers) -> Iterator[str]:
    with broker(running_servers) as url:
        yield url


@pytest.fixture(scope="module")
def env(database_url: str, redis_url: str, scratch: Path) -> Environment:
    found = environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=scratch / "data", CHUNK_SIZE=N_USERS)
    return {**found, TICK_SECONDS: "1"}


@pytest.fixture(scope="module")
def shared_worker(env: Environment, scratch: Path) -> Iterator[Worker]:
    set_clock(scratch / "clock-of-worker", 0)
    with worker(
        {**env, CLOCK: str(scratch / "clock-of-worker")}, scratch, name="ticked", concurrency=2, module=MOVED_CLOCK
    ) as started:
        yield started


@pytest.fixture
def beat_env(env: Environment, tmp_path: Path) -> Environment:
    """Of a Beat that ticks each second, by a clock of its own."""
    set_clock(tmp_path / "clock", 0)
    return {**env, CLOCK: str(tmp_path / "clock")}


@pytest.fixture
def started_at(engine: Engine, shared_worker: Worker, scratch: Path) -> datetime:
    """When this test began, in a database in which no job has run in this period."""
    set_clock(scratch / "clock-of-worker", 0)
    wait_for(lambda: not rows(engine, "SELECT FROM alertrec.job_runs WHERE finished_at IS NULL"))
    rows(engine, "DELETE FROM alertrec.job_runs")
    return database_time(engine)


def database_time(engine: Engine) -> datetime:
    moment: datetime = rows(engine, "SELECT clock_timestamp() AS now")[0]["now"]
    return moment


def n_ticks_done(worker: Worker) -> int:
    return worker.logged("alertrec.tick", "succeeded")


def have_ended(engine: Engine, n_periods: int = 1) -> bool:
    """Whether each job has run in so many periods."""
    query = "SELECT job FROM alertrec.job_runs WHERE finished_at IS NOT NULL GROUP BY job HAVING count(*) >= :n"
    return len(rows(engine, query, n=n_periods)) == len(SCHEDULE)


def let_tick(worker: Worker, *beats: Beat, n_ticks: int = 3) -> None:
    """Wait until each of these Beats has ticked so often once more, and as many ticks have been done."""
    sent, done = [each.n_ticks() for each in beats], n_ticks_done(worker)
    wait_for(lambda: all(each.n_ticks() >= before + n_ticks for each, before in zip(beats, sent, strict=True)))
    wait_for(lambda: n_ticks_done(worker) >= done + n_ticks * len(beats))


def assert_one_run_a_period(engine: Engine, since: datetime) -> None:
    """Each job has run once in each of the periods that there were, and succeeded at its first attempt."""
    now = database_time(engine)
    runs = rows(engine, "SELECT * FROM alertrec.job_runs WHERE created_at >= :since", since=since)
    found = sorted((run["job"], run["period"]) for run in runs)
    assert found == sorted({(job, due.period(moment)) for job, due in SCHEDULE.items() for moment in (since, now)})
    assert {(run["job"], run["status"]) for run in runs} == {(job, "done") for job in SCHEDULE}
    assert {run["attempts"] for run in runs if run["job"] != "refresh"} == {1}
    chunks = rows(
        engine,
        "SELECT chunks.attempts FROM alertrec.job_chunks AS chunks JOIN alertrec.job_runs USING (job_id) "
        "WHERE created_at >= :since",
        since=since,
    )
    assert {chunk["attempts"] for chunk in chunks} == {1}
    assert rows(engine, "SELECT * FROM alertrec.dead_letters") == []


def let_a_period_pass(engine: Engine) -> None:
    """Make what has run so far that of the period before: in the hour since, each job has fallen due."""
    for job, due in SCHEDULE.items():
        length = "7 days" if due.weekday is not None else "1 day"
        rows(
            engine,
            "UPDATE alertrec.job_runs SET period = 'before ' || period, "
            "created_at = created_at - cast(:length AS interval) WHERE job = :job",
            length=length,
            job=job,
        )
    rows(engine, "UPDATE alertrec.model_versions SET created_at = created_at - interval '7 days'")


def test_two_beats_start_each_job_once_a_period(
    engine: Engine, shared_worker: Worker, beat_env: Environment, started_at: datetime, tmp_path: Path
):
    before = n_versions(engine)
    rows(engine, "UPDATE alertrec.model_versions SET created_at = created_at - interval '7 days'")
    with beat(beat_env, tmp_path, "one") as one, beat(beat_env, tmp_path, "two") as two:
        wait_for(lambda: have_ended(engine))
        let_tick(shared_worker, one, two)
        print(f"{one.n_ticks() + two.n_ticks()} ticks of two Beats, one run a job")
    assert_one_run_a_period(engine, started_at)
    assert n_versions(engine) == before + 1


def test_what_fell_due_while_beat_was_dead_starts_once_when_it_is_back(
    engine: Engine, shared_worker: Worker, beat_env: Environment, started_at: datetime, tmp_path: Path
):
    with beat(beat_env, tmp_path, "dies") as dies:
        wait_for(lambda: have_ended(engine))
        dies.kill()
    let_a_period_pass(engine)
    before = n_versions(engine)
    with beat(beat_env, tmp_path, "follows") as follows:
        wait_for(lambda: have_ended(engine, n_periods=2))
        let_tick(shared_worker, follows)
    assert_one_run_a_period(engine, started_at)
    assert n_versions(engine) == before + 1


# By most of a day as well: whoever read its own clock would find itself in another period.
@pytest.mark.parametrize("seconds", [-FIVE_MINUTES, FIVE_MINUTES, -23 * 3600.0])
@pytest.mark.parametrize("whose", ["worker", "Beat"])
def test_whose_clock_is_wrong_changes_nothing(
    engine: Engine,
    shared_worker: Worker,
    beat_env: Environment,
    started_at: datetime,
    scratch: Path,
    tmp_path: Path,
    whose: str,
    seconds: float,
):
    set_clock(scratch / "clock-of-worker" if whose == "worker" else tmp_path / "clock", seconds)
    with beat(beat_env, tmp_path) as wrong:
        wait_for(lambda: have_ended(engine))
        let_tick(shared_worker, wrong)
    assert_one_run_a_period(engine, started_at)


@pytest.mark.parametrize("seconds", [-FIVE_MINUTES, FIVE_MINUTES])
def test_a_clock_that_is_set_while_beat_runs_does_not_stop_it(
    engine: Engine,
    shared_worker: Worker,
    beat_env: Environment,
    started_at: datetime,
    tmp_path: Path,
    seconds: float,
):
    with beat(beat_env, tmp_path) as running:
        wait_for(lambda: have_ended(engine))
        set_clock(tmp_path / "clock", seconds)
        let_tick(shared_worker, running)
    assert_one_run_a_period(engine, started_at)


def test_the_ticks_of_four_hours_without_a_worker_are_worked_off_at_once(
    engine: Engine, shared_worker: Worker, env: Environment, started_at: datetime
):
    done, n_ticks = n_ticks_done(shared_worker), 240
    with web_app(env) as send, redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        started = time.monotonic()
        for _ in range(n_ticks):
            send("tick")
        wait_for(lambda: n_ticks_done(shared_worker) >= done + n_ticks)
        print(f"{n_ticks} ticks took {time.monotonic() - started:.1f} s")
        assert client.llen(CONTROL) == 0
    wait_for(lambda: have_ended(engine))
    assert_one_run_a_period(engine, started_at)


# --- a server that is away at the weekly minute


@dataclass(frozen=True)
class System:
    """A worker and Beat, of which one server can be broken."""

    engine: Engine
    worker: Worker
    beat: Beat

    def training(self) -> Any:
        """Return the run of the training, once it has been begun."""
        begun = rows(self.engine, "SELECT * FROM alertrec.job_runs WHERE job = 'training' AND attempts > 0")
        return begun[0] if begun else None


@contextmanager
def system(directory: Path, database_url: str, redis_url: str) -> Iterator[System]:
    """Run a worker and Beat as they are, on a bank that has never had a training."""
    directory.mkdir()
    load_bank(database_url, directory, n_users=N_USERS)
    env = environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=directory / "data")
    with (
        connected(database_url) as engine,
        worker(env, directory, name=directory.name, queues=[CONTROL, TRAINING]) as started,
        beat(env, directory, module="alertrec") as ticking,
    ):
        yield System(engine, started, ticking)


@pytest.mark.slow
@pytest.mark.usefixtures("_template")
def test_a_training_that_fell_due_while_a_server_was_away_starts_within_two_minutes_of_its_return(
    running_servers: Servers, tmp_path: Path
):
    with ExitStack() as stack:
        lost_broker = stack.enter_context(own_broker(tmp_path / "broker"))
        lost_database = stack.enter_context(own_postgres(tmp_path / "postgres"))
        with connected(lost_database.url) as engine, engine.begin() as connection:
            migrate(connection)
            create_source_relations(connection, Source("public"))
        url = stack.enter_context(database(running_servers))
        without_broker = stack.enter_context(system(tmp_path / "without-broker", url, lost_broker.url))
        url = stack.enter_context(broker(running_servers))
        without_database = stack.enter_context(system(tmp_path / "without-database", lost_database.url, url))
        lost_broker.end()
        lost_database.end()
        # The minute comes: one Beat cannot send its tick, the other one's is in vain.
        wait_for(lambda: "beat: Connection error" in without_broker.beat.text())
        wait_for(lambda: without_database.worker.logged("alertrec.tick", "TransientError"))
        lost_database.start()
        lost_broker.start()
        back_at = time.monotonic()
        for name, lost in (("broker", without_broker), ("database", without_database)):
            run = wait_for(lost.training, seconds=PROMISED_SECONDS - (time.monotonic() - back_at))
            print(f"begun {time.monotonic() - back_at:.0f} s after the {name} was back, or before")
            assert run["attempts"] == 1
        for lost in (without_broker, without_database):
            wait_for(lambda: lost.training()["finished_at"])  # noqa: B023  # asked within the loop
            assert lost.training()["status"] == "done"
            assert len(rows(lost.engine, "SELECT FROM alertrec.job_runs WHERE job = 'training'")) == 1
