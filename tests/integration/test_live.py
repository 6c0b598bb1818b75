"""Who comes or acts after a training is somebody's neighbour at once, as if trained with the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alertrec import live, service
from alertrec.catalog import ALERT_KEYS
from alertrec.feature_engineering import build_user_features
from alertrec.labels import enabled_matrix
from alertrec.models.knn import KNeighbours
from alertrec.recommender import AlertRecommenderModel
from alertrec.sample_bank import make_sample_bank
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    Rows,
    active_users,
    execute,
    load,
    log,
    offers_of,
    read_items,
    scalar,
    train,
    workspace_on,
)

OpenProcess = Callable[[], Workspace]
# So few that nobody but the neighbour model is a candidate.
N_USERS = 36
_TIMES = ("generated_at", "expires_at", "model_version", "recommendation_id")


@pytest.fixture
def midnight() -> datetime:
    """The end of the bank's history, and the moment of training: before now, by the database's clock as well."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def workspace(database_url: str, tmp_path: Path, midnight: datetime) -> Iterator[Workspace]:
    """The process that trained; it offers everything that is not excluded, so that lists tell all that is said."""
    with workspace_on(database_url, tmp_path, threshold=0.0, max_items=len(ALERT_KEYS)) as workspace:
        load(workspace, make_sample_bank(N_USERS, as_of=midnight, days=60), tmp_path)
        train(workspace, as_of=midnight)
        assert scalar(workspace, "SELECT algorithm FROM alertrec.model_versions") == "knn"
        yield workspace


@pytest.fixture(autouse=True)
def _always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_GOOD_FOR_SECONDS", 0.0)
    monkeypatch.setattr(live, "_TIMES_AS_LONG", 0)


def shopper(workspace: Workspace, midnight: datetime) -> str:
    """Return a user with purchases, whose neighbours the tests change."""
    return str(
        scalar(
            workspace,
            "SELECT users.id FROM users JOIN transactions ON user_id = users.id WHERE is_active "
            "AND transaction_type = 'PURCHASE' AND transaction_date <= :at GROUP BY users.id "
            "ORDER BY count(*) DESC, users.id LIMIT 1",
            at=midnight,
        )
    )


def open_twin(workspace: Workspace, of: str, user_id: str = "twin") -> None:
    """Open an account whose holder has bought what somebody else bought: their nearest neighbour."""
    execute(
        workspace,
        "INSERT INTO users (id, credit_limit, credit_balance, address_state, address_country, created_at) "
        "SELECT :user_id, credit_limit, credit_balance, address_state, address_country, now() "
        "FROM users WHERE id = :of",
        user_id=user_id,
        of=of,
    )
    execute(
        workspace,
        "INSERT INTO transactions (id, user_id, amount, merchant_name, merchant_category, merchant_state, "
        "merchant_country, transaction_date, transaction_type, status) "
        "SELECT :user_id || id, :user_id, amount, merchant_name, merchant_category, merchant_state, "
        "merchant_country, transaction_date, transaction_type, status FROM transactions WHERE user_id = :of",
        user_id=user_id,
        of=of,
    )


def switch_on(workspace: Workspace, user_id: str, *alert_types: str) -> None:
    for alert_type in alert_types:
        log(
            workspace,
            user_id,
            "created",
            datetime.now(UTC),
            alert_rule_id=f"{user_id}-{alert_type}",
            alert_type=alert_type,
        )


def renewed(workspace: Workspace, user_id: str, *, as_of: datetime | None = None) -> dict[str, Any]:
    """Renew the list of a user and return what each alert rests on."""
    assert service.generate_recommendations(workspace, user_id, as_of=as_of)
    items = offers_of(read_items(workspace)[user_id])
    return {item["alert_type"]: (item["probability"], item["reasons"]) for item in items}


def serving(workspace: Workspace) -> AlertRecommenderModel:
    """Return the model that this process serves from now."""
    with workspace.engine.begin() as connection:
        champion = workspace.champions.current(connection)
        return workspace.live.model(connection, workspace.source, champion.version, champion.model)


def as_trained(workspace: Workspace) -> AlertRecommenderModel:
    with workspace.engine.begin() as connection:
        return workspace.champions.current(connection).model


def assert_same_neighbours(one: AlertRecommenderModel, other: AlertRecommenderModel) -> None:
    """Fail unless both know the same users, and find the same shares among them whoever is asked about."""
    assert one.user_ids == other.user_ids
    mine, theirs = one.scorer.neighbours, other.scorer.neighbours
    for name in ("known_", "labels_", "mean_", "scale_", "shares_", "reference_", "reference_rows_"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)

    def said(model: KNeighbours) -> Any:
        rows = model.reference_rows_
        return model.smoothed(model.kneighbors(model.known_, 5, training_rows=rows)[0], smoothing=1.0)

    np.testing.assert_array_equal(said(mine), said(theirs))


def cohorts(items: Rows) -> dict[tuple[str, str], Any]:
    return {
        (user_id, item["alert_type"]): [each for each in item["reasons"] if each["kind"] == "similar_users"]
        for user_id, each in items.items()
        for item in each
    }


def test_a_new_user_with_alerts_changes_what_a_neighbour_is_offered_at_once(workspace: Workspace, midnight: datetime):
    user_id = shopper(workspace, midnight)
    before = renewed(workspace, user_id)
    offered = min(before, key=lambda alert_type: before[alert_type][0])
    open_twin(workspace, user_id)
    switch_on(workspace, "twin", offered)
    after = renewed(workspace, user_id)
    model = serving(workspace)
    nearest, _ = model.scorer.nearest([user_id], features_of(workspace, user_id, model), 1)
    assert model.user_ids[nearest[0, 0]] == "twin"
    assert after[offered][0] > before[offered][0]
    (then, now) = (similar(each[offered][1]) for each in (before, after))
    assert now["n_with_alert"] == then["n_with_alert"] + 1
    assert now["n_customers"] == then["n_customers"] + 1


def features_of(workspace: Workspace, user_id: str, model: AlertRecommenderModel) -> Any:
    known: Any = model.scorer.neighbours.known_[[model.user_ids.index(user_id)]]
    return known


def similar(reasons: list[dict[str, Any]]) -> dict[str, Any]:
    return next(each for each in reasons if each["kind"] == "similar_users")


def test_an_action_changes_what_neighbours_are_offered_and_back(workspace: Workspace, midnight: datetime):
    user_id = shopper(workspace, midnight)
    open_twin(workspace, user_id)
    before = renewed(workspace, user_id)
    offered = min(before, key=lambda alert_type: before[alert_type][0])
    switch_on(workspace, "twin", offered)
    assert renewed(workspace, user_id)[offered][0] > before[offered][0]
    log(workspace, "twin", "disabled", datetime.now(UTC), alert_rule_id=f"twin-{offered}", alert_type=offered)
    assert renewed(workspace, user_id) == before


def test_a_rule_of_the_table_that_an_action_switches_off_is_seen(workspace: Workspace):
    rule = execute(
        workspace,
        "SELECT alert_rules.id, user_id, alert_type FROM alert_rules JOIN users ON users.id = user_id "
        "WHERE users.is_active AND alert_rules.is_active AND alert_type IS NOT NULL ORDER BY 1",
    )
    model = as_trained(workspace)
    chosen = next(each for each in rule if each["user_id"] in model.user_ids)
    log(workspace, chosen["user_id"], "disabled", datetime.now(UTC), alert_rule_id=chosen["id"])
    column, row = ALERT_KEYS.index(chosen["alert_type"]), model.user_ids.index(chosen["user_id"])
    difference = model.scorer.neighbours.labels_ ^ serving(workspace).scorer.neighbours.labels_
    assert list(zip(*np.nonzero(difference), strict=True)) == [(row, column)]


def test_the_neighbours_are_those_that_a_training_with_the_same_rows_would_have(
    workspace: Workspace, midnight: datetime, database_url: str, tmp_path: Path
):
    user_id, *others = [shopper(workspace, midnight), *as_trained(workspace).user_ids[:6]]
    open_twin(workspace, user_id)
    open_twin(workspace, others[0], "a-twin")  # the first of all ids, so that every row moves
    execute(workspace, "INSERT INTO users (id, created_at) VALUES ('buys-nothing', now())")
    switch_on(workspace, "twin", *ALERT_KEYS[:3])
    switch_on(workspace, "a-twin", *ALERT_KEYS[2:4])
    switch_on(workspace, "buys-nothing", ALERT_KEYS[0])
    for other in others[1:4]:
        switch_on(workspace, other, ALERT_KEYS[1])
    execute(workspace, "UPDATE users SET is_active = false WHERE id = :id", id=others[4])
    log(workspace, others[4], "deleted", datetime.now(UTC), alert_rule_id="none")
    brought_forward = serving(workspace)
    service.refresh_locally(workspace)
    overlaid = cohorts(read_items(workspace))
    with workspace_on(database_url, tmp_path, threshold=0.0, max_items=len(ALERT_KEYS)) as another_process:
        assert_same_neighbours(serving(another_process), brought_forward)
    train(workspace, as_of=scalar(workspace, "SELECT now()"))
    retrained = as_trained(workspace)
    assert {"twin", "a-twin"} <= set(retrained.user_ids)
    assert not {"buys-nothing", others[4]} & set(retrained.user_ids)
    assert_same_neighbours(brought_forward, retrained)
    service.refresh_locally(workspace)
    assert overlaid == cohorts(read_items(workspace))
    assert len([each for each in overlaid.values() if each]) > 100


def test_changes_that_come_one_by_one_add_up(
    workspace: Workspace, midnight: datetime, database_url: str, tmp_path: Path
):
    user_id = shopper(workspace, midnight)
    for number in range(3):
        open_twin(workspace, user_id, f"twin-{number}")
        serving(workspace)
        switch_on(workspace, f"twin-{number}", ALERT_KEYS[number])
        serving(workspace)
    execute(workspace, "UPDATE users SET is_active = false WHERE id = 'twin-1'")
    with workspace_on(database_url, tmp_path) as another_process:
        assert_same_neighbours(serving(workspace), serving(another_process))


@pytest.mark.parametrize(
    "later",
    [
        "UPDATE transactions SET user_id = 'late' WHERE user_id = 'twin'",
        "UPDATE users SET is_active = false WHERE id = 'twin'",
    ],
)
def test_a_process_that_runs_for_long_knows_what_one_that_starts_knows(
    workspace: Workspace,
    midnight: datetime,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    later: str,
):
    open_twin(workspace, shopper(workspace, midnight))
    execute(workspace, "INSERT INTO users (id, created_at) VALUES ('late', now())")
    serving(workspace)
    execute(workspace, later)
    with workspace_on(database_url, tmp_path) as another_process:
        assert_same_neighbours(serving(workspace), serving(another_process))


def test_one_who_left_since_is_nobodys_neighbour_any_more(workspace: Workspace, midnight: datetime):
    user_id = shopper(workspace, midnight)
    before = renewed(workspace, user_id)
    open_twin(workspace, user_id)
    switch_on(workspace, "twin", ALERT_KEYS[0])
    assert "twin" in serving(workspace).user_ids
    execute(workspace, "UPDATE users SET is_active = false WHERE id = 'twin'")
    assert "twin" not in serving(workspace).user_ids
    assert renewed(workspace, user_id) == before


def test_one_who_was_there_at_the_training_and_left_is_nobodys_neighbour_any_more(workspace: Workspace):
    gone = as_trained(workspace).user_ids[0]
    execute(workspace, "UPDATE users SET is_active = false WHERE id = :id", id=gone)
    assert gone not in serving(workspace).user_ids


def test_of_a_moment_asked_for_nothing_that_came_later_is_told(workspace: Workspace, midnight: datetime):
    user_id = shopper(workspace, midnight)
    before = renewed(workspace, user_id, as_of=midnight)
    open_twin(workspace, user_id)
    switch_on(workspace, "twin", *ALERT_KEYS)
    assert renewed(workspace, user_id) != before
    assert renewed(workspace, user_id, as_of=midnight) == before


def test_while_nothing_happens_the_champion_serves_as_it_was_trained(workspace: Workspace):
    assert serving(workspace) is as_trained(workspace)
    log(workspace, active_users(workspace)[0], "shown", datetime.now(UTC), alert_type=ALERT_KEYS[0])
    assert serving(workspace) is as_trained(workspace)


def test_what_was_read_is_good_for_some_seconds(
    workspace: Workspace, midnight: datetime, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live, "_GOOD_FOR_SECONDS", 3600.0)
    assert "twin" not in serving(workspace).user_ids
    open_twin(workspace, shopper(workspace, midnight))
    assert "twin" not in serving(workspace).user_ids


def test_a_new_champion_is_brought_forward_from_its_own_training(workspace: Workspace, midnight: datetime):
    user_id = shopper(workspace, midnight)
    open_twin(workspace, user_id)
    assert "twin" in serving(workspace).user_ids
    train(workspace, as_of=midnight - timedelta(days=1))
    assert "twin" in as_trained(workspace).user_ids  # who they are is known by the table, whatever the moment
    execute(workspace, "UPDATE users SET is_active = false WHERE id = 'twin'")
    assert "twin" not in serving(workspace).user_ids


def test_an_explanation_tells_of_the_list_that_the_neighbours_of_now_gave(workspace: Workspace, midnight: datetime):
    user_id = shopper(workspace, midnight)
    open_twin(workspace, user_id)
    switch_on(workspace, "twin", *ALERT_KEYS)
    offers = renewed(workspace, user_id)
    explanations = service.explain_list(workspace, user_id)
    assert {alert_type: found.probability for alert_type, found in explanations.items()} == {
        alert_type: pytest.approx(probability, abs=1e-12) for alert_type, (probability, _) in offers.items()
    }


def test_the_features_of_one_brought_forward_are_those_of_now(workspace: Workspace, midnight: datetime):
    user_id = shopper(workspace, midnight)
    execute(
        workspace,
        "INSERT INTO transactions (id, user_id, amount, merchant_name, transaction_date) "
        "VALUES ('since', :user_id, 100000, 'Jeweller', now() - interval '1 microsecond')",
        user_id=user_id,
    )
    switch_on(workspace, user_id, ALERT_KEYS[0])
    model = serving(workspace)
    with workspace.engine.connect() as connection:
        data = workspace.source.read(connection, None, as_of=datetime.now(UTC))
    features = build_user_features(data.users, data.transactions, as_of=datetime.now(UTC))
    row = features["user_id"].to_list().index(user_id)
    known = model.scorer.neighbours.known_[model.user_ids.index(user_id)]
    assert features.select(model.feature_columns).row(row) == tuple(known.tolist())
    assert features["amount_max"][row] == 100_000
    labels = model.scorer.neighbours.labels_[model.user_ids.index(user_id)]
    np.testing.assert_array_equal(labels, enabled_matrix([user_id], data.rules)[0])
