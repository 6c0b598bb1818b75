"""What users answer to offers enters the next training, on a real database."""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alertrec import judging, service
from alertrec.actions import log_action, parse_action
from alertrec.catalog import ALERT_KEYS
from alertrec.feedback import shifts
from alertrec.recommender import AlertRecommenderModel
from alertrec.reporting import render_page, render_tables
from alertrec.storage import models
from alertrec.storage.answers import LOOK_BACK_DAYS, read_answers
from alertrec.training_data import read_training_data
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    active_users,
    execute,
    load,
    log,
    read_offers,
    small_bank,
    train,
    workspace_on,
)

HOUR = timedelta(hours=1)
LATER = AS_OF + timedelta(days=2)  # of the second training
LARGE, MERCHANT, SPENDER = "alert_large_transaction", "alert_new_merchant", "alert_high_spender"


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    """An empty bank."""
    with workspace_on(database_url, tmp_path) as workspace:
        yield workspace


@pytest.fixture
def bank(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A bank of sixty users, all of whom have a list by its first champion."""
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    service.refresh_locally(workspace, as_of=AS_OF)
    return workspace


def answer(workspace: Workspace, user_id: str, action: str, at: datetime, **fields: Any) -> None:
    """Log an action as a web app does, which fills in what was promised."""
    named = {name: str(value) for name, value in fields.items()}
    event = {"user_id": user_id, "action": action, "occurred_at": at.isoformat(), **named}
    assert log_action(workspace, parse_action(event))


def answer_all(workspace: Workspace, refused: str | None, at: datetime = AS_OF + HOUR) -> list[tuple[str, str]]:
    """Have everybody dismiss one type, and take every second offer of others; return who took what."""
    taken, others = [], 0
    for user_id, items in read_offers(workspace).items():
        for item in items:
            others += item["alert_type"] != refused
            takes = item["alert_type"] != refused and others % 2 == 0
            action = "accepted" if takes else "dismissed"
            answer(workspace, user_id, action, at, recommendation_id=item["recommendation_id"])
            if takes:
                taken.append((user_id, item["alert_type"]))
    return taken


def most_offered(workspace: Workspace) -> str:
    offered = [item["alert_type"] for items in read_offers(workspace).values() for item in items]
    return max(sorted(set(offered)), key=offered.count)


def model_of(workspace: Workspace, version: str) -> AlertRecommenderModel:
    with workspace.engine.connect() as connection:
        stored = models.find(connection, version)
    assert stored is not None
    return workspace.champions.load(stored)


def said(workspace: Workspace, version: str) -> NDArray[np.float64]:
    """Return what a model says of all users, and of one without purchases."""
    users = read_training_data(workspace, as_of=LATER).users
    known = np.arange(len(users)) > 0
    return model_of(workspace, version).score(users.features, users.labels, known=known).probabilities


def shift_of(workspace: Workspace, version: str, alert_type: str) -> float:
    found = model_of(workspace, version).scorer.calibration.shifts
    return found[ALERT_KEYS.index(alert_type)]


# What is learnt.


def test_a_type_that_many_dismiss_falls_in_the_next_training_and_no_other_does(bank: Workspace):
    refused = most_offered(bank)
    before = said(bank, train(bank, as_of=LATER))
    answer_all(bank, refused)
    version = train(bank, as_of=LATER)
    after, column = said(bank, version), ALERT_KEYS.index(refused)
    assert shift_of(bank, version, refused) < -0.3
    open_ = (before > 0) & (before < 1)
    assert (after[:, column] < before[:, column])[open_[:, column]].all()
    calibration = model_of(bank, version).scorer.calibration
    answered = [column for column, shift in enumerate(calibration.shifts) if shift > 0]
    assert len(answered) > 1
    np.testing.assert_array_equal((after > before)[:, answered], open_[:, answered])
    unshifted = np.where(open_, calibration.unshifted(after), before)
    np.testing.assert_allclose(unshifted, before, atol=1e-9)  # and nothing else has changed


def test_what_is_dismissed_no_more_often_than_all_else_does_not_fall_far(bank: Workspace):
    refused = most_offered(bank)
    answer_all(bank, None)
    alike = shift_of(bank, train(bank, as_of=LATER), refused)
    execute(bank, "UPDATE alertrec.alert_actions SET action = 'dismissed' WHERE alert_type = :key", key=refused)
    assert shift_of(bank, train(bank, as_of=LATER), refused) < alike - 0.3


def test_what_was_taken_and_deleted_again_counts_against(bank: Workspace):
    taken = answer_all(bank, None)
    kept = most_offered(bank)
    before = shift_of(bank, train(bank, as_of=LATER), kept)
    for user_id, alert_type in taken:
        if alert_type == kept:
            answer(bank, user_id, "deleted", AS_OF + 2 * HOUR, alert_type=kept)
    after = train(bank, as_of=LATER)
    assert shift_of(bank, after, kept) < before - 0.2
    assert model_of(bank, after).card["report"]["answers"][kept]["n_taken"] == 0


def test_the_list_and_its_explanation_tell_the_same_probability(bank: Workspace):
    answer_all(bank, most_offered(bank))
    version = train(bank, as_of=LATER)
    # Who has no purchases, with alerts and without, is told the same way.
    users = active_users(bank)[:2]
    execute(bank, "DELETE FROM transactions WHERE user_id = ANY(:users)", users=users)
    execute(bank, "DELETE FROM alert_rules WHERE user_id = ANY(:users)", users=users)
    insert_rule(bank, "rule", True, AS_OF, user_id=users[1])
    execute(bank, "DELETE FROM alertrec.alert_actions")  # else what was dismissed is not offered
    service.refresh_locally(bank, as_of=LATER)
    offers = read_offers(bank)
    assert {item["model_version"] for items in offers.values() for item in items} == {version}
    assert {item["recommendation_type"] for user in users for item in offers[user]} == {"new_user", "ml_default"}
    assert all(shift_of(bank, version, item["alert_type"]) for user in users for item in offers[user])
    for user_id, items in offers.items():
        explained = service.explain_list(bank, user_id)
        for item in items:
            assert explained[item["alert_type"]].probability == pytest.approx(item["probability"], abs=1e-9)


def test_the_report_and_the_card_count_the_answers(bank: Workspace):
    refused = most_offered(bank)
    taken = answer_all(bank, refused)
    version = train(bank, as_of=LATER)
    model, offered = model_of(bank, version), read_offers(bank)
    found = model.card["report"]["answers"]
    assert found == model.card["data_counts"]["answers"]
    for alert_type, each in found.items():
        offers = [user for user, items in offered.items() if alert_type in {item["alert_type"] for item in items}]
        assert each["n_answers"] == len(offers)
        assert each["n_taken"] == len([None for _, key in taken if key == alert_type])
        assert each["shift"] == shift_of(bank, version, alert_type)
    assert refused in html.unescape(render_page(model.card["report"]))
    assert any(getattr(each, "title", None) is not None and "answered" in str(each.title)
               for each in render_tables(model.card["report"]) if not isinstance(each, str))  # fmt: skip
    evaluated = judging.evaluate(bank, as_of=LATER)
    assert evaluated["answers"] == found


def test_without_answers_nothing_is_another(bank: Workspace):
    for user_id, items in read_offers(bank).items():
        for action in ("shown", "expanded", "snoozed"):
            answer(bank, user_id, action, AS_OF + HOUR, recommendation_id=items[0]["recommendation_id"])
    before = train(bank, as_of=LATER)
    execute(bank, "DELETE FROM alertrec.alert_actions")
    one, other = (model_of(bank, version) for version in (before, train(bank, as_of=LATER)))
    assert one.card["files"] == other.card["files"]
    assert one.card["calibration"] == other.card["calibration"]
    assert set(one.card["calibration"]) == {"slope", "intercept", "covariance"}
    assert not {"answers", "shifts"} & set(one.card["data_counts"])
    assert "answers" not in one.card["report"]


def test_answers_to_offers_that_were_already_shifted_do_not_unlearn_the_shift(bank: Workspace):
    refused = most_offered(bank)
    answer_all(bank, refused)
    second = train(bank, as_of=LATER)
    # Its lists, as if nobody had said anything, are answered again.
    execute(bank, "DELETE FROM alertrec.alert_actions")
    service.refresh_locally(bank, as_of=LATER)
    answer_all(bank, None, at=LATER + HOUR)
    as_of = LATER + 2 * HOUR
    data = read_training_data(bank, as_of=as_of)
    mine = dict(zip(ALERT_KEYS, model_of(bank, second).scorer.calibration.shifts, strict=True))
    assert data.promised_with == {second: {key: shift for key, shift in mine.items() if shift}}
    assert data.answers.shifted_by.tolist() == [mine[ALERT_KEYS[alert]] for alert in data.answers.alerts]
    third = train(bank, as_of=as_of)
    # Though the row of the second is gone, what it promised with is known.
    train(bank, as_of=as_of)
    with bank.engine.begin() as connection:
        assert models.delete_version(connection, second)
    again = read_training_data(bank, as_of=as_of)
    assert again.promised_with == data.promised_with
    found = shifts(again.answers, len(ALERT_KEYS))
    np.testing.assert_array_equal(found, model_of(bank, third).scorer.calibration.shifts)


# What counts as an answer.

OFFER = "00000000-0000-0000-0000-000000000001"
Event = tuple[str, float, dict[str, Any]]  # action, hours since AS_OF, fields

PROMISED: dict[str, Any] = {"alert_type": LARGE, "probability": 0.3, "recommendation_id": OFFER, "model_version": "v"}
ACCEPTED: Event = ("accepted", 0, PROMISED)
DISMISSED: Event = ("dismissed", 0, PROMISED)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([ACCEPTED], [True], id="accepted"),
        pytest.param([DISMISSED], [False], id="dismissed"),
        pytest.param([("shown", 0, PROMISED), ("expanded", 0, PROMISED), ("snoozed", 0, PROMISED)], [], id="no answer"),
        pytest.param([("accepted", 0, PROMISED | {"probability": None})], [], id="advice promises nothing"),
        pytest.param([("accepted", 0, PROMISED | {"probability": "NaN"})], [], id="promised no number"),
        pytest.param([("dismissed", 0, PROMISED | {"alert_type": None})], [], id="of no known type"),
        pytest.param([DISMISSED, ("snoozed", 1, PROMISED)], [False], id="snoozed after"),
        pytest.param([DISMISSED, ("accepted", 1, PROMISED)], [True], id="the last counts: accepted"),
        pytest.param([ACCEPTED, ("dismissed", 1, PROMISED)], [False], id="the last counts: dismissed"),
        pytest.param([("created", 0, PROMISED)], [True], id="created from an offer"),
        pytest.param([("created", 0, PROMISED | {"recommendation_id": None})], [], id="created without an offer"),
        pytest.param([ACCEPTED, ("deleted", 1, {"alert_type": LARGE})], [False], id="deleted later"),
        pytest.param([ACCEPTED, ("disabled", 1, {"alert_type": LARGE})], [False], id="disabled later"),
        pytest.param([ACCEPTED, ("disabled", -1, {"alert_type": LARGE})], [True], id="disabled before"),
        pytest.param([ACCEPTED, ("disabled", 1, {"alert_type": MERCHANT})], [True], id="another type disabled"),
        pytest.param(
            [ACCEPTED, ("disabled", 1, {"alert_type": LARGE}), ("enabled", 2, {"alert_type": LARGE})],
            [True],
            id="on again",
        ),
        pytest.param([ACCEPTED, ("deleted", 49, {"alert_type": LARGE})], [True], id="deleted after the moment"),
        pytest.param([("accepted", 49, PROMISED)], [], id="after the moment"),
        pytest.param([("accepted", 48, PROMISED)], [True], id="at the moment"),
        pytest.param([("dismissed", 48 - 24 * LOOK_BACK_DAYS, PROMISED)], [], id="too long ago"),
        pytest.param([("dismissed", 49 - 24 * LOOK_BACK_DAYS, PROMISED)], [False], id="just not too long ago"),
        pytest.param(
            [DISMISSED, ("dismissed", 1, PROMISED | {"alert_type": MERCHANT})], [False, False], id="two types"
        ),
        pytest.param(
            [DISMISSED, ("dismissed", 1, PROMISED | {"model_version": "w"})], [False], id="one witness of one type"
        ),
    ],
)
def test_answers_are(workspace: Workspace, events: list[Event], expected: list[bool]):
    for action, hours, fields in events:
        log(workspace, "u", action, AS_OF + hours * HOUR, **fields)
    # What another user does has nothing to do with it.
    log(workspace, "v", "deleted", AS_OF + HOUR, alert_type=LARGE)
    with workspace.engine.connect() as connection:
        found = read_answers(connection, workspace.source, as_of=LATER)
    assert found["taken"].to_list() == expected
    assert set(found["probability"].to_list()) <= {0.3}
    assert set(found["model_version"].to_list()) <= {"v", "w"}


@pytest.mark.parametrize(
    ("is_active", "hours", "expected"),
    [(False, 1, False), (False, -1, True), (False, 49, True), (True, 1, True)],
    ids=["switched off", "off before", "off after the moment", "on"],
)
def test_a_rule_that_nobody_logs_tells_by_its_row(workspace: Workspace, is_active: bool, hours: int, expected: bool):
    log(workspace, "u", "accepted", AS_OF, **PROMISED)
    insert_rule(workspace, "rule", is_active, AS_OF + hours * HOUR)
    with workspace.engine.connect() as connection:
        found = read_answers(connection, workspace.source, as_of=LATER)
    assert found["taken"].to_list() == [expected]


def test_a_rule_that_was_replaced_by_another_of_its_type_is_kept(workspace: Workspace):
    log(workspace, "u", "accepted", AS_OF, **PROMISED)
    insert_rule(workspace, "old", False, AS_OF + HOUR)
    insert_rule(workspace, "new", True, AS_OF + 2 * HOUR)
    with workspace.engine.connect() as connection:
        found = read_answers(connection, workspace.source, as_of=LATER)
    assert found["taken"].to_list() == [True]


def test_a_switch_that_is_logged_by_its_rule_alone_is_known_by_the_rules_type(workspace: Workspace):
    log(workspace, "u", "accepted", AS_OF, **PROMISED)
    insert_rule(workspace, "rule", True, AS_OF - HOUR)
    log(workspace, "u", "disabled", AS_OF + HOUR, alert_rule_id="rule")
    with workspace.engine.connect() as connection:
        found = read_answers(connection, workspace.source, as_of=LATER)
    assert found["taken"].to_list() == [False]


def insert_rule(
    workspace: Workspace, rule_id: str, is_active: bool, updated_at: datetime, *, user_id: str = "u"
) -> None:
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, alert_type, is_active, created_at, updated_at) "
        "VALUES (:id, :user_id, :key, :is_active, :created_at, :updated_at)",
        id=rule_id,
        user_id=user_id,
        key=LARGE,
        is_active=is_active,
        created_at=AS_OF - HOUR,
        updated_at=updated_at,
    )


def test_a_type_that_has_left_the_catalogue_teaches_nothing(workspace: Workspace, tmp_path: Path):
    load(workspace, small_bank(), tmp_path)
    log(workspace, "u", "dismissed", AS_OF + HOUR, **(PROMISED | {"alert_type": "alert_of_yesterday"}))
    log(workspace, "u", "dismissed", AS_OF + HOUR, **(PROMISED | {"alert_type": SPENDER, "model_version": None}))
    found = read_training_data(workspace, as_of=LATER).answers
    assert found.alerts.tolist() == [ALERT_KEYS.index(SPENDER)]
    assert found.shifted_by.tolist() == [0.0]
