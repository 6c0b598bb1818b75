"""The tick brings all work back, and the cleanup keeps what is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection

from alertrec import fitting, service, upkeep
from alertrec.errors import QueueUnavailableError
from alertrec.storage import locks, models
from alertrec.task_names import (
    CLEANUP_EXPIRED,
    PROCESS_ACTIONS,
    REFRESH_CHUNK,
    REFRESH_RECOMMENDATIONS,
    TRAIN_MODEL,
)
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    Outbox,
    add_version,
    at_once,
    execute,
    log,
    scalar,
    workspace_on,
)


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, tmp_path, chunk_size=1) as workspace:
        yield workspace


def tick(workspace: Workspace) -> Outbox:
    outbox = Outbox()
    upkeep.tick(workspace, outbox)
    return outbox


def add_champion(workspace: Workspace, version: str = "m1") -> None:
    with workspace.engine.begin() as connection:
        add_version(connection, version)
        models.promote(connection, version, promoted_by="a test")


def quiet(workspace: Workspace) -> None:
    """Let everything that is due be done, so that only what a test does is left to be found."""
    add_champion(workspace)
    tick(workspace)
    execute(workspace, "UPDATE alertrec.job_runs SET status = 'done', finished_at = now()")
    assert tick(workspace) == []


def planned(workspace: Workspace, n_chunks: int) -> UUID:
    for number in range(n_chunks):
        execute(workspace, "INSERT INTO users (id) VALUES (:id)", id=f"u{number}")
    job_id = service.request_refresh(workspace)
    assert service.plan_refresh(workspace, job_id, Outbox()) == n_chunks
    return job_id


def n_jobs(workspace: Workspace) -> Counter[str]:
    return Counter(row["job"] for row in execute(workspace, "SELECT job FROM alertrec.job_runs"))


def test_a_tick_starts_and_sends_what_is_due_once_a_period(workspace: Workspace):
    add_champion(workspace)
    outbox = tick(workspace)
    assert sorted(task for task, *_ in outbox) == sorted([CLEANUP_EXPIRED, TRAIN_MODEL, REFRESH_RECOMMENDATIONS])
    assert n_jobs(workspace) == Counter(cleanup=1, training=1, refresh=1)
    assert tick(workspace) == []
    assert n_jobs(workspace) == Counter(cleanup=1, training=1, refresh=1)


def test_messages_name_the_job_that_they_are_for(workspace: Workspace):
    add_champion(workspace)
    sent = {task: arguments for task, *arguments in tick(workspace)}
    ids = {row["job"]: str(row["job_id"]) for row in execute(workspace, "SELECT job, job_id FROM alertrec.job_runs")}
    assert sent[REFRESH_RECOMMENDATIONS] == ["all", ids["refresh"]]
    assert sent[TRAIN_MODEL] == [False, ids["training"]]
    assert sent[CLEANUP_EXPIRED] == [ids["cleanup"]]


def test_many_ticks_at_once_start_and_send_each_job_once(workspace: Workspace):
    add_champion(workspace)
    outbox = Outbox()
    at_once(*(lambda: upkeep.tick(workspace, outbox) for _ in range(6)))
    assert n_jobs(workspace) == Counter(cleanup=1, training=1, refresh=1)
    assert len(outbox) == 3


def test_the_next_period_has_jobs_of_its_own(workspace: Workspace):
    quiet(workspace)
    execute(workspace, "UPDATE alertrec.job_runs SET period = 'the period before' WHERE job <> 'training'")
    tick(workspace)
    assert n_jobs(workspace) == Counter(cleanup=2, training=1, refresh=2)


def test_after_an_outage_of_many_periods_the_work_is_done_once(workspace: Workspace):
    add_champion(workspace)
    for period in ("two periods ago", "one period ago"):
        tick(workspace)
        execute(workspace, "UPDATE alertrec.job_runs SET period = :period WHERE finished_at IS NULL", period=period)
    outbox = tick(workspace)
    assert Counter(task for task, *_ in outbox) == Counter([CLEANUP_EXPIRED, TRAIN_MODEL, REFRESH_RECOMMENDATIONS])
    query = "SELECT job FROM alertrec.job_runs WHERE status = 'pending'"
    assert Counter(row["job"] for row in execute(workspace, query)) == Counter(cleanup=1, training=1, refresh=1)


def test_a_training_that_was_forced_is_not_lost_to_the_next_period(workspace: Workspace):
    fitting.request_training(workspace, force=True, n_neighbors=7)
    execute(workspace, "UPDATE alertrec.job_runs SET period = 'the period before'")
    tick(workspace)
    query = "SELECT arguments FROM alertrec.job_runs WHERE job = 'training' AND finished_at IS NULL"
    waiting = [row["arguments"] for row in execute(workspace, query)]
    assert any(each.get("force") and each.get("n_neighbors") == 7 for each in waiting)


def test_a_refresh_asked_for_counts_as_that_of_its_period(workspace: Workspace):
    add_champion(workspace)
    job_id = service.request_refresh(workspace)
    assert (REFRESH_RECOMMENDATIONS, "all", str(job_id)) in tick(workspace)
    assert n_jobs(workspace)["refresh"] == 1


def test_a_training_asked_for_counts_as_that_of_its_period(workspace: Workspace):
    job_id = fitting.request_training(workspace)
    assert (TRAIN_MODEL, False, str(job_id)) in tick(workspace)
    assert n_jobs(workspace)["training"] == 1


def test_nothing_is_refreshed_before_there_is_a_champion(workspace: Workspace):
    assert REFRESH_RECOMMENDATIONS not in {task for task, *_ in tick(workspace)}
    assert n_jobs(workspace)["refresh"] == 0
    add_champion(workspace)
    assert [task for task, *_ in tick(workspace)] == [REFRESH_RECOMMENDATIONS]


def change_chunk(workspace: Workspace, chunk: int, changes: str) -> None:
    execute(workspace, f"UPDATE alertrec.job_chunks SET {changes} WHERE chunk = :chunk", chunk=chunk)  # noqa: S608  # of our own


@pytest.mark.parametrize(
    ("changes", "is_lost"),
    [
        ("published_at = now() - interval '60 seconds'", True),
        ("published_at = NULL", True),
        ("published_at = now() - interval '50 seconds'", False),
        (
            "status = 'running', lease_until = now() + interval '1 minute', published_at = now() - interval '1 hour'",
            False,
        ),
        (
            "status = 'running', lease_until = now() - interval '1 minute', published_at = now() - interval '1 hour'",
            True,
        ),
        ("status = 'done', finished_at = now(), published_at = now() - interval '1 hour'", False),
    ],
    ids=["sent long ago", "never sent", "just sent", "in work", "lease run out", "done"],
)
def test_a_chunk_is_sent_again_when_it_is_lost_and_only_then(workspace: Workspace, changes: str, is_lost: bool):
    quiet(workspace)
    job_id = planned(workspace, 2)
    change_chunk(workspace, 1, changes)
    assert tick(workspace) == ([(REFRESH_CHUNK, str(job_id), 1)] if is_lost else [])
    assert tick(workspace) == []


def test_chunks_of_a_job_that_has_ended_are_not_sent_again(workspace: Workspace):
    quiet(workspace)
    planned(workspace, 1)
    change_chunk(workspace, 0, "published_at = NULL")
    execute(workspace, "UPDATE alertrec.job_runs SET status = 'failed', finished_at = now()")
    assert tick(workspace) == []


def test_a_refresh_with_chunks_is_left_to_its_chunks(workspace: Workspace):
    quiet(workspace)
    planned(workspace, 1)
    execute(workspace, "UPDATE alertrec.job_runs SET published_at = NULL, heartbeat_at = now() - interval '1 day'")
    assert tick(workspace) == []


def test_a_refresh_whose_chunks_have_all_ended_does_not_stay_open(workspace: Workspace):
    # Whatever ended its last chunk may have died before it could end the job.
    quiet(workspace)
    planned(workspace, 2)
    execute(workspace, "UPDATE alertrec.job_chunks SET status = 'done', finished_at = now()")
    tick(workspace)
    assert scalar(workspace, "SELECT count(*) FROM alertrec.job_runs WHERE finished_at IS NULL") == 0


@pytest.mark.parametrize(
    ("changes", "is_lost"),
    [
        ("published_at = NULL", True),
        ("published_at = now() - interval '50 seconds'", False),
        ("published_at = now() - interval '60 seconds'", True),
        ("published_at = now() - interval '1 day', heartbeat_at = now() - interval '50 seconds'", False),
        ("published_at = now() - interval '1 day', heartbeat_at = now() - interval '10 minutes'", True),
    ],
    ids=["never sent", "just sent", "sent long ago", "in work", "silent"],
)
def test_a_training_is_sent_again_when_it_is_lost_and_only_then(workspace: Workspace, changes: str, is_lost: bool):
    quiet(workspace)
    execute(workspace, "DELETE FROM alertrec.job_runs WHERE job = 'training'")
    job_id = fitting.request_training(workspace)
    execute(workspace, f"UPDATE alertrec.job_runs SET {changes} WHERE job_id = :job_id", job_id=job_id)  # noqa: S608  # of our own
    assert tick(workspace) == ([(TRAIN_MODEL, False, str(job_id))] if is_lost else [])


def test_actions_that_wait_are_sent_for(workspace: Workspace):
    quiet(workspace)
    log(workspace, "u1", "created", AS_OF, alert_rule_id="r1")
    assert tick(workspace) == [(PROCESS_ACTIONS,)]
    execute(workspace, "UPDATE alertrec.alert_actions SET processed_at = now()")
    assert tick(workspace) == []


def add_models(workspace: Workspace, n_models: int) -> list[str]:
    """Add rows and files of models, each champion once, the oldest first."""
    names = [f"m{number:02}" for number in range(n_models)]
    with workspace.engine.begin() as connection:
        for number, name in enumerate(names):
            add_version(connection, name, created_at=AS_OF + timedelta(days=number))
            models.promote(connection, name, promoted_by="a test")
            directory = Path(workspace.settings.model_location) / name
            directory.mkdir(parents=True)
            (directory / "card.json").write_text("{}")
    return names


def kept(workspace: Workspace) -> list[str]:
    rows = [row["version"] for row in execute(workspace, "SELECT version FROM alertrec.model_versions ORDER BY 1")]
    files = sorted(path.name for path in Path(workspace.settings.model_location).iterdir())
    assert rows == files
    return rows


def test_the_newest_ten_models_are_kept_and_the_others_go_with_their_files(workspace: Workspace):
    names = add_models(workspace, 14)
    assert upkeep.clean_up(workspace)["models"] == 4
    assert kept(workspace) == names[4:]
    assert upkeep.clean_up(workspace)["models"] == 0


def test_the_champion_and_the_one_to_roll_back_to_are_kept_however_old(workspace: Workspace):
    names = add_models(workspace, 14)
    with workspace.engine.begin() as connection:
        for old in names[:2]:
            models.promote(connection, old, promoted_by="a test")
    assert upkeep.clean_up(workspace)["models"] == 2
    assert kept(workspace) == [*names[:2], *names[4:]]


def test_what_is_past_its_days_is_deleted_and_nothing_else(workspace: Workspace):
    now = datetime.now(UTC)
    add_champion(workspace)
    for age, processed in ((3 * 365, True), (3 * 365, False), (365, True)):
        log(workspace, "u1", "created", now - timedelta(days=age), alert_rule_id=f"{age} {processed}")
        if processed:
            execute(
                workspace, "UPDATE alertrec.alert_actions SET processed_at = now() WHERE alert_rule_id LIKE '%True'"
            )
    job_id = planned(workspace, 1)
    old, young = service.request_refresh(workspace), service.request_refresh(workspace)
    for run, age in ((job_id, 91), (old, 91), (young, 89)):
        execute(
            workspace,
            "UPDATE alertrec.job_runs SET finished_at = now() - make_interval(days => :age) WHERE job_id = :run",
            run=run,
            age=age,
        )
    deleted = upkeep.clean_up(workspace)
    assert (deleted["actions"], deleted["jobs"]) == (1, 2)
    actions = {row["alert_rule_id"] for row in execute(workspace, "SELECT alert_rule_id FROM alertrec.alert_actions")}
    assert actions == {f"{3 * 365} False", "365 True"}
    assert [row["job_id"] for row in execute(workspace, "SELECT job_id FROM alertrec.job_runs")] == [young]
    assert scalar(workspace, "SELECT count(*) FROM alertrec.job_chunks") == 0


def test_the_cleanup_that_is_due_ends_with_what_it_deleted(workspace: Workspace):
    tick(workspace)
    deleted = upkeep.run_cleanup(workspace)
    (run,) = execute(workspace, "SELECT status, result FROM alertrec.job_runs WHERE job = 'cleanup'")
    assert (run["status"], run["result"]) == ("done", deleted)


def test_a_cleanup_that_takes_long_is_not_begun_again_beside_itself(workspace: Workspace):
    tick(workspace)
    with locks.alone(workspace.engine, locks.CLEANUP) as is_alone:
        assert is_alone
        assert upkeep.run_cleanup(workspace) == {}
    (run,) = execute(workspace, "SELECT status, n_lost FROM alertrec.job_runs WHERE job = 'cleanup'")
    assert (run["status"], run["n_lost"]) == ("pending", 0)


def test_what_a_tick_could_not_send_is_sent_by_the_next(workspace: Workspace):
    quiet(workspace)
    job_id = planned(workspace, 3)
    execute(workspace, "UPDATE alertrec.job_chunks SET published_at = NULL")
    execute(workspace, "UPDATE alertrec.job_runs SET created_at = now() - interval '1 day'")
    outbox = Outbox()

    def lost_after_the_first(task: str, *arguments: Any) -> None:
        if outbox:
            raise QueueUnavailableError("the broker is away")
        outbox(task, *arguments)

    with pytest.raises(QueueUnavailableError):
        upkeep.tick(workspace, lost_after_the_first)
    assert outbox == [(REFRESH_CHUNK, str(job_id), 0)]
    assert tick(workspace) == [(REFRESH_CHUNK, str(job_id), 1), (REFRESH_CHUNK, str(job_id), 2)]
    assert tick(workspace) == []


def test_a_cleanup_that_nobody_asked_for_needs_no_job(workspace: Workspace):
    assert upkeep.run_cleanup(workspace) == {"lists": 0, "actions": 0, "jobs": 0, "dead_letters": 0, "models": 0}


def test_ticks_at_once_send_a_lost_chunk_at_least_once(workspace: Workspace):
    quiet(workspace)
    job_id = planned(workspace, 3)
    execute(workspace, "UPDATE alertrec.job_chunks SET published_at = NULL")
    outbox = Outbox()
    at_once(*(lambda: upkeep.tick(workspace, outbox) for _ in range(4)))
    assert set(outbox) == {(REFRESH_CHUNK, str(job_id), chunk) for chunk in range(3)}


def test_while_no_worker_is_up_a_chunk_is_sent_at_growing_intervals(workspace: Workspace):
    quiet(workspace)
    planned(workspace, 1)
    execute(workspace, "UPDATE alertrec.job_chunks SET published_at = now() - interval '10 minutes'")
    execute(workspace, "UPDATE alertrec.job_runs SET created_at = now() - interval '1 hour' WHERE status = 'running'")
    assert tick(workspace) == []  # of an hour's age, it is sent each half hour
    execute(workspace, "UPDATE alertrec.job_chunks SET published_at = now() - interval '31 minutes'")
    assert len(tick(workspace)) == 1


def test_a_model_that_was_promoted_meanwhile_keeps_its_files(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    for n in range(upkeep.KEEP_MODELS + 1):
        with workspace.engine.begin() as connection:
            add_version(connection, f"m{n:02}", created_at=AS_OF + timedelta(days=n))
    deleted: list[str] = []
    delete_version = models.delete_version

    def promoted_before_the_delete(connection: Connection, version: str) -> bool:
        models.promote(connection, version, promoted_by="a test")
        return delete_version(connection, version)

    monkeypatch.setattr(models, "delete_version", promoted_before_the_delete)
    monkeypatch.setattr(type(workspace.store), "delete", lambda _, version: deleted.append(version))
    upkeep.clean_up(workspace)
    assert deleted == []
    assert scalar(workspace, "SELECT version FROM alertrec.model_versions WHERE alias = 'champion'") == "m00"
