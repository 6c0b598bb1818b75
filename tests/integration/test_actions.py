"""What users do is logged once and applied once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from alertrec import actions, service, upkeep
from alertrec.errors import DataError, TransientError
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    PATIENCE_SECONDS,
    Outbox,
    active_users,
    execute,
    in_background,
    load,
    log,
    offered,
    read_items,
    read_lists,
    read_offers,
    scalar,
    small_bank,
    train,
    wait_until,
    workspace_on,
)

HIGH = "alert_high_spender"
EVENT = {"user_id": "u1", "action": "created"}


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, tmp_path) as workspace:
        yield workspace


@pytest.fixture
def served(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace whose users all have a list."""
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    service.refresh_locally(workspace, as_of=AS_OF)
    return workspace


def n_unprocessed(workspace: Workspace) -> int:
    count: int = scalar(workspace, "SELECT count(*) FROM alertrec.alert_actions WHERE processed_at IS NULL")
    return count


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 5}, "user_id"),
        ({"user_id": "x" * 256}, "user_id"),
        ({"user_id": "a\x00b"}, "user_id"),
        ({"action": None}, "action"),
        ({"action": "bought"}, "action"),
        ({"alert_type": "alert_of_no_kind"}, "alert_type"),
        ({"alert_rule_id": 7}, "alert_rule_id"),
        ({"event_id": "not a uuid"}, "event_id"),
        ({"recommendation_id": "not a uuid"}, "recommendation_id"),
        ({"occurred_at": "yesterday"}, "occurred_at"),
        ({"occurred_at": 1_700_000_000}, "occurred_at"),
        ({"colour": "blue"}, "unknown fields"),
    ],
)
def test_an_event_that_cannot_be_used_is_refused_with_its_field(fields: dict[str, Any], named: str):
    with pytest.raises(DataError, match=named):
        actions.parse_action({**EVENT, **fields})


@pytest.mark.parametrize("event", [None, [], "created", 3])
def test_an_event_that_is_no_object_is_refused(event: Any):
    with pytest.raises(DataError, match="object with user_id and action"):
        actions.parse_action(event)


def test_an_event_keeps_what_it_says_and_gets_an_id_and_a_time():
    before = datetime.now(UTC)
    action = actions.parse_action(EVENT)
    assert (action.user_id, action.action) == ("u1", "created")
    assert isinstance(action.event_id, UUID)
    assert before <= action.occurred_at <= datetime.now(UTC)


def test_a_moment_without_a_zone_is_utc():
    action = actions.parse_action({**EVENT, "occurred_at": "2025-10-01T12:00:00"})
    assert action.occurred_at == datetime(2025, 10, 1, 12, tzinfo=UTC)


def test_an_event_delivered_twice_is_logged_once(workspace: Workspace):
    event = {**EVENT, "event_id": str(uuid4())}
    assert actions.log_action(workspace, actions.parse_action(event)) is True
    assert actions.log_action(workspace, actions.parse_action({**event, "action": "deleted"})) is False
    assert [row["action"] for row in execute(workspace, "SELECT action FROM alertrec.alert_actions")] == ["created"]


def test_an_alert_that_a_user_has_accepted_leaves_the_list(served: Workspace):
    user_id, row = next((user_id, row) for user_id, row in read_lists(served).items() if row["n_items"])
    alert_type = sorted(offered(served, user_id))[0]
    log(served, user_id, "created", datetime.now(UTC), alert_rule_id="new", alert_type=alert_type)
    assert actions.process_actions(served) == 1
    assert alert_type not in offered(served, user_id)
    assert read_lists(served)[user_id]["generated_at"] > row["generated_at"]


def test_only_the_lists_of_those_who_acted_are_renewed(served: Workspace):
    before, (first, second, *others) = read_lists(served), active_users(served)
    for user_id in (first, first, second):
        log(served, user_id, "dismissed", datetime.now(UTC), alert_type=HIGH)
    assert actions.process_actions(served) == 3
    after = read_lists(served)
    assert all(after[user_id]["generated_at"] > before[user_id]["generated_at"] for user_id in (first, second))
    assert all(after[user_id] == before[user_id] for user_id in others)


def test_actions_are_applied_once(served: Workspace):
    log(served, active_users(served)[0], "dismissed", datetime.now(UTC), alert_type=HIGH)
    assert [actions.process_actions(served) for _ in range(2)] == [1, 0]


def test_actions_of_users_who_are_gone_or_not_active_are_applied_without_a_list(served: Workspace):
    inactive = scalar(served, "SELECT min(id) FROM users WHERE NOT is_active")
    for user_id in ("nobody", inactive):
        log(served, user_id, "dismissed", datetime.now(UTC), alert_type=HIGH)
    assert actions.process_actions(served) == 2
    assert not {"nobody", inactive} & set(read_lists(served))


def test_before_the_first_champion_actions_are_marked_and_no_list_is_written(workspace: Workspace):
    execute(workspace, "INSERT INTO users (id) VALUES ('u1')")
    log(workspace, "u1", "created", datetime.now(UTC), alert_rule_id="r1", alert_type=HIGH)
    assert actions.process_actions(workspace) == 1
    assert (n_unprocessed(workspace), read_lists(workspace)) == (0, {})


def test_an_action_waits_on_where_the_database_failed(served: Workspace, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> int:
        raise TransientError("away")

    before = read_lists(served)
    log(served, active_users(served)[0], "dismissed", datetime.now(UTC), alert_type=HIGH)
    with monkeypatch.context() as patch:
        patch.setattr(actions, "renew_lists", broken)
        with pytest.raises(TransientError):
            actions.process_actions(served)
    assert n_unprocessed(served) == 1
    assert read_lists(served) == before
    assert actions.process_actions(served) == 1


def test_one_user_whose_list_cannot_be_made_does_not_hold_up_the_others(
    served: Workspace, monkeypatch: pytest.MonkeyPatch
):
    bad, *others = active_users(served)[:4]
    renew_lists = actions.renew_lists

    def broken_for_one(workspace: Workspace, connection: Any, users: Any, **options: Any) -> int:
        if bad in users.user_ids:
            raise RuntimeError
        return renew_lists(workspace, connection, users, **options)

    for user_id in (bad, *others):
        log(served, user_id, "dismissed", datetime.now(UTC), alert_type=HIGH)
    monkeypatch.setattr(actions, "renew_lists", broken_for_one)
    assert actions.process_actions(served) == 4
    assert n_unprocessed(served) == 0
    assert all(HIGH not in offered(served, user_id) for user_id in others)


def test_the_oldest_actions_go_first_and_no_more_than_a_batch(served: Workspace, monkeypatch: pytest.MonkeyPatch):
    users = active_users(served)[:3]
    for age, user_id in enumerate(users):
        log(served, user_id, "dismissed", datetime.now(UTC), alert_type=HIGH)
        execute(
            served,
            "UPDATE alertrec.alert_actions SET recorded_at = :at WHERE user_id = :user_id",
            at=AS_OF - timedelta(days=age),
            user_id=user_id,
        )
    monkeypatch.setattr(actions, "BATCH_SIZE", 2)
    assert actions.process_actions(served) == 2
    (left,) = execute(served, "SELECT user_id FROM alertrec.alert_actions WHERE processed_at IS NULL")
    assert left["user_id"] == users[0]


def test_two_processors_at_once_never_apply_an_action_twice(served: Workspace, monkeypatch: pytest.MonkeyPatch):
    users = active_users(served)[:4]
    for user_id in users:
        log(served, user_id, "dismissed", datetime.now(UTC), alert_type=HIGH)
    renew_lists, applied, go_on = actions.renew_lists, [], threading.Event()

    def renew_slowly(workspace: Workspace, connection: Any, chosen: Any, **options: Any) -> int:
        applied.append(chosen.user_ids)
        if len(applied) == 1:
            assert go_on.wait(PATIENCE_SECONDS)
        return renew_lists(workspace, connection, chosen, **options)

    monkeypatch.setattr(actions, "renew_lists", renew_slowly)
    monkeypatch.setattr(actions, "BATCH_SIZE", 2)
    with in_background(lambda: actions.process_actions(served)) as first:
        wait_until(lambda: len(applied) == 1)
        try:
            # The first one's transaction is open: its actions are passed over, not waited for.
            assert [actions.process_actions(served) for _ in range(2)] == [2, 0]
        finally:
            go_on.set()
        assert first.result() == 2
    assert sorted(user_id for each in applied for user_id in each) == users
    assert n_unprocessed(served) == 0


def test_a_dismissal_by_recommendation_needs_no_type(served: Workspace):
    user_id, items = next((user_id, items) for user_id, items in read_items(served).items() if items)
    event = {"user_id": user_id, "action": "dismissed", "recommendation_id": str(items[0]["recommendation_id"])}
    assert actions.log_action(served, actions.parse_action(event))
    actions.process_actions(served)
    assert items[0]["alert_type"] not in offered(served, user_id)


def test_an_answer_keeps_what_was_promised_though_the_list_is_replaced(served: Workspace):
    user_id, offers = next(iter(read_offers(served).items()))
    offer = offers[0]
    event = {"user_id": user_id, "action": "shown", "recommendation_id": str(offer["recommendation_id"])}
    assert actions.log_action(served, actions.parse_action(event))
    execute(served, "DELETE FROM alertrec.recommendations")
    assert actions.log_action(served, actions.parse_action({**event, "action": "accepted"}))
    promised = {name: offer[name] for name in ("alert_type", "probability", "model_version")}
    kept = execute(served, "SELECT alert_type, probability, model_version FROM alertrec.alert_actions")
    assert kept == [promised, promised]


def test_a_rule_that_is_deleted_is_of_the_type_that_it_was_created_with(workspace: Workspace):
    event = {"user_id": "u1", "alert_rule_id": "r1"}
    for action in ({"action": "created", "alert_type": HIGH}, {"action": "deleted"}):
        actions.log_action(workspace, actions.parse_action(event | action))
    actions.log_action(workspace, actions.parse_action(event | {"user_id": "u2", "action": "deleted"}))
    kept = execute(workspace, "SELECT user_id, alert_type FROM alertrec.alert_actions ORDER BY recorded_at")
    assert [tuple(row.values()) for row in kept] == [("u1", HIGH), ("u1", HIGH), ("u2", None)]


def test_what_was_snoozed_is_offered_again_within_a_tick_of_falling_due(served: Workspace):
    user_id, offers = next(iter(read_offers(served).items()))
    alert_type, now = offers[0]["alert_type"], datetime.now(UTC)
    log(served, user_id, "snoozed", now, alert_type=alert_type, due_at=now + timedelta(hours=1))
    upkeep.tick(served, Outbox())
    assert (actions.process_actions(served), actions.process_actions(served)) == (1, 0)
    assert alert_type not in offered(served, user_id)
    execute(served, "UPDATE alertrec.alert_actions SET due_at = clock_timestamp()")
    upkeep.tick(served, Outbox())
    assert actions.process_actions(served) == 1
    assert alert_type in offered(served, user_id)
    upkeep.tick(served, Outbox())
    assert actions.process_actions(served) == 0


def test_a_recommendation_of_another_user_gives_an_action_no_type(served: Workspace):
    (user_id, _), (other, items) = [each for each in read_items(served).items() if each[1]][:2]
    recommendation_id = str(items[0]["recommendation_id"])
    event = {"user_id": user_id, "action": "dismissed", "recommendation_id": recommendation_id}
    actions.log_action(served, actions.parse_action(event))
    actions.process_actions(served)
    assert items[0]["alert_type"] in offered(served, other)
    assert execute(served, "SELECT alert_type FROM alertrec.alert_actions") == [{"alert_type": None}]
