"""Chunks: each user in one of them, each done once, whatever dies on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import RowMapping, text

from alertrec import service
from alertrec.errors import DataError, NoChampionError, TransientError
from alertrec.storage import jobs, models
from alertrec.storage.database import create_engine
from alertrec.storage.jobs import ClaimedChunk
from alertrec.storage.lists import read_list
from alertrec.storage.source import UserRange
from alertrec.task_names import REFRESH_CHUNK
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    Outbox,
    active_users,
    add_version,
    at_once,
    execute,
    in_background,
    load,
    n_waiting,
    read_lists,
    scalar,
    small_bank,
    train,
    wait_until,
    workspace_on,
)

# Ids that sort differently by bytes, by letters and by numbers.
IDS = ("10", "9", "B", "_c", "a", "ä", "o'x", "user 1", "user-1")


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace without users."""
    with workspace_on(database_url, tmp_path, chunk_size=20) as workspace:
        add_champion_without_files(workspace)
        yield workspace


@pytest.fixture
def trained(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace on a bank of three chunks with a champion."""
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    return workspace


def add_champion_without_files(workspace: Workspace) -> None:
    """Add what a refresh asks for, and planning does without."""
    with workspace.engine.begin() as connection:
        add_version(connection, "without-files")
        models.promote(connection, "without-files", promoted_by="a test")


def add_users(workspace: Workspace, *user_ids: str) -> None:
    for user_id in user_ids:
        execute(workspace, "INSERT INTO users (id) VALUES (:id)", id=user_id)


def plan(workspace: Workspace) -> UUID:
    job_id = service.request_refresh(workspace, as_of=AS_OF)
    service.plan_refresh(workspace, job_id, Outbox())
    return job_id


def claim(workspace: Workspace, job_id: UUID, claimed_by: str, chunk: int = 0) -> ClaimedChunk | None:
    with workspace.engine.begin() as connection:
        return jobs.claim_chunk(connection, job_id, chunk, claimed_by=claimed_by, lease_seconds=60)


def taken(workspace: Workspace, job_id: UUID, claimed_by: str, chunk: int = 0) -> ClaimedChunk:
    claimed = claim(workspace, job_id, claimed_by, chunk)
    assert claimed is not None
    return claimed


def expire_leases(workspace: Workspace) -> None:
    execute(workspace, "UPDATE alertrec.job_chunks SET lease_until = now() - interval '1 second'")


def chunks_of(workspace: Workspace) -> list[RowMapping]:
    return execute(workspace, "SELECT * FROM alertrec.job_chunks ORDER BY chunk")


def run_of(workspace: Workspace, job_id: UUID) -> RowMapping:
    with workspace.engine.connect() as connection:
        run = jobs.read_run(connection, job_id)
    assert run is not None
    return run


@pytest.mark.parametrize("chunk_size", [1, 2, 4, len(IDS) - 1, len(IDS), len(IDS) + 1, 1000])
@pytest.mark.parametrize("n_users", [0, 1, len(IDS)])
def test_chunks_hold_every_active_user_once(database_url: str, tmp_path: Path, n_users: int, chunk_size: int):
    with workspace_on(database_url, tmp_path, chunk_size=chunk_size) as workspace:
        add_champion_without_files(workspace)
        add_users(workspace, *IDS[:n_users], "inactive")
        execute(workspace, "UPDATE users SET is_active = false WHERE id = 'inactive'")
        job_id, outbox = service.request_refresh(workspace), Outbox()
        n_chunks = service.plan_refresh(workspace, job_id, outbox)
        assert outbox == [(REFRESH_CHUNK, str(job_id), chunk) for chunk in range(n_chunks)]
        users, sizes = [], []
        with workspace.engine.begin() as connection:
            for chunk in range(n_chunks):
                claimed = jobs.claim_chunk(connection, job_id, chunk, claimed_by="me", lease_seconds=60)
                assert claimed is not None
                found = workspace.source.read(connection, claimed.users, as_of=AS_OF).users["id"].to_list()
                users += found
                sizes.append(len(found))
        assert sorted(users) == sorted(IDS[:n_users])
        assert sizes == [row["n_users"] for row in chunks_of(workspace)]
        assert all(size == chunk_size for size in sizes[:-1])
        assert all(1 <= size <= chunk_size for size in sizes)


def test_the_ranges_that_training_reads_hold_every_active_user_once(workspace: Workspace):
    add_users(workspace, *IDS)
    with workspace.engine.connect() as connection:
        ranges = [UserRange(row.first, row.last) for row in connection.execute(workspace.source.ranges(4))]
        users = [workspace.source.read(connection, each, as_of=AS_OF).users["id"].to_list() for each in ranges]
    assert [len(each) for each in users] == [4, 4, 1]
    assert sorted(user_id for each in users for user_id in each) == sorted(IDS)


def test_a_refresh_of_nobody_is_done_at_once(workspace: Workspace):
    run = run_of(workspace, plan(workspace))
    assert (run["status"], run["result"]["n_users"]) == ("done", 0)


def test_a_chunk_in_work_is_not_claimed_by_another(workspace: Workspace):
    add_users(workspace, *IDS)
    job_id = plan(workspace)
    assert taken(workspace, job_id, "first").attempt == 1
    assert claim(workspace, job_id, "second") is None
    assert [row["attempts"] for row in chunks_of(workspace)] == [1]


def test_a_message_that_is_delivered_again_goes_on_at_once(workspace: Workspace):
    add_users(workspace, *IDS)
    job_id = plan(workspace)
    taken(workspace, job_id, "same")
    assert taken(workspace, job_id, "same").attempt == 2


def test_a_chunk_whose_lease_has_run_out_is_claimed_by_another(workspace: Workspace):
    add_users(workspace, *IDS)
    job_id = plan(workspace)
    taken(workspace, job_id, "first")
    expire_leases(workspace)
    assert taken(workspace, job_id, "second").attempt == 2
    assert claim(workspace, job_id, "first") is None


def test_two_who_claim_at_once_do_not_both_get_the_chunk(workspace: Workspace):
    add_users(workspace, *IDS)
    job_id = plan(workspace)
    claims = at_once(*(lambda name=str(n): claim(workspace, job_id, name) for n in range(4)))
    assert sum(each is not None for each in claims) == 1


def test_a_finished_chunk_is_not_claimed_again(trained: Workspace):
    job_id = plan(trained)
    assert service.refresh_chunk(trained, job_id, 0, claimed_by="m1") == 20
    assert service.refresh_chunk(trained, job_id, 0, claimed_by="m1") is None
    assert claim(trained, job_id, "m1") is None


def test_a_finish_under_an_old_attempt_is_refused(workspace: Workspace):
    add_users(workspace, *IDS)
    job_id = plan(workspace)
    old = taken(workspace, job_id, "first")
    expire_leases(workspace)
    new = taken(workspace, job_id, "second")
    with workspace.engine.begin() as connection:
        assert jobs.finish_chunk(connection, old) is False
        assert jobs.finish_chunk(connection, new) is True
        assert jobs.finish_chunk(connection, new) is False


def test_the_lists_of_an_old_attempt_are_rolled_back(trained: Workspace, monkeypatch: pytest.MonkeyPatch):
    job_id = plan(trained)
    renew_lists = service.renew_lists

    def renew_slowly(*arguments: Any, **options: Any) -> int:
        n_users = renew_lists(*arguments, **options)
        expire_leases(trained)
        taken(trained, job_id, "another worker")
        return n_users

    monkeypatch.setattr(service, "renew_lists", renew_slowly)
    assert service.refresh_chunk(trained, job_id, 0, claimed_by="slow worker") is None
    assert read_lists(trained) == {}
    assert chunks_of(trained)[0]["status"] == "running"


def test_lists_and_the_end_of_their_chunk_are_seen_together(trained: Workspace, monkeypatch: pytest.MonkeyPatch):
    job_id = plan(trained)
    finish_chunk = jobs.finish_chunk
    seen = []

    def finish_watched(*arguments: Any, **options: Any) -> bool:
        finished = finish_chunk(*arguments, **options)
        seen.append((len(read_lists(trained)), chunks_of(trained)[0]["status"]))
        return finished

    monkeypatch.setattr(jobs, "finish_chunk", finish_watched)
    service.refresh_chunk(trained, job_id, 0, claimed_by="m1")
    assert seen == [(0, "running")]
    assert (len(read_lists(trained)), chunks_of(trained)[0]["status"]) == (20, "done")


def test_a_chunk_that_never_came_back_is_given_up_with_the_reason(trained: Workspace):
    job_id = plan(trained)
    for chunk in (1, 2):
        service.refresh_chunk(trained, job_id, chunk, claimed_by="m1")
    for attempt in range(jobs.MAX_LOST):
        assert taken(trained, job_id, "deadly").attempt == attempt + 1
    assert service.refresh_chunk(trained, job_id, 0, claimed_by="deadly") is None
    chunk, run = chunks_of(trained)[0], run_of(trained, job_id)
    assert (chunk["status"], chunk["error"]) == ("failed", "given up after 4 attempts that never came back")
    assert (run["status"], run["error"]) == ("failed", f"1 chunks failed: {chunk['error']}")
    assert run["result"] == {"n_chunks": 3, "n_failed": 1, "n_users": len(active_users(trained)) - 20}


def test_the_last_attempt_allowed_is_still_made(trained: Workspace):
    job_id = plan(trained)
    for _ in range(jobs.MAX_LOST - 1):
        taken(trained, job_id, "slow")
    assert service.refresh_chunk(trained, job_id, 0, claimed_by="slow") == 20


def test_planning_twice_plans_and_sends_once(workspace: Workspace):
    add_users(workspace, *IDS)
    job_id, outbox = service.request_refresh(workspace), Outbox()
    assert [service.plan_refresh(workspace, job_id, outbox) for _ in range(2)] == [1, 1]
    assert outbox == [(REFRESH_CHUNK, str(job_id), 0)]


def test_planning_twice_at_once_plans_and_sends_once(workspace: Workspace):
    add_users(workspace, *IDS)
    small = replace(workspace, settings=replace(workspace.settings, chunk_size=1))
    job_id, outbox = service.request_refresh(workspace), Outbox()
    planned = at_once(*(lambda: service.plan_refresh(small, job_id, outbox) for _ in range(4)))
    assert planned == [len(IDS)] * 4
    assert sorted(outbox) == [(REFRESH_CHUNK, str(job_id), chunk) for chunk in range(len(IDS))]


def test_a_plan_is_not_made_again_for_users_who_came_since(workspace: Workspace):
    add_users(workspace, *IDS[:3])
    job_id = plan(workspace)
    add_users(workspace, "later")
    service.plan_refresh(workspace, job_id, Outbox())
    assert [row["n_users"] for row in chunks_of(workspace)] == [3]


def test_a_request_delivered_twice_asks_once(workspace: Workspace):
    first, again, other = (service.request_refresh(workspace, request_id=name) for name in ("m1", "m1", "m2"))
    assert first == again
    assert other != first


def test_a_request_delivered_twice_at_once_asks_once(workspace: Workspace):
    with workspace.engine.connect() as first:
        job_id = jobs.ask_for_run(first, "refresh", {}, request_id="m1")
        with in_background(lambda: service.request_refresh(workspace, request_id="m1")) as again:
            wait_until(lambda: n_waiting(workspace) == 1 or again.done())
            first.commit()
            assert again.result() == job_id
    assert scalar(workspace, "SELECT count(*) FROM alertrec.job_runs") == 1


def test_requests_of_one_period_are_jobs_of_their_own(workspace: Workspace):
    assert len({service.request_refresh(workspace) for _ in range(3)}) == 3


def test_a_job_is_finished_by_its_last_chunk_and_once(trained: Workspace):
    job_id = plan(trained)
    n_open = len(chunks_of(trained))
    for chunk in range(n_open):
        assert run_of(trained, job_id)["status"] == "running"
        service.refresh_chunk(trained, job_id, chunk, claimed_by="m1")
    run = run_of(trained, job_id)
    assert (run["status"], run["error"], run["n_chunks_done"]) == ("done", None, n_open)
    with trained.engine.begin() as connection:
        assert jobs.finish_refresh_if_complete(connection, job_id) is False


def test_a_job_is_finished_though_its_last_chunks_end_at_once(workspace: Workspace):
    add_users(workspace, *IDS[:2])
    one_each = replace(workspace, settings=replace(workspace.settings, chunk_size=1))
    job_id = plan(one_each)
    first, second = (taken(workspace, job_id, "m1", chunk) for chunk in (0, 1))

    def finish_second() -> bool:
        with workspace.engine.begin() as connection:
            jobs.finish_chunk(connection, second)
            return jobs.finish_refresh_if_complete(connection, job_id)

    with workspace.engine.connect() as connection:
        jobs.finish_chunk(connection, first)
        finished = [jobs.finish_refresh_if_complete(connection, job_id)]
        with in_background(finish_second) as other:
            # Neither sees that the other one is done before that one's transaction has ended.
            wait_until(lambda: n_waiting(workspace) == 1 or other.done())
            connection.commit()
            finished.append(other.result())
    assert sorted(finished) == [False, True]
    assert run_of(workspace, job_id)["status"] == "done"


def test_chunks_that_are_refreshed_at_once_finish_their_job(trained: Workspace):
    job_id = plan(trained)
    calls: list[Callable[[], int | None]] = [
        lambda chunk=chunk: service.refresh_chunk(trained, job_id, chunk, claimed_by=str(chunk)) for chunk in range(3)
    ]
    assert sum(at_once(*calls)) == len(active_users(trained)) == len(read_lists(trained))
    assert run_of(trained, job_id)["status"] == "done"


def test_an_unexpected_error_fails_the_chunk_and_tells_no_customers_data(
    trained: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("Jane Doe bought flowers")

    job_id = plan(trained)
    for chunk in (1, 2):
        service.refresh_chunk(trained, job_id, chunk, claimed_by="m1")
    monkeypatch.setattr(service, "build_lists", broken)
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="flowers"):
        service.refresh_chunk(trained, job_id, 0, claimed_by="m1")
    chunk, run = chunks_of(trained)[0], run_of(trained, job_id)
    assert (chunk["status"], chunk["error"]) == ("failed", "ValueError")
    assert (run["status"], run["error"]) == ("failed", "1 chunks failed: ValueError")
    assert "Jane" not in caplog.text


def test_an_error_of_ours_fails_the_chunk_with_what_it_says(trained: Workspace, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> None:
        raise DataError("the third column is missing")

    job_id = plan(trained)
    monkeypatch.setattr(service, "build_lists", broken)
    with pytest.raises(DataError):
        service.refresh_chunk(trained, job_id, 0, claimed_by="m1")
    assert chunks_of(trained)[0]["error"] == "the third column is missing"


def test_without_a_champion_a_refresh_is_refused_and_uses_up_no_period(workspace: Workspace):
    add_users(workspace, "u1")
    execute(workspace, "DELETE FROM alertrec.model_versions")
    with pytest.raises(NoChampionError, match="alertrec train"):
        service.refresh_locally(workspace)
    assert execute(workspace, "SELECT FROM alertrec.job_runs") == []


def test_a_chunk_whose_model_cannot_be_read_waits_for_it(workspace: Workspace):
    add_users(workspace, "u1")
    job_id = plan(workspace)
    with pytest.raises(TransientError, match="without-files"):
        service.refresh_chunk(workspace, job_id, 0, claimed_by="m1")
    assert (chunks_of(workspace)[0]["status"], run_of(workspace, job_id)["status"]) == ("pending", "running")


def test_a_chunk_whose_connection_is_cut_is_given_back_to_be_tried_again(
    trained: Workspace, monkeypatch: pytest.MonkeyPatch
):
    build_lists = service.build_lists

    def build_while_the_server_restarts(*arguments: Any, **options: Any) -> Any:
        lists = build_lists(*arguments, **options)
        cut_all_other_connections(trained)
        return lists

    job_id = plan(trained)
    with monkeypatch.context() as patch:
        patch.setattr(service, "build_lists", build_while_the_server_restarts)
        with pytest.raises(TransientError):
            service.refresh_chunk(trained, job_id, 0, claimed_by="m1")
    chunk = chunks_of(trained)[0]
    assert (chunk["status"], chunk["lease_until"], chunk["finished_at"]) == ("pending", None, None)
    assert read_lists(trained) == {}
    assert service.refresh_chunk(trained, job_id, 0, claimed_by="m2") == 20


def test_a_chunk_whose_database_stays_away_raises_what_is_retried(
    trained: Workspace, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    def build_while_the_server_goes_away(*_: Any, **__: Any) -> Any:
        administer(database_url, "ALTER DATABASE {} ALLOW_CONNECTIONS false")
        cut_all_other_connections(trained)

    job_id = plan(trained)
    monkeypatch.setattr(service, "build_lists", build_while_the_server_goes_away)
    try:
        with pytest.raises(TransientError):
            service.refresh_chunk(trained, job_id, 0, claimed_by="m1")
    finally:
        administer(database_url, "ALTER DATABASE {} ALLOW_CONNECTIONS true")


def cut_all_other_connections(workspace: Workspace) -> None:
    """End the sessions of this database, as a restart of the server does."""
    administer(
        str(workspace.settings.database_url),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
    )


def administer(database_url: str, statement: str) -> None:
    url = urlsplit(database_url)
    engine = create_engine(url._replace(path="/postgres").geturl())
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement.format(url.path.strip("/"))))
    engine.dispose()


def test_a_list_made_later_survives_a_chunk_that_read_earlier(trained: Workspace, monkeypatch: pytest.MonkeyPatch):
    job_id, user_id = plan(trained), active_users(trained)[0]
    build_lists = service.build_lists
    interrupted = []

    def build_slowly(*arguments: Any, **options: Any) -> Any:
        lists = build_lists(*arguments, **options)
        if not interrupted:
            interrupted.append(True)
            service.generate_recommendations(trained, user_id, as_of=AS_OF)
            with trained.engine.connect() as connection:
                interrupted.append(read_list(connection, user_id))
        return lists

    monkeypatch.setattr(service, "build_lists", build_slowly)
    assert service.refresh_chunk(trained, job_id, 0, claimed_by="slow") == 19
    assert read_lists(trained)[user_id] == interrupted[1]
