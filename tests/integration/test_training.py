"""From the tables to a champion, one training at a time, and back to the champion before."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from alertrec import fitting, promotion, service
from alertrec.catalog import ALERT_KEYS
from alertrec.errors import DataError, ModelStoreError, NoChampionError
from alertrec.feature_engineering import HISTORY_DAYS
from alertrec.storage import jobs, locks, models
from alertrec.workspace import Champions, Workspace
from tests.integration.worlds import (
    AS_OF,
    PATIENCE_SECONDS,
    add_version,
    at_once,
    execute,
    in_background,
    load,
    scalar,
    small_bank,
    train,
    workspace_on,
)


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, tmp_path, chunk_size=20) as workspace:
        yield workspace


@pytest.fixture
def filled(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace on a bank that nothing was trained on yet."""
    load(workspace, small_bank(), tmp_path)
    return workspace


def current(workspace: Workspace, champions: Champions | None = None) -> str:
    with workspace.engine.connect() as connection:
        return (champions or workspace.champions).current(connection).version


def card_of(workspace: Workspace, version: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((model_files(workspace, version) / "card.json").read_text())
    return content


def model_files(workspace: Workspace, version: str) -> Path:
    return Path(workspace.settings.model_location) / version


def ended(workspace: Workspace, job_id: Any) -> tuple[str, Any, Any]:
    with workspace.engine.connect() as connection:
        run = jobs.read_run(connection, job_id)
    assert run is not None
    return run["status"], run["result"], run["error"]


def quickly_trained(workspace: Workspace) -> str:
    """Make a champion from rules of thumb, which takes no judging."""
    return train(workspace, use_real_alerts=False)


def test_a_training_makes_a_champion(filled: Workspace):
    job_id = fitting.request_training(filled, as_of=AS_OF, promoted_by="a test")
    steps: list[tuple[str, int, int]] = []
    outcome = fitting.run_training(filled, lambda *step: steps.append(step))
    assert outcome is not None
    assert (outcome.job_id, outcome.skipped, outcome.error) == (job_id, None, None)
    assert outcome.version == current(filled)
    assert ended(filled, job_id) == ("done", {"version": outcome.version}, None)
    assert list(dict.fromkeys(name.split()[0] for name, _, _ in steps)) == [
        "reading",
        "judging",
        "ablating",
        "fitting",
        "storing",
    ]
    with filled.engine.connect() as connection:
        champion = models.champion(connection)
    assert champion is not None
    assert (champion.alias, champion.promoted_by) == ("champion", "a test")


def test_the_card_says_what_the_model_was_made_of(filled: Workspace):
    version = train(filled, n_neighbors=7)
    card, bank = card_of(filled, version), small_bank()
    assert card["version"] == version
    assert card["neighbours"]["n_neighbors"] == 7
    assert card["data_counts"]["label_source"] == "alert rules"
    active = bank.users.filter("is_active")["id"]
    spending = bank.transactions.filter(
        bank.transactions["user_id"].is_in(active.implode())
        & (bank.transactions["transaction_type"] == "PURCHASE")
        & bank.transactions["status"].is_in(["PENDING", "APPROVED", "SETTLED"])
        & (bank.transactions["amount"] > 0)
    )
    rules = bank.alert_rules.filter(bank.alert_rules["user_id"].is_in(active.implode())).filter("is_active")
    assert card["data_counts"]["n_transactions"] == spending.height
    assert card["data_counts"]["n_users"] == spending["user_id"].n_unique()
    assert card["data_counts"]["n_rules"] == rules.height
    assert set(card["data_counts"]["n_enabled"]) == set(ALERT_KEYS)


def test_the_card_names_the_window_that_ends_at_as_of(filled: Workspace):
    as_of = AS_OF - timedelta(days=3, hours=5)
    version = train(filled, as_of=as_of)
    until = as_of.astimezone(UTC).isoformat()
    assert card_of(filled, version)["training_window"]["until"] == until
    (row,) = execute(filled, "SELECT training_window FROM alertrec.model_versions")
    assert row["training_window"] == {"from": (as_of - timedelta(days=HISTORY_DAYS)).isoformat(), "until": until}


def test_the_same_data_give_the_same_model_twice(filled: Workspace):
    first, second = train(filled), train(filled)
    assert first != second
    assert card_of(filled, first)["files"] == card_of(filled, second)["files"]


@pytest.mark.parametrize("n_users", [0, 5])
def test_too_little_data_ends_the_job_with_what_is_there_and_what_is_needed(
    workspace: Workspace, tmp_path: Path, n_users: int
):
    if n_users:
        load(workspace, small_bank(n_users=n_users, days=10), tmp_path)
    job_id = fitting.request_training(workspace, as_of=AS_OF)
    outcome = fitting.run_training(workspace)
    assert outcome is not None
    assert outcome.version is None
    n_spenders = scalar(
        workspace,
        "SELECT count(DISTINCT user_id) FROM transactions JOIN users ON users.id = user_id WHERE is_active "
        "AND transaction_type = 'PURCHASE' AND status IN ('PENDING', 'APPROVED', 'SETTLED')",
    )
    assert f"{n_spenders} active users" in str(outcome.error)
    assert "at least 10 users and 100 purchases are needed" in str(outcome.error)
    assert ended(workspace, job_id) == ("failed", None, outcome.error)
    with pytest.raises(NoChampionError):
        current(workspace)


def test_a_moment_before_all_data_is_too_little_data(filled: Workspace):
    fitting.request_training(filled, as_of=AS_OF - timedelta(days=3650))
    outcome = fitting.run_training(filled)
    assert outcome is not None
    assert "pass a later --as-of" in str(outcome.error)


def test_a_young_champion_is_kept(filled: Workspace):
    version = train(filled)
    job_id = fitting.request_training(filled, as_of=AS_OF)
    outcome = fitting.run_training(filled)
    assert outcome is not None
    assert outcome.skipped == "the last training is younger than 7 days"
    assert ended(filled, job_id) == ("done", {"skipped": outcome.skipped}, None)
    assert current(filled) == version


def test_after_days_enough_it_is_trained_again_and_the_champion_stays_unless_it_is_beaten(filled: Workspace):
    version = train(filled)
    execute(filled, "UPDATE alertrec.model_versions SET created_at = created_at - interval '7 days'")
    fitting.request_training(filled, as_of=AS_OF)
    outcome = fitting.run_training(filled)
    assert outcome is not None
    assert outcome.version not in {None, version}
    assert outcome.refused
    assert current(filled) == version


def test_force_replaces_a_young_champion(filled: Workspace):
    first = train(filled)
    assert train(filled) == current(filled) != first


def test_two_who_ask_at_once_join_one_job(workspace: Workspace):
    assert len(set(at_once(*(lambda: fitting.request_training(workspace) for _ in range(4))))) == 1


def test_a_training_asked_for_after_one_has_ended_is_a_job_of_its_own(filled: Workspace):
    first = fitting.request_training(filled, as_of=AS_OF)
    fitting.run_training(filled)
    assert fitting.request_training(filled, as_of=AS_OF) != first


def test_where_nothing_waits_nothing_is_trained(filled: Workspace):
    assert fitting.run_training(filled) is None


def test_while_another_process_holds_the_lock_nothing_is_trained(filled: Workspace):
    job_id = fitting.request_training(filled, as_of=AS_OF)
    with filled.engine.connect() as other:
        other.execute(select(func.pg_advisory_lock(locks.TRAINING)))
        assert fitting.run_training(filled) is None
        assert ended(filled, job_id)[0] == "pending"
        other.execute(select(func.pg_advisory_unlock(locks.TRAINING)))
    outcome = fitting.run_training(filled)
    assert outcome is not None
    assert outcome.job_id == job_id


def test_of_two_trainings_at_once_one_trains_and_the_other_lets_it(filled: Workspace):
    fitting.request_training(filled, as_of=AS_OF)
    under_way, go_on = threading.Event(), threading.Event()

    def wait_in_the_middle(*_: Any) -> None:
        under_way.set()
        assert go_on.wait(PATIENCE_SECONDS)

    with in_background(lambda: fitting.run_training(filled, wait_in_the_middle)) as first:
        assert under_way.wait(PATIENCE_SECONDS)
        try:
            assert fitting.run_training(filled) is None
        finally:
            go_on.set()
        outcome = first.result()
    assert outcome.version == current(filled)
    assert scalar(filled, "SELECT count(*) FROM alertrec.model_versions") == 1


def test_the_lock_is_free_after_a_training_that_failed(filled: Workspace):
    def break_down(*_: Any) -> None:
        raise RuntimeError("Jane Doe")

    job_id = fitting.request_training(filled, as_of=AS_OF)
    with pytest.raises(RuntimeError):
        fitting.run_training(filled, break_down)
    assert ended(filled, job_id) == ("failed", None, "RuntimeError")
    train(filled)


def test_where_nobody_has_rules_rules_of_thumb_are_learnt(filled: Workspace):
    execute(filled, "DELETE FROM alert_rules")
    counts = card_of(filled, train(filled))["data_counts"]
    assert (counts["label_source"], counts["n_rules"]) == ("heuristics", 0)
    assert sum(counts["n_enabled"].values()) > 0


def test_rules_are_not_learnt_from_where_they_are_not_wanted(filled: Workspace):
    counts = card_of(filled, train(filled, use_real_alerts=False))["data_counts"]
    assert counts["label_source"] == "heuristics"
    assert counts["n_rules"] > 0


def test_a_training_that_another_process_took_over_publishes_nothing(filled: Workspace):
    def lose_at_the_end(step: str, *_: int) -> None:
        if step == "storing":
            execute(filled, "UPDATE alertrec.job_runs SET attempts = attempts + 1")

    job_id = fitting.request_training(filled, as_of=AS_OF)
    outcome = fitting.run_training(filled, lose_at_the_end)
    assert outcome is not None
    assert (outcome.version, outcome.error) == (None, "another process took this training over")
    assert scalar(filled, "SELECT count(*) FROM alertrec.model_versions") == 0
    assert list(Path(filled.settings.model_location).iterdir()) == []
    assert ended(filled, job_id)[0] == "running"


def test_a_training_that_was_lost_is_done_by_the_next(filled: Workspace):
    job_id = fitting.request_training(filled, as_of=AS_OF)
    with filled.engine.begin() as connection:
        lost = jobs.claim_run(connection, "training")
    assert lost is not None
    outcome = fitting.run_training(filled)
    assert outcome is not None
    assert (outcome.job_id, outcome.version) == (job_id, current(filled))


def test_a_training_that_never_came_back_is_given_up(filled: Workspace):
    job_id = fitting.request_training(filled, as_of=AS_OF)
    execute(filled, "UPDATE alertrec.job_runs SET n_lost = :n", n=jobs.MAX_LOST)
    outcome = fitting.run_training(filled)
    assert outcome is not None
    assert ended(filled, job_id) == ("failed", None, "given up after 4 attempts that never came back")


def test_a_version_is_promoted_and_rolled_back(filled: Workspace):
    first, second = quickly_trained(filled), quickly_trained(filled)
    assert promotion.roll_back(filled, promoted_by="a test") == first
    assert current(filled) == first
    promotion.promote(filled, second, promoted_by="a test")
    assert current(filled) == second
    assert scalar(filled, "SELECT count(*) FROM alertrec.model_versions WHERE alias = 'champion'") == 1


def test_an_unknown_version_is_not_promoted(filled: Workspace):
    version = quickly_trained(filled)
    with pytest.raises(DataError, match="alertrec models list"):
        promotion.promote(filled, "nothing", promoted_by="a test")
    assert current(filled) == version


def test_there_is_nothing_before_the_first_champion(filled: Workspace):
    with pytest.raises(NoChampionError):
        promotion.roll_back(filled, promoted_by="a test")
    version = quickly_trained(filled)
    with pytest.raises(DataError, match=version):
        promotion.roll_back(filled, promoted_by="a test")


def test_rolling_back_twice_does_not_bring_the_refused_version_back(filled: Workspace):
    first, _, _ = quickly_trained(filled), quickly_trained(filled), quickly_trained(filled)
    promotion.roll_back(filled, promoted_by="a test")
    assert promotion.roll_back(filled, promoted_by="a test") == first


DAMAGES = ("truncated", "flipped", "missing", "card")


def damage(workspace: Workspace, version: str, how: str) -> None:
    """Damage the files of a version; in place of them, since a process may have mapped them into its memory."""
    path = model_files(workspace, version) / ("card.json" if how == "card" else "known.npy")
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how in {"flipped", "card"}:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_rollback_to_a_damaged_version_is_refused_and_changes_nothing(filled: Workspace, how: str):
    first, second = quickly_trained(filled), quickly_trained(filled)
    damage(filled, first, how)
    with pytest.raises(ModelStoreError, match=first):
        promotion.roll_back(filled, promoted_by="a test")
    assert current(filled) == second


def test_a_new_champion_serves_without_a_restart(filled: Workspace):
    first = quickly_trained(filled)
    assert current(filled) == first
    second = quickly_trained(filled)
    assert current(filled) == second
    service.refresh_locally(filled, as_of=AS_OF)
    assert scalar(filled, "SELECT count(DISTINCT model_version) FROM alertrec.recommendation_lists") == 1
    assert scalar(filled, "SELECT min(model_version) FROM alertrec.recommendation_lists") == second


@pytest.mark.parametrize("how", DAMAGES)
def test_while_the_champions_files_are_damaged_the_last_good_version_serves(filled: Workspace, how: str):
    first = quickly_trained(filled)
    assert current(filled) == first
    second = quickly_trained(filled)
    damage(filled, second, how)
    assert current(filled) == first
    service.refresh_locally(filled, as_of=AS_OF)
    assert scalar(filled, "SELECT min(model_version) FROM alertrec.recommendation_lists") == first


def test_a_champion_that_cannot_be_read_need_not_be_beaten(filled: Workspace):
    version = train(filled)
    damage(filled, version, "flipped")
    execute(filled, "UPDATE alertrec.model_versions SET created_at = created_at - interval '7 days'")
    fitting.request_training(filled, as_of=AS_OF)
    outcome = fitting.run_training(filled)
    assert outcome is not None
    assert outcome.refused == ()
    assert current(filled) == outcome.version != version


@pytest.mark.parametrize("how", DAMAGES)
def test_a_process_that_starts_with_a_damaged_champion_serves_the_version_before(filled: Workspace, how: str):
    first, second = quickly_trained(filled), quickly_trained(filled)
    damage(filled, second, how)
    assert current(filled, Champions(filled.store)) == first


def test_a_champion_that_is_whole_again_serves_again(filled: Workspace):
    first, second = quickly_trained(filled), quickly_trained(filled)
    whole = model_files(filled, second)
    hidden = whole.rename(whole.with_name("hidden"))
    champions = Champions(filled.store)
    assert current(filled, champions) == first
    hidden.rename(whole)
    assert current(filled, champions) == second


def test_where_no_version_can_be_read_the_champion_is_named(filled: Workspace):
    first, second = quickly_trained(filled), quickly_trained(filled)
    for version in (first, second):
        damage(filled, version, "missing")
    with pytest.raises(ModelStoreError, match=second) as caught:
        current(filled, Champions(filled.store))
    assert not isinstance(caught.value, NoChampionError)


def test_a_version_that_was_never_champion_does_not_step_in(filled: Workspace):
    version = quickly_trained(filled)
    with filled.engine.begin() as connection:
        add_version(connection, "never promoted")
    damage(filled, version, "missing")
    with pytest.raises(ModelStoreError, match=version):
        current(filled, Champions(filled.store))


def test_the_model_of_the_week_before_is_old_enough_though_it_started_a_little_later(filled: Workspace):
    version = train(filled)
    execute(filled, "UPDATE alertrec.model_versions SET created_at = now() - interval '6 days 23 hours 59 minutes'")
    fitting.request_training(filled, as_of=AS_OF)
    outcome = fitting.run_training(filled)
    assert outcome is not None
    assert outcome.skipped is None
    assert outcome.version not in {None, version}
