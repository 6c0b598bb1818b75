"""A customer's export from end to end: imported, trained on, refreshed, and every list checked from outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from alertrec import service
from alertrec.catalog import ALERT_KEYS, classify
from alertrec.embedded import Servers
from alertrec.feature_engineering import build_user_features
from alertrec.labels import enabled_matrix
from alertrec.recommender import AlertRecommenderModel
from alertrec.sample_bank import SampleBank
from alertrec.storage import models
from alertrec.workspace import Workspace
from tests.integration.worlds import Rows, load, own_database, read_items, read_lists, train, workspace_on

AS_OF = datetime(2026, 10, 1, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True)
class Refreshed:
    """The export as its files hold it, and what became of it."""

    export: SampleBank
    workspace: Workspace
    items: Rows


@pytest.fixture(scope="module")
def refreshed(sparkov: Path, running_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refreshed]:
    names = ("users", "transactions", "alert_rules")
    export = SampleBank(**{name: pl.read_parquet(sparkov / f"{name}.parquet") for name in names})
    data_dir = tmp_path_factory.mktemp("sparkov")
    with (
        own_database(running_servers, "alertrec_sparkov") as url,
        workspace_on(url, data_dir, chunk_size=250) as workspace,
    ):
        load(workspace, export, data_dir)
        train(workspace, as_of=AS_OF)
        service.refresh_locally(workspace, as_of=AS_OF)
        yield Refreshed(export, workspace, read_items(workspace))


def test_every_active_user_has_a_current_list_and_nobody_else(refreshed: Refreshed):
    active = refreshed.export.users.filter("is_active")["id"].cast(pl.String).to_list()
    assert len(active) > 800
    lists = read_lists(refreshed.workspace)
    assert sorted(lists) == sorted(active)
    assert all(row["expires_at"] > datetime.now(UTC) and row["as_of"] == AS_OF for row in lists.values())


def test_no_list_holds_an_alert_that_the_export_says_is_on(refreshed: Refreshed):
    rules = refreshed.export.alert_rules.filter("is_active").select("user_id", "alert_type", "natural_language_query")
    enabled = {(str(user_id), alert_type or classify(query)) for user_id, alert_type, query in rules.iter_rows()}
    assert len(enabled) > 1500
    offers = {(user_id, item["alert_type"]) for user_id, items in refreshed.items.items() for item in items}
    assert len(offers) > 1500
    assert not offers & enabled


def test_every_probability_recomputes_from_the_stored_model(refreshed: Refreshed):
    workspace = refreshed.workspace
    with workspace.engine.connect() as connection:
        champion = models.champion(connection)
    assert champion is not None
    model = AlertRecommenderModel.from_arrays(*workspace.store.load(champion.version, sha256=champion.sha256))
    users = refreshed.export.users.filter("is_active")
    features = build_user_features(users, refreshed.export.transactions, as_of=AS_OF)
    user_ids = features["user_id"].to_list()
    scores = model.score(
        user_ids,
        features.select(model.feature_columns).to_numpy(),
        enabled_matrix(user_ids, refreshed.export.alert_rules.filter("is_active").cast({"user_id": pl.String})),
        known=(features["amount_count"] > 0).to_numpy(),
    )
    row_of = {user_id: row for row, user_id in enumerate(user_ids)}
    for user_id, items in refreshed.items.items():
        for item in items:
            column = ALERT_KEYS.index(item["alert_type"])
            assert item["probability"] == scores.probabilities[row_of[user_id], column]
            assert item["model_version"] == champion.version
