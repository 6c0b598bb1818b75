"""A customer's export from end to end: imported, trained on, refreshed, and every list checked from outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from alertrec import fitting, service
from alertrec.catalog import ALERT_KEYS, classify
from alertrec.embedded import Servers
from alertrec.feature_engineering import build_user_features
from alertrec.labels import enabled_matrix
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.cards import CHANGE
from alertrec.sample_bank import SampleBank
from alertrec.storage import models
from alertrec.wording import Words
from alertrec.workspace import Workspace
from tests.integration.rule_checks import check_user
from tests.integration.worlds import Rows, load, offers_of, own_database, read_items, read_lists, workspace_on
from tests.snapshots import check_texts

AS_OF = datetime(2026, 10, 1, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True)
class Refreshed:
    """The export as its files hold it, and what became of it."""

    export: SampleBank
    workspace: Workspace
    items: Rows
    refused: tuple[str, ...]


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
        fitting.request_training(workspace, as_of=AS_OF)
        outcome = fitting.run_training(workspace)
        assert outcome is not None
        service.refresh_locally(workspace, as_of=AS_OF)
        yield Refreshed(export, workspace, read_items(workspace), outcome.refused)


@pytest.fixture
def champion(refreshed: Refreshed) -> AlertRecommenderModel:
    """What serves, read from its files."""
    with refreshed.workspace.engine.connect() as connection:
        found = models.champion(connection)
    assert found is not None
    return refreshed.workspace.champions.load(found)


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
    pairs = {kind: set[tuple[str, str]]() for kind in ("offer", "advice")}
    for user_id, items in refreshed.items.items():
        for item in items:
            pairs["advice" if item["recommendation_type"] == CHANGE else "offer"].add((user_id, item["alert_type"]))
    assert len(pairs["offer"]) > 1000
    assert not pairs["offer"] & enabled
    assert len(pairs["advice"]) > 500
    assert pairs["advice"] <= enabled


def test_every_probability_recomputes_from_the_stored_model(refreshed: Refreshed, champion: AlertRecommenderModel):
    users = refreshed.export.users.filter("is_active")
    features = build_user_features(users, refreshed.export.transactions, as_of=AS_OF)
    user_ids = features["user_id"].to_list()
    rules = refreshed.export.alert_rules.filter("is_active").cast({"user_id": pl.String})
    enabled, known = enabled_matrix(user_ids, rules), (features["amount_count"] > 0).to_numpy()
    scores = champion.score(features, enabled, known=known)
    row_of = {user_id: row for row, user_id in enumerate(user_ids)}
    for user_id, items in refreshed.items.items():
        for item in offers_of(items):
            column = ALERT_KEYS.index(item["alert_type"])
            assert item["probability"] == scores.probabilities[row_of[user_id], column]
            assert item["model_version"] == champion.card["version"]


def test_what_a_list_rests_on_is_what_is_known_of_the_user(refreshed: Refreshed, champion: AlertRecommenderModel):
    purchases = refreshed.export.transactions.filter(
        (pl.col("transaction_type") == "PURCHASE") & pl.col("status").is_in(["PENDING", "APPROVED", "SETTLED"])
    )
    spends = set(purchases["user_id"].cast(pl.String))
    rules = refreshed.export.alert_rules.filter("is_active").select("user_id", "alert_type", "natural_language_query")
    has = {str(user_id) for user_id, alert_type, query in rules.iter_rows() if alert_type or classify(query)}
    kind = {
        (True, True): "ml_hybrid",
        (True, False): "ml_transaction_based",
        (False, True): "ml_default",
        (False, False): "new_user",
    }
    assert champion.card["algorithm"] != "knn"
    lists = read_lists(refreshed.workspace)
    told = {user_id: row["recommendation_type"] for user_id, row in lists.items()}
    assert told == {user_id: kind[user_id in spends, user_id in has] for user_id in lists}
    assert set(told.values()) >= {"ml_hybrid", "ml_transaction_based"}


def test_the_champion_beats_popularity_and_neighbours_beyond_noise(champion: AlertRecommenderModel):
    judged = champion.card["report"]["protocols"]["leave_one_out"]
    assert judged["n_users"] > 700
    against = {each["against"]: each for each in judged["comparisons"] if each["metric"] == "log_loss"}
    losses = {name: each["metrics"]["log_loss"]["value"] for name, each in judged["models"].items()}
    algorithm = champion.card["algorithm"]
    assert set(against) == {"popularity", "knn"}
    for other, comparison in against.items():
        assert comparison["model"] == algorithm
        assert comparison["high"] < 0
        assert comparison["difference"] == pytest.approx(losses[algorithm] - losses[other], abs=1e-9)


def test_the_champion_keeps_its_word_and_passes_every_gate(refreshed: Refreshed, champion: AlertRecommenderModel):
    report = champion.card["report"]
    judged = report["protocols"]["leave_one_out"]["models"][champion.card["algorithm"]]
    assert judged["metrics"]["calibration_error"]["value"] <= 0.05
    assert refreshed.refused == ()
    assert [gate["name"] for gate in report["gates"] if not gate["passed"]] == []
    assert champion.card["metrics"] == judged["metrics"]


def test_an_explanation_adds_up_to_what_the_list_says(refreshed: Refreshed):
    user_ids = list(refreshed.items)[:20]
    for user_id in user_ids:
        explanations = service.explain_list(refreshed.workspace, user_id)
        offers = offers_of(refreshed.items[user_id])
        assert list(explanations) == [item["alert_type"] for item in offers]
        for item in offers:
            found = explanations[item["alert_type"]]
            assert found.probability == pytest.approx(item["probability"], abs=1e-9)
            assert found.base is not None
            total = found.base + sum(each.value for each in found.contributions)
            assert total == pytest.approx(found.log_odds, abs=1e-6)


def test_every_recommendation_recomputes_row_by_row_and_every_budget_holds(refreshed: Refreshed):
    export = refreshed.export
    rows = by_user(export.transactions.with_columns(pl.col("transaction_date").cast(pl.Datetime("us"))))
    rules = by_user(
        export.alert_rules.filter("is_active")
        .with_columns(
            rule_id="id",
            alert_type=pl.coalesce("alert_type", pl.col("natural_language_query").map_elements(classify, pl.String)),
            parameters=pl.lit(None, pl.String),
        )
        .select("user_id", "rule_id", "alert_type", "natural_language_query", "parameters")
    )
    moment, n_checked = AS_OF.replace(tzinfo=None), 0
    for user in export.users.filter("is_active").to_dicts():
        items = refreshed.items.get(user["id"], [])
        check_user(user, rows.get(user["id"], []), rules.get(user["id"], []), items, moment)
        n_checked += len(items)
    assert n_checked == sum(map(len, refreshed.items.values())) > 2000


def test_every_number_in_every_sentence_recomputes_from_the_stored_row(refreshed: Refreshed):
    for items in refreshed.items.values():
        for item in items:
            check_texts(item, Words())


def by_user(frame: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each user."""
    return {str(key[0]): part.to_dicts() for key, part in frame.partition_by("user_id", as_dict=True).items()}
