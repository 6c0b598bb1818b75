"""What the lists say, recomputed from the data and the stored model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alertrec import service
from alertrec.catalog import ALERT_KEYS, BY_KEY, classify
from alertrec.embedded import Servers
from alertrec.errors import DataError, NoChampionError, UnknownUserError
from alertrec.feature_engineering import build_user_features
from alertrec.labels import enabled_matrix
from alertrec.model_store import ModelStore
from alertrec.ranking import N_FALLBACK
from alertrec.recommender import AlertRecommenderModel, Scores
from alertrec.sample_bank import SampleBank
from alertrec.storage import jobs, models
from alertrec.storage.models import ModelVersion
from alertrec.wording import Words
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    active_users,
    execute,
    load,
    log,
    offered,
    own_database,
    read_items,
    read_lists,
    read_offers,
    scalar,
    small_bank,
    train,
    workspace_on,
)

# What differs between two lists that say the same.
_TIMES = ("generated_at", "expires_at")
_MODEL = ("model_version", "recommendation_id")

HIGH, LARGE, MERCHANT = "alert_high_spender", "alert_large_transaction", "alert_new_merchant"
EVERYTHING = set(ALERT_KEYS)
RULE_MADE = AS_OF - timedelta(days=30)


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    """Chunks of 20 users: the numbers of a user must not depend on who is computed beside them."""
    with workspace_on(database_url, tmp_path, chunk_size=20) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def trained(running_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModelVersion, Path]]:
    """The champion of the small bank and its files; trained once, since that takes longer than all else."""
    scratch = tmp_path_factory.mktemp("trained")
    with own_database(running_servers, "alertrec_service") as url, workspace_on(url, scratch) as workspace:
        load(workspace, small_bank(), scratch)
        train(workspace)
        with workspace.engine.connect() as connection:
            champion = models.champion(connection)
        assert champion is not None
        yield champion, Path(workspace.settings.model_location) / champion.version


@pytest.fixture
def bank(workspace: Workspace, trained: tuple[ModelVersion, Path], tmp_path: Path) -> SampleBank:
    """A bank with a trained model, and lists for nobody yet."""
    bank = small_bank()
    load(workspace, bank, tmp_path)
    champion, files = trained
    shutil.copytree(files, Path(workspace.settings.model_location) / champion.version)
    with workspace.engine.begin() as connection:
        models.insert_version(connection, champion)
    return bank


@pytest.fixture
def generous(database_url: str, bank: SampleBank, tmp_path: Path) -> Iterator[Workspace]:
    """Offers everything that is not excluded, so that a list tells exactly what was."""
    with workspace_on(database_url, tmp_path, threshold=0.0, max_items=len(ALERT_KEYS)) as workspace:
        execute(workspace, "DELETE FROM alert_rules")
        yield workspace


def enabled_by(bank: SampleBank) -> dict[str, set[str]]:
    """Return the alerts that each user has, from the files and without any of the code that serves."""
    alerts: dict[str, set[str]] = {}
    for user_id, alert_type, query in (
        bank.alert_rules.filter("is_active").select("user_id", "alert_type", "natural_language_query").iter_rows()
    ):
        if key := alert_type or classify(query):
            alerts.setdefault(user_id, set()).add(key)
    return alerts


def recomputed(workspace: Workspace, bank: SampleBank) -> tuple[list[str], Scores]:
    """Return what the stored champion says of everybody at once, with features from the files."""
    row = execute(workspace, "SELECT version, sha256 FROM alertrec.model_versions WHERE alias = 'champion'")[0]
    store = ModelStore(workspace.settings.model_location, cache=Path("unused"))
    model = AlertRecommenderModel.from_arrays(*store.load(row["version"], sha256=row["sha256"]))
    features = build_user_features(bank.users.filter("is_active"), bank.transactions, as_of=AS_OF)
    user_ids = features["user_id"].to_list()
    scores = model.score(
        features,
        enabled_matrix(user_ids, bank.alert_rules.filter("is_active")),
        known=(features["amount_count"] > 0).to_numpy(),
    )
    return user_ids, scores


def test_after_a_refresh_exactly_the_active_users_have_a_list(workspace: Workspace, bank: SampleBank):
    job_id = service.refresh_locally(workspace, as_of=AS_OF)
    active = bank.users.filter("is_active")["id"].to_list()
    assert len(active) < bank.users.height
    lists = read_lists(workspace)
    assert sorted(lists) == sorted(active)
    now = scalar(workspace, "SELECT now()")
    assert all(row["generated_at"] <= now < row["expires_at"] and row["as_of"] == AS_OF for row in lists.values())
    with workspace.engine.connect() as connection:
        run = jobs.read_run(connection, job_id)
    assert run is not None
    assert (run["status"], run["n_users_done"]) == ("done", len(active))


def test_a_list_holds_as_many_items_as_it_says_in_the_order_of_their_priority(workspace: Workspace, bank: SampleBank):
    service.refresh_locally(workspace, as_of=AS_OF)
    items = read_items(workspace)
    assert {user_id: row["n_items"] for user_id, row in read_lists(workspace).items() if row["n_items"]} == {
        user_id: len(each) for user_id, each in items.items()
    }
    for each in items.values():
        assert [item["rank"] for item in each] == list(range(1, len(each) + 1))
        levels = [("high", "medium", "low").index(item["priority"]) for item in each]
        assert levels == sorted(levels)


def test_no_list_holds_an_alert_that_is_enabled_or_was_dismissed(workspace: Workspace, bank: SampleBank):
    service.refresh_locally(workspace, as_of=AS_OF)
    dismissed = {user_id: items[0]["alert_type"] for user_id, items in read_offers(workspace).items()}
    assert len(dismissed) > 30
    for user_id, alert_type in dismissed.items():
        log(workspace, user_id, "dismissed", datetime.now(UTC), alert_type=alert_type)
    service.refresh_locally(workspace, as_of=AS_OF)
    enabled = enabled_by(bank)
    assert sum(map(len, enabled.values())) > 50
    for user_id, items in read_offers(workspace).items():
        alerts = {item["alert_type"] for item in items}
        assert not alerts & enabled.get(user_id, set())
        assert dismissed.get(user_id) not in alerts


def test_every_probability_recomputes_from_the_stored_model(workspace: Workspace, bank: SampleBank):
    service.refresh_locally(workspace, as_of=AS_OF)
    user_ids, scores = recomputed(workspace, bank)
    row_of = {user_id: row for row, user_id in enumerate(user_ids)}
    items = [item for each in read_offers(workspace).values() for item in each]
    assert len(items) > 50
    for item in items:
        row, column = row_of[item["user_id"]], ALERT_KEYS.index(item["alert_type"])
        assert item["probability"] == scores.probabilities[row, column]
        low, threshold = scores.low[row, column], workspace.settings.threshold
        reaches = "high" if low >= threshold else "medium" if item["probability"] >= threshold else "low"
        assert item["confidence_level"] == reaches


def test_every_reason_recomputes_and_names_nobody_else(workspace: Workspace, bank: SampleBank):
    service.refresh_locally(workspace, as_of=AS_OF)
    user_ids, scores = recomputed(workspace, bank)
    features = build_user_features(bank.users.filter("is_active"), bank.transactions, as_of=AS_OF)
    row_of = {user_id: row for row, user_id in enumerate(user_ids)}
    told = set()
    for item in (item for each in read_offers(workspace).values() for item in each):
        row, column, entry = row_of[item["user_id"]], ALERT_KEYS.index(item["alert_type"]), BY_KEY[item["alert_type"]]
        reasons = {reason["kind"]: reason for reason in item["reasons"]}
        told |= set(reasons)
        kind = "popularity" if scores.kinds[row] == "new_user" else "model"
        low, high = scores.low[row, column], scores.high[row, column]
        assert reasons[kind] == {"kind": kind, "probability": item["probability"], "low": low, "high": high}
        assert low <= item["probability"] <= high
        spends = features["amount_count"][row] > 0
        assert ("similar_users" in reasons, "own_spending" in reasons) == (spends, spends)
        if spends:
            n, size = int(scores.cohort_count[row, column]), int(scores.cohort_size[row])
            similar = reasons["similar_users"]
            assert (similar["n_with_alert"], similar["n_customers"], similar["share"]) == (n, size, n / size)
            assert size >= 20
            assert (f"{n} of the {size} customers" in item["reasoning"]) == (0 < n < size)
            own = {name: features[name][row] for name in entry.evidence_features}
            assert reasons["own_spending"] == {"kind": "own_spending", **own}
            said_so = Words().fill(entry.evidence, features.row(row, named=True)) in item["reasoning"]
            assert said_so == (own[entry.evidence_features[0]] > 0 and item["parameters"].get("scope") != "country")
        said = item["reasoning"] + json.dumps(item["reasons"])
        assert not [user_id for user_id in bank.users["id"] if user_id in said]
    assert told >= {"model", "similar_users", "own_spending"}


@pytest.mark.parametrize("threshold", [0.1, 0.17, 0.4])
def test_lists_hold_what_reaches_the_threshold_or_else_the_two_best(
    bank: SampleBank, database_url: str, tmp_path: Path, threshold: float
):
    # Where the noise is no matter, every alert has a parameter that fits.
    quiet = {"rule_budget": 1e6, "user_budget": 1e6}
    with workspace_on(database_url, tmp_path, threshold=threshold, max_items=3, **quiet) as workspace:
        service.refresh_locally(workspace, as_of=AS_OF)
        items, enabled = read_offers(workspace), enabled_by(bank)
        user_ids, scores = recomputed(workspace, bank)
    n_fallback = n_cut = 0
    for user_id, row in zip(user_ids, scores.probabilities, strict=True):
        free = [column for column, key in enumerate(ALERT_KEYS) if key not in enabled.get(user_id, set())]
        ranked = sorted(free, key=lambda column: (-row[column], column))
        reaching = [column for column in ranked if row[column] >= threshold]
        n_fallback += not reaching
        n_cut += len(reaching) > 3
        expected = (reaching or ranked[:N_FALLBACK])[:3]
        offered_to = {item["alert_type"] for item in items.get(user_id, [])}
        assert offered_to == {ALERT_KEYS[column] for column in expected}
    reached = {0.1: n_cut > 0, 0.17: 0 < n_fallback < len(items), 0.4: n_fallback > len(items) / 2}
    assert reached[threshold]


def test_one_user_gets_the_same_list_alone_as_with_everybody(workspace: Workspace, bank: SampleBank):
    service.refresh_locally(workspace, as_of=AS_OF)
    together, earlier = read_items(workspace, without=_TIMES), read_lists(workspace)
    for user_id in active_users(workspace):
        assert service.generate_recommendations(workspace, user_id, as_of=AS_OF) is True
    assert read_items(workspace, without=_TIMES) == together
    later = read_lists(workspace)
    assert all(later[user_id]["generated_at"] > earlier[user_id]["generated_at"] for user_id in earlier)
    kinds = {row["recommendation_type"] for row in later.values()}
    assert kinds == {"ml_collaborative_filtering", "ml_default"}
    assert {key: row["recommendation_type"] for key, row in later.items()} == {
        key: row["recommendation_type"] for key, row in earlier.items()
    }


def test_a_user_without_purchases_is_offered_what_most_have(workspace: Workspace, bank: SampleBank):
    execute(workspace, "INSERT INTO users (id) VALUES ('new')")
    service.generate_recommendations(workspace, "new", as_of=AS_OF)
    assert read_lists(workspace)["new"]["recommendation_type"] == "new_user"
    (first, *_) = read_items(workspace)["new"]
    champion = execute(workspace, "SELECT data_counts FROM alertrec.model_versions")[0]["data_counts"]
    most = max(champion["n_enabled"].values())
    assert champion["n_enabled"][first["alert_type"]] == most
    assert first["probability"] == most / champion["n_users"]
    assert first["confidence_level"] == "low"


# Of the neighbour model, which serves so small a bank; the lists of `sparkov/` are of another one.
_KIND_OF_LIST = {
    (True, True): "ml_collaborative_filtering",
    (True, False): "ml_collaborative_filtering",
    (False, True): "ml_default",
    (False, False): "new_user",
}


@pytest.mark.parametrize(("buys", "has_alerts"), _KIND_OF_LIST)
def test_whatever_is_known_of_a_user_there_is_a_list_that_says_what_it_rests_on(
    workspace: Workspace, bank: SampleBank, buys: bool, has_alerts: bool
):
    execute(workspace, "INSERT INTO users (id) VALUES ('new')")
    if buys:
        execute(
            workspace,
            "INSERT INTO transactions (id, user_id, amount, merchant_name, transaction_date) "
            "VALUES ('t1', 'new', 12.5, 'Cafe', :at)",
            at=AS_OF - timedelta(days=1),
        )
    if has_alerts:
        log(workspace, "new", "created", AS_OF - timedelta(days=1), alert_rule_id="r1", alert_type=HIGH)
    assert service.generate_recommendations(workspace, "new", as_of=AS_OF) is True
    assert read_lists(workspace)["new"]["recommendation_type"] == _KIND_OF_LIST[buys, has_alerts]
    items = read_items(workspace)["new"]
    assert len(items) >= N_FALLBACK
    kinds = [reason["kind"] for reason in items[0]["reasons"]]
    assert kinds == [
        "model" if buys or has_alerts else "popularity",
        *(["similar_users", "own_spending"] if buys else []),
        "fit",
    ]
    reasoning = items[0]["reasoning"]
    assert ("It goes together with the alerts that you have." in reasoning) == (has_alerts and not buys)
    assert ("of customers have this alert on." in reasoning) == (not has_alerts and not buys)
    assert "until more of your own purchases are known." in reasoning
    assert not (has_alerts and HIGH in offered(workspace, "new"))


def test_without_purchases_what_goes_with_the_alerts_of_a_user_comes_first(workspace: Workspace, bank: SampleBank):
    execute(workspace, "INSERT INTO users (id) VALUES ('new')")
    log(workspace, "new", "created", AS_OF - timedelta(days=1), alert_rule_id="r1", alert_type=HIGH)
    service.generate_recommendations(workspace, "new", as_of=AS_OF)
    row = execute(workspace, "SELECT version, sha256 FROM alertrec.model_versions WHERE alias = 'champion'")[0]
    card, arrays = workspace.store.load(row["version"], sha256=row["sha256"])
    together = AlertRecommenderModel.from_arrays(card, arrays).scorer.cooccurrence
    has = enabled_matrix(["new"], pl.DataFrame({"user_id": "new", "alert_type": HIGH, "natural_language_query": ""}))
    expected = together.predict_proba(np.zeros((1, 10)), has)[0]
    for item in read_items(workspace)["new"]:
        assert item["probability"] == pytest.approx(expected[ALERT_KEYS.index(item["alert_type"])], abs=1e-12)
        assert item["confidence_level"] == "low" or item["probability"] >= workspace.settings.threshold


def test_an_explanation_gives_the_probability_of_the_list_whatever_it_rests_on(workspace: Workspace, bank: SampleBank):
    execute(workspace, "INSERT INTO users (id) VALUES ('new'), ('owns')")
    log(workspace, "owns", "created", AS_OF - timedelta(days=1), alert_rule_id="r1", alert_type=HIGH)
    service.refresh_locally(workspace, as_of=AS_OF)
    items, lists = read_offers(workspace), read_lists(workspace)
    explained = {"new", "owns", *list(items)[:10]}
    assert {lists[user_id]["recommendation_type"] for user_id in explained} == set(_KIND_OF_LIST.values())
    for user_id in sorted(explained):
        found = {key: each.probability for key, each in service.explain_list(workspace, user_id).items()}
        said = {item["alert_type"]: pytest.approx(item["probability"], abs=1e-12) for item in items[user_id]}
        assert found == said


def test_a_list_that_another_champion_has_outlived_is_explained_by_the_model_that_made_it(
    workspace: Workspace, bank: SampleBank
):
    user_id = active_users(workspace)[0]
    service.generate_recommendations(workspace, user_id, as_of=AS_OF)
    train(workspace, use_real_alerts=False)
    said = {item["alert_type"]: pytest.approx(item["probability"]) for item in read_offers(workspace)[user_id]}
    found = {key: each.probability for key, each in service.explain_list(workspace, user_id).items()}
    assert found == said


def test_a_user_without_a_list_has_nothing_explained(workspace: Workspace, bank: SampleBank):
    with pytest.raises(DataError, match="`alertrec recommend` makes one"):
        service.explain_list(workspace, active_users(workspace)[0])


def test_a_user_who_has_every_alert_gets_a_list_of_nothing(workspace: Workspace, bank: SampleBank):
    execute(workspace, "INSERT INTO users (id) VALUES ('new')")
    for alert_type in ALERT_KEYS:
        log(workspace, "new", "created", RULE_MADE, alert_rule_id=f"r-{alert_type}", alert_type=alert_type)
    assert service.generate_recommendations(workspace, "new", as_of=AS_OF) is True
    assert read_lists(workspace)["new"]["n_items"] == 0
    assert "new" not in read_items(workspace)


def test_a_user_who_is_not_active_gets_no_list(workspace: Workspace, bank: SampleBank):
    inactive = bank.users.filter(~pl.col("is_active"))["id"][0]
    assert service.generate_recommendations(workspace, inactive, as_of=AS_OF) is False
    assert read_lists(workspace) == {}


def test_an_unknown_user_is_refused_by_name(workspace: Workspace, bank: SampleBank):
    with pytest.raises(UnknownUserError, match="nobody"):
        service.generate_recommendations(workspace, "nobody")


def test_an_id_is_a_value_and_never_part_of_a_query(workspace: Workspace, bank: SampleBank):
    user_id = "o'neill; DROP TABLE users --%s :x"
    execute(workspace, "INSERT INTO users (id) VALUES (:id)", id=user_id)
    assert service.generate_recommendations(workspace, user_id, as_of=AS_OF) is True
    assert user_id in read_lists(workspace)


def test_without_a_champion_a_user_is_told_to_train_first(workspace: Workspace):
    execute(workspace, "INSERT INTO users (id) VALUES ('u1')")
    with pytest.raises(NoChampionError, match="alertrec train"):
        service.generate_recommendations(workspace, "u1")


def test_a_refresh_of_an_unknown_scope_is_refused(workspace: Workspace):
    with pytest.raises(DataError, match="'some'"):
        service.request_refresh(workspace, scope="some")


def test_nothing_after_as_of_is_seen(workspace: Workspace, tmp_path: Path):
    load(workspace, small_bank(), tmp_path)
    cut = AS_OF - timedelta(days=30)
    outcomes = []
    for _ in range(2):
        train(workspace, as_of=cut)
        service.refresh_locally(workspace, as_of=cut)
        card = execute(workspace, "SELECT data_counts FROM alertrec.model_versions WHERE alias = 'champion'")
        outcomes.append((read_items(workspace, without=_TIMES + _MODEL), card))
        # The second time, the later part of history was never there.
        later = scalar(workspace, "SELECT count(*) FROM transactions WHERE transaction_date > :cut", cut=cut)
        execute(workspace, "DELETE FROM transactions WHERE transaction_date > :cut", cut=cut)
        execute(workspace, "DELETE FROM alert_rules WHERE created_at > :cut", cut=cut)
        assert later > 500 or len(outcomes) == 2
    assert outcomes[0] == outcomes[1]


def test_without_as_of_everything_up_to_now_is_seen(workspace: Workspace, bank: SampleBank):
    user_id = active_users(workspace)[0]
    service.generate_recommendations(workspace, user_id)
    row = read_lists(workspace)[user_id]
    assert row["as_of"] == row["generated_at"]


def add_rule(workspace: Workspace, alert_type: str, *, is_active: bool = True, updated_at: datetime = RULE_MADE) -> str:
    """Give the first user a rule, and return the user."""
    user_id = active_users(workspace)[0]
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, alert_type, is_active, created_at, updated_at) "
        "VALUES ('r1', :user_id, :alert_type, :is_active, :created_at, :updated_at)",
        user_id=user_id,
        alert_type=alert_type,
        is_active=is_active,
        created_at=RULE_MADE,
        updated_at=updated_at,
    )
    return user_id


def not_offered(workspace: Workspace, user_id: str, *, as_of: datetime = AS_OF) -> set[str]:
    """Renew the list of a user and return what is left out."""
    assert service.generate_recommendations(workspace, user_id, as_of=as_of)
    return EVERYTHING - offered(workspace, user_id)


def test_a_rule_that_is_on_is_not_offered_and_one_that_is_off_is(generous: Workspace):
    assert not_offered(generous, add_rule(generous, HIGH)) == {HIGH}
    execute(generous, "UPDATE alert_rules SET is_active = false")
    assert not_offered(generous, active_users(generous)[0]) == set()


def test_a_rule_that_was_switched_off_after_as_of_was_on_then(generous: Workspace):
    user_id = add_rule(generous, HIGH, is_active=False, updated_at=AS_OF + timedelta(days=1))
    assert not_offered(generous, user_id, as_of=AS_OF) == {HIGH}
    assert not_offered(generous, user_id, as_of=AS_OF + timedelta(days=2)) == set()


def test_a_rule_made_after_as_of_was_not_there_then(generous: Workspace):
    user_id = add_rule(generous, HIGH)
    assert not_offered(generous, user_id, as_of=RULE_MADE - timedelta(days=1)) == set()


@pytest.mark.parametrize("action", ["disabled", "deleted"])
def test_a_rule_that_a_newer_action_switched_off_is_off(generous: Workspace, action: str):
    user_id = add_rule(generous, HIGH)
    log(generous, user_id, action, RULE_MADE + timedelta(days=1), alert_rule_id="r1")
    assert not_offered(generous, user_id) == set()


def test_a_rule_that_a_newer_action_switched_on_is_on(generous: Workspace):
    user_id = add_rule(generous, HIGH, is_active=False)
    log(generous, user_id, "disabled", RULE_MADE + timedelta(days=1), alert_rule_id="r1")
    log(generous, user_id, "enabled", RULE_MADE + timedelta(days=2), alert_rule_id="r1")
    assert not_offered(generous, user_id) == {HIGH}


def test_an_action_older_than_the_rules_row_changes_nothing(generous: Workspace):
    user_id = add_rule(generous, HIGH, updated_at=RULE_MADE + timedelta(days=5))
    log(generous, user_id, "disabled", RULE_MADE + timedelta(days=1), alert_rule_id="r1")
    assert not_offered(generous, user_id) == {HIGH}


def test_an_action_after_as_of_changes_nothing(generous: Workspace):
    user_id = add_rule(generous, HIGH)
    log(generous, user_id, "disabled", AS_OF + timedelta(days=1), alert_rule_id="r1")
    log(generous, user_id, "created", AS_OF + timedelta(days=1), alert_rule_id="r2", alert_type=LARGE)
    assert not_offered(generous, user_id) == {HIGH}


def test_an_action_on_somebody_elses_rule_changes_nothing(generous: Workspace):
    user_id = add_rule(generous, HIGH)
    log(generous, active_users(generous)[1], "disabled", RULE_MADE + timedelta(days=1), alert_rule_id="r1")
    assert not_offered(generous, user_id) == {HIGH}


def test_a_rule_known_by_its_actions_alone_counts_until_it_is_deleted(generous: Workspace):
    user_id = active_users(generous)[0]
    log(generous, user_id, "created", RULE_MADE, alert_rule_id="elsewhere", alert_type=MERCHANT)
    assert not_offered(generous, user_id) == {MERCHANT}
    log(generous, user_id, "deleted", RULE_MADE + timedelta(days=1), alert_rule_id="elsewhere", alert_type=MERCHANT)
    assert not_offered(generous, user_id) == set()


def test_a_rule_with_a_text_alone_is_of_the_type_that_the_text_speaks_of(generous: Workspace):
    user_id = add_rule(generous, HIGH)
    query = "Tell me about any purchase over $400"
    execute(generous, "UPDATE alert_rules SET alert_type = NULL, natural_language_query = :query", query=query)
    assert not_offered(generous, user_id) == {LARGE}


def test_a_dismissed_alert_stays_away_for_the_days_set_and_then_comes_back(generous: Workspace):
    user_id, other = active_users(generous)[:2]
    days = generous.settings.dismissed_days
    now = datetime.now(UTC)
    log(generous, user_id, "dismissed", now - timedelta(days=days - 1), alert_type=HIGH)
    log(generous, user_id, "dismissed", now - timedelta(days=days + 1), alert_type=LARGE)
    assert not_offered(generous, user_id) == {HIGH}
    assert not_offered(generous, other) == set()


def test_a_snoozed_alert_comes_back_after_the_days_set_or_when_it_says(generous: Workspace):
    user_id, other = active_users(generous)[:2]
    days = generous.settings.snoozed_days
    now = datetime.now(UTC)
    log(generous, user_id, "snoozed", now - timedelta(days=days - 1), alert_type=HIGH)
    log(generous, user_id, "snoozed", now - timedelta(days=days + 1), alert_type=LARGE)
    assert not_offered(generous, user_id) == {HIGH}
    log(generous, other, "snoozed", now - timedelta(days=days + 1), alert_type=HIGH, due_at=now + timedelta(days=1))
    log(generous, other, "snoozed", now, alert_type=LARGE, due_at=now)
    assert not_offered(generous, other) == {HIGH}


@pytest.mark.parametrize("action", ["disabled", "deleted"])
def test_a_rule_that_was_switched_off_is_not_offered_again_at_once(generous: Workspace, action: str):
    user_id, now = add_rule(generous, HIGH), datetime.now(UTC)
    log(generous, user_id, action, now, alert_rule_id="r1")  # its type is that of the rule
    assert not_offered(generous, user_id, as_of=now) == {HIGH}
    days = timedelta(days=generous.settings.dismissed_days + 1)
    execute(generous, "UPDATE alertrec.alert_actions SET occurred_at = :then", then=now - days)
    assert not_offered(generous, user_id, as_of=now) == set()


def test_a_rule_that_was_switched_off_without_a_word_is_not_offered_again_at_once(generous: Workspace):
    user_id = add_rule(generous, HIGH, is_active=False, updated_at=datetime.now(UTC))
    assert not_offered(generous, user_id, as_of=datetime.now(UTC)) == {HIGH}
