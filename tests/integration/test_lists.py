"""Lists are replaced whole, never by older ones, and go when they are of no use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import polars as pl
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from alertrec import service
from alertrec.lists import Lists
from alertrec.storage.lists import counts, current_list, delete_expired, read_list, write_lists
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    execute,
    in_background,
    n_waiting,
    read_items,
    read_lists,
    scalar,
    wait_until,
    workspace_on,
)

HIGH, LARGE, AWAY = "alert_high_spender", "alert_large_transaction", "alert_location_based"
LATER = AS_OF + timedelta(minutes=1)


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, tmp_path) as workspace:
        yield workspace


def make_lists(offers: Mapping[str, Sequence[str]], generated_at: datetime, *, model_version: str = "m1") -> Lists:
    """Return the rows of lists that offer these alerts, the first one with the probability 1."""
    common = {"model_version": model_version, "generated_at": generated_at}
    common["expires_at"] = generated_at + timedelta(hours=24)
    lists = [
        {"user_id": user_id, "recommendation_type": "new_user", "as_of": generated_at, "n_items": len(alerts), **common}
        for user_id, alerts in offers.items()
    ]
    items = [
        {
            "user_id": user_id,
            "alert_type": alert,
            "rank": rank,
            "probability": 1 / rank,
            "parameters": "{}",
            "reasons": json.dumps([]),
            "recommendation_id": str(uuid5(NAMESPACE_URL, f"{user_id} {alert} {model_version}")),
            **dict.fromkeys(_TEXTS, 'a "text", with a comma'),
            **common,
        }
        for user_id, alerts in offers.items()
        for rank, alert in enumerate(alerts, start=1)
    ]
    return Lists(lists=pl.DataFrame(lists), items=pl.DataFrame(items))


_TEXTS = ("confidence_level", "title", "description", "natural_language_query", "category", "priority", "reasoning")


def write(workspace: Workspace, offers: Mapping[str, Sequence[str]], generated_at: datetime = AS_OF) -> int:
    with workspace.engine.begin() as connection:
        return len(write_lists(connection, make_lists(offers, generated_at)))


def alerts_of(workspace: Workspace) -> dict[str, list[str]]:
    return {user_id: [item["alert_type"] for item in items] for user_id, items in read_items(workspace).items()}


def test_a_list_is_replaced_whole(workspace: Workspace):
    write(workspace, {"u1": [HIGH, LARGE], "u2": [AWAY]})
    assert write(workspace, {"u1": [LARGE, AWAY]}, LATER) == 1
    assert alerts_of(workspace) == {"u1": [LARGE, AWAY], "u2": [AWAY]}
    assert read_lists(workspace)["u1"]["generated_at"] == LATER
    assert {item["generated_at"] for item in read_items(workspace)["u1"]} == {LATER}


def test_a_list_that_has_become_empty_loses_its_items(workspace: Workspace):
    write(workspace, {"u1": [HIGH], "u2": [HIGH]})
    write(workspace, {"u1": [], "u2": [HIGH]}, LATER)
    assert alerts_of(workspace) == {"u2": [HIGH]}
    assert read_lists(workspace)["u1"]["n_items"] == 0


def test_what_a_list_says_is_stored_as_it_was_given(workspace: Workspace):
    write(workspace, {"u1": [HIGH]})
    (item,) = read_items(workspace)["u1"]
    assert {item[name] for name in _TEXTS} == {'a "text", with a comma'}
    assert (item["rank"], item["probability"], item["parameters"], item["reasons"]) == (1, 1.0, {}, [])
    assert item["expires_at"] == AS_OF + timedelta(hours=24)


def with_advice(lists: Lists) -> Lists:
    """Turn the first item of each list into advice on a rule, and say of all how often they would have fired."""
    is_first = pl.col("rank") == 1
    items = lists.items.with_columns(
        probability=pl.when(~is_first).then("probability"),
        recommendation_type=pl.when(is_first).then(pl.lit("change")).otherwise(pl.lit("ml_hybrid")),
        change=pl.when(is_first).then(pl.lit(json.dumps(_ADVICE))),
        would_have_fired=pl.when(is_first).then(pl.lit(json.dumps(_FIRED))),
    )
    return Lists(lists.lists, items)


_FIRED = {
    "count": 1,
    "window_days": 90,
    "until": "2025-10-01T00:00:00+00:00",
    "examples": [{"date": "2025-09-12", "merchant": 'the "Grocer",\n\\ co.', "amount": 412.5}],
}
_ADVICE = {"alert_rule_id": "r1", "advice": "tighten", "parameters": {"amount": 400}, "fired": _FIRED}


def test_advice_has_no_probability_and_is_stored_with_what_it_rests_on(workspace: Workspace):
    with workspace.engine.begin() as connection:
        write_lists(connection, with_advice(make_lists({"u1": [HIGH, LARGE]}, AS_OF)))
    advice, offer = read_items(workspace)["u1"]
    assert (advice["recommendation_type"], advice["probability"]) == ("change", None)
    assert (advice["change"], advice["would_have_fired"]) == (_ADVICE, _FIRED)
    assert (offer["recommendation_type"], offer["probability"]) == ("ml_hybrid", 0.5)
    assert (offer["change"], offer["would_have_fired"]) == (None, None)


def test_columns_of_jsonb_that_are_null_throughout_are_null(workspace: Workspace):
    nothing = pl.lit(None, pl.String)
    lists = make_lists({"u1": [HIGH]}, AS_OF)
    with workspace.engine.begin() as connection:
        items = lists.items.with_columns(change=nothing, would_have_fired=nothing)
        write_lists(connection, Lists(lists.lists, items))
    assert scalar(workspace, "SELECT count(*) FROM alertrec.recommendations WHERE change IS NULL") == 1
    assert scalar(workspace, "SELECT count(*) FROM alertrec.recommendations WHERE would_have_fired IS NULL") == 1


def test_an_item_that_tells_no_type_is_of_the_default_one(workspace: Workspace):
    write(workspace, {"u1": [HIGH]})
    assert read_items(workspace)["u1"][0]["recommendation_type"] == "default"


def test_a_newer_list_is_not_replaced_by_an_older_one_and_keeps_its_items(workspace: Workspace):
    write(workspace, {"u1": [HIGH, LARGE]}, LATER)
    assert write(workspace, {"u1": [AWAY], "u2": [AWAY]}, AS_OF) == 1
    assert alerts_of(workspace) == {"u1": [HIGH, LARGE], "u2": [AWAY]}
    assert read_lists(workspace)["u1"]["n_items"] == 2


def test_a_list_of_the_same_moment_is_replaced(workspace: Workspace):
    # A chunk that is done a second time writes what it wrote, not nothing.
    write(workspace, {"u1": [HIGH]})
    assert write(workspace, {"u1": [AWAY]}) == 1
    assert alerts_of(workspace) == {"u1": [AWAY]}


def test_a_reader_never_sees_a_half_written_list(workspace: Workspace):
    write(workspace, {"u1": [HIGH, LARGE]})
    with workspace.engine.connect() as writer:
        write_lists(writer, make_lists({"u1": [AWAY], "u2": [AWAY]}, LATER))
        assert alerts_of(workspace) == {"u1": [HIGH, LARGE]}
        assert {row["n_items"] for row in read_lists(workspace).values()} == {2}
        writer.commit()
    assert alerts_of(workspace) == {"u1": [AWAY], "u2": [AWAY]}


def test_a_write_that_fails_leaves_the_lists_as_they_were(workspace: Workspace):
    write(workspace, {"u1": [HIGH, LARGE]})
    with workspace.engine.connect() as writer:
        write_lists(writer, make_lists({"u1": [AWAY]}, LATER))
        writer.rollback()
    assert alerts_of(workspace) == {"u1": [HIGH, LARGE]}


def test_two_writers_of_the_same_users_in_opposite_orders_do_not_deadlock(workspace: Workspace):
    everybody = {f"u{number:03}": [HIGH] for number in range(100)}
    backwards = dict(reversed(everybody.items()))
    write(workspace, everybody)
    with workspace.engine.connect() as holder:
        # Both must stop in the middle of their users, each holding rows that the other one needs, were it not for
        # the order in which rows are taken.
        holder.execute(text("SELECT FROM alertrec.recommendation_lists WHERE user_id = 'u050' FOR UPDATE"))
        with (
            in_background(lambda: write(workspace, everybody, LATER)) as forwards,
            in_background(lambda: write(workspace, backwards, LATER)) as other,
        ):
            wait_until(lambda: n_waiting(workspace) == 2)
            holder.rollback()
            assert (forwards.result(), other.result()) == (100, 100)
    assert len(alerts_of(workspace)) == 100


def test_expired_lists_are_deleted_with_their_items_after_the_days_and_not_before(workspace: Workspace):
    write(workspace, {"u1": [HIGH, LARGE], "u2": [HIGH], "u3": [HIGH]})
    for user_id, age in (("u1", "31 days"), ("u2", "29 days"), ("u3", "-1 day")):
        execute(
            workspace,
            "UPDATE alertrec.recommendation_lists SET expires_at = now() - CAST(:age AS interval) WHERE user_id = :id",
            age=age,
            id=user_id,
        )
    with workspace.engine.begin() as connection:
        assert delete_expired(connection, 30) == 1
    assert alerts_of(workspace) == {"u2": [HIGH], "u3": [HIGH]}
    assert set(read_lists(workspace)) == {"u2", "u3"}


def test_an_expired_list_is_no_current_one(workspace: Workspace):
    write(workspace, {"u1": [HIGH]}, AS_OF)
    with workspace.engine.connect() as connection:
        assert connection.execute(current_list("u1")).first() is None
        assert read_list(connection, "u1") is not None
        assert counts(connection) == (0, 1)


def test_the_list_of_a_user_who_is_not_active_goes(workspace: Workspace):
    execute(workspace, "INSERT INTO users (id, is_active) VALUES ('u1', false)")
    write(workspace, {"u1": [HIGH], "u2": [HIGH]})
    assert service.generate_recommendations(workspace, "u1") is False
    assert alerts_of(workspace) == {"u2": [HIGH]}
    assert set(read_lists(workspace)) == {"u2"}


def test_a_probability_outside_of_0_and_1_is_refused_by_the_table(workspace: Workspace):
    lists = make_lists({"u1": [HIGH]}, AS_OF)
    broken = Lists(lists.lists, lists.items.with_columns(probability=pl.lit(1.5)))
    with workspace.engine.connect() as connection, pytest.raises(IntegrityError, match="probability_is_a_probability"):
        write_lists(connection, broken)
    assert scalar(workspace, "SELECT count(*) FROM alertrec.recommendation_lists") == 0


@pytest.mark.parametrize(
    ("kind", "constraint"),
    [("ml_hybrid", "only_a_change_has_no_probability"), (None, "recommendation_type_is_given")],
)
def test_an_item_without_a_probability_that_is_no_advice_is_refused_by_the_table(
    workspace: Workspace, kind: str | None, constraint: str
):
    lists = make_lists({"u1": [HIGH]}, AS_OF)
    unsure = lists.items.with_columns(probability=pl.lit(None, pl.Float64), recommendation_type=pl.lit(kind, pl.String))
    with workspace.engine.connect() as connection, pytest.raises(IntegrityError, match=constraint):
        write_lists(connection, Lists(lists.lists, unsure))
    assert scalar(workspace, "SELECT count(*) FROM alertrec.recommendation_lists") == 0
