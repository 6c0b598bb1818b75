from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from alertrec.catalog import ALERT_KEYS, BY_KEY
from alertrec.feature_engineering import FEATURES
from alertrec.ledger import USER_ID
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.starting_points import StartingPoints, starting_points
from alertrec.rules.usual import UsualDials
from tests.histories import (
    LARGE,
    LIMIT,
    LONG_AGO,
    NEW,
    POLICY,
    VOLUME,
    Row,
    bought,
    decoded,
    lists_of,
    small_model,
)

NAN = np.nan
CATALOGUE = [BY_KEY[key].parameters[BY_KEY[key].dial.name] for key in ALERT_KEYS]
EVERYBODY = dict(zip(ALERT_KEYS, (100.0, 3.0, 4.0, 60.0, 200.0, 20.0, 30.0, 25.0), strict=True))
SIMILAR = dict(zip(ALERT_KEYS, (150.0, 4.0, 5.0, 75.0, 250.0, 25.0, 40.0, 50.0), strict=True))


def people(n_users: int, *, buying: bool = True) -> pl.DataFrame:
    """Return features of users whom no model remembers."""
    values = np.random.default_rng(2).normal(size=(n_users, len(FEATURES)))
    values[:, FEATURES.index("amount_count")] = 5.0 * buying
    return pl.DataFrame(values, schema=list(FEATURES)).with_columns(
        pl.Series(USER_ID, [f"new{row}" for row in range(n_users)])
    )


def start(model: AlertRecommenderModel, *, buying: bool = True, knows_window: bool = False) -> StartingPoints:
    """Return where the dials of one user begin."""
    return starting_points(model, people(1, buying=buying), knows_window=np.array([knows_window]))


def bases(points: StartingPoints) -> list[str]:
    return [points.basis(0, alert) for alert in range(len(ALERT_KEYS))]


def test_similar_users_are_asked_first():
    points = start(small_model(dials=SIMILAR, population=EVERYBODY))
    assert points.dials.tolist() == [list(SIMILAR.values())]
    assert bases(points) == ["similar_users"] * 8


def test_where_fewer_than_twenty_similar_users_are_known_all_are_asked():
    assert bases(start(small_model(20, dials=SIMILAR, population=EVERYBODY))) == ["similar_users"] * 8
    points = start(small_model(19, dials=SIMILAR, population=EVERYBODY))
    assert points.dials.tolist() == [list(EVERYBODY.values())]
    assert bases(points) == ["population"] * 8


def test_of_a_user_without_purchases_nobody_is_similar():
    points = start(small_model(dials=SIMILAR, population=EVERYBODY), buying=False)
    assert points.dials.tolist() == [list(EVERYBODY.values())]
    assert bases(points) == ["population"] * 8


@pytest.mark.parametrize("model", [
    small_model(), small_model(19, dials=SIMILAR), small_model(dials={}, population={}),
], ids=["nothing fitted", "a small bank", "nothing fits"])  # fmt: skip
def test_where_nobody_can_be_asked_the_catalogue_says(model: AlertRecommenderModel):
    points = start(model)
    assert points.dials.tolist() == [CATALOGUE]
    assert bases(points) == ["catalogue"] * 8


def test_each_alert_is_asked_of_the_first_who_know():
    model = small_model(dials={LARGE: 250.0}, population={LARGE: 200.0, VOLUME: 3.0})
    points = start(model)
    known = dict(zip(ALERT_KEYS, zip(points.dials[0].tolist(), bases(points), strict=True), strict=True))
    assert known[LARGE] == (250, "similar_users")
    assert known[VOLUME] == (3, "population")
    assert known[NEW] == (0, "catalogue")
    assert known[LIMIT] == (70, "catalogue")


def test_only_the_fifty_most_similar_are_asked():
    # Sixty look in one direction and have 250; forty look in the other, have 1,000, and are nobody's like here.
    values = np.zeros((100, len(FEATURES)))
    values[:, 0] = np.where(np.arange(100) < 60, 1.0, -1.0)
    values[:, FEATURES.index("amount_count")] = 5.0
    features = pl.DataFrame(values, schema=list(FEATURES))
    ids = pl.Series(USER_ID, [f"c{row:03}" for row in range(100)])
    model = AlertRecommenderModel().fit(features.with_columns(ids), np.zeros((100, 8), dtype=bool))
    dials = np.where(np.arange(100) < 60, 250.0, 1000.0)[:, None] * np.ones(8)
    model.usual = UsualDials(model.user_ids, dials, np.full(8, 5.0))
    asking = features[[0, 99]].with_columns(pl.Series(USER_ID, ["like", "unlike"]))
    points = starting_points(model, asking, knows_window=np.array([False, False]))
    # The second has forty of their kind among fifty; the lower median is theirs.
    assert points.dials[:, 0].tolist() == [250, 1000]


def test_a_user_does_not_ask_themselves():
    # Twenty are remembered, one of them asks: nineteen are left.
    model = small_model(20, dials=SIMILAR, population=EVERYBODY)
    me = people(1).with_columns(pl.Series(USER_ID, ["c07"]))
    points = starting_points(model, me, knows_window=np.array([False]))
    assert bases(points) == ["population"] * 8


def test_a_user_with_a_long_history_decides_alone():
    points = start(small_model(dials=SIMILAR, population=EVERYBODY), knows_window=True)
    assert np.isnan(points.dials).all()
    assert bases(points) == ["own_history"] * 8


def test_users_of_both_kinds_keep_their_rows():
    model = small_model(dials=SIMILAR)
    points = starting_points(model, people(3), knows_window=np.array([True, False, True]))
    np.testing.assert_array_equal(points.dials, [[NAN] * 8, list(SIMILAR.values()), [NAN] * 8])
    assert [points.basis(user, 0) for user in range(3)] == ["own_history", "similar_users", "own_history"]


def test_nobody_has_no_starting_points():
    points = starting_points(small_model(dials=SIMILAR), people(0), knows_window=np.zeros(0, dtype=bool))
    assert (points.dials.shape, points.bases) == ((0, 8), [])


def test_columns_are_those_of_the_model_and_a_type_that_was_dropped_stops_nothing():
    columns = ("alert_of_former_days", LARGE, NEW)
    points = start(small_model(alert_columns=columns))
    assert points.dials.tolist() == [[0, 500, 0]]
    points = start(small_model(alert_columns=columns, dials={LARGE: 250.0}))
    assert points.dials.tolist() == [[0, 250, 0]]


# Kept with the model.


@pytest.mark.parametrize("model", [
    small_model(dials={LARGE: 250.0}, population={LARGE: 200.0, VOLUME: 3.0}), small_model(),
], ids=["fitted", "of an older version"])  # fmt: skip
def test_a_model_that_is_saved_and_loaded_starts_where_it_did(model: AlertRecommenderModel, tmp_path: Path):
    loaded = AlertRecommenderModel().load_model(model.save_model(tmp_path / "model"))
    assert (loaded.usual is None) == (model.usual is None)
    before, after = start(model), start(loaded)
    np.testing.assert_array_equal(before.dials, after.dials)
    assert before.bases == after.bases
    assert starting_points(loaded, people(2), knows_window=np.array([True, False])).basis(0, 0) == "own_history"


def test_a_model_of_an_older_version_makes_lists():
    model = small_model()
    assert "usual.dials" not in model.to_arrays()
    items = decoded(lists_of([bought(60.0, 5)], model=model).items)
    assert {item["reasons"][-1]["basis"] for item in items} == {"catalogue"}


def test_loading_a_model_of_an_older_version_forgets_what_fitted_others(tmp_path: Path):
    model = small_model(dials=SIMILAR)
    model.load_model(small_model().save_model(tmp_path / "older"))
    assert model.usual is None


def test_a_model_whose_neighbours_changed_is_saved_with_the_dials_of_the_right_users():
    model = small_model(dials=SIMILAR)
    assert model.usual is not None
    model.usual.dials[0] = 1.0  # of c00
    newcomer = people(1).with_columns(pl.Series(USER_ID, ["a"]))  # comes before c00
    changed = model.with_users(newcomer, np.zeros((1, 8), dtype=bool))
    loaded = AlertRecommenderModel.from_arrays(changed.card, changed.to_arrays())
    assert loaded.usual is not None
    assert dict(zip(loaded.usual.user_ids, loaded.usual.dials[:, 0].tolist(), strict=True)).get("c00") == 1


def test_a_model_whose_neighbours_changed_still_starts_where_similar_users_say():
    model = small_model(dials=SIMILAR, population=EVERYBODY)
    changed = model.with_users(people(3), np.zeros((3, 8), dtype=bool), gone={"c00"})
    assert bases(start(changed)) == ["similar_users"] * 8
    # Those who are gone are not asked: five of 25 leave twenty, a sixth too few.
    for n_gone, basis in ((5, "similar_users"), (6, "population")):
        gone = {f"c{n:02}" for n in range(n_gone)}
        fewer = model.with_users(people(0), np.zeros((0, 8), dtype=bool), gone=gone)
        assert bases(start(fewer)) == [basis] * 8


# In the lists.


def offer_of_large(*rows: Row, model: AlertRecommenderModel) -> Row:
    items = lists_of(list(rows), model=model, policy=replace(POLICY, threshold=0.0, max_items=8)).items
    (item,) = decoded(items.filter(alert_type=LARGE))
    return item


def test_a_card_says_whose_history_gave_its_number_and_offers_it():
    item = offer_of_large(bought(60.0, 5), model=small_model(dials={LARGE: 250.0}))
    assert item["parameters"] == {"amount": 250.0}
    fit = item["reasons"][-1]
    assert (fit["basis"], fit["history_days"], fit["n_fired"]) == ("similar_users", 5, 0)


def test_a_long_history_decides_alone_in_the_lists_too():
    item = offer_of_large(LONG_AGO, bought(60.0, 5), model=small_model(dials={LARGE: 250.0}))
    assert item["parameters"] == {"amount": 20.0}
    assert item["reasons"][-1]["basis"] == "own_history"


def test_a_number_that_the_own_purchases_moved_on_is_the_users_own():
    # Seven purchases of 600 within a short history: not 500, at which they all fire, but 750.
    rows = [bought(600.0, day) for day in range(1, 8)]
    items = decoded(lists_of(rows, model=small_model(), policy=replace(POLICY, threshold=0.0, max_items=8)).items)
    (large,) = (item for item in items if item["alert_type"] == "alert_large_transaction")
    assert (large["parameters"], large["reasons"][-1]["basis"]) == ({"amount": 750.0}, "own_history")
    assert "until more of your own purchases are known" not in large["reasoning"]
