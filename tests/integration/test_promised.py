"""The promised asynchronous functions, with a session of the web app's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from alertrec import fitting
from alertrec.background import BackgroundRecommendationService
from alertrec.errors import ConfigError, DataError, NoChampionError, TransientError, UnknownUserError
from alertrec.sample_bank import make_sample_bank
from alertrec.storage import locks
from alertrec.training import log_user_alert_action, retrain_model, should_retrain_model, train_model
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    PATIENCE_SECONDS,
    active_users,
    execute,
    load,
    offered,
    read_lists,
    scalar,
    workspace_on,
)


@pytest.fixture
def workspace(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    """What the environment describes to the promised functions, as the tests look at it."""
    monkeypatch.setenv("ALERTREC_DATABASE_URL", database_url)
    monkeypatch.setenv("ALERTREC_REDIS_URL", redis_url)
    monkeypatch.setenv("ALERTREC_DATA_DIR", str(tmp_path))
    with workspace_on(database_url, tmp_path) as workspace:
        yield workspace


@pytest.fixture
def filled(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A bank whose history ends today, since the promised functions know no other moment than now."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    load(workspace, make_sample_bank(60, as_of=midnight, days=60), tmp_path)
    return workspace


@pytest_asyncio.fixture
async def session(database_url: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


async def test_train_model_returns_the_champion_that_it_made(filled: Workspace, session: AsyncSession):
    model = await train_model(session, n_neighbors=7)
    assert model.is_trained
    assert model.card["neighbours"]["n_neighbors"] == 7
    assert model.card["data_counts"]["label_source"] == "alert rules"
    champion = scalar(filled, "SELECT version FROM alertrec.model_versions WHERE alias = 'champion'")
    assert model.card["version"] == champion


async def test_train_model_learns_rules_of_thumb_where_real_alerts_are_not_wanted(
    filled: Workspace, session: AsyncSession
):
    model = await train_model(session, use_real_alerts=False)
    assert model.card["data_counts"]["label_source"] == "heuristics"


async def test_train_model_does_what_it_is_told_though_a_training_waits(filled: Workspace, session: AsyncSession):
    fitting.request_training(filled)
    model = await train_model(session, n_neighbors=7, use_real_alerts=False)
    assert model.card["neighbours"]["n_neighbors"] == 7
    assert model.card["data_counts"]["label_source"] == "heuristics"


async def test_train_model_trains_though_the_weekly_training_waits_beside_a_young_champion(
    filled: Workspace, session: AsyncSession
):
    first = await train_model(session)
    fitting.request_training(filled)
    second = await train_model(session)
    assert second.card["version"] != first.card["version"]


async def test_retrain_model_replaces_a_young_champion(filled: Workspace, session: AsyncSession):
    first, second = await train_model(session), await retrain_model(session, n_neighbors=3)
    assert second.card["neighbours"]["n_neighbors"] == 3
    assert second.card["version"] != first.card["version"]


async def test_too_little_data_is_an_error_that_says_what_is_needed(workspace: Workspace, session: AsyncSession):
    execute(workspace, "INSERT INTO users (id) VALUES ('u1')")
    with pytest.raises(DataError, match="at least 10 users and 100 purchases"):
        await train_model(session)


async def test_a_training_under_way_elsewhere_is_an_error_that_passes(filled: Workspace, session: AsyncSession):
    with filled.engine.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": locks.TRAINING})
        with pytest.raises(TransientError, match="another training"):
            await train_model(session)
        other.execute(text("SELECT pg_advisory_unlock_all()"))


async def test_the_event_loop_goes_on_while_a_model_is_trained(
    filled: Workspace, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
):
    under_way, ticked = threading.Event(), threading.Event()
    fit_model = fitting.fit_model

    def fit_when_the_loop_has_ticked(*arguments: Any, **options: Any) -> Any:
        under_way.set()
        assert ticked.wait(PATIENCE_SECONDS), "nothing else ran in the event loop"
        return fit_model(*arguments, **options)

    async def keep_ticking() -> None:
        while not under_way.is_set():
            await asyncio.sleep(0)
        ticked.set()

    monkeypatch.setattr(fitting, "fit_model", fit_when_the_loop_has_ticked)
    model, _ = await asyncio.gather(train_model(session), keep_ticking())
    assert model.is_trained


async def test_the_sessions_own_transaction_is_left_alone_by_a_training(filled: Workspace, session: AsyncSession):
    await session.execute(text("INSERT INTO users (id) VALUES ('mine')"))
    await train_model(session)
    await session.rollback()
    assert "mine" not in active_users(filled)


async def test_an_action_is_logged_if_the_session_commits(workspace: Workspace, session: AsyncSession):
    recommendation, at = uuid4(), AS_OF + timedelta(hours=1)
    async with session.begin():
        await log_user_alert_action(
            session,
            "u1",
            "r1",
            "accepted",
            alert_type="alert_high_spender",
            recommendation_id=recommendation,
            occurred_at=at,
        )
    (row,) = execute(workspace, "SELECT * FROM alertrec.alert_actions")
    assert (row["user_id"], row["alert_rule_id"], row["action"]) == ("u1", "r1", "accepted")
    assert (row["alert_type"], row["recommendation_id"]) == ("alert_high_spender", recommendation)
    assert (row["occurred_at"], row["processed_at"]) == (at, None)


async def test_an_action_is_gone_if_the_session_rolls_back(workspace: Workspace, session: AsyncSession):
    await session.execute(text("INSERT INTO users (id) VALUES ('u1')"))
    await log_user_alert_action(session, "u1", "r1", "created")
    await session.rollback()
    assert execute(workspace, "SELECT * FROM alertrec.alert_actions") == []
    assert active_users(workspace) == []


async def test_an_action_is_logged_once_by_its_event_id(workspace: Workspace, session: AsyncSession):
    event_id = uuid4()
    async with session.begin():
        for _ in range(2):
            await log_user_alert_action(session, "u1", "r1", "created", event_id=event_id)
    assert [row["event_id"] for row in execute(workspace, "SELECT event_id FROM alertrec.alert_actions")] == [event_id]


async def test_an_action_that_cannot_be_used_is_refused_and_the_session_goes_on(
    workspace: Workspace, session: AsyncSession
):
    async with session.begin():
        await session.execute(text("INSERT INTO users (id) VALUES ('u1')"))
        with pytest.raises(DataError, match="action"):
            await log_user_alert_action(session, "u1", "r1", "bought")
    assert active_users(workspace) == ["u1"]


async def test_a_model_is_to_be_retrained_when_there_is_none_or_it_is_old(filled: Workspace, session: AsyncSession):
    assert should_retrain_model() is True
    await train_model(session)
    assert should_retrain_model() is False
    execute(filled, "UPDATE alertrec.model_versions SET created_at = now() - interval '5 days'")
    assert should_retrain_model() is False
    assert should_retrain_model(days_threshold=5) is True


async def test_the_service_renews_and_reads_the_list_of_one_user(filled: Workspace, session: AsyncSession):
    await train_model(session)
    service, user_id = BackgroundRecommendationService(), active_users(filled)[0]
    assert await service.get_cached_recommendations(user_id, session) is None
    made = await service.generate_recommendations_for_user(user_id)
    read = await service.get_cached_recommendations(user_id, session)
    assert read is not None
    assert (made["status"], made["user_id"]) == ("success", user_id)
    assert made["recommendation_count"] == len(read["recommendations"]) > 0
    assert (read["user_id"], read["generated_at"]) == (user_id, made["generated_at"])
    stored = read_lists(filled)[user_id]["recommendation_type"]
    assert read["recommendation_type"] == made["recommendation_type"] == stored
    assert stored in {"ml_collaborative_filtering", "ml_hybrid", "ml_transaction_based"}
    assert {item["alert_type"] for item in read["recommendations"]} == offered(filled, user_id)
    assert [item["rank"] for item in read["recommendations"]] == list(range(1, made["recommendation_count"] + 1))


async def test_a_list_that_has_expired_is_not_read(filled: Workspace, session: AsyncSession):
    await train_model(session)
    service, user_id = BackgroundRecommendationService(), active_users(filled)[0]
    await service.generate_recommendations_for_user(user_id)
    execute(filled, "UPDATE alertrec.recommendation_lists SET expires_at = now() - interval '1 second'")
    assert await service.get_cached_recommendations(user_id, session) is None


async def test_the_service_says_that_a_user_or_a_champion_is_missing(workspace: Workspace):
    execute(workspace, "INSERT INTO users (id) VALUES ('u1')")
    service = BackgroundRecommendationService()
    with pytest.raises(UnknownUserError):
        await service.generate_recommendations_for_user("nobody")
    with pytest.raises(NoChampionError):
        await service.generate_recommendations_for_user("u1")


async def test_the_service_renews_everybodys_list(filled: Workspace, session: AsyncSession):
    await train_model(session)
    outcome = await BackgroundRecommendationService().generate_recommendations_for_all_users()
    n_users = len(active_users(filled))
    job_id = str(scalar(filled, "SELECT job_id FROM alertrec.job_runs WHERE job = 'refresh'"))
    assert outcome == {
        "status": "completed",
        "total_users": n_users,
        "success_count": n_users,
        "error_count": 0,
        "job_id": job_id,
    }
    assert sorted(read_lists(filled)) == active_users(filled)


async def test_the_service_deletes_lists_that_expired_long_ago(filled: Workspace, session: AsyncSession):
    await train_model(session)
    service = BackgroundRecommendationService()
    await service.generate_recommendations_for_all_users()
    old = active_users(filled)[:2]
    execute(
        filled,
        "UPDATE alertrec.recommendation_lists SET expires_at = now() - interval '31 days' WHERE user_id = ANY(:old)",
        old=old,
    )
    assert await service.clean_expired_recommendations() == {"status": "success", "deleted_count": 2}
    assert not set(old) & set(read_lists(filled))


def test_the_service_has_no_language_model():
    with pytest.raises(ConfigError, match="use_ml_model=True"):
        BackgroundRecommendationService(use_ml_model=False)


async def test_a_database_without_the_tables_of_this_release_is_refused(workspace: Workspace):
    execute(workspace, "DROP SCHEMA alertrec CASCADE")
    with pytest.raises(ConfigError, match="alertrec migrate"):
        await BackgroundRecommendationService().generate_recommendations_for_user("u1")
