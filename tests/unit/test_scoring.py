from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from alertrec.calibration import Calibration, share_interval
from alertrec.catalog import ALERT_KEYS
from alertrec.errors import DataError
from alertrec.feature_engineering import FEATURES, SIMILARITY_FEATURES
from alertrec.ledger import USER_ID
from alertrec.models.knn import KNeighbours
from alertrec.ranking import choose
from alertrec.recommender import AlertRecommenderModel
from alertrec.scoring import COHORT, Scores
from tests.strategies import laws
from tests.unit.populations import N_ALERTS, draw, random_values, users_frame

N_USERS = 40
# Quick ones, of every algorithm.
PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "popularity": {}, "knn": {}, "cooccurrence": {}, "linear": {}, "boosting": {}, "neural": {"n_steps": 20},
    "ensemble": {"n_folds": 2},
}  # fmt: skip
ALGORITHMS = tuple(PARAMETERS)
LEARNS_MORE = tuple(name for name in ALGORITHMS if name != "knn")
CALIBRATION = Calibration(0.8, -0.3, ((0.04, 0.01), (0.01, 0.09)))
NONE = np.zeros((1, N_ALERTS), dtype=bool)


class Users(NamedTuple):
    """Users, and the alerts that they have."""

    frame: pl.DataFrame
    labels: NDArray[np.bool_]

    @property
    def ids(self) -> list[str]:
        found: list[str] = self.frame[USER_ID].to_list()
        return found

    @property
    def similarity(self) -> NDArray[np.float64]:
        return self.frame.select(SIMILARITY_FEATURES).to_numpy()

    def rows(self, rows: Any) -> Users:
        return Users(self.frame[rows], self.labels[rows])

    def plus(self, other: Users) -> Users:
        return Users(pl.concat([self.frame, other.frame]), np.concatenate([self.labels, other.labels]))


def some_users(n_users: int = N_USERS, seed: int = 0, prefix: str = "u") -> Users:
    """Return users whose alerts hang on the first features and on each other."""
    rng = np.random.default_rng(seed)
    values = random_values(n_users, rng)
    log_odds = 1.5 * values[:, :1] * np.linspace(-1, 1, N_ALERTS) - 0.7 + rng.normal(size=(n_users, 1))
    return Users(users_frame(values, prefix), draw(log_odds, rng))


USERS = some_users()


@cache
def fitted(algorithm: str, *, calibrated: bool = True, **neighbours: Any) -> AlertRecommenderModel:
    model = AlertRecommenderModel().fit(
        USERS.frame,
        USERS.labels,
        algorithm=algorithm,
        parameters=PARAMETERS[algorithm],
        neighbours=neighbours,
        input_columns=SIMILARITY_FEATURES if algorithm == "knn" else FEATURES,
        calibration=CALIBRATION if calibrated else None,
    )
    model.card["feature_medians"] = dict(zip(FEATURES, np.median(USERS.frame.select(FEATURES), axis=0), strict=True))
    return model


class Askers(NamedTuple):
    """Users who ask, with what is known of each."""

    users: Users
    known: NDArray[np.bool_]

    def score(self, model: AlertRecommenderModel) -> Scores:
        return model.score(self.users.frame, self.users.labels, known=self.known)


def askers() -> Askers:
    """Return users of every kind: trained on or not, with purchases or not, with none, some and all of the alerts."""
    strangers = some_users(12, seed=1, prefix="stranger")
    everybody = USERS.rows(slice(0, 8)).plus(strangers)
    labels = everybody.labels.copy()
    labels[::4], labels[1::8] = False, True
    known = np.arange(len(labels)) % 3 != 2
    count = np.where(known, everybody.frame["amount_count"].to_numpy(), 0.0)
    frame = everybody.frame.with_columns(pl.Series("amount_count", count))
    return Askers(Users(frame, labels), known)


ASKERS = askers()


def assert_same(one: Scores, other: Scores) -> None:
    for name in ("probabilities", "low", "high", "cohort_size", "cohort_count"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.kinds == other.kinds


def one_of(scores: Scores, row: int) -> Scores:
    at = slice(row, row + 1)
    arrays = (scores.probabilities[at], scores.low[at], scores.high[at])
    return Scores(*arrays, scores.kinds[at], scores.cohort_size[at], scores.cohort_count[at])


# What a user gets.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_kind_of_an_answer_says_what_is_known_of_the_user(algorithm: str):
    expected = {
        (True, True): "ml_collaborative_filtering" if algorithm == "knn" else "ml_hybrid",
        (True, False): "ml_collaborative_filtering" if algorithm == "knn" else "ml_transaction_based",
        (False, True): "ml_default",
        (False, False): "new_user",
    }
    has_alerts = ASKERS.users.labels.any(axis=1)
    whose = list(zip(ASKERS.known.tolist(), has_alerts.tolist(), strict=True))
    assert set(whose) == set(expected)
    assert ASKERS.score(fitted(algorithm)).kinds == [expected[each] for each in whose]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_user_gets_probabilities_within_their_intervals(algorithm: str):
    scores = ASKERS.score(fitted(algorithm))
    assert scores.probabilities.shape == ASKERS.users.labels.shape
    assert np.isfinite(scores.probabilities).all()
    assert ((scores.low >= 0) & (scores.low <= scores.probabilities + 1e-12)).all()
    assert ((scores.probabilities <= scores.high + 1e-12) & (scores.high <= 1)).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("threshold", [0.4, 1.0])
def test_nobody_who_lacks_an_alert_gets_an_empty_list(algorithm: str, threshold: float):
    enabled = ASKERS.users.labels
    offers = choose(ASKERS.score(fitted(algorithm)).probabilities, 3, exclude=enabled, threshold=threshold)
    np.testing.assert_array_equal((offers.alerts >= 0).any(axis=1), ~enabled.all(axis=1))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("missing", ["one feature", "all features"])
def test_features_that_are_unknown_do_no_harm(algorithm: str, missing: str):
    names = [name for name in FEATURES if name != "amount_count"] if missing == "all features" else [FEATURES[0]]
    frame = ASKERS.users.frame.with_columns(pl.lit(float("nan")).alias(name) for name in names)
    scores = fitted(algorithm).score(frame, ASKERS.users.labels, known=ASKERS.known)
    for each in (scores.probabilities, scores.low, scores.high):
        assert np.isfinite(each).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_user_alone_is_told_what_they_are_told_among_others(algorithm: str):
    model, together = fitted(algorithm), ASKERS.score(fitted(algorithm))
    for row in range(len(ASKERS.known)):
        at = slice(row, row + 1)
        alone = Askers(ASKERS.users.rows(at), ASKERS.known[at]).score(model)
        assert_same(alone, one_of(together, row))


def test_nobody_is_asked_about():
    scores = fitted("linear").score(USERS.frame[:0], USERS.labels[:0], known=np.zeros(0, dtype=bool))
    assert (scores.probabilities.shape, scores.kinds, scores.cohort_size.tolist()) == ((0, N_ALERTS), [], [])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_user_is_told_what_most_have_and_how_well_that_is_known(algorithm: str):
    scores = fitted(algorithm).score(USERS.frame[:1], NONE, known=np.array([False]))
    count = USERS.labels.sum(axis=0)
    np.testing.assert_allclose(scores.probabilities[0], count / N_USERS)
    low, high = share_interval(count, N_USERS)
    np.testing.assert_allclose([scores.low[0], scores.high[0]], [low, high])
    assert scores.cohort_size.tolist() == [0]
    assert not scores.cohort_count.any()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_who_has_alerts_and_no_purchases_is_told_what_goes_with_them_whatever_their_features(algorithm: str):
    model = fitted(algorithm)
    enabled = np.arange(N_ALERTS)[None] == 0
    first, second = (
        model.score(USERS.frame[row : row + 1], enabled, known=np.array([False])) for row in (0, 1)
    )  # fmt: skip
    assert_same(first, second)
    expected = fitted("cooccurrence", calibrated=False).score(USERS.frame[:1], enabled, known=np.array([True]))
    np.testing.assert_allclose(first.probabilities, expected.probabilities)
    assert (first.high - first.low > 0.1).any()  # nobody was held out to calibrate it on


@pytest.mark.parametrize("algorithm", LEARNS_MORE)
def test_an_algorithm_is_asked_of_its_own_columns_and_calibrated(algorithm: str):
    model, users = fitted(algorithm), USERS.rows(slice(0, 5))
    raw = model.scorer.model.predict_proba(users.frame.select(FEATURES).to_numpy(), users.labels)
    scores = model.score(users.frame, users.labels, known=np.ones(5, dtype=bool))
    np.testing.assert_array_equal(scores.probabilities, CALIBRATION.apply(raw))
    np.testing.assert_array_equal([scores.low, scores.high], CALIBRATION.interval(raw))


def test_the_neighbour_model_is_smoothed_and_calibrated():
    users = USERS.rows(slice(0, 5))
    model = fitted("knn", smoothing=3.0)
    neighbours = KNeighbours(smoothing=3.0).fit(USERS.similarity, USERS.labels)
    nearest, _ = neighbours.kneighbors(users.similarity, 5, training_rows=np.arange(5))
    # Five neighbours, and everybody as three more of them.
    raw = (USERS.labels[nearest].sum(axis=1) + 3 * USERS.labels.mean(axis=0)) / 8
    scores = model.score(users.frame, users.labels, known=np.ones(5, dtype=bool))
    np.testing.assert_allclose(scores.probabilities, CALIBRATION.apply(raw))


# What customers answered.


SHIFTS = np.array([0.8, 0, -1.5, 0, 0.3, 0.4, 0, 0])


@cache
def answered(algorithm: str) -> AlertRecommenderModel:
    """Return the fitted model, as it is loaded, with shifts."""
    model = fitted(algorithm)
    card = {**model.card, "calibration": CALIBRATION.with_shifts(SHIFTS).to_json()}
    return AlertRecommenderModel.from_arrays(card, model.to_arrays())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_customers_answered_moves_the_odds_of_its_alerts_for_everybody(algorithm: str):
    before, after = ASKERS.score(fitted(algorithm)), ASKERS.score(answered(algorithm))
    for name in ("probabilities", "low", "high"):
        plain, moved = getattr(before, name), getattr(after, name)
        odds = plain / (1 - plain) * np.exp(SHIFTS)
        np.testing.assert_allclose(moved, odds / (1 + odds), atol=1e-12)
        known = ASKERS.known
        np.testing.assert_array_equal(moved[known][:, SHIFTS == 0], plain[known][:, SHIFTS == 0])
    assert after.kinds == before.kinds
    np.testing.assert_array_equal(after.cohort_count, before.cohort_count)


def test_users_since_the_training_are_told_the_same_shifts():
    changed = with_delta(answered("knn"), Delta(some_users(3, seed=4), {"u0030"}))
    plain = with_delta(fitted("knn"), Delta(some_users(3, seed=4), {"u0030"}))
    unshifted = changed.scorer.calibration.unshifted(ASKERS.score(changed).probabilities)
    np.testing.assert_allclose(unshifted, ASKERS.score(plain).probabilities)


# Who is alike.


@pytest.mark.parametrize("n_users", [2, COHORT, COHORT + 1, COHORT + 20])
@pytest.mark.parametrize("algorithm", ["knn", "cooccurrence"])
def test_a_cohort_is_the_most_similar_of_the_others_and_never_the_user(algorithm: str, n_users: int):
    users = some_users(n_users)
    users.labels[:, 7] = np.arange(n_users) == 0  # the first alone has it
    model = AlertRecommenderModel().fit(users.frame, users.labels, algorithm=algorithm)
    scores = model.score(users.frame, users.labels, known=np.ones(n_users, dtype=bool))
    assert scores.cohort_size.tolist() == [min(n_users - 1, COHORT)] * n_users
    assert scores.cohort_count[0, 7] == 0
    if n_users <= COHORT + 1:  # then it is all others
        np.testing.assert_array_equal(scores.cohort_count, users.labels.sum(axis=0) - users.labels)


def test_a_cohort_counts_the_nearest_by_their_cosine():
    users = some_users(COHORT + 20)
    standardised = (users.similarity - users.similarity.mean(axis=0)) / users.similarity.std(axis=0)
    length = np.linalg.norm(standardised, axis=1)
    cosine = standardised @ standardised.T / np.outer(length, length)
    np.fill_diagonal(cosine, -np.inf)
    nearest = np.argsort(-cosine, axis=1)[:, :COHORT]
    model = AlertRecommenderModel().fit(users.frame, users.labels, algorithm="popularity")
    scores = model.score(users.frame, users.labels, known=np.ones(len(users.frame), dtype=bool))
    np.testing.assert_array_equal(scores.cohort_count, users.labels[nearest].sum(axis=1))


def test_more_neighbours_than_a_cohort_has_do_not_enlarge_it():
    users = some_users(COHORT + 20)
    n_neighbors = COHORT + 10
    model = AlertRecommenderModel().fit(
        users.frame, users.labels, neighbours={"n_neighbors": n_neighbors, "smoothing": 0.0}
    )
    scores = model.score(users.frame, users.labels, known=np.ones(len(users.frame), dtype=bool))
    assert set(scores.cohort_size.tolist()) == {COHORT}
    nearest, _ = model.scorer.nearest(users.ids, users.similarity, n_neighbors)
    np.testing.assert_allclose(scores.probabilities, users.labels[nearest].mean(axis=1), atol=1e-9)


def test_the_only_user_there_is_has_nobody_alike():
    users = some_users(1)
    model = AlertRecommenderModel().fit(users.frame, users.labels)
    scores = model.score(users.frame, users.labels, known=np.array([True]))
    assert (scores.cohort_size.tolist(), scores.cohort_count.any()) == ([0], False)
    assert np.isfinite(scores.probabilities).all()


# Saved and loaded.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_loaded_model_says_what_the_saved_one_does(algorithm: str, tmp_path: Path):
    model = fitted(algorithm)
    loaded = AlertRecommenderModel().load_model(model.save_model(tmp_path / "model"))
    assert_same(ASKERS.score(loaded), ASKERS.score(model))
    assert (loaded.user_ids, loaded.input_columns) == (model.user_ids, model.input_columns)
    for row in range(4):
        one = ASKERS.users.rows(slice(row, row + 1))
        assert loaded.explain(*one, ALERT_KEYS[2]) == model.explain(*one, ALERT_KEYS[2])
        assert loaded.recommend_for_user(one.ids[0], one.frame) == model.recommend_for_user(one.ids[0], one.frame)
    for path in (tmp_path / "model").glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype != object


def test_training_users_come_in_any_order_but_once():
    order = np.random.default_rng(5).permutation(N_USERS)
    shuffled = USERS.rows(order)
    for algorithm in ("knn", "linear"):
        one, other = (
            AlertRecommenderModel().fit(each.frame, each.labels, algorithm=algorithm) for each in (USERS, shuffled)
        )
        assert_same(ASKERS.score(one), ASKERS.score(other))
    twice = USERS.plus(USERS.rows(slice(3, 4)))
    with pytest.raises(DataError, match="more than once"):
        AlertRecommenderModel().fit(twice.frame, twice.labels)


# Users who came, changed and went since the training.


class Delta(NamedTuple):
    """Users as they are now, and those who have gone."""

    users: Users
    gone: set[str]


@st.composite
def deltas(draw_: st.DrawFn) -> Delta:
    """Draw users, some of whom were trained on, in any order, and others who leave, some of whom were never there."""
    names = st.integers(0, 14).map(lambda number: f"u{number:04}")
    ids = draw_(st.lists(names, unique=True, max_size=5))
    gone = draw_(st.sets(names, max_size=5)) - set(ids)
    users = some_users(len(ids), seed=draw_(st.integers(0, 1000)))
    return Delta(Users(users.frame.with_columns(pl.Series(USER_ID, ids, pl.String)), users.labels), gone)


def laid_over(users: Users, delta: Delta) -> Users:
    """Return users sorted by id, some replaced and some gone; in plain Python."""
    rows = {user_id: (users, row) for row, user_id in enumerate(users.ids)}
    rows |= {user_id: (delta.users, row) for row, user_id in enumerate(delta.users.ids)}
    left = [rows[user_id] for user_id in sorted(rows) if user_id not in delta.gone]
    frame = pl.concat([users.frame[:0], *(each.frame[row : row + 1] for each, row in left)])
    return Users(frame, np.array([each.labels[row] for each, row in left], dtype=bool).reshape(-1, N_ALERTS))


def with_delta(model: AlertRecommenderModel, delta: Delta) -> AlertRecommenderModel:
    return model.with_users(delta.users.frame, delta.users.labels, gone=delta.gone)


@laws
@given(st.lists(deltas(), min_size=1, max_size=3), st.sampled_from([0.0, 2.0, None]))
def test_a_snapshot_and_what_came_since_is_what_a_rebuild_gives(since: list[Delta], smoothing: float | None):
    users = some_users(10)
    neighbours = {"n_neighbors": 3, "smoothing": smoothing}
    model = AlertRecommenderModel().fit(users.frame, users.labels, neighbours=neighbours, calibration=CALIBRATION)
    strength = model.scorer.neighbours.smoothing_
    for delta in since:
        if laid_over(users, delta).ids:
            model, users = with_delta(model, delta), laid_over(users, delta)
    assert model.user_ids == users.ids
    assert model.scorer.n_users == len(users.ids)
    rebuilt = KNeighbours(n_neighbors=3, smoothing=strength).fit(users.similarity, users.labels)
    strangers = some_users(4, seed=77, prefix="stranger")
    everybody = users.plus(strangers)
    rows = np.concatenate([np.arange(len(users.ids)), np.full(4, -1)])
    expected, similarities = rebuilt.kneighbors(everybody.similarity, 3, training_rows=rows)
    nearest, found = model.scorer.nearest(everybody.ids, everybody.similarity, 3)
    np.testing.assert_array_equal(nearest, expected)
    np.testing.assert_array_equal(found, similarities)
    scores = model.score(everybody.frame, everybody.labels, known=np.ones(len(rows), dtype=bool))
    np.testing.assert_array_equal(scores.probabilities, CALIBRATION.apply(rebuilt.smoothed(expected)))
    others, _ = rebuilt.kneighbors(everybody.similarity, COHORT, training_rows=rows)
    np.testing.assert_array_equal(scores.cohort_size, (others >= 0).sum(axis=1))
    shares = rebuilt.shares(others) * scores.cohort_size[:, None]
    np.testing.assert_allclose(scores.cohort_count, shares, atol=1e-9)


@laws
@given(st.permutations(range(4)), deltas())
def test_the_order_in_which_users_change_does_not_matter(order: list[int], delta: Delta):
    model = fitted("knn")
    newcomers = some_users(4, seed=9, prefix="v")
    first = with_delta(model, Delta(newcomers, set()))
    one_by_one = with_delta(model, delta)
    for row in order:
        one_by_one = with_delta(one_by_one, Delta(newcomers.rows(slice(row, row + 1)), set()))
    assert_same(ASKERS.score(with_delta(first, delta)), ASKERS.score(one_by_one))


def test_the_same_change_twice_is_one_change():
    delta = Delta(some_users(3, seed=4), {"u0030"})
    once = with_delta(fitted("knn"), delta)
    assert_same(ASKERS.score(with_delta(once, delta)), ASKERS.score(once))
    assert ASKERS.score(once).probabilities.tolist() != ASKERS.score(fitted("knn")).probabilities.tolist()


def test_what_comes_since_does_not_change_the_model_that_it_is_laid_over():
    model = AlertRecommenderModel().fit(USERS.frame, USERS.labels)
    before = ASKERS.score(model)
    with_delta(model, Delta(some_users(3, seed=4), {"u0030"}))
    assert_same(ASKERS.score(model), before)
    assert model.user_ids == USERS.ids


def test_nothing_since_changes_nothing():
    model = fitted("knn")
    assert_same(ASKERS.score(with_delta(model, Delta(USERS.rows(slice(0, 0)), {"nobody"}))), ASKERS.score(model))


def test_a_model_whose_users_have_all_gone_still_answers():
    model = fitted("knn")
    left = with_delta(model, Delta(USERS.rows(slice(0, 0)), set(USERS.ids)))
    assert np.isfinite(ASKERS.score(left).probabilities).all()


def test_what_comes_since_is_laid_over_a_loaded_model_too(tmp_path: Path):
    model = fitted("knn")
    loaded = AlertRecommenderModel().load_model(model.save_model(tmp_path / "model"))
    delta = Delta(some_users(3, seed=4), {"u0030"})
    changed = with_delta(loaded, delta)
    assert_same(ASKERS.score(changed), ASKERS.score(with_delta(model, delta)))
    again = AlertRecommenderModel.from_arrays({**changed.card, "n_users": N_USERS - 1}, changed.to_arrays())
    assert_same(ASKERS.score(again), ASKERS.score(changed))


@pytest.mark.parametrize("algorithm", LEARNS_MORE)
def test_another_algorithm_stays_as_it_was_trained_and_its_cohorts_change(algorithm: str):
    model, stranger = fitted(algorithm), some_users(1, seed=3, prefix="stranger")
    twins = pl.concat([stranger.frame] * COHORT).with_columns(pl.Series(USER_ID, [f"v{n:02}" for n in range(COHORT)]))
    everything = np.ones((COHORT, N_ALERTS), dtype=bool)
    changed = model.with_users(twins, everything)
    known = np.array([True])
    before, after = (each.score(*stranger, known=known) for each in (model, changed))
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    assert after.cohort_count.tolist() == [[COHORT] * N_ALERTS]  # the fifty who are just like them have all
    assert (before.cohort_count < COHORT).all()


SAMPLE = 12


def sampled() -> AlertRecommenderModel:
    return AlertRecommenderModel().fit(
        USERS.frame, USERS.labels, neighbours={"max_reference": SAMPLE}, calibration=CALIBRATION
    )


def assert_of_all_users(model: AlertRecommenderModel) -> None:
    """See that means, scales and shares are those of everybody who was trained on."""
    knn = model.scorer.neighbours
    np.testing.assert_allclose(knn.mean_, USERS.similarity.mean(axis=0))
    np.testing.assert_allclose(knn.scale_, USERS.similarity.std(axis=0))
    np.testing.assert_allclose(knn.shares_, USERS.labels.mean(axis=0))
    assert model.scorer.n_users == N_USERS


def test_a_sample_keeps_the_means_and_shares_of_everybody():
    model = sampled()
    remembered = model.user_ids
    assert len(remembered) == SAMPLE
    delta = Delta(some_users(3, seed=4).plus(some_users(2, seed=5, prefix="v")), {remembered[4], remembered[5]})
    changed = with_delta(model, delta)
    assert changed.user_ids == sorted({*remembered, *delta.users.ids} - delta.gone)
    assert_of_all_users(changed)
    # Neighbours are found among the remembered ones, by the scales of all.
    rows = {user_id: row for each in (USERS, delta.users) for user_id, row in zip(each.ids, each.labels, strict=True)}
    np.testing.assert_array_equal(changed.scorer.neighbours.labels_, [rows[each] for each in changed.user_ids])
    assert_same(ASKERS.score(with_delta(changed, delta)), ASKERS.score(changed))
    twin = delta.users.rows(slice(4, 5)).frame.with_columns(
        pl.lit("twin").alias(USER_ID), pl.lit(0).alias(ALERT_KEYS[0])
    )
    similar = changed.recommend_for_user("twin", twin, include_similar_users=True)["similar_users"]
    assert (similar[0]["user_id"], similar[0]["similarity_score"]) == ("v0001", pytest.approx(1))


def test_a_sample_that_has_grown_as_large_as_the_training_is_still_a_sample():
    # 12 of 40 are remembered, and 28 more came: again 40, and not those who were trained on.
    changed = with_delta(sampled(), Delta(some_users(N_USERS - SAMPLE, seed=4, prefix="v"), set()))
    assert len(changed.user_ids) == N_USERS
    assert_of_all_users(changed)
    assert_of_all_users(with_delta(changed, Delta(some_users(1, seed=5, prefix="w"), set())))


# Why.


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("since", [False, True], ids=["as trained", "with users since"])
@pytest.mark.parametrize("get", [fitted, answered], ids=["without answers", "with answers"])
def test_an_explanation_is_of_the_probability_that_is_told(
    algorithm: str, since: bool, get: Callable[[str], AlertRecommenderModel]
):
    model = get(algorithm)
    if since:
        model = with_delta(model, Delta(some_users(3, seed=4).plus(some_users(2, seed=5, prefix="v")), {"u0030"}))
    scores = ASKERS.score(model)
    kinds = set()
    for row in (0, 1, 2, 4, 5, 8, 10, 11, 14):
        users, known = ASKERS.users.rows(slice(row, row + 1)), bool(ASKERS.known[row])
        kinds.add((known, bool(users.labels.any()), bool(users.labels.all())))
        for alert, key in enumerate(ALERT_KEYS):
            explanation = model.explain(*users, key)
            assert explanation.alert == key
            assert explanation.probability == pytest.approx(scores.probabilities[row, alert], abs=1e-9)
            assert (explanation.log_odds is None) == (
                algorithm in {"knn", "popularity"} if known else not users.labels.any()
            )
            if explanation.log_odds is not None and explanation.base is not None:
                total = explanation.base + sum(each.value for each in explanation.contributions)
                assert total == pytest.approx(explanation.log_odds)
    assert {each[:2] for each in kinds} == {(True, True), (True, False), (False, True), (False, False)}
    assert (True, True, True) in kinds


@pytest.mark.parametrize(("get", "alert"), [(fitted, 3), (answered, 2)])
def test_a_change_that_an_explanation_tells_of_is_what_would_be_told_then(
    get: Callable[[str], AlertRecommenderModel], alert: int
):
    model, one = get("linear"), USERS.rows(slice(1, 2))
    assert one.labels[0].any()
    medians = model.card["feature_medians"]
    explanation = model.explain(*one, ALERT_KEYS[alert])
    changes = {change.name: change.probability for change in explanation.changes}
    frame = one.frame.with_columns(pl.lit(medians[name]).alias(name) for name in ("night_share", "weekend_share"))
    then = model.score(frame, one.labels, known=np.array([True]))
    assert changes["times of day and week"] == pytest.approx(then.probabilities[0, alert])
    assert changes["times of day and week"] != pytest.approx(explanation.probability, abs=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_recommendations_can_be_explained_for_every_kind_of_user(algorithm: str):
    model = fitted(algorithm)
    for row in (0, 2, 4, 5, 8, 10):
        users = ASKERS.users.rows(slice(row, row + 1))
        frame = users.frame.with_columns(
            pl.lit(int(has)).alias(key) for key, has in zip(ALERT_KEYS, users.labels[0].tolist(), strict=True)
        )
        answer = model.recommend_for_user(users.ids[0], frame, threshold=0.0, explain=True)
        assert len(answer["recommendations"]) == (~users.labels).sum()
        for each in answer["recommendations"]:
            explanation = each["explanation"]
            assert explanation["alert"] == each["alert_type"]
            if algorithm != "knn":  # which keeps its promise of plain shares
                assert explanation["probability"] == pytest.approx(each["probability"], abs=1e-9)
        text = json.dumps(answer["recommendations"], allow_nan=False)
        assert not any(user_id in text for user_id in USERS.ids)


@pytest.mark.parametrize("algorithm", ["knn", "linear"])
def test_a_model_without_medians_on_its_card_takes_those_of_the_users_that_it_remembers(algorithm: str):
    model = AlertRecommenderModel().fit(USERS.frame, USERS.labels, algorithm=algorithm)
    one = USERS.rows(slice(0, 1))
    medians = {name: float(np.median(USERS.frame[name])) for name in SIMILARITY_FEATURES}
    without = model.explain(*one, ALERT_KEYS[0])
    model.card["feature_medians"] = medians
    assert model.explain(*one, ALERT_KEYS[0]) == without


def test_a_model_fitted_on_more_features_than_the_ten_can_be_explained():
    model = AlertRecommenderModel().fit(USERS.frame, USERS.labels, algorithm="linear", input_columns=FEATURES)
    one = USERS.rows(slice(0, 1))
    scores = model.score(*one, known=np.array([True]))
    assert model.explain(*one, ALERT_KEYS[0]).probability == pytest.approx(scores.probabilities[0, 0])
