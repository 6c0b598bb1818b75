from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from alertrec.calibration import Calibration
from alertrec.catalog import ALERT_KEYS, BY_KEY, CATEGORIES
from alertrec.feature_engineering import FEATURES, build_user_features
from alertrec.labels import enabled_matrix
from alertrec.lists import Edition, Lists, build_lists
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.policy import Policy
from alertrec.wording import Words
from tests.histories import NOTHING, said_no

AS_OF = datetime(2026, 3, 15, 12, tzinfo=UTC)
N_USERS, TRIBE = 24, 12
IDS = [f"u{n:02}" for n in range(N_USERS)]
NEWCOMER = "newcomer"
COMMON, RARE = ALERT_KEYS[4], ALERT_KEYS[0]  # 11 of the first tribe of 12 have the first; one user has the second

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
            "amount": (10.0 if n < TRIBE else 500.0) + n + visit,
            "merchant_name": f"shop {visit % (2 if n < TRIBE else 5)}",
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
        *({"user_id": user_id, "alert_type": COMMON, "natural_language_query": None} for user_id in IDS[1:TRIBE]),
        {
            "user_id": IDS[13],
            "alert_type": None,
            "natural_language_query": "Notify me when my total spending exceeds $500 in a week",
        },
    ],
    schema=dict.fromkeys(["user_id", "alert_type", "natural_language_query"], pl.String),
)
WORDS = Words()
POLICY = Policy(threshold=0.4, max_items=3, ttl=timedelta(hours=24))


# Smoothed as if by five more neighbours who are as everybody is: (5 · share of the five + 5 · share of all) / 10.
SMOOTHING = {"smoothing": 5.0}
# The probability of what five of five and 11 of 24 have, and of what none of five and one of 24 has.
OF_COMMON, OF_RARE = (5 + 5 * 11 / 24) / 10, (0 + 5 * 1 / 24) / 10
# What is known exactly: the interval is the probability.
SURE = Calibration(1.0, 0.0, ((0.0, 0.0), (0.0, 0.0)))


def trained(
    alert_columns: tuple[str, ...] = ALERT_KEYS, *, n_users: int = N_USERS, **options: Any
) -> AlertRecommenderModel:
    features = build_user_features(USERS, TRANSACTIONS, as_of=AS_OF)[:n_users]
    model = AlertRecommenderModel()
    model.alert_columns = alert_columns
    labels = enabled_matrix(IDS[:n_users], RULES, alert_columns)
    return model.fit(features, labels, neighbours=SMOOTHING, **options)


MODEL = trained()


def edition(version: str = "v1", policy: Policy = POLICY, generated_at: datetime = AS_OF) -> Edition:
    return Edition(version, as_of=AS_OF, generated_at=generated_at, policy=policy)


def built(
    *, users: pl.DataFrame = USERS, rules: pl.DataFrame = RULES, away: pl.DataFrame = NOTHING, **options: Any
) -> Lists:
    model = options.pop("model", MODEL)
    return build_lists(users, TRANSACTIONS, rules, away, model=model, edition=edition(**options))


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
    has = {(IDS[n], COMMON) for n in range(1, TRIBE)} | {(IDS[13], RARE)}
    generous = Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)
    offered = pairs(built(policy=generous).items.filter(pl.col("change").is_null()))
    assert offered == {(user_id, key) for user_id in [*IDS, NEWCOMER] for key in ALERT_KEYS} - has


def test_nothing_is_offered_that_a_user_has_dismissed_and_others_still_get_it():
    generous = Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)
    before, gone = pairs(built(policy=generous).items), {(IDS[0], COMMON), (NEWCOMER, RARE)}
    assert pairs(built(policy=generous, away=said_no(*sorted(gone))).items) == before - gone


def test_what_all_neighbours_have_comes_first_and_what_is_below_the_threshold_is_left_out():
    items = built().items.filter(pl.col("user_id") == IDS[0])
    assert items["alert_type"].to_list() == [COMMON]
    assert items["probability"].to_list() == [pytest.approx(OF_COMMON)]  # 0.729, above 0.4
    assert items["rank"].to_list() == [1]


@pytest.mark.parametrize(
    ("calibration", "threshold", "level"),
    [
        (SURE, 0.4, "high"),
        (SURE, 0.729, "high"),
        (SURE, 0.73, "low"),
        # Before any evidence of calibration, with z = 1.645 and logit(0.729) = 0.990: the interval starts at the
        # logit 0.990 - z · sqrt(0.990² + 1) = -1.325, which is 0.210.
        (Calibration.identity(), 0.2, "high"),
        (Calibration.identity(), 0.22, "medium"),
        (Calibration.identity(), 0.729, "medium"),
        (Calibration.identity(), 0.73, "low"),
    ],
)
def test_confidence_says_whether_the_whole_interval_reaches_the_threshold(
    calibration: Calibration, threshold: float, level: str
):
    policy = Policy(threshold=threshold, max_items=3, ttl=POLICY.ttl)
    items = built(model=trained(calibration=calibration), policy=policy).items.filter(user_id=IDS[0], alert_type=COMMON)
    assert items["probability"].to_list() == [pytest.approx(OF_COMMON)]
    assert items["confidence_level"].to_list() == [level]


def test_what_is_offered_is_calibrated():
    # By a slope of 1 and an intercept of -2: odds are those of the model divided by e².
    odds = OF_COMMON / (1 - OF_COMMON) / np.exp(2)
    model = trained(calibration=Calibration(1.0, -2.0, SURE.covariance))
    items = built(model=model).items.filter(user_id=IDS[0])
    assert items["probability"].to_list()[0] == pytest.approx(odds / (1 + odds))
    assert items["confidence_level"].to_list() == ["low", "low"]  # 0.267 is below the threshold 0.4: two, as low


def test_where_nothing_reaches_the_threshold_two_are_offered_as_low():
    items = built().items.filter(pl.col("user_id") == IDS[1])
    assert items["probability"].to_list() == [pytest.approx(OF_RARE), 0]
    assert items["alert_type"].to_list() == [RARE, ALERT_KEYS[1]]
    assert items["confidence_level"].to_list() == ["low", "low"]
    assert items["rank"].to_list() == [1, 2]


@pytest.mark.parametrize("how", ["has it all", "has dismissed it all"])
def test_an_empty_list_is_an_honest_answer(how: str):
    everything = everything_for(IDS[3])
    rules = everything.with_columns(pl.lit(None, pl.String).alias("natural_language_query"))
    result = built(rules=rules) if how == "has it all" else built(away=rules)
    assert result.lists.filter(user_id=IDS[3])["n_items"].to_list() == [0]
    assert result.items.filter(user_id=IDS[3]).is_empty()
    assert result.lists.filter(user_id=IDS[3])["recommendation_type"].to_list() == ["ml_collaborative_filtering"]


def test_a_user_without_purchases_is_offered_what_most_have():
    result = built()
    assert result.lists.filter(user_id=NEWCOMER)["recommendation_type"].to_list() == ["new_user"]
    items = result.items.filter(user_id=NEWCOMER)
    # 11 of the 24 have the common alert. Wilson's interval of it, with z = 1.645 (z² = 2.706): centre
    # (0.4583 + 0.0564) / 1.1127, reach sqrt(2.706 · 0.4583 · 0.5417 / 24 + 0.0564²) / 1.1127: 0.303 to 0.622.
    assert items["alert_type"].to_list() == [COMMON]
    assert items["probability"].to_list() == [pytest.approx(11 / 24)]
    assert items["confidence_level"].to_list() == ["medium"]  # 0.458 reaches 0.4, its interval does not
    reason, fit = json.loads(items["reasons"][0])
    assert (fit["kind"], fit["basis"], fit["history_days"]) == ("fit", "catalogue", 0)
    assert reason.pop("kind") == "popularity"
    assert reason.pop("n_customers") == 24
    assert reason == pytest.approx({"probability": 11 / 24, "low": 0.303, "high": 0.622}, abs=1e-3)
    assert items["reasoning"][0] == (
        "46% of customers have this alert on. Its amount is a common one, until more of your own purchases are known."
    )


def test_a_user_without_purchases_but_with_alerts_is_offered_what_goes_with_these():
    rules = pl.concat([RULES, pl.DataFrame([(NEWCOMER, RARE, None)], schema=RULES.schema, orient="row")])
    result = built(rules=rules)
    assert result.lists.filter(user_id=NEWCOMER)["recommendation_type"].to_list() == ["ml_default"]
    items = result.items.filter(user_id=NEWCOMER)
    # Two alerts are had by some; of these, one is left, judged by its own odds. Nobody who has the rare one has it.
    assert items["alert_type"].to_list()[0] == COMMON
    assert items["probability"][0] < 11 / 24
    assert json.loads(items["reasons"][0])[0]["kind"] == "model"
    for text in items["reasoning"]:
        assert text.startswith("It goes together with the alerts that you have. Its ")
        assert text.endswith(" is a common one, until more of your own purchases are known.")


@pytest.mark.parametrize(("algorithm", "with_alerts", "without"), [
    ("knn", "ml_collaborative_filtering", "ml_collaborative_filtering"),
    ("linear", "ml_hybrid", "ml_transaction_based"),
])  # fmt: skip
def test_the_type_of_a_list_says_what_it_rests_on(algorithm: str, with_alerts: str, without: str):
    lists = built(model=trained(algorithm=algorithm)).lists
    kinds = dict(lists.select("user_id", "recommendation_type").iter_rows())
    has = {*IDS[1:TRIBE], IDS[13]}
    assert kinds == {user_id: with_alerts if user_id in has else without for user_id in IDS} | {NEWCOMER: "new_user"}


@pytest.mark.parametrize(("n_users", "told"), [(20, False), (21, True)])
def test_fewer_than_twenty_similar_customers_are_not_spoken_of(n_users: int, told: bool):
    # The first user has one fewer beside them than the model was trained on; 11 have the common alert.
    item = built(model=trained(n_users=n_users)).items.filter(user_id=IDS[0], alert_type=COMMON).row(0, named=True)
    similar = [reason for reason in json.loads(item["reasons"]) if reason["kind"] == "similar_users"]
    sentence = "11 of the 20 customers most like you have this alert on"
    counted = {"kind": "similar_users", "n_with_alert": 11, "n_customers": 20, "share": 0.55, "sentence": sentence}
    assert similar == ([counted] if told else [])
    assert (f"{sentence}." in item["reasoning"]) == told
    assert ("most like you" in item["reasoning"]) == told


def test_ranks_count_from_one_by_priority():
    policy = Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)
    for _, items in built(policy=policy).items.group_by("user_id", maintain_order=True):
        assert items["rank"].to_list() == list(range(1, items.height + 1))
        assert items["priority"].replace_strict({"high": 0, "medium": 1, "low": 2}).is_sorted()


@pytest.mark.parametrize("max_items", [1, 2, 8])
def test_no_list_is_longer_than_the_policy_says(max_items: int):
    lists = built(policy=Policy(threshold=0.0, max_items=max_items, ttl=POLICY.ttl)).lists
    assert lists["n_items"].max() == max_items


@pytest.mark.parametrize("algorithm", ["knn", "linear"])
def test_every_number_can_be_recomputed(algorithm: str):
    features = build_user_features(USERS, TRANSACTIONS, as_of=AS_OF)
    ids = features["user_id"].to_list()
    model, enabled = trained(algorithm=algorithm), enabled_matrix(ids, RULES)
    scores = model.score(features, enabled, known=(features["amount_count"] > 0).to_numpy())
    own = {row.pop("user_id"): row for row in features.to_dicts()}
    items = built(model=model, policy=Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl)).items
    for item in items.filter(pl.col("user_id") != NEWCOMER, pl.col("change").is_null()).iter_rows(named=True):
        row, entry = ids.index(item["user_id"]), BY_KEY[item["alert_type"]]
        alert = ALERT_KEYS.index(entry.key)
        probability, low, high = (float(each[row, alert]) for each in (scores.probabilities, scores.low, scores.high))
        assert item["probability"] == probability
        assert low <= probability <= high
        said, similar, spending, fit = json.loads(item["reasons"])
        assert said == {"kind": "model", "probability": probability, "low": low, "high": high}
        # All others are the most similar ones: fewer than 50 are there.
        n_with_alert = int(np.delete(enabled[:N_USERS, alert], row).sum())
        assert (similar.pop("kind"), similar.pop("sentence").count(" 23 ")) == ("similar_users", 1)
        assert similar == {"n_with_alert": n_with_alert, "n_customers": 23, "share": n_with_alert / 23}
        assert spending.pop("kind") == "own_spending"
        assert spending == {name: own[item["user_id"]][name] for name in entry.evidence_features}
        verb = "has" if n_with_alert == 1 else "have"
        like_you = f" {n_with_alert} of the 23 customers most like you {verb} this alert on." if n_with_alert else ""
        tells = WORDS.fill(entry.evidence, spending) if spending[entry.evidence_features[0]] else ""
        assert item["reasoning"].startswith((tells + like_you).lstrip())
        fired = json.loads(item["would_have_fired"])
        assert (fit["n_fired"], fit["history_days"]) == (fired["count"], 36)


def test_the_words_are_those_of_the_catalogue():
    for item in built().items.filter(pl.col("change").is_null()).iter_rows(named=True):
        entry, parameters = BY_KEY[item["alert_type"]], json.loads(item["parameters"])
        assert item["title"] == WORDS.fill(entry.title_for(parameters), parameters)
        assert item["description"] == WORDS.fill(entry.description_for(parameters), parameters)
        assert item["natural_language_query"] == WORDS.fill(entry.query_for(parameters), parameters)
        assert item["category"] == entry.category
        assert item["category"] in CATEGORIES
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
    expected = {
        pair for pair in pairs(built(policy=generous).items.filter(pl.col("change").is_null())) if pair[1] in columns
    }
    assert pairs(built(policy=generous, model=trained(columns)).items.filter(pl.col("change").is_null())) == expected


def test_a_model_that_knows_a_type_that_the_catalogue_has_dropped_does_not_stop_the_lists():
    model = trained()
    model.alert_columns = (*ALERT_KEYS[:-1], "alert_of_former_days")
    offered = pairs(built(policy=Policy(threshold=0.0, max_items=8, ttl=POLICY.ttl), model=model).items)
    assert offered
    assert {key for _, key in offered} <= set(ALERT_KEYS)


def test_evidence_that_is_shown_is_finite():
    assert np.isfinite(build_user_features(USERS, TRANSACTIONS, as_of=AS_OF).select(FEATURES).to_numpy()).all()
