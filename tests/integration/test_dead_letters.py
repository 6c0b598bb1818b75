"""Tasks that fail for good, and kill what runs them: bounded, recorded with the reason, and alone in their fate."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from sqlalchemy import Engine, text

from alertrec import upkeep
from alertrec.dead_letters import MAX_KEPT, WAIT_SECONDS, DeadLetterBox
from alertrec.embedded import Servers
from alertrec.storage.database import create_engine
from alertrec.storage.dead_letters import UNKNOWN_USER, DeadLetter
from tests.integration.breakable import own_broker
from tests.integration.messages import deliver_again, envelope, letters_of, n_runs_of, put
from tests.integration.processes import ROOT, Environment, Worker, broker, connected, database, environment, wait_for
from tests.integration.processes import worker as started_worker
from tests.integration.worlds import workspace_on

LETTER = DeadLetter("alertrec.tick", "control", "m1", "OSError at here.py:1", 4)
DEADLY = {
    # task: its arguments, how often it is run, what is recorded
    "tests.exhaust_memory": ([], 1, "MemoryError at deadly_tasks.py:"),
    "tests.hang": ([], 1, "over its hard time limit (TimeLimitExceeded)"),
    "tests.segfault": ([], 4, "its process died of signal 11 (SIGSEGV) (WorkerLostError)"),
    "tests.segfault_on_event": ([{"user_id": "Jane Doe"}], 4, "its process died of signal 11 (SIGSEGV)"),
    "tests.find_the_database_away": ([], 4, "TransientError at deadly_tasks.py:"),
}


@pytest.fixture(scope="module")
def shared_database_url(running_servers: Servers, _template: None) -> Iterator[str]:
    with database(running_servers) as url:
        yield url


@pytest.fixture(scope="module")
def env(
    running_servers: Servers, shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    home = tmp_path_factory.mktemp("deadly")
    with broker(running_servers) as url:
        found = environment(DATABASE_URL=shared_database_url, REDIS_URL=url, DATA_DIR=home / "data")
        yield {**found, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def worker(env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    scratch = tmp_path_factory.mktemp("worker")
    with started_worker(
        env, scratch, name="test-deadly", module="tests.integration.deadly_tasks", concurrency=2
    ) as started:
        yield started


@pytest.fixture(scope="module")
def letters(env: Environment, shared_database_url: str, worker: Worker) -> Mapping[str, Any]:
    """The rows by task, after all of the deadly ones have had their way, with one that lives after each."""
    before = worker.process.pid, worker.children()
    for number, (task, (arguments, *_)) in enumerate(DEADLY.items()):
        put(env, "actions", envelope(task, arguments, timelimit=[1e9, 1e9]))  # the task's own limits hold
        put(env, "actions", envelope("tests.live", [str(number)]))
    put(env, "actions", envelope("tests.recover"))
    with connected(shared_database_url) as engine:
        wait_for(lambda: n_runs_of(env, "recover") == 2)
        wait_for(lambda: len(letters_of(engine)) >= len(DEADLY))
        wait_for(lambda: all(n_runs_of(env, f"live:{number}") for number in range(len(DEADLY))))
        assert worker.process.poll() is None
        assert worker.process.pid == before[0]
        assert worker.children() != before[1]
        return {row["task"]: row for row in letters_of(engine)}


@pytest.mark.parametrize("task", DEADLY)
def test_a_task_that_cannot_end_is_run_a_bounded_number_of_times_and_recorded(
    env: Environment, letters: Mapping[str, Any], task: str
):
    _, n_runs, reason = DEADLY[task]
    row = letters[task]
    assert n_runs_of(env, task.removeprefix("tests.")) == n_runs
    assert row["reason"].startswith(reason)
    assert (row["queue"], row["n_runs"]) == ("actions", n_runs)
    assert row["message_id"]


def test_each_message_has_one_row_and_those_that_live_have_none(letters: Mapping[str, Any]):
    assert set(letters) == set(DEADLY)  # and one that fails and then does not has none either


def test_its_neighbours_run_once(env: Environment, letters: Mapping[str, Any]):
    assert [n_runs_of(env, f"live:{number}") for number in range(len(DEADLY))] == [1] * len(DEADLY)


def test_nothing_of_it_stays_in_the_broker(env: Environment, letters: Mapping[str, Any]):
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        wait_for(lambda: client.hlen("unacked") == 0)
        assert client.llen("actions") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has loaded is asked of Linux")
@pytest.mark.usefixtures("letters")
def test_who_records_them_has_loaded_no_library_with_threads(worker: Worker):
    loaded = {Path(each.path).name for each in psutil.Process(worker.process.pid).memory_maps()}
    assert [name for name in loaded if "openblas" in name or "polars" in name] == []


def test_neither_the_rows_nor_the_log_say_what_it_was_about(letters: Mapping[str, Any], worker: Worker):
    assert "Jane" not in str(letters)
    assert "Jane" not in worker.text().replace("the database of Jane Doe is away", "")


def test_what_the_caller_got_wrong_is_recorded_without_what_it_says(
    env: Environment, shared_database_url: str, worker: Worker
):
    put(
        env,
        "actions",
        envelope("alertrec.log_alert_action", [{"user_id": "Jane Doe", "action": "exploded"}], id="wrong"),
    )
    with connected(shared_database_url) as engine:
        row = wait_for(lambda: next((row for row in letters_of(engine) if row["message_id"] == "wrong"), None))
    assert row["reason"].startswith("DataError at ")
    assert row["n_runs"] == 1
    assert "Jane" not in str(row)


def test_a_list_asked_for_nobody_is_recorded_as_that(env: Environment, shared_database_url: str, worker: Worker):
    put(env, "interactive", envelope("alertrec.generate_recommendations", ["Jane Doe"], id="nobody"))
    with connected(shared_database_url) as engine:
        row = wait_for(lambda: next((row for row in letters_of(engine) if row["message_id"] == "nobody"), None))
    assert row["reason"] == UNKNOWN_USER


@pytest.mark.slow
def test_a_retry_that_a_frozen_broker_does_not_take_loses_nothing(
    running_servers: Servers, shared_database_url: str, tmp_path: Path
):
    with own_broker(tmp_path / "broker") as frozen, connected(shared_database_url) as engine:
        own = environment(DATABASE_URL=shared_database_url, REDIS_URL=frozen.url, DATA_DIR=tmp_path / "data")
        fails = tmp_path / "fails"
        with started_worker(own, tmp_path, name="retries", module="tests.integration.deadly_tasks") as retries:
            put(own, "actions", envelope("tests.fail_when_told", [str(fails)], id="told"))
            wait_for(lambda: n_runs_of(own, "fail_when_told") == 1)
            frozen.freeze()
            fails.touch()
            wait_for(lambda: fails.read_text() and retries.logged("tests.fail_when_told", "eject"))
            frozen.thaw()
            deliver_again(frozen.url)
            wait_for(lambda: retries.logged("tests.fail_when_told", "succeeded"))
        assert [row for row in letters_of(engine) if row["message_id"] == "told"] == []


# --- where they are kept


def test_a_message_that_fails_again_keeps_its_one_row(engine: Engine):
    box = DeadLetterBox(lambda: engine)
    box.add(replace(LETTER, n_runs=2))
    box.add(replace(LETTER, n_runs=4, reason="another"))
    box.add(replace(LETTER, n_runs=1, reason="the last"))
    (row,) = letters_of(engine)
    assert (row["n_runs"], row["reason"]) == (4, "the last")


def test_messages_without_an_id_have_a_row_each(engine: Engine):
    box = DeadLetterBox(lambda: engine)
    for _ in range(2):
        box.add(DeadLetter(None, None, None, "no JSON", 0))
    assert len(letters_of(engine)) == 2


def test_no_connection_stays_open_for_a_fork_to_share(engine: Engine):
    mine = create_engine(engine.url.render_as_string(hide_password=False), application_name="the box")
    DeadLetterBox(lambda: mine).add(LETTER)
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'the box'")
        wait_for(lambda: connection.scalar(query) == 0)


def test_while_the_database_is_away_they_are_kept_and_nobody_waits_for_it(engine: Engine):
    now, tried = [100.0], []
    away = create_engine("postgresql://nobody@127.0.0.1:1/none")
    box = DeadLetterBox(lambda: away, clock=lambda: now[0])
    write = box._write

    def counted() -> None:
        tried.append(now[0])
        write()

    box._write = counted  # type: ignore[method-assign]  # to count what it tries
    for number in range(3):
        box.add(replace(LETTER, message_id=str(number)))
    assert tried == [100.0]
    box._engine = engine
    box.flush()
    assert tried == [100.0]
    now[0] += WAIT_SECONDS
    box.flush()
    assert sorted(row["message_id"] for row in letters_of(engine)) == ["0", "1", "2"]
    box.flush()
    assert len(tried) == 2


def test_no_more_are_kept_than_there_is_room_for():
    box = DeadLetterBox(lambda: create_engine("postgresql://nobody@127.0.0.1:1/none"))
    for number in range(MAX_KEPT + 5):
        box.add(replace(LETTER, message_id=str(number)))
    assert len(box._kept) == MAX_KEPT
    assert box._kept[-1].message_id == str(MAX_KEPT + 4)


@pytest.mark.usefixtures("_template")
def test_a_worker_whose_database_is_away_lives_on_and_records_later(running_servers: Servers, tmp_path: Path):
    with (
        database(running_servers) as url,
        broker(running_servers) as broker_url,
        connected(running_servers.database_url) as admin,
    ):
        env = {
            **environment(DATABASE_URL=url, REDIS_URL=broker_url, DATA_DIR=tmp_path / "data"),
            "PYTHONPATH": str(ROOT),
        }
        name = url.rpartition("/")[2]
        with started_worker(env, tmp_path, name="test-away", module="tests.integration.deadly_tasks") as started:
            allow(admin, name, False)
            put(env, "actions", envelope("tests.exhaust_memory", []))
            put(env, "actions", "no envelope")
            wait_for(lambda: started.logged("dead letters wait for the database"))
            put(env, "actions", envelope("tests.live", ["meanwhile"]))
            wait_for(lambda: n_runs_of(env, "live:meanwhile"))
            assert started.answers()
            allow(admin, name, True)
            with connected(url) as engine:
                wait_for(lambda: len(letters_of(engine)) == 2)


def allow(admin: Engine, name: str, connections: bool) -> None:
    """Let nobody into a database, and throw out who is in; or let them in again."""
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {connections}"))
        if not connections:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(text(query), {"name": name})


def test_rows_are_deleted_after_ninety_days(engine: Engine, database_url: str, tmp_path: Path):
    box = DeadLetterBox(lambda: engine)
    for age in (89, 91):
        box.add(replace(LETTER, message_id=str(age)))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE alertrec.dead_letters SET recorded_at = now() - make_interval(days => message_id::int)")
        )
    with workspace_on(database_url, tmp_path) as workspace:
        assert upkeep.clean_up(workspace)["dead_letters"] == 1
    assert [row["message_id"] for row in letters_of(engine)] == ["89"]
