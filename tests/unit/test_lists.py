from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from alertrec.catalog import ALERT_KEYS, BY_KEY, CATEGORIES
from alertrec.feature_engineering import FEATURES, build_user_features
from alertrec.labels import enabled_matrix
from alertrec.lists import Edition, Lists, Policy, build_lists
from alertrec.recommender import AlertRecommenderModel, confidence_level

AS_OF = datetime(2026, 3, 15, 12, tzinfo=UTC)
N_USERS = 12
IDS = [f"u{n:02}" for n in range(N_USERS)]
NEWCOMER = "newcomer"
COMMON, RARE = ALERT_KEYS[4], ALERT_KEYS[0]  # all of a tribe but one have the first; one user has the second

USERS = pl.DataFrame(
    {
        "id": [*IDS, NEWCOMER],
        "credit_limit": [1000.0] * (N_USERS + 1),
        "credit_balance": [100.0 + 10 * n for n in range(N_USERS)] + [0.0],
        "address_state": "NY",
    }
)
TRANSACTIONS = pl.DataFrame(
    [
        {
            "user_id": user_id,
            "amount": (10.0 if n < 6 else 500.0) + n + visit,
            "merchant_name": f"shop {visit % (2 if n < 6 else 5)}",
            "merchant_category": "food",
            "merchant_state": "NY" if visit % 2 else "CA",
            "transaction_date": AS_OF - timedelta(days=7 * visit + 1),
        }
        for n, user_id in enumerate(IDS)
        for visit in range(6)
    ]
)
RULES = pl.DataFrame(
    [
        *({"user_id": user_id, "alert_type": COMMON, "natural_language_query": None} for user_id in IDS[1:6]),
        {"user_id": IDS[7], "alert_type": None, "natural_language_query": BY_KEY[RARE].natural_language_query()},
    ],
    schema=dict.fromkeys(["user_id", "alert_type", "natural_language_query"], pl.String),
)
NOTHING = pl.DataFrame(schema=dict.fromkeys(["user_id", "alert_type"], pl.String))
POLICY = Policy(threshold=0.4, max_items=3, ttl=timedelta(hours=24))


def trained(alert_columns: tuple[str, ...] = ALERT_KEYS) -> AlertRecommenderModel:
    features = build_user_features(USERS, TRANSACTIONS, as_of=AS_OF)[:N_USERS]
    model = AlertRecommenderModel()
    model.alert_columns = alert_columns
    labels = enabled_matrix(IDS, RULES)[:, [ALERT_KEYS.index(key) for key in alert_columns]]
    return model.fit(IDS, features.select(model.feature_columns).to_numpy(), labels)


MODEL = trained()


def edition(version: str = "v1", policy: Policy = POLICY, generated_at: datetime = AS_OF) -> Edition:
    return Edition(version, as_of=AS_OF, generated_at=generated_at, policy=policy)


def built(
    *, users: pl.DataFrame = USERS, rules: pl.DataFrame = RULES, dismissed: pl.DataFrame = NOTHING, **options: Any
) -> Lists:
    model = options.pop("model", MODEL)
    return build_lists(users, TRANSACTIONS, rules, dismissed, model=model, edition=edition(**options))


def pairs(items: pl.DataFrame) -> set[tuple[str, str]]:
    return set(items.select("user_id", "alert_type").iter_rows())


def everything_for(user_id: str) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [user_id] * len(ALERT_KEYS), "alert_type": list(ALERT_KEYS)})


def test_everybody_has_one_list_that_counts_its_items():
    result = built()
    assert result.lists["user_id"].to_list() == [*IDS, NEWCOMER]
    counts = dict(result.items.group_by("user_id").len().iter_rows())
    assert dict(result.lists.select("user_id", "n_items").iter_rows()) == {
        user_id: counts.get(user_id, 0) for user_id in [*IDS, NEWCOMER]
    }


def test_nothing_is_offered_that_a_user_has():
    has = {(IDS[n], COMMON) for n in range(1, 6)} | {(IDS[7], RARE)}
    generous = Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)
    offered = pairs(built(policy=generous).items)
    assert offered == {(user_id, key) for user_id in [*IDS, NEWCOMER] for key in ALERT_KEYS} - has


def test_nothing_is_offered_that_a_user_has_dismissed_and_others_still_get_it():
    generous = Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)
    before, gone = pairs(built(policy=generous).items), {(IDS[0], COMMON), (NEWCOMER, RARE)}
    dismissed = pl.DataFrame(sorted(gone), schema=["user_id", "alert_type"], orient="row")
    assert pairs(built(policy=generous, dismissed=dismissed).items) == before - gone


def test_what_all_neighbours_have_comes_first_and_what_is_below_the_threshold_is_left_out():
    items = built().items.filter(pl.col("user_id") == IDS[0])
    row = items.row(0, named=True)
    assert items["alert_type"].to_list() == [COMMON]
    assert (row["probability"], row["confidence_level"], row["priority"], row["rank"]) == (1, "high", "high", 1)


def test_where_nothing_reaches_the_threshold_two_are_offered_as_low():
    items = built().items.filter(pl.col("user_id") == IDS[1])
    assert items["probability"].to_list() == [0, 0]
    assert items["confidence_level"].to_list() == ["low", "low"]
    assert items["rank"].to_list() == [1, 2]


@pytest.mark.parametrize("how", ["has it all", "has dismissed it all"])
def test_an_empty_list_is_an_honest_answer(how: str):
    everything = everything_for(IDS[3])
    rules = everything.with_columns(pl.lit(None, pl.String).alias("natural_language_query"))
    result = built(rules=rules) if how == "has it all" else built(dismissed=everything)
    assert result.lists.filter(user_id=IDS[3])["n_items"].to_list() == [0]
    assert result.items.filter(user_id=IDS[3]).is_empty()
    assert result.lists.filter(user_id=IDS[3])["recommendation_type"].to_list() == ["ml_collaborative_filtering"]


def test_a_user_without_purchases_is_offered_what_most_have():
    result = built()
    assert result.lists.filter(user_id=NEWCOMER)["recommendation_type"].to_list() == ["new_user"]
    items = result.items.filter(user_id=NEWCOMER)
    # 5 of the 12 have the common alert.
    assert items["alert_type"].to_list() == [COMMON]
    assert items["probability"].to_list() == [pytest.approx(5 / 12)]
    assert items["confidence_level"].to_list() == ["low"]
    assert json.loads(items["reasons"][0]) == [{"kind": "popularity", "share": 5 / 12}]
    assert re.findall(r"\d+%?", items["reasoning"][0]) == ["42%"]


def test_ranks_count_from_one_and_probabilities_never_rise():
    policy = Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)
    for _, items in built(policy=policy).items.group_by("user_id", maintain_order=True):
        assert items["rank"].to_list() == list(range(1, items.height + 1))
        assert items["probability"].is_sorted(descending=True)


@pytest.mark.parametrize("max_items", [1, 2, 8])
def test_no_list_is_longer_than_the_policy_says(max_items: int):
    lists = built(policy=Policy(threshold=0.0, max_items=max_items, ttl=POLICY.ttl)).lists
    assert lists["n_items"].max() == max_items


def test_every_number_can_be_recomputed():
    features = build_user_features(USERS, TRANSACTIONS, as_of=AS_OF)
    ids = features["user_id"].to_list()
    scores = MODEL.score(
        ids,
        features.select(MODEL.feature_columns).to_numpy(),
        enabled_matrix(ids, RULES),
        known=(features["amount_count"] > 0).to_numpy(),
    )
    own = {row.pop("user_id"): row for row in features.to_dicts()}
    items = built(policy=Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)).items
    for item in items.filter(pl.col("user_id") != NEWCOMER).iter_rows(named=True):
        row, entry = ids.index(item["user_id"]), BY_KEY[item["alert_type"]]
        probability = scores.probabilities[row, ALERT_KEYS.index(entry.key)]
        assert item["probability"] == probability
        assert item["confidence_level"] == confidence_level(probability, int(scores.n_similar[row]))
        similar, spending = json.loads(item["reasons"])
        assert similar == {"kind": "similar_users", "share": probability, "n_similar": 5}
        assert spending.pop("kind") == "own_spending"
        assert spending == {name: own[item["user_id"]][name] for name in entry.evidence_features}
        assert item["reasoning"] == entry.evidence.format(**spending)
        shown = [text.replace(",", "") for text in re.findall(r"\d[\d,]*(?:\.\d+)?%?", item["reasoning"])]
        possible = {
            text for value in spending.values() for text in (f"{value:.2f}", f"{value:.0f}", f"{value:.0%}")
        } | {"30"}  # days, in the sentence itself
        assert set(shown) <= possible


def test_the_words_are_those_of_the_catalogue():
    for item in built().items.iter_rows(named=True):
        entry = BY_KEY[item["alert_type"]]
        assert (item["title"], item["description"], item["category"]) == (
            entry.title,
            entry.description,
            entry.category,
        )
        assert item["category"] in CATEGORIES
        assert item["natural_language_query"] == entry.natural_language_query()
        assert json.loads(item["parameters"]) == dict(entry.parameters)
        assert item["priority"] in {"high", "medium", "low"}


def test_a_recommendation_keeps_its_identity_when_its_list_is_renewed():
    def ids_of(**options: Any) -> dict[tuple[str, str], str]:
        items = built(**options).items
        return {(row["user_id"], row["alert_type"]): row["recommendation_id"] for row in items.iter_rows(named=True)}

    first = ids_of()
    assert ids_of(generated_at=AS_OF + timedelta(days=1)) == first
    assert len(set(first.values())) == len(first)
    assert set(ids_of(version="v2").values()).isdisjoint(first.values())


def test_identities_do_not_run_together():
    users = pl.DataFrame({"id": ["a", 'a", "x', "a,b"]})
    items = built(users=users, policy=Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)).items
    assert items["recommendation_id"].is_unique().all()


def test_lists_expire_after_their_time_to_live():
    later = AS_OF + timedelta(hours=1)
    result = built(generated_at=later, policy=Policy(threshold=0.4, max_items=3, ttl=timedelta(hours=6)))
    for frame in (result.lists, result.items):
        assert set(frame["generated_at"]) == {later}
        assert set(frame["expires_at"]) == {later + timedelta(hours=6)}
        assert set(frame["model_version"]) == {"v1"}
    assert set(result.lists["as_of"]) == {AS_OF}


def test_a_user_alone_gets_the_list_that_they_get_among_others():
    together = built()
    for n in range(USERS.height):
        alone = built(users=USERS[n : n + 1])
        user_id = USERS["id"][n]
        assert alone.lists.equals(together.lists.filter(user_id=user_id))
        assert alone.items.equals(together.items.filter(user_id=user_id))


def test_no_users_have_no_lists_but_all_columns():
    result, full = built(users=USERS[:0]), built()
    assert result.lists.is_empty()
    assert result.items.is_empty()
    assert result.lists.schema == full.lists.schema
    assert result.items.schema == full.items.schema


def test_a_list_of_the_future_does_not_see_what_comes_after_its_moment():
    late = TRANSACTIONS.with_columns(
        pl.lit(AS_OF + timedelta(days=1)).alias("transaction_date"), pl.lit(9e6).alias("amount")
    )
    both = pl.concat([TRANSACTIONS, late], how="vertical_relaxed")
    result = build_lists(USERS, both, RULES, NOTHING, model=MODEL, edition=edition())
    assert result.items.equals(built().items)


@pytest.mark.parametrize(
    "columns", [ALERT_KEYS[::-1], ALERT_KEYS[2:] + ALERT_KEYS[:2], ALERT_KEYS[:-1], ALERT_KEYS[1:]],
    ids=["reversed", "rotated", "a type was added at the end since", "a type was added at the start since"],
)  # fmt: skip
def test_a_model_with_other_columns_than_the_catalogue_still_offers_the_right_alerts(columns: tuple[str, ...]):
    generous = Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)
    expected = {pair for pair in pairs(built(policy=generous).items) if pair[1] in columns}
    assert pairs(built(policy=generous, model=trained(columns)).items) == expected


def test_a_model_that_knows_a_type_that_the_catalogue_has_dropped_does_not_stop_the_lists():
    model = trained()
    model.alert_columns = (*ALERT_KEYS[:-1], "alert_of_former_days")
    offered = pairs(built(policy=Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl), model=model).items)
    assert offered
    assert {key for _, key in offered} <= set(ALERT_KEYS)


def test_evidence_that_is_shown_is_finite():
    assert np.isfinite(build_user_features(USERS, TRANSACTIONS, as_of=AS_OF).select(FEATURES).to_numpy()).all()
