from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from alertrec.catalog import ALERT_KEYS
from alertrec.errors import DataError, ModelStoreError, NotFittedError, UnknownUserError
from alertrec.feature_engineering import SIMILARITY_FEATURES, build_user_features
from alertrec.labels import generate_initial_alert_labels
from alertrec.recommender import AlertRecommenderModel, confidence_of_neighbours
from tests.unit.contract import TRIBE, two_tribes

TRIBE_ALERTS = list(ALERT_KEYS[:4])


def tribes_frame(ids: list[Any] | None = None) -> pd.DataFrame:
    """Return two tribes of six; each user of the first has four alerts but one, those of the second have none."""
    features = two_tribes().features
    columns = {name: features[:, n % 3] * (n + 1) for n, name in enumerate(SIMILARITY_FEATURES)}
    frame = pd.DataFrame({"user_id": ids or [f"u{n:02}" for n in range(2 * TRIBE)]} | columns)
    for n, key in enumerate(ALERT_KEYS):
        frame[key] = [int(user < TRIBE and n < 4 and user % 4 != n) for user in range(2 * TRIBE)]
    return frame


@pytest.fixture
def model() -> AlertRecommenderModel:
    return AlertRecommenderModel().train(tribes_frame())


def asked(model: AlertRecommenderModel, user_id: Any, frame: Any = None, **options: Any) -> Any:
    return model.recommend_for_user(user_id, tribes_frame() if frame is None else frame, **options)


def neighbours(model: AlertRecommenderModel, user_id: Any, frame: Any = None, **options: Any) -> list[str]:
    answer = asked(model, user_id, frame, include_similar_users=True, **options)
    return [each["user_id"] for each in answer["similar_users"]]


def test_the_promised_calls_work_from_transactions_to_a_loaded_model(tmp_path: Path):
    users = pd.DataFrame({"id": range(1, 13), "credit_limit": 1000.0, "credit_balance": [100.0] * 6 + [900.0] * 6})
    transactions = pd.DataFrame(
        {
            "user_id": [user for user in range(1, 13) for _ in range(3)],
            "amount": [user * factor for user in range(1, 13) for factor in (1.0, 2.0, 3.0)],
            "merchant_name": ["Cafe", "Books", "Fuel"] * 12,
            "merchant_category": ["food", "fun", "car"] * 12,
        }
    )
    labelled = generate_initial_alert_labels(build_user_features(users, transactions))
    path = tmp_path / "model"
    model = AlertRecommenderModel(model_path=path)
    assert not model.is_trained
    model.train(labelled, n_neighbors=5)
    assert model.is_trained
    answer = model.recommend_for_user(user_id=1, user_features_df=labelled, k_neighbors=5, threshold=0.4)
    assert set(answer) == {"user_id", "recommendations", "similar_users", "total_similar_users"}
    assert (answer["user_id"], answer["total_similar_users"]) == ("1", 5)
    assert {frozenset(each) for each in answer["recommendations"]} == {
        frozenset({"alert_type", "probability", "confidence", "reason"})
    }
    assert model.save_model() == path
    loaded = AlertRecommenderModel(path).load_model()
    assert loaded.is_trained
    for user_id in range(1, 13):
        again = loaded.recommend_for_user(user_id, labelled, include_similar_users=True)
        assert again == model.recommend_for_user(user_id, labelled, include_similar_users=True)
    json.dumps(answer, allow_nan=False)  # plain values, for a response


def test_probabilities_are_shares_of_the_neighbours(model: AlertRecommenderModel):
    # The five others of the tribe are u01 to u05; all but u04, who lacks it as u00 does, have the first alert.
    answer = asked(model, "u00")
    assert answer["recommendations"] == [
        {
            "alert_type": ALERT_KEYS[0],
            "probability": 0.8,
            "confidence": "high",
            "reason": "4 of the 5 most similar users have this alert",
        }
    ]
    # u02's tribe has the third in all five others.
    assert asked(model, "u02")["recommendations"][0]["probability"] == 1


def test_probabilities_differ_where_neighbours_differ(model: AlertRecommenderModel):
    # A threshold of nought offers all: one is known of by four of five, the others by none.
    found = {each["alert_type"]: each["probability"] for each in asked(model, "u00", threshold=0.0)["recommendations"]}
    assert found == {ALERT_KEYS[0]: 0.8} | dict.fromkeys(ALERT_KEYS[4:], 0.0)


def test_below_the_threshold_the_two_most_probable_are_offered_as_low(model: AlertRecommenderModel):
    answer = asked(model, "u00", threshold=0.9)["recommendations"]
    assert [each["alert_type"] for each in answer] == [ALERT_KEYS[0], ALERT_KEYS[4]]
    assert answer[1]["confidence"] == "low"


@pytest.mark.parametrize("order", ["reversed", "shuffled", "only the user", "others too"])
def test_neighbours_are_the_same_people_whatever_frame_is_given(model: AlertRecommenderModel, order: str):
    frame = tribes_frame()
    stranger = frame.iloc[[0]].assign(user_id="aaa")
    frames = {
        "reversed": frame[::-1],
        "shuffled": frame.sample(frac=1, random_state=1),
        "only the user": frame[frame["user_id"] == "u08"],
        "others too": pd.concat([stranger, stranger.assign(user_id="bbb"), frame], ignore_index=True),
    }
    assert asked(model, "u08", frames[order], include_similar_users=True) == asked(
        model, "u08", include_similar_users=True
    )


def test_neighbours_are_of_the_own_tribe_and_never_oneself(model: AlertRecommenderModel):
    ids = tribes_frame()["user_id"].tolist()
    for place, user_id in enumerate(ids):
        tribe = ids[:TRIBE] if place < TRIBE else ids[TRIBE:]
        assert sorted(neighbours(model, user_id)) == [each for each in tribe if each != user_id]


def test_who_was_not_trained_on_keeps_their_nearest_neighbour(model: AlertRecommenderModel):
    twin = tribes_frame().iloc[[3]].assign(user_id="twin of u03")
    assert neighbours(model, "twin of u03", twin)[0] == "u03"
    assert len(neighbours(model, "twin of u03", twin)) == 5
    # Had the first neighbour been dropped as "self", u03 would be missing.


def test_the_order_of_the_training_rows_changes_nothing(model: AlertRecommenderModel):
    shuffled = AlertRecommenderModel().train(tribes_frame().sample(frac=1, random_state=3))
    for user_id in tribes_frame()["user_id"]:
        assert asked(shuffled, user_id, include_similar_users=True) == asked(model, user_id, include_similar_users=True)


def test_the_order_of_the_training_rows_decides_no_tie():
    frame = tribes_frame()
    frame[list(SIMILARITY_FEATURES)] = np.sign(frame[list(SIMILARITY_FEATURES)])  # the users of a tribe are alike
    model, other = (AlertRecommenderModel().train(rows) for rows in (frame, frame[::-1]))
    assert neighbours(other, "u03", frame, k_neighbors=2) == neighbours(model, "u03", frame, k_neighbors=2)
    assert neighbours(model, "u03", frame, k_neighbors=2) == ["u00", "u01"]


def test_what_a_user_has_is_never_offered(model: AlertRecommenderModel):
    frame = tribes_frame()
    for _, row in frame.iterrows():
        offered = {each["alert_type"] for each in asked(model, row["user_id"], threshold=0.0)["recommendations"]}
        assert offered == {key for key in ALERT_KEYS if not row[key]}


def test_alert_columns_of_the_frame_win_over_the_training_data(model: AlertRecommenderModel):
    frame = tribes_frame().assign(**{key: [1] * 12 for key in ALERT_KEYS})
    assert asked(model, "u00", frame)["recommendations"] == []


def test_without_alert_columns_the_training_data_says_what_a_user_has(model: AlertRecommenderModel):
    frame = tribes_frame()[["user_id", *SIMILARITY_FEATURES]]
    assert asked(model, "u00", frame, threshold=0.0) == asked(model, "u00", threshold=0.0)


def test_it_cannot_say_so_of_a_user_that_the_sample_left_out_and_offers_them_nothing():
    model = AlertRecommenderModel().train(tribes_frame(), max_reference=4)
    frame = tribes_frame()[["user_id", *SIMILARITY_FEATURES]]
    assert len(model.user_ids) == 4
    for user_id, row in tribes_frame().set_index("user_id").iterrows():
        if user_id not in model.user_ids:
            with pytest.raises(DataError, match="add the alert columns"):
                asked(model, user_id, frame)
        told = frame if user_id in model.user_ids else tribes_frame()
        offered = {each["alert_type"] for each in asked(model, user_id, told, threshold=0.0)["recommendations"]}
        assert offered == {key for key in ALERT_KEYS if not row[key]}


@pytest.mark.parametrize("n_users", [1, 2, 3, 5])
def test_fewer_than_six_users_are_enough(n_users: int):
    frame = tribes_frame().head(n_users)
    model = AlertRecommenderModel().train(frame)
    answer = asked(model, "u00", frame, include_similar_users=True)
    assert answer["total_similar_users"] == len(answer["similar_users"]) == n_users - 1
    levels = {each["confidence"] for each in answer["recommendations"]}
    assert levels == ({"low"} if n_users <= 3 else {"high"})  # under three neighbours nothing is sure


def test_an_unknown_user_is_an_error_that_names_them(model: AlertRecommenderModel):
    with pytest.raises(UnknownUserError, match="nobody"):
        asked(model, "nobody")
    with pytest.raises(UnknownUserError):
        asked(model, "u00", tribes_frame().head(0))


def test_before_training_every_question_is_refused(tmp_path: Path):
    model = AlertRecommenderModel(tmp_path / "none")
    none = np.zeros((1, len(ALERT_KEYS)), dtype=bool)
    with pytest.raises(NotFittedError, match="train"):
        asked(model, "u00")
    with pytest.raises(NotFittedError):
        model.save_model()
    with pytest.raises(NotFittedError):
        model.score(tribes_frame().head(1), none, known=np.array([True]))
    with pytest.raises(NotFittedError):
        model.explain(tribes_frame().head(1), none, ALERT_KEYS[0])
    with pytest.raises(NotFittedError):
        model.with_users(tribes_frame().head(1), none)
    assert list(tmp_path.iterdir()) == []


def test_similar_users_are_named_only_to_who_asks(model: AlertRecommenderModel):
    answer = asked(model, "u00")
    assert (answer["similar_users"], answer["total_similar_users"]) == ([], 5)
    assert not any(f"u0{n}" in json.dumps(answer) for n in range(1, 6))
    similar = asked(model, "u00", include_similar_users=True)["similar_users"]
    assert {frozenset(each) for each in similar} == {frozenset({"user_id", "similarity_score", "enabled_alerts"})}
    has = {row["user_id"]: [key for key in ALERT_KEYS if row[key]] for _, row in tribes_frame().iterrows()}
    assert all(each["enabled_alerts"] == has[each["user_id"]] for each in similar)
    scores = [each["similarity_score"] for each in similar]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("kind", [int, np.int64, str])
def test_ids_may_be_integers(kind: Any):
    frame = tribes_frame(ids=list(range(100, 112)))
    model = AlertRecommenderModel().train(frame)
    answer = asked(model, kind(103), frame, include_similar_users=True)
    assert answer["user_id"] == "103"
    assert "103" not in [each["user_id"] for each in answer["similar_users"]]


def test_polars_and_pandas_give_the_same(model: AlertRecommenderModel):
    frame = pl.from_pandas(tribes_frame())
    other = AlertRecommenderModel().train(frame)
    for user_id in frame["user_id"]:
        assert asked(other, user_id, frame) == asked(model, user_id)


@pytest.mark.parametrize("labels", ["boolean", "float with NaN", "object with None", "nullable"])
def test_labels_may_be_of_other_types(model: AlertRecommenderModel, labels: str):
    frame = tribes_frame()
    for key in ALERT_KEYS:
        values = frame[key].astype(bool)
        frame[key] = {
            "boolean": values,
            "float with NaN": values.astype(float).where(values),
            "object with None": values.astype(object).where(values, None),
            "nullable": values.astype("Int64").where(values),
        }[labels]
    assert asked(AlertRecommenderModel().train(frame), "u00", frame) == asked(model, "u00")


def test_an_alert_column_that_is_missing_is_enabled_by_nobody(model: AlertRecommenderModel):
    frame = tribes_frame().drop(columns=list(ALERT_KEYS[4:]))
    assert asked(AlertRecommenderModel().train(frame), "u00", frame) == asked(model, "u00")


def test_confidence_follows_the_probability_and_the_number_of_neighbours():
    table = [
        (1.0, 2, "low"), (1.0, 0, "low"), (0.7, 3, "high"), (0.69, 3, "medium"), (0.5, 3, "medium"), (0.49, 9, "low"),
    ]  # fmt: skip
    assert [confidence_of_neighbours(probability, n) for probability, n, _ in table] == [level for _, _, level in table]


@pytest.mark.parametrize("problem", ["no user_id", "a feature is missing", "a user twice", "an infinity", "no rows"])
def test_frames_that_cannot_be_trained_on_are_refused(problem: str, model: AlertRecommenderModel):
    frame = tribes_frame()
    spoilt, expected = {
        "no user_id": (frame.drop(columns="user_id"), "'user_id' is missing"),
        "a feature is missing": (frame.drop(columns="amount_max"), "amount_max"),
        "a user twice": (pd.concat([frame, frame.head(1)]), "more than once"),
        "an infinity": (frame.assign(amount_max=np.inf), "infinity"),
        "no rows": (frame.head(0), "at least one user"),
    }[problem]
    before = asked(model, "u00")
    with pytest.raises(DataError, match=expected):
        model.train(spoilt)
    assert asked(model, "u00") == before  # a training that failed leaves the model as it was


def test_a_user_who_comes_twice_in_the_frame_is_refused(model: AlertRecommenderModel):
    with pytest.raises(DataError, match="2 times"):
        asked(model, "u00", pd.concat([tribes_frame(), tribes_frame()]))


@pytest.mark.parametrize("k", [0, -1])
def test_a_number_of_neighbours_that_makes_no_sense_is_refused(model: AlertRecommenderModel, k: int):
    with pytest.raises(DataError, match="neighb"):
        asked(model, "u00", k_neighbors=k)


def test_more_neighbours_may_be_asked_for_than_there_are(model: AlertRecommenderModel):
    assert asked(model, "u00", k_neighbors=50)["total_similar_users"] == 11


def test_scores_are_smoothed_towards_everybody_and_popularity_answers_where_nothing_is_known():
    frame = tribes_frame()
    labels = frame[list(ALERT_KEYS)].to_numpy(dtype=bool)
    model = AlertRecommenderModel().fit(frame, labels, neighbours={"smoothing": 5.0})
    two = frame.head(2).assign(user_id=["u00", "new"])
    scores = model.score(two, np.zeros((2, 8), dtype=bool), known=np.array([True, False]))
    assert scores.cohort_size.tolist() == [11, 0]
    # Of u00's five neighbours 4, 3, 4 and 4 have the first alerts, of all twelve 4, 4, 5 and 5:
    # (4 + 5 · 4/12) / 10, (3 + 5 · 4/12) / 10, (4 + 5 · 5/12) / 10, and the same again.
    np.testing.assert_allclose(scores.probabilities[0, :5], [17 / 30, 14 / 30, 73 / 120, 73 / 120, 0])
    np.testing.assert_allclose(scores.probabilities[1, :5], [4 / 12, 4 / 12, 5 / 12, 5 / 12, 0])
    # What is promised of `recommend_for_user` stays the plain share of the neighbours.
    assert asked(model, "u00")["recommendations"][0]["probability"] == 0.8


def test_an_explanation_comes_with_each_recommendation_that_is_asked_to_be_explained(model: AlertRecommenderModel):
    plain = asked(model, "u00", threshold=0.0)
    answer = asked(model, "u00", threshold=0.0, explain=True)
    for each in answer["recommendations"]:
        explanation = each.pop("explanation")
        assert explanation["alert"] == each["alert_type"]
        assert 0 <= explanation["probability"] <= 1
        assert {change["evidence"] for change in explanation["changes"]} == {"behaviour", "alert"}
        assert not any(user_id in json.dumps(explanation) for user_id in tribes_frame()["user_id"])
    assert answer == plain
    json.dumps(asked(model, "u00", explain=True), allow_nan=False)


def test_an_explanation_of_an_alert_that_the_model_does_not_know_is_refused(model: AlertRecommenderModel):
    with pytest.raises(DataError, match="alert_of_nothing"):
        model.explain(tribes_frame().head(1), np.zeros((1, 8), dtype=bool), "alert_of_nothing")


def test_another_algorithm_says_how_many_of_the_most_similar_users_have_an_alert():
    frame = tribes_frame()
    labels = frame[list(ALERT_KEYS)].to_numpy(dtype=bool)
    model = AlertRecommenderModel().fit(frame, labels, algorithm="cooccurrence")
    answer = asked(model, "u00", threshold=0.0)
    assert answer["total_similar_users"] == 5
    first = answer["recommendations"][0]
    assert first["alert_type"] == ALERT_KEYS[0]
    # All eleven others are too few to tell of.
    assert first["reason"] == "what is known of the user speaks for it"
    scores = model.score(frame.head(1), labels[:1], known=np.array([True]))
    assert first["probability"] == scores.probabilities[0, 0]


@pytest.mark.parametrize(
    ("threshold", "level"),
    # All that is left of what anybody has is the first alert, which 4 of 12 have: its own odds decide.
    [(0.001, "high"), (0.2, "medium"), (0.99, "low")],
)
def test_another_algorithm_is_as_sure_as_its_calibration(threshold: float, level: str):
    frame = tribes_frame()
    labels = frame[list(ALERT_KEYS)].to_numpy(dtype=bool)
    model = AlertRecommenderModel().fit(frame, labels, algorithm="cooccurrence")
    scores = model.score(frame.head(1), labels[:1], known=np.array([True]))
    assert 0.001 < scores.low[0, 0] < 0.2 < scores.probabilities[0, 0] < 0.99
    assert asked(model, "u00", threshold=threshold)["recommendations"][0]["confidence"] == level


def altered(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.fixture
def saved(model: AlertRecommenderModel, tmp_path: Path) -> Path:
    return model.save_model(tmp_path / "v7")


FILES = [
    "card.json", "cooccurrence.certain.npy", "cooccurrence.constants.npy", "cooccurrence.contested.npy",
    "cooccurrence.intercepts.npy", "cooccurrence.n_features.npy", "cooccurrence.of_alerts.npy", "known.npy",
    "labels.npy", "mean.npy", "popularity.shares.npy", "reference_rows.npy", "scale.npy", "shares.npy",
    "smoothing.npy", "user_ids.npy",
]  # fmt: skip


def refused(path: Path) -> str:
    """Load into a model that is trained, see it refused and the model answer as before; return the message."""
    other = AlertRecommenderModel().train(tribes_frame(ids=[f"w{n:02}" for n in range(12)]))
    frame = tribes_frame(ids=[f"w{n:02}" for n in range(12)])
    before, card = asked(other, "w00", frame), dict(other.card)
    with pytest.raises(ModelStoreError) as caught:
        other.load_model(path)
    assert asked(other, "w00", frame) == before
    assert (other.card, other.is_trained) == (card, True)
    assert caught.value.version == path.name
    return str(caught.value)


def test_a_saved_model_is_a_card_and_plain_arrays(saved: Path):
    assert sorted(path.name for path in saved.iterdir()) == FILES
    for path in saved.glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype != object
    card = json.loads((saved / "card.json").read_text())
    assert card["feature_columns"] == list(SIMILARITY_FEATURES)
    assert card["alert_columns"] == list(ALERT_KEYS)
    assert card["algorithm"] == "knn"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved: Path, name: str):
    (saved / name).unlink()
    assert name in refused(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(saved: Path, name: str):
    content = (saved / name).read_bytes()
    for length in (0, len(content) // 2, len(content) - 2):
        (saved / name).write_bytes(content[:length])
        assert name in refused(saved)


@pytest.mark.parametrize("name", FILES[1:])
def test_one_altered_bit_of_an_array_is_seen(saved: Path, name: str):
    for offset in (0, 20, -1):
        altered(saved / name, offset)
        assert name in refused(saved)
        altered(saved / name, offset)
    AlertRecommenderModel().load_model(saved)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"n_neighbors": 5', '"n_neighbors": 1'),
        ('"files"', '"filez"'),
        ('"alert_columns"', '"alert_column5"'),
        ('"parameters"', '"parameterz"'),
        ('"mean.npy"', '"meam.npy"'),
        ('"alert_high_spender"', '"alert_high_spendes"'),
    ],
)
def test_an_altered_card_is_seen(saved: Path, old: str, new: str):
    card = saved / "card.json"
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new, 1))
    refused(saved)


def test_a_model_of_another_format_is_refused(saved: Path):
    card = saved / "card.json"
    card.write_text(card.read_text().replace('"format": 1', '"format": 2'))
    assert "train again" in refused(saved)


def test_where_there_is_no_model_the_error_names_the_path(tmp_path: Path):
    assert "card.json" in refused(tmp_path / "nothing")


def test_saving_again_replaces_the_model_although_it_is_in_use(saved: Path, model: AlertRecommenderModel):
    in_use = AlertRecommenderModel().load_model(saved)
    in_use.save_model(saved)
    assert asked(in_use, "u03") == asked(AlertRecommenderModel().load_model(saved), "u03") == asked(model, "u03")
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_save_that_fails_leaves_the_old_model_and_nothing_else(
    saved: Path, model: AlertRecommenderModel, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="no space"):
        model.save_model(saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert asked(AlertRecommenderModel().load_model(saved), "u03") == asked(model, "u03")


def test_loaded_arrays_are_read_from_the_disk_and_cannot_be_written_to(saved: Path):
    arrays = AlertRecommenderModel().load_model(saved).to_arrays()
    assert isinstance(arrays["known"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        arrays["known"][0, 0] = 1


def test_a_model_can_be_moved(saved: Path, tmp_path: Path, model: AlertRecommenderModel):
    shutil.move(saved, tmp_path / "elsewhere")
    assert asked(AlertRecommenderModel().load_model(tmp_path / "elsewhere"), "u03") == asked(model, "u03")


@pytest.mark.parametrize("there", ["directory", "file"])
def test_what_is_no_model_is_never_replaced(model: AlertRecommenderModel, tmp_path: Path, there: str):
    path = tmp_path / "thesis"
    if there == "directory":
        path.mkdir()
        (path / "chapter.txt").write_text("one")
    else:
        path.write_text("one")
    with pytest.raises(ModelStoreError, match="is no model"):
        model.save_model(path)
    assert (path / "chapter.txt" if there == "directory" else path).read_text() == "one"
