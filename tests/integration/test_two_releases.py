"""A filled database goes up and down while workers of two releases work on it, and lists stay readable all along."""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from alertrec.catalog import ALERT_KEYS
from alertrec.embedded import Servers
from alertrec.storage.schema import create_source_relations, current_revision, downgrade, migrate, newest_revision
from alertrec.storage.source import Source
from tests.integration.messages import envelope, letters_of, put
from tests.integration.processes import (
    ROOT,
    Environment,
    Send,
    Worker,
    backends_that_wait,
    broker,
    connected,
    database,
    environment,
    load_bank,
    run_script,
    tuples,
    wait_for,
    web_app,
    worker,
)
from tests.integration.worlds import in_background

# The last release whose workers know nothing of `alertrec.dead_letters`.
OLD_COMMIT, OLD_REVISION = "641bc0a", "0004"
N_USERS, CHUNK_SIZE = 60, 6
PATIENCE_SECONDS = 5.0  # of who reads a list

_INCOMPLETE = """
    SELECT users.id FROM users
    LEFT JOIN alertrec.recommendation_lists AS lists ON lists.user_id = users.id
    WHERE users.is_active AND (lists.n_items IS NULL OR lists.expires_at < now() OR lists.n_items <> (
        SELECT count(*) FROM alertrec.recommendations AS items WHERE items.user_id = users.id
    ))
"""
# What is done is written down by the database itself, each time.
_WATCH = """
    CREATE TABLE done_chunks (job_id uuid, chunk bigint);
    CREATE TABLE applied_events (event_id uuid);
    CREATE FUNCTION note_chunk() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO done_chunks VALUES (NEW.job_id, NEW.chunk); RETURN NULL; END';
    CREATE FUNCTION note_event() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO applied_events VALUES (NEW.event_id); RETURN NULL; END';
    CREATE TRIGGER note AFTER UPDATE ON alertrec.job_chunks FOR EACH ROW
        WHEN (NEW.status = 'done' AND OLD.status <> 'done') EXECUTE FUNCTION note_chunk();
    CREATE TRIGGER note AFTER UPDATE ON alertrec.alert_actions FOR EACH ROW
        WHEN (NEW.processed_at IS NOT NULL AND OLD.processed_at IS NULL) EXECUTE FUNCTION note_event()
"""


@pytest.fixture(scope="module")
def old_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the release before, out of the history of this one."""
    archive = archive_of(OLD_COMMIT)
    if archive is None:
        reason = f"the release before, commit {OLD_COMMIT}, cannot be had from the history of this checkout"
        if "CI" in os.environ and (ROOT / ".git").exists():
            pytest.fail(f"{reason}: fetch all of it")
        pytest.skip(reason)
    tree = tmp_path_factory.mktemp("old-release")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(tree, filter="data")
    return tree


def archive_of(commit: str) -> bytes | None:
    """Return the files of a commit, if there are git and a history that holds it."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "-C", str(ROOT), "archive", commit], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two-releases")


@pytest.fixture(scope="module")
def bank_url(running_servers: Servers, scratch: Path) -> Iterator[str]:
    """A bank in a database of the release before."""
    with database(running_servers, template=None) as url:
        with connected(url) as engine, engine.begin() as connection:
            migrate(connection, OLD_REVISION)
            create_source_relations(connection, Source("public"))
        load_bank(url, scratch, n_users=N_USERS)
        with connected(url) as engine, engine.begin() as connection:
            connection.exec_driver_sql(_WATCH)
        yield url


@pytest.fixture
def bank(bank_url: str) -> Iterator[Engine]:
    with connected(bank_url) as engine:
        yield engine


@pytest.fixture
def new(running_servers: Servers, bank_url: str, scratch: Path) -> Iterator[Environment]:
    with broker(running_servers) as url:
        yield environment(DATABASE_URL=bank_url, REDIS_URL=url, DATA_DIR=scratch / "data", CHUNK_SIZE=CHUNK_SIZE)


@pytest.fixture
def old(new: Environment, old_release: Path) -> Environment:
    # Before the installed code, and with no directory of the caller's before both.
    found = {**new, "PYTHONPATH": str(old_release), "PYTHONSAFEPATH": "1"}
    where = run_script(
        "import json, alertrec, tasks; print(json.dumps([alertrec.__file__, tasks.__file__]))", env=found
    )
    assert all(each.startswith(str(old_release)) for each in where)
    return found


def revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return current_revision(connection)


def to_revision(engine: Engine, wanted: str) -> None:
    """Migrate up, or down, on a connection of its own as a command does."""
    with engine.begin() as connection:
        is_up = (current_revision(connection) or "") < wanted
    with engine.begin() as connection:
        (migrate if is_up else downgrade)(connection, wanted)


# --- who reads


@dataclass
class Reader:
    """Reads all the time, and notes how long each reading took and what it found wrong."""

    n_reads: int = 0
    worst_seconds: float = 0.0
    faults: list[object] = field(default_factory=list)


@contextmanager
def reading(engine: Engine) -> Iterator[Reader]:
    """Read lists from beginning to end of the block: all of them, and those of one user as web apps do."""
    reader, stop = Reader(), threading.Event()
    user_ids = [user_id for (user_id,) in tuples(engine, "SELECT id FROM users WHERE is_active")]

    def read_once(user_id: str) -> None:
        started = time.perf_counter()
        incomplete = [each for (each,) in tuples(engine, _INCOMPLETE)]
        items = tuples(engine, "SELECT rank, title FROM alertrec.recommendations WHERE user_id = :u", u=user_id)
        reader.worst_seconds = max(reader.worst_seconds, time.perf_counter() - started)
        reader.n_reads += 1
        ranks = sorted(rank for rank, _ in items)
        if incomplete or ranks != list(range(1, len(items) + 1)):
            reader.faults.append((incomplete, ranks))

    def read() -> None:
        for user_id in itertools.cycle(user_ids):
            if stop.wait(0.01):
                return
            try:
                read_once(user_id)
            except Exception as error:  # a reading that fails is what must not happen
                reader.faults.append(repr(error))

    with in_background(read):
        try:
            yield reader
        finally:
            stop.set()


def has_read_on(reader: Reader, n_reads: int) -> bool:
    return reader.n_reads > n_reads


# --- who asks


@dataclass
class Asked:
    """What was sent: ids of events, and of messages that ask for a refresh."""

    events: list[str] = field(default_factory=list)
    refreshes: list[str] = field(default_factory=list)


@contextmanager
def in_turns(env: Environment) -> Iterator[Send]:
    """Start a web process that several threads may have send."""
    lock = threading.Lock()
    with web_app(env) as send:

        def send_alone(name: str, *args: object) -> str:
            with lock:
                return send(name, *args)

        yield send_alone


@contextmanager
def asking(asked: Asked, engine: Engine, *webs: Send) -> Iterator[None]:
    """Have web processes send actions and refreshes in turns, from beginning to end of the block."""
    stop, draw = threading.Event(), random.Random(len(asked.events))  # noqa: S311  # which alert is no secret
    user_ids = [user_id for (user_id,) in tuples(engine, "SELECT id FROM users WHERE is_active")]

    def ask() -> None:
        for number, send in enumerate(itertools.cycle(webs)):
            if number % 20 < len(webs):
                asked.refreshes.append(send("refresh_recommendations"))
            act(asked, send, draw.choice(user_ids), draw.choice(ALERT_KEYS))
            if stop.wait(0.25):
                return

    with in_background(ask) as asks:
        try:
            yield
        finally:
            stop.set()
    asks.result()


def act(asked: Asked, send: Send, user_id: str, alert_type: str) -> None:
    event = {"event_id": str(uuid4()), "user_id": user_id, "action": "dismissed", "alert_type": alert_type}
    send("log_alert_action", event)
    asked.events.append(event["event_id"])


def jobs_of(engine: Engine, task_ids: Sequence[str]) -> list[Any]:
    query = "SELECT job_id, status FROM alertrec.job_runs WHERE arguments ->> 'request' = ANY(:asked)"
    return tuples(engine, query, asked=[f"asked:{task_id}" for task_id in task_ids])


def is_idle(engine: Engine, asked: Asked) -> bool:
    """Return whether all that was asked for is done."""
    logged = tuples(engine, "SELECT count(*) FROM alertrec.alert_actions WHERE processed_at IS NOT NULL")[0][0]
    runs = jobs_of(engine, asked.refreshes)
    unfinished = tuples(engine, "SELECT 1 FROM alertrec.job_runs WHERE finished_at IS NULL")
    return logged == len(asked.events) and len(runs) == len(asked.refreshes) and not unfinished


def trainings_done(engine: Engine) -> int:
    return int(
        tuples(engine, "SELECT count(*) FROM alertrec.job_runs WHERE job = 'training' AND status = 'done'")[0][0]
    )


def has_trained(engine: Engine, send: Send) -> bool:
    """Ask for a training, and wait until it is done."""
    before = trainings_done(engine)
    send("train_model", True)
    return bool(wait_for(lambda: trainings_done(engine) > before))


def chunk_workers(engine: Engine, asked: Asked, workers: Sequence[Worker]) -> set[tuple[str, str]]:
    """Return which worker divided a refresh and which did one of its chunks, for all that are done."""
    found = set()
    for request, claimed_by in tuples(
        engine,
        "SELECT substr(arguments ->> 'request', 7), claimed_by FROM alertrec.job_runs JOIN alertrec.job_chunks "
        "USING (job_id) WHERE job_chunks.status = 'done' AND arguments ? 'request'",
    ):
        pair = [each.hostname for task_id in (request, claimed_by) for each in workers if each.logged(task_id, "succe")]
        if request in asked.refreshes and len(pair) == 2:
            found.add((pair[0], pair[1]))
    return found


@pytest.mark.slow
def test_lists_stay_whole_and_all_work_is_done_once_while_two_releases_work_side_by_side(
    old: Environment, new: Environment, bank: Engine, tmp_path: Path
):
    asked = Asked()
    with in_turns(old) as from_old, in_turns(new) as from_new, ExitStack() as reads:
        with worker(old, tmp_path, name="old", concurrency=2) as old_worker:
            assert has_trained(bank, from_old)
            asked.refreshes.append(from_old("refresh_recommendations"))
            wait_for(lambda: is_idle(bank, asked))
            reader = reads.enter_context(reading(bank))
            with asking(asked, bank, from_old):  # up, while the old release works
                wait_for(lambda: tuples(bank, "SELECT 1 FROM alertrec.job_chunks WHERE status = 'running'"))
                to_revision(bank, str(newest_revision()))
                n_refreshes = len(asked.refreshes)
                wait_for(lambda: len(asked.refreshes) > n_refreshes)
            with asking(asked, bank, from_new):  # what new web processes send to old workers
                assert has_trained(bank, from_new)
            wait_for(lambda: is_idle(bank, asked))
            with worker(new, tmp_path, name="new", concurrency=2) as new_worker:
                both = [old_worker, new_worker]
                with asking(asked, bank, from_old, from_new):  # until each has done what the other one divided
                    wait_for(lambda: len(chunk_workers(bank, asked, both)) == 4)
                wait_for(lambda: is_idle(bank, asked))
        with worker(new, tmp_path, name="new-alone", concurrency=2), asking(asked, bank, from_old):
            assert has_trained(bank, from_old)  # what old web processes send to new workers
        assert letters_of(bank) == []
        with worker(old, tmp_path, name="old-again", concurrency=2):
            with asking(asked, bank, from_old):  # down, while the old release works
                wait_for(lambda: tuples(bank, "SELECT 1 FROM alertrec.job_chunks WHERE status = 'running'"))
                to_revision(bank, OLD_REVISION)
                n_refreshes = len(asked.refreshes)
                wait_for(lambda: len(asked.refreshes) > n_refreshes)
            wait_for(lambda: is_idle(bank, asked))
    print(
        f"{reader.n_reads} readings, the slowest {reader.worst_seconds:.3f} s; {len(asked.refreshes)} refreshes, "
        f"{len(asked.events)} events"
    )
    assert reader.faults == []
    assert reader.worst_seconds < 5 * PATIENCE_SECONDS  # beside workers that are busy with all this
    assert revision(bank) == OLD_REVISION
    assert_all_done_once(bank, asked)


def assert_all_done_once(engine: Engine, asked: Asked) -> None:
    """Assert that each chunk and each event was done, and that once."""
    assert {run.status for run in jobs_of(engine, asked.refreshes)} == {"done"}
    chunks = tuples(engine, "SELECT job_id, chunk FROM alertrec.job_chunks ORDER BY 1, 2")
    assert tuples(engine, "SELECT * FROM done_chunks ORDER BY 1, 2") == chunks
    assert tuples(engine, "SELECT 1 FROM alertrec.job_chunks WHERE attempts <> 1 OR n_lost > 0") == []
    applied = [str(event_id) for (event_id,) in tuples(engine, "SELECT event_id FROM applied_events")]
    assert sorted(applied) == sorted(asked.events)


def test_a_new_worker_on_an_old_schema_works_on_and_keeps_its_dead_letters_until_the_migration(
    new: Environment, bank: Engine, tmp_path: Path
):
    to_revision(bank, OLD_REVISION)
    with worker(new, tmp_path, name="too-new") as too_new, web_app(new) as send:
        assert has_trained(bank, send)
        put(new, "actions", envelope("alertrec.process_fish", id="poison"))
        wait_for(lambda: too_new.logged("message given up", "poison"))
        wait_for(lambda: too_new.logged("dead letters wait for the database", "UndefinedTable"))
        cleanup = send("cleanup_expired")
        wait_for(lambda: too_new.logged("message given up", cleanup))  # an error that says so, and nothing deleted
        asked = Asked()
        asked.refreshes.append(send("refresh_recommendations"))
        wait_for(lambda: [run.status for run in jobs_of(bank, asked.refreshes)] == ["done"])
        assert too_new.answers()
        to_revision(bank, str(newest_revision()))
        wait_for(lambda: {row["message_id"] for row in letters_of(bank)} == {"poison", cleanup})
    to_revision(bank, OLD_REVISION)


# --- every revision, on a bank of some size

N_LISTS = 20_000
SOME_LISTS = 5_000  # more than are filled in at once
Fill = Callable[[int], Engine]
_FILL_LISTS = """
    INSERT INTO alertrec.recommendation_lists (user_id, recommendation_type, model_version, generated_at, expires_at,
        as_of, n_items)
    SELECT 'u' || n, 'ml_hybrid', 'm1', now(), now() + interval '2 days', now(), 4 FROM generate_series(1, :n_lists) n
"""
_FILL_ITEMS = """
    INSERT INTO alertrec.recommendations (user_id, alert_type, rank, probability, confidence_level, parameters, reasons,
        title, description, natural_language_query, category, priority, reasoning, recommendation_id, model_version,
        generated_at, expires_at, recommendation_type, change)
    SELECT 'u' || n, 'a' || k, k, CASE WHEN k > 1 THEN 0.5 END, 'low', '{}', '[]', 'title', repeat('d', 200),
        repeat('q', 80), 'c', 'p', repeat('r', 200), gen_random_uuid(), 'm1', now(), now() + interval '2 days',
        CASE WHEN k > 1 THEN 'ml_hybrid' ELSE 'change' END, CASE WHEN k = 1 THEN jsonb '{}' END
    FROM generate_series(1, :n_lists) n, generate_series(1, 4) k
"""
_FILL_ACTIONS = """
    INSERT INTO alertrec.alert_actions (event_id, user_id, action, occurred_at, processed_at)
    SELECT gen_random_uuid(), 'u' || n, 'snoozed', now(), now() FROM generate_series(1, 5 * :n_lists) n
"""


@pytest.fixture
def filled(running_servers: Servers, _template: None) -> Iterator[Fill]:
    """Makes a bank of so many lists of four items each, the first one of them advice."""
    with database(running_servers) as url, connected(url) as engine:

        def fill(n_lists: int) -> Engine:
            with engine.begin() as connection:
                for statement in (_FILL_LISTS, _FILL_ITEMS, _FILL_ACTIONS):
                    connection.execute(text(statement), {"n_lists": n_lists})
                connection.exec_driver_sql("INSERT INTO users (id) SELECT 'u' || n FROM generate_series(1, 200) n")
            return engine

        yield fill


REVISIONS = ["0001", "0002", "0003", "0004", "0005"]


def test_nobody_waits_for_a_list_at_any_step_down_or_up(filled: Fill):
    assert newest_revision() == REVISIONS[-1]
    large_bank = filled(N_LISTS)
    steps = [*reversed(REVISIONS[:-1]), *REVISIONS[1:]]
    for wanted in steps:
        with reading(large_bank) as reader:
            started = time.perf_counter()
            to_revision(large_bank, wanted)
            seconds = time.perf_counter() - started
            n_reads = reader.n_reads
            wait_for(partial(has_read_on, reader, n_reads))  # the one that was under way included
        print(f"to {wanted}: {seconds:.2f} s, {reader.n_reads} readings, the slowest {reader.worst_seconds:.3f} s")
        assert reader.faults == []
        assert reader.worst_seconds < PATIENCE_SECONDS
    assert revision(large_bank) == REVISIONS[-1]
    types = tuples(large_bank, "SELECT recommendation_type, count(*) FROM alertrec.recommendations GROUP BY 1")
    assert [tuple(row) for row in types] == [("ml_hybrid", 3 * N_LISTS)]


def n_typed(engine: Engine) -> int:
    return int(
        tuples(engine, "SELECT count(*) FROM alertrec.recommendations WHERE recommendation_type = 'ml_hybrid'")[0][0]
    )


def test_lists_are_read_while_what_is_new_in_them_is_filled_in(filled: Fill):
    bank = filled(SOME_LISTS)
    to_revision(bank, "0002")
    # Who writes this list holds the filling up; who reads it and all others need not wait.
    with ExitStack() as held, reading(bank) as reader:
        writer = held.enter_context(bank.begin())
        writer.execute(text("UPDATE alertrec.recommendation_lists SET as_of = now() WHERE user_id = 'u77'"))
        with in_background(lambda: to_revision(bank, "0003")) as migration:
            wait_for(lambda: backends_that_wait(bank) or migration.done())
            assert not migration.done()
            n_reads = reader.n_reads
            wait_for(partial(has_read_on, reader, n_reads + 3))
            assert not migration.done()  # the readings were made meanwhile, and not after it
            held.pop_all().close()
            migration.result()
    assert reader.faults == []
    assert reader.worst_seconds < PATIENCE_SECONDS
    assert n_typed(bank) == 3 * SOME_LISTS


def test_readers_do_not_queue_behind_a_migration_that_waits_for_a_worker(filled: Fill):
    bank = filled(SOME_LISTS)
    to_revision(bank, "0002")
    with ExitStack() as held, reading(bank) as reader:
        writer = held.enter_context(bank.begin())
        writer.execute(text("UPDATE alertrec.recommendations SET rank = rank WHERE user_id = 'u77'"))
        with in_background(lambda: to_revision(bank, "0003")) as migration:
            for _ in range(3):  # it tries again and again
                wait_for(lambda: backends_that_wait(bank))
                n_reads = reader.n_reads
                wait_for(partial(has_read_on, reader, n_reads + 3))
            assert not migration.done()
            held.pop_all().close()
            migration.result()
    assert reader.faults == []
    assert reader.worst_seconds < PATIENCE_SECONDS
    assert revision(bank) == "0003"


@pytest.mark.parametrize(("before", "wanted"), [("0002", "0003"), ("0003", "0002")])
def test_a_migration_that_is_broken_off_goes_on_when_it_is_run_again(filled: Fill, before: str, wanted: str):
    bank = filled(SOME_LISTS)
    to_revision(bank, before)
    with ExitStack() as held:
        writer = held.enter_context(bank.begin())
        writer.execute(text("UPDATE alertrec.recommendation_lists SET as_of = now() WHERE user_id = 'u77'"))
        with in_background(lambda: to_revision(bank, wanted)) as migration:
            (waiting,) = wait_for(lambda: backends_that_wait(bank))
            tuples(bank, "SELECT pg_terminate_backend(:pid)", pid=waiting)
            assert migration.exception() is not None
    assert revision(bank) == before
    with reading(bank) as reader:
        wait_for(lambda: reader.n_reads > 3)
        to_revision(bank, wanted)
        to_revision(bank, REVISIONS[-1])
    assert reader.faults == []
    assert n_typed(bank) == 3 * SOME_LISTS
