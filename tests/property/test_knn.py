from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from alertrec.models.knn import KNeighbours
from tests.strategies import laws

# Small whole numbers: many ties, and means and deviations that plain Python rounds alike.
_values = st.integers(-4, 4).map(float)
_with_unknown = st.one_of(_values, _values, _values, st.just(math.nan))


@st.composite
def worlds(draw: st.DrawFn, *, min_users: int = 1) -> tuple[np.ndarray, np.ndarray]:
    n_users, n_features = draw(st.integers(min_users, 12)), draw(st.integers(1, 4))
    features = draw(npst.arrays(float, (n_users, n_features), elements=_with_unknown))
    assume(not np.isnan(features).all(axis=0).any())
    return features, draw(npst.arrays(bool, (n_users, 3)))


def directions(features: np.ndarray) -> list[list[float]]:
    """Return each user's standardised features at length 1, an unknown one being the mean."""
    columns = []
    for column in features.T.tolist():
        known = [value for value in column if not math.isnan(value)]
        mean = math.fsum(known) / len(known)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known)) or 1.0
        columns.append([0.0 if math.isnan(value) else (value - mean) / deviation for value in column])
    rows = [list(row) for row in zip(*columns, strict=True)]
    lengths = [math.hypot(*row) or 1.0 for row in rows]
    return [[value / length for value in row] for row, length in zip(rows, lengths, strict=True)]


def nearest(features: np.ndarray, user: int, among: list[int]) -> list[tuple[int, float]]:
    """Return rows and similarities, the most similar first, of equals the earlier row; without the user."""
    rows = directions(features)
    similar = [(row, sum(a * b for a, b in zip(rows[user], rows[row], strict=True))) for row in among if row != user]
    return sorted(similar, key=lambda pair: (-round(pair[1], 9), pair[0]))


@laws
@given(worlds(), st.integers(1, 14))
def test_neighbours_agree_with_comparing_every_pair(world: tuple[np.ndarray, np.ndarray], k: int):
    features, labels = world
    everybody = list(range(len(features)))
    model = KNeighbours(n_neighbors=k).fit(features, labels)
    neighbours, similarities = model.kneighbors(features, k, training_rows=np.array(everybody))
    found = model.shares(neighbours)
    probabilities = model.predict_proba(features, labels, training_rows=np.array(everybody))
    of_all = [sum(column) / len(labels) for column in labels.T.tolist()]
    for user in everybody:
        expected = nearest(features, user, everybody)[:k]
        n_missing = k - len(expected)
        assert neighbours[user].tolist() == [row for row, _ in expected] + [-1] * n_missing
        np.testing.assert_allclose(
            similarities[user], [similarity for _, similarity in expected] + [math.nan] * n_missing, atol=2e-9
        )
        shares = [sum(labels[row, alert] for row, _ in expected) / max(len(expected), 1) for alert in range(3)]
        np.testing.assert_allclose(found[user], shares)
        np.testing.assert_allclose(
            probabilities[user],
            [
                (len(expected) * share + model.smoothing_ * base) / (len(expected) + model.smoothing_)
                for share, base in zip(shares, of_all, strict=True)
            ],
        )


def leave_one_out_loss(features: np.ndarray, labels: np.ndarray, k: int, smoothing: float) -> float:
    """Return the log-loss over the cells that a user is judged on, each of their alerts hidden in turn."""
    n_users, has = len(labels), labels.tolist()
    of_all = [sum(column) / n_users for column in labels.T.tolist()]
    total = 0.0
    for user in range(n_users):
        own = [alert for alert in range(3) if has[user][alert]]
        neighbours = [row for row, _ in nearest(features, user, list(range(n_users)))[:k]]
        said = [
            (sum(has[row][alert] for row in neighbours) + smoothing * of_all[alert]) / (len(neighbours) + smoothing)
            for alert in range(3)
        ]
        said = [min(max(probability, 1e-6), 1 - 1e-6) for probability in said]
        # A round judges the hidden alert and those that the user lacks; the rounds of a user are one together.
        total += sum(
            -math.log(said[hidden]) / len(own)
            - sum(math.log(1 - said[alert]) for alert in range(3) if alert not in own) / len(own)
            for hidden in own
        )
    return total


@laws
@given(worlds(), st.integers(1, 4))
def test_the_strength_of_smoothing_is_the_one_that_foretells_best(world: tuple[np.ndarray, np.ndarray], k: int):
    assert_smoothed_best(*world, k)


@pytest.mark.parametrize("seed", range(10))
def test_where_neighbours_tell_something_the_strength_is_the_one_that_foretells_best(seed: int):
    # Users of one, two and three alerts: each user counts as one, however many they have.
    rng = np.random.default_rng(seed)
    habits = rng.normal(size=(30, 2))
    assert_smoothed_best(habits, habits[:, :1] * [2, 1, -1] + rng.normal(size=(30, 3)) > 0, 3)


def assert_smoothed_best(features: np.ndarray, labels: np.ndarray, k: int) -> None:
    losses = {
        strength: leave_one_out_loss(features, labels, k, strength)
        for strength in (0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320)
    }
    chosen = KNeighbours(k).fit(features, labels).smoothing_
    assert losses[chosen] == pytest.approx(min(losses.values()), abs=1e-9)


@laws
@given(worlds(), st.integers(1, 4), st.floats(0, 1000))
def test_a_smoothed_share_lies_between_that_of_the_neighbours_and_that_of_all(
    world: tuple[np.ndarray, np.ndarray], k: int, smoothing: float
):
    features, labels = world
    model = KNeighbours(k, smoothing=smoothing).fit(features, labels)
    neighbours, _ = model.kneighbors(features, k)
    shares, smoothed, of_all = model.shares(neighbours), model.predict_proba(features, labels), labels.mean(axis=0)
    assert (smoothed >= np.minimum(shares, of_all) - 1e-12).all()
    assert (smoothed <= np.maximum(shares, of_all) + 1e-12).all()


@laws
@given(worlds(min_users=2), st.integers(1, 5), st.integers(1, 6))
def test_of_a_sample_nobody_is_their_own_neighbour_and_the_nearest_are_right(
    world: tuple[np.ndarray, np.ndarray], k: int, max_reference: int
):
    features, labels = world
    model = KNeighbours(k, max_reference=max_reference).fit(features, labels)
    sample = model.reference_rows_.tolist()
    assert sample == sorted(set(sample))
    assert len(sample) == min(max_reference, len(features))
    neighbours, _ = model.kneighbors(features, k, training_rows=np.arange(len(features)))
    for user, found in enumerate(neighbours):
        rows = [sample[reference] for reference in found if reference >= 0]
        assert rows == [row for row, _ in nearest(features, user, sample)[:k]]


@laws
@given(worlds(), st.integers(1, 5), st.data())
def test_a_user_alone_gets_the_neighbours_that_they_get_in_any_batch(
    world: tuple[np.ndarray, np.ndarray], k: int, data: st.DataObject
):
    features, labels = world
    model = KNeighbours().fit(features, labels)
    known = data.draw(npst.arrays(bool, len(features)))
    rows = np.where(known, np.arange(len(features)), -1)  # of some it is not known that they were trained on
    together = model.kneighbors(features, k, training_rows=rows)
    order = data.draw(st.permutations(range(len(features))))
    shuffled = model.kneighbors(features[order], k, training_rows=rows[order])
    for place, user in enumerate(order):
        alone = model.kneighbors(features[user : user + 1], k, training_rows=rows[user : user + 1])
        for one, batch, other in zip(alone, together, shuffled, strict=True):
            np.testing.assert_array_equal(one[0], batch[user])
            np.testing.assert_array_equal(one[0], other[place])


@laws
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 8))
def test_neighbours_are_those_of_scikit_learn(seed: int, n_users: int, k: int):
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    # Draws from a continuous distribution: scikit-learn promises nothing of ties.
    features = np.random.default_rng(seed).lognormal(size=(n_users, 6)) * [1, 1e3, 1, 1e-3, 1, 1]
    features[:, 5] = 0.1  # never varies
    k = min(k, n_users)
    scaled = StandardScaler().fit_transform(features)
    distances, expected = NearestNeighbors(n_neighbors=k, metric="cosine").fit(scaled).kneighbors(scaled)
    model = KNeighbours(k).fit(features, np.zeros((n_users, 1), dtype=bool))
    neighbours, similarities = model.kneighbors(features, k)
    np.testing.assert_allclose(similarities, 1 - distances, atol=2e-9)
    different = neighbours != expected
    np.testing.assert_allclose(similarities[different], (1 - distances)[different], atol=2e-9)  # but for rounding


@laws
@given(worlds(), st.integers(1, 5), st.integers(1, 6))
def test_a_model_rebuilt_of_the_users_that_it_remembers_is_the_same(
    world: tuple[np.ndarray, np.ndarray], k: int, max_reference: int
):
    features, labels = world
    model = KNeighbours(k, max_reference=max_reference).fit(features, labels)
    is_everybody = max_reference >= len(features)
    again = model.rebuilt(model.known_, model.labels_, is_everybody=is_everybody)
    assert again.smoothing_ == model.smoothing_
    for one, other in zip(again.kneighbors(features, k), model.kneighbors(features, k), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.predict_proba(features, labels), model.predict_proba(features, labels))
