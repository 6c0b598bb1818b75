"""What a training decides, on a real database: refused or promoted, by what is known at a moment and nothing later."""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alertrec import fitting, judging, promotion
from alertrec.errors import NoChampionError
from alertrec.fitting import TrainingOutcome
from alertrec.reporting import render_page, render_tables
from alertrec.storage import jobs, models
from alertrec.storage.models import ModelVersion
from alertrec.training_data import read_earlier, read_training_data
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    active_users,
    execute,
    load,
    log,
    scalar,
    small_bank,
    train,
    workspace_on,
)

LARGE, MERCHANT = "alert_large_transaction", "alert_new_merchant"
EARLIER = AS_OF - timedelta(days=30)


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    """A bank of sixty users that nothing was trained on yet."""
    with workspace_on(database_url, tmp_path) as workspace:
        load(workspace, small_bank(), tmp_path)
        yield workspace


@pytest.fixture
def champion(workspace: Workspace) -> str:
    """A champion, of a week ago by the clock: the next training is due."""
    version = train(workspace)
    a_week_passes(workspace)
    return version


def a_week_passes(workspace: Workspace) -> None:
    execute(workspace, "UPDATE alertrec.model_versions SET created_at = created_at - interval '7 days'")


def retrain(workspace: Workspace, *, force: bool = False) -> TrainingOutcome:
    fitting.request_training(workspace, force=force, as_of=AS_OF)
    outcome = fitting.run_training(workspace)
    assert outcome is not None
    return outcome


def in_force(workspace: Workspace) -> str:
    with workspace.engine.connect() as connection:
        return workspace.champions.current(connection).version


def stored(workspace: Workspace, version: str | None) -> ModelVersion:
    assert version is not None
    with workspace.engine.connect() as connection:
        found = models.find(connection, version)
    assert found is not None
    return found


def report_of(workspace: Workspace, version: str | None) -> dict[str, Any]:
    report: dict[str, Any] = workspace.champions.load(stored(workspace, version)).card["report"]
    return report


def is_due(workspace: Workspace) -> bool:
    with workspace.engine.connect() as connection:
        return promotion.is_due(connection, workspace.settings.retrain_days)


# --- refused and overruled


def test_a_retraining_that_learnt_nothing_new_is_stored_and_refused_by_name_and_figure(
    workspace: Workspace, champion: str
):
    outcome = retrain(workspace)
    (refusal,) = outcome.refused
    assert refusal == "0 users enabled an alert since champion was trained, too few to tell the two apart by 10"
    with workspace.engine.connect() as connection:
        run = jobs.read_run(connection, outcome.job_id)
    assert run is not None
    assert (run["status"], run["result"]) == ("done", {"version": outcome.version, "refused": [refusal]})
    assert in_force(workspace) == champion
    refused = stored(workspace, outcome.version)
    assert (refused.alias, refused.promoted_at, refused.promoted_by) == (None, None, None)


def test_the_stored_report_tells_the_same_verdict(workspace: Workspace, champion: str):
    outcome = retrain(workspace)
    gates = {gate["name"]: gate for gate in report_of(workspace, outcome.version)["gates"]}
    assert [gate["message"] for gate in gates.values() if not gate["passed"]] == list(outcome.refused)
    assert gates["beats_champion"]["passed"] is False
    first = {gate["name"] for gate in report_of(workspace, champion)["gates"]}
    assert set(gates) - first == {"no_drift", "beats_champion"}


def test_after_a_refused_training_none_is_due(workspace: Workspace, champion: str):
    assert is_due(workspace) is True
    assert retrain(workspace).refused
    assert is_due(workspace) is False
    assert retrain(workspace).skipped == "the last training is younger than 7 days"
    a_week_passes(workspace)
    assert is_due(workspace) is True


def test_a_refused_version_is_promoted_by_hand_and_rolled_back_from(workspace: Workspace, champion: str):
    version = retrain(workspace).version
    assert version is not None
    promotion.promote(workspace, version, promoted_by="a test")
    assert in_force(workspace) == version
    assert promotion.roll_back(workspace, promoted_by="a test") == champion
    assert in_force(workspace) == champion


def test_a_version_that_was_refused_is_not_rolled_back_to(workspace: Workspace, champion: str):
    retrain(workspace)
    forced = retrain(workspace, force=True).version
    assert in_force(workspace) == forced
    assert promotion.roll_back(workspace, promoted_by="a test") == champion


def test_a_first_training_has_no_champion_to_beat(workspace: Workspace):
    outcome = retrain(workspace)
    assert outcome.refused == ()
    assert outcome.version == in_force(workspace)


def test_users_who_no_longer_look_like_those_in_training_are_not_served_without_force(
    workspace: Workspace, champion: str
):
    execute(workspace, "UPDATE transactions SET amount = amount * 20")
    outcome = retrain(workspace)
    (refusal,) = (each for each in outcome.refused if "population stability" in each)
    drift = report_of(workspace, outcome.version)["drift"]
    for name in ("amount_mean", "amount_sum", "amount_max"):
        said = f"population stability index {drift[name]:.3f} of {name} is above the bound 0.25 by"
        assert f"{said} {drift[name] - 0.25:.3f}" in refusal
    assert "merchant_name_nunique" not in refusal
    assert in_force(workspace) == champion
    forced = retrain(workspace, force=True)
    assert forced.refused == ()
    assert in_force(workspace) == forced.version
    gates = {gate["name"]: gate["passed"] for gate in report_of(workspace, forced.version)["gates"]}
    assert gates["no_drift"] is False


def test_a_model_that_foretells_what_came_since_replaces_the_champion(workspace: Workspace):
    # Nobody has had this alert when the champion is trained; within a day, everybody who buys in many places does.
    execute(workspace, "DELETE FROM alert_rules WHERE alert_type = :key OR alert_type IS NULL", key=MERCHANT)
    champion = train(workspace)
    a_week_passes(workspace)
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, alert_type, created_at, updated_at) "
        "SELECT 'since-' || id, id, :key, :at, :at FROM users",
        key=MERCHANT,
        at=AS_OF + timedelta(hours=1),
    )
    fitting.request_training(workspace, as_of=AS_OF + timedelta(hours=2))
    outcome = fitting.run_training(workspace)
    assert outcome is not None
    assert outcome.refused == ()
    assert in_force(workspace) == outcome.version != champion
    (gate,) = (each for each in report_of(workspace, outcome.version)["gates"] if each["name"] == "beats_champion")
    assert gate["measured"] < -0.05
    assert "the log-loss is below that of champion beyond noise" in gate["message"]


# --- nothing later than the moment


def test_what_comes_after_a_moment_changes_nothing_of_what_was_known_at_it(workspace: Workspace):
    users = read_training_data(workspace, as_of=AS_OF).users
    before = read_earlier(workspace, users, as_of=EARLIER, progress=lambda *_: None)
    assert before.labels.any()
    user_id, later = active_users(workspace)[0], EARLIER + timedelta(seconds=1)
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, alert_type, created_at, updated_at) "
        "SELECT 'later-' || key, :user_id, key, :later, :later FROM unnest(CAST(:keys AS text[])) AS key",
        user_id=user_id,
        later=later,
        keys=list(judging.ALERT_KEYS),
    )
    execute(
        workspace,
        "INSERT INTO transactions (id, user_id, amount, merchant_name, transaction_date) "
        "VALUES ('later', :user_id, 1000000, 'Jeweller', :later)",
        user_id=user_id,
        later=later,
    )
    for rule in execute(workspace, "SELECT id, user_id FROM alert_rules WHERE created_at < :at LIMIT 20", at=EARLIER):
        log(workspace, rule["user_id"], "disabled", later, alert_rule_id=rule["id"])
    after = read_earlier(workspace, users, as_of=EARLIER, progress=lambda *_: None)
    assert after.features.equals(before.features)
    assert np.array_equal(after.labels, before.labels)
    now = read_earlier(workspace, users, as_of=AS_OF, progress=lambda *_: None)
    row = users.features["user_id"].to_list().index(user_id)
    assert now.labels[row].all()
    assert now.features["amount_max"][row] == 1_000_000


def test_who_came_after_a_moment_had_nothing_at_it(workspace: Workspace):
    execute(workspace, "INSERT INTO users (id, credit_limit) VALUES ('new', 5000)")
    execute(
        workspace,
        "INSERT INTO transactions (id, user_id, amount, transaction_date) VALUES ('t-new', 'new', 10, :at)",
        at=EARLIER + timedelta(days=1),
    )
    users = read_training_data(workspace, as_of=AS_OF).users
    row = users.features["user_id"].to_list().index("new")
    then = read_earlier(workspace, users, as_of=EARLIER, progress=lambda *_: None)
    assert then.features["user_id"].to_list() == users.features["user_id"].to_list()
    assert then.features["amount_count"][row] == 0
    assert not then.labels[row].any()


def leak(workspace: Workspace) -> None:
    """Give every second user one alert more and, as if it were their credit limit, the knowledge of it."""
    execute(workspace, "DELETE FROM alert_rules")
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, alert_type, created_at, updated_at) "
        "SELECT 'rule-of-' || id, id, "
        "CASE WHEN number % 2 = 0 THEN CAST(:leaked AS text) ELSE 'alert_high_spender' END, :at, :at "
        "FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM users) AS numbered",
        leaked=LARGE,
        at=EARLIER,
    )
    execute(
        workspace,
        "UPDATE users SET credit_limit = CASE WHEN alert_type = :leaked THEN 90000 ELSE 1000 END "
        "FROM alert_rules WHERE user_id = users.id",
        leaked=LARGE,
    )


@pytest.mark.parametrize("force", [False, True])
def test_a_feature_that_knows_the_answer_is_never_served_from(workspace: Workspace, force: bool):
    leak(workspace)
    outcome = retrain(workspace, force=force)
    refusal = next(each for each in outcome.refused if "alone tells" in each)
    n_users = scalar(
        workspace,
        "SELECT count(DISTINCT user_id) FROM transactions JOIN users ON users.id = user_id "
        "WHERE is_active AND transaction_type = 'PURCHASE'",
    )
    assert f"credit_limit alone tells {LARGE} (AUC 1.000, {n_users} users)" in refusal
    assert "amount_" not in refusal
    with pytest.raises(NoChampionError):
        in_force(workspace)
    (found, *_) = report_of(workspace, outcome.version)["leaks"]
    assert found == {"feature": "credit_limit", "alert": found["alert"], "auc": 1.0, "n": n_users}


def test_without_the_leak_the_same_bank_is_served(workspace: Workspace):
    leak(workspace)
    execute(workspace, "UPDATE users SET credit_limit = 5000")
    assert not [each for each in retrain(workspace).refused if "alone tells" in each]


# --- evaluation without training


def test_an_evaluation_finds_what_a_training_finds_and_stores_nothing(workspace: Workspace):
    evaluated = judging.evaluate(workspace, as_of=AS_OF)
    for table in ("model_versions", "job_runs"):
        assert scalar(workspace, f"SELECT count(*) FROM alertrec.{table}") == 0  # noqa: S608  # names of our own
    trained = report_of(workspace, train(workspace))
    volatile = {"version", "created_at"}
    assert {key: value for key, value in evaluated.items() if key not in volatile} == {
        key: value for key, value in trained.items() if key not in volatile
    }


def test_a_model_that_nothing_could_judge_has_a_report_that_says_so(workspace: Workspace):
    report = report_of(workspace, train(workspace, use_real_alerts=False))
    assert "protocols" not in report
    (gate,) = report["gates"]
    assert (gate["name"], gate["passed"]) == ("enough_data", False)
    assert gate["message"] in html.unescape(render_page(report))
    assert render_tables(report)


def test_rules_of_thumb_do_not_replace_what_was_learnt_from_rules_unless_forced(workspace: Workspace, champion: str):
    fitting.request_training(workspace, as_of=AS_OF, use_real_alerts=False)
    outcome = fitting.run_training(workspace)
    assert outcome is not None
    assert outcome.refused == ("users judged: 0, below the bound 10 by 10",)
    assert in_force(workspace) == champion
    forced = train(workspace, use_real_alerts=False)
    assert in_force(workspace) == forced
