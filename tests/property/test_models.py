from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from alertrec.models.base import AlertMatrix, Arrays, FeatureMatrix, Rows, ScoreMatrix
from alertrec.models.boosting import Boosting
from alertrec.models.contributions import Grouping, Parts
from alertrec.models.cooccurrence import Cooccurrence
from alertrec.models.ensemble import fit_stack
from alertrec.models.inputs import ALERT_SCALE, Inputs
from alertrec.models.linear import Linear
from alertrec.models.neural import hide_one
from alertrec.models.one_more import OneMore, canonical_order, hide_each, share_of_one_more
from alertrec.models.perceptron import Perceptrons, train
from tests.strategies import laws

seeds = st.integers(0, 2**32 - 1)
_log_odds = st.floats(-30, 30) | st.sampled_from([-700.0, 0.0, 700.0])
_features = st.sampled_from([-1.0, 0.0, 2.0, math.nan])


@st.composite
def log_odds_and_enabled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.integers(0, 5)), draw(st.integers(1, 6))
    return draw(npst.arrays(float, shape, elements=_log_odds)), draw(npst.arrays(bool, shape))


@st.composite
def users_and_alerts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n_users, n_alerts = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    features = draw(npst.arrays(float, (n_users, draw(st.integers(0, 2))), elements=_features))
    return features, draw(npst.arrays(bool, (n_users, n_alerts)))


def bank(seed: int, n_users: int = 150, n_alerts: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return amounts with gaps, a habit, and alerts that depend on both and on each other; none is certain."""
    rng = np.random.default_rng(seed)
    habit, noise = rng.normal(size=(2, n_users))
    features = np.column_stack([np.exp(habit + rng.normal(size=n_users)), habit, noise])
    features[rng.random(n_users) < 0.1, 0] = np.nan
    wish = habit[:, None] * rng.normal(size=n_alerts) + rng.normal(size=(n_users, n_alerts)) - 0.5
    wish[:, 1] += wish[:, 0]
    labels = wish > 0
    labels[0], labels[1] = True, False
    return features, labels


# ----- one more


@laws
@given(log_odds_and_enabled())
def test_shares_of_one_more_agree_with_plain_python(case: tuple[np.ndarray, np.ndarray]):
    log_odds, enabled = case
    found = share_of_one_more(log_odds, enabled)
    assert found.shape == log_odds.shape
    for row, (odds, has) in enumerate(zip(log_odds.tolist(), enabled.tolist(), strict=True)):
        free = [alert for alert in range(len(odds)) if not has[alert]]
        expected = [0.0] * len(odds)
        for alert in free:
            # 1 / (sum of the odds of all, each divided by its own), which is the same and overflows later.
            rivals = [math.exp(min(odds[other] - odds[alert], 700)) for other in free]
            expected[alert] = 1 / math.fsum(rivals) if len(free) > 1 else 1 / (1 + math.exp(-odds[alert]))
        np.testing.assert_allclose(found[row], expected, rtol=1e-9, atol=1e-300)


class Joint(OneMore[int]):
    """A model that knows the joint distribution of the alerts: the probability of each set, by its number in bits."""

    name = "joint"

    def __init__(self, joint: np.ndarray) -> None:
        self.joint = joint
        self.random_state = 0

    def _learn(self, features: FeatureMatrix, labels: AlertMatrix) -> None:
        """Know it all."""

    def _prepare(self, features: FeatureMatrix) -> int:
        return len(features)

    def _score(self, prepared: int, users: Rows, enabled: AlertMatrix) -> ScoreMatrix:
        del prepared, users
        bits = 1 << self.contested_
        others = np.where(enabled, 0, bits) + (enabled @ bits)[:, None]
        return np.log(self.joint[others] / self.joint[others - bits])

    def _parts(self, features: FeatureMatrix, enabled: AlertMatrix, alert: int, grouping: Grouping) -> Parts:
        raise NotImplementedError

    def _learnt(self) -> dict[str, NDArray[Any]]:
        return {}

    def _restore(self, arrays: Arrays) -> None:
        """Restore nothing."""


@laws
@given(seeds)
def test_of_users_who_have_one_more_the_share_whose_one_more_it_is(seed: int):
    n_alerts = 4
    joint = np.random.default_rng(seed).exponential(size=2**n_alerts) + 1e-3
    joint /= joint.sum()
    sets = (np.arange(2**n_alerts)[:, None] >> np.arange(n_alerts) & 1).astype(bool)
    nothing = np.zeros((2**n_alerts, 0))
    found = Joint(joint).fit(nothing, sets).predict_proba(nothing, sets)
    for number in range(2**n_alerts):
        for alert in range(n_alerts):
            without = number & ~(1 << alert)  # an alert that is there is judged as if it were not
            one_more = [without | 1 << other for other in range(n_alerts) if not without >> other & 1]
            rivals = joint[one_more].sum() if len(one_more) > 1 else joint[one_more[0]] + joint[without]
            expected = joint[without | 1 << alert] / rivals
            assert found[number, alert] == pytest.approx(expected, abs=2e-9)


@laws
@given(npst.arrays(bool, st.tuples(st.integers(0, 6), st.integers(1, 5))))
def test_hiding_each_alert_agrees_with_plain_python(labels: np.ndarray):
    users, alerts, enabled = hide_each(labels)
    expected = [
        (user, alert, [has and other != alert for other, has in enumerate(row)])
        for user, row in enumerate(labels.tolist())
        for alert in range(len(row))
        if row[alert]
    ]
    assert list(zip(users.tolist(), alerts.tolist(), enabled.tolist(), strict=True)) == expected


@laws
@given(users_and_alerts(), st.data())
def test_users_and_alerts_come_in_an_order_that_does_not_hang_on_how_they_came(
    world: tuple[np.ndarray, np.ndarray], data: st.DataObject
):
    features, labels = world
    users, alerts = canonical_order(features, labels)
    assert sorted(users) == list(range(len(labels)))
    assert sorted(alerts) == list(range(labels.shape[1]))
    user_order = data.draw(st.permutations(range(len(labels))))
    shuffled = canonical_order(features[user_order], labels[user_order])
    np.testing.assert_array_equal(features[user_order][shuffled[0]], features[users])
    np.testing.assert_array_equal(labels[user_order][np.ix_(*shuffled)], labels[np.ix_(users, alerts)])
    assume(len(np.unique(np.nan_to_num(features, nan=9.0), axis=0)) == len(features))
    alert_order = data.draw(st.permutations(range(labels.shape[1])))
    again = canonical_order(features[user_order], labels[user_order][:, alert_order])
    np.testing.assert_array_equal(features[user_order][again[0]], features[users])
    np.testing.assert_array_equal(labels[user_order][:, alert_order][np.ix_(*again)], labels[np.ix_(users, alerts)])


@pytest.mark.parametrize("seed", range(5))
def test_users_who_are_alike_in_features_come_in_an_order_of_their_alerts(seed: int):
    # Two kinds of users; each alert is had by another number of them, and so told apart.
    rng = np.random.default_rng(seed)
    features, labels = rng.integers(0, 2, size=(30, 1)).astype(float), np.zeros((30, 4), dtype=bool)
    for alert in range(4):
        labels[rng.choice(30, 5 + 5 * alert, replace=False), alert] = True
    user_order, alert_order = rng.permutation(30), rng.permutation(4)
    shuffled_features, shuffled = features[user_order], labels[np.ix_(user_order, alert_order)]
    users, alerts = canonical_order(features, labels)
    again = canonical_order(shuffled_features, shuffled)
    np.testing.assert_array_equal(shuffled_features[again[0]], features[users])
    np.testing.assert_array_equal(shuffled[np.ix_(*again)], labels[np.ix_(users, alerts)])


# ----- closed forms


def learnt_order(model: OneMore[Any], labels: np.ndarray) -> np.ndarray:
    """Return the labels with their alerts in the order in which the model holds them; all of them are contested."""
    assert sorted(model.contested_) == list(range(labels.shape[1]))
    return labels[:, model.contested_].astype(float)


@laws
@given(seeds, st.sampled_from([1.0, 50.0, 300.0]))
def test_cooccurrence_weights_are_minus_the_inverse_covariance(seed: int, ridge: float):
    features, labels = bank(seed)
    model = Cooccurrence(ridge=ridge).fit(features, labels)
    covariance = np.cov(learnt_order(model, labels).T, bias=True) + ridge / len(labels) * np.eye(5)
    expected = -np.linalg.inv(covariance)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(model.weights_, expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(np.diag(model.weights_), 0)


@laws
@given(seeds, st.sampled_from([1.0, 50.0, 300.0]))
def test_cooccurrence_weights_are_those_of_ridge_regression_by_the_variance_left(seed: int, ridge: float):
    from sklearn.linear_model import Ridge

    features, labels = bank(seed)
    model = Cooccurrence(ridge=ridge).fit(features, labels)
    there = learnt_order(model, labels)
    for alert in range(5):
        others = np.delete(there, alert, axis=1)
        regression = Ridge(alpha=ridge).fit(others, there[:, alert])
        # What is left of the variance, the penalty counted in: 1 / P_jj of the inverse of the covariance plus ridge.
        left = there[:, alert] - regression.predict(others)
        variance = (left @ left + ridge * (regression.coef_ @ regression.coef_) + ridge) / len(labels)
        np.testing.assert_allclose(
            np.delete(model.weights_[:, alert], alert), regression.coef_ / variance, rtol=1e-7, atol=1e-9
        )


@laws
@given(seeds)
def test_cooccurrence_is_undecided_halfway_between_those_who_have_an_alert_and_those_who_have_not(seed: int):
    features, labels = bank(seed)
    model = Cooccurrence().fit(features, labels)
    there = learnt_order(model, labels)
    for alert in range(5):
        has = there[:, alert] == 1
        middle = (there[has].mean(axis=0) + there[~has].mean(axis=0)) / 2
        at_middle = middle @ model.weights_[:, alert] + model.intercepts_[alert]
        assert at_middle == pytest.approx(math.log(has.sum() / (~has).sum()), abs=1e-8)


@pytest.mark.parametrize("penalty", [1.0, 10.0])
def test_linear_predicts_what_scikit_learn_does(penalty: float):
    from sklearn.linear_model import LogisticRegression

    features, labels = bank(0)
    model = Linear(penalty=penalty).fit(features, labels)
    asked, enabled = bank(1)
    found = model.log_odds(asked, np.arange(len(asked)), enabled)
    inputs = Inputs().fit(features)
    for alert in range(5):
        design, design_asked = (
            np.hstack([inputs.transform(x), ALERT_SCALE * np.delete(y, alert, axis=1)])
            for x, y in ((features, labels), (asked, enabled))
        )
        regression = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000).fit(design, labels[:, alert])
        np.testing.assert_allclose(found[:, alert], regression.decision_function(design_asked), atol=1e-3)


@pytest.mark.parametrize("penalty", [1.0, 10.0])
def test_linear_has_the_least_loss_by_its_own_account(penalty: float):
    # At the minimum of the sum of log-losses plus penalty / 2 times the squared weights, all slopes are 0.
    features, labels = bank(0)
    model = Linear(penalty=penalty).fit(features, labels)
    there = learnt_order(model, labels)
    probabilities = 1 / (1 + np.exp(-model.log_odds(features, np.arange(len(labels)), labels)[:, model.contested_]))
    error = probabilities - there
    weights = model.weights_
    inputs = Inputs().fit(features).transform(features)
    np.testing.assert_allclose(error.sum(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(inputs.T @ error + penalty * weights.of_inputs, 0, atol=0.02)
    of_scaled = weights.of_alerts / ALERT_SCALE
    slopes = ALERT_SCALE * there.T @ error + penalty * of_scaled
    np.testing.assert_allclose(slopes[~np.eye(5, dtype=bool)], 0, atol=0.02)
    assert (np.diag(weights.of_alerts) == 0).all()


def test_log_odds_of_boosting_are_trees_weights_and_an_intercept():
    features, labels = bank(0)
    model = Boosting().fit(features, labels)
    asked, enabled = bank(1, n_users=40)
    users = np.random.default_rng(0).integers(0, 40, 90)  # some more than once, with one and another set of alerts
    rows = enabled[np.random.default_rng(1).integers(0, 40, 90)]
    found = model.log_odds(asked, users, rows)
    there = learnt_order(model, rows)
    assert np.ptp(there.sum(axis=1)) >= 3
    for place, alert in enumerate(model.contested_):
        inputs = np.column_stack([asked[users], there.sum(axis=1)])
        of_trees = model.trees_[place].predict(inputs, raw_score=True)
        expected = of_trees + there @ model.weights_[:, place] + model.intercepts_[place]
        np.testing.assert_allclose(found[:, alert], expected, atol=1e-12)
    assert (np.diag(model.weights_) == 0).all()


def test_trees_are_those_of_lightgbm_on_behaviour_and_the_number_of_other_alerts():
    import lightgbm

    features, labels = bank(0, n_users=400)
    model = Boosting(n_rounds=12, learning_rate=0.2, num_leaves=5, min_data_in_leaf=15, l2=2.0, penalty=1.0)
    model.fit(features, labels)
    linear = Linear(penalty=1.0).fit(features, labels)
    there = learnt_order(model, labels)
    for place, alert in enumerate(model.contested_):
        n_others = np.delete(there, place, axis=1).sum(axis=1)
        inputs = np.column_stack([features, n_others])
        others = np.delete(np.arange(5), place)
        offset = there[:, others] @ linear.weights_.of_alerts[others, place] + linear.weights_.intercepts[place]
        assert (linear.contested_ == model.contested_).all()
        parameters = {
            "objective": "binary", "learning_rate": 0.2, "num_leaves": 5, "min_data_in_leaf": 15, "lambda_l2": 2.0,
            "max_bin": 63, "verbose": -1, "deterministic": True, "force_row_wise": True, "num_threads": 1,
        }  # fmt: skip
        data = lightgbm.Dataset(inputs, labels[:, alert].astype(float), init_score=offset, params=parameters)
        expected = lightgbm.train(parameters, data, 12).predict(inputs, raw_score=True)
        np.testing.assert_allclose(model.trees_[place].predict(inputs, raw_score=True), expected, atol=0.03)
        assert np.ptp(expected) > 0.1


# ----- the stack


def stack_loss(
    weights: np.ndarray, offsets: np.ndarray, rows: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], pull: float
) -> float:
    """Return minus the logarithm of the posterior, row by row."""
    scores, hidden, enabled, weight = rows
    found = pull * (((weights - 1 / len(weights)) ** 2).sum() + (offsets**2).sum())
    for row in range(len(hidden)):
        mixed = {
            alert: sum(w * s for w, s in zip(weights, scores[:, row, alert], strict=True)) + offsets[alert]
            for alert in range(len(offsets))
            if not enabled[row, alert]
        }
        found -= weight[row] * (mixed[hidden[row]] - math.log(sum(math.exp(value) for value in mixed.values())))
    return float(found)


def contest(
    seed: int, n_rows: int = 3000, n_alerts: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Return true log-odds (n_rows, n_alerts), which alert was hidden by them, what is enabled, and the generator."""
    rng = np.random.default_rng(seed)
    true = rng.normal(scale=1.5, size=(n_rows, n_alerts))
    enabled = rng.random((n_rows, n_alerts)) < 0.3
    enabled[np.arange(n_rows), rng.integers(0, n_alerts, n_rows)] = False
    # The largest of log-odds plus Gumbel noise has the probabilities of their softmax.
    hidden = np.where(enabled, -np.inf, true + rng.gumbel(size=true.shape)).argmax(axis=1)
    return true, hidden, enabled, rng


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pull", [0.1, 5.0])
def test_nothing_near_the_stack_is_better(seed: int, pull: float):
    true, hidden, enabled, rng = contest(seed, n_rows=60)
    scores = np.stack([true, rng.normal(size=true.shape), -true])  # the last would like a weight below 0
    rows = scores, hidden, enabled, rng.random(60) + 0.2
    weights, offsets = fit_stack(*rows, pull=pull)
    assert (weights >= 0).all()
    assert weights[2] == 0
    both = np.concatenate([weights, offsets])
    for place in range(len(both)):
        step = np.zeros_like(both)
        step[place] = 1e-4
        up, down = (stack_loss(*np.split(both + sign * step, [3]), rows, pull) for sign in (1, -1))
        slope = (up - down) / 2e-4
        if both[place] == 0:  # a weight at its bound would only get worse by growing
            assert slope > 0
        else:
            assert slope == pytest.approx(0, abs=2e-3)


def test_a_useless_member_gets_no_weight_and_a_perfect_one_all_of_it():
    true, hidden, enabled, rng = contest(0)
    scores = np.stack([rng.normal(size=true.shape), true, rng.normal(size=true.shape)])
    weights, offsets = fit_stack(scores, hidden, enabled, np.ones(len(hidden)), pull=5.0)
    np.testing.assert_allclose(weights, [0, 1, 0], atol=0.06)
    np.testing.assert_allclose(offsets, 0, atol=0.15)


@pytest.mark.parametrize("confidence", [0.5, 3.0])
def test_a_member_that_is_too_sure_of_itself_is_believed_less_and_a_timid_one_more(confidence: float):
    true, hidden, enabled, _ = contest(1)
    weights, _ = fit_stack(confidence * true[None], hidden, enabled, np.ones(len(hidden)), pull=5.0)
    assert weights[0] == pytest.approx(1 / confidence, rel=0.1)


def test_offsets_repair_a_member_that_underrates_an_alert():
    true, hidden, enabled, _ = contest(2)
    wrong = np.array([0.0, 0.0, -2.0, 0.0, 0.0])
    _, offsets = fit_stack((true + wrong)[None], hidden, enabled, np.ones(len(hidden)), pull=1.0)
    assert offsets[2] - np.delete(offsets, 2).mean() == pytest.approx(2, abs=0.2)


def test_a_row_of_weight_two_counts_as_two():
    true, hidden, enabled, rng = contest(3, n_rows=80)
    scores, times = np.stack([true, rng.normal(size=true.shape)]), rng.integers(0, 3, 80)
    repeated = np.repeat(np.arange(80), times)
    once = fit_stack(scores, hidden, enabled, times.astype(float), pull=2.0)
    again = fit_stack(scores[:, repeated], hidden[repeated], enabled[repeated], np.ones(len(repeated)), pull=2.0)
    for one, other in zip(once, again, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_a_strong_pull_leaves_the_weights_equal():
    true, hidden, enabled, rng = contest(4, n_rows=80)
    scores = np.stack([true, rng.normal(size=true.shape)])
    weights, offsets = fit_stack(scores, hidden, enabled, np.ones(80), pull=1e6)
    np.testing.assert_allclose(weights, 0.5, atol=1e-3)
    np.testing.assert_allclose(offsets, 0, atol=1e-3)


# ----- networks


def network_loss(networks: Perceptrons, rows: np.ndarray, wanted: np.ndarray, penalty: float) -> float:
    """Return the sum over the networks of the mean cross-entropy and half the penalty of the squared weights."""
    found = 0.0
    for number, (weights_1, biases_1, weights_2, biases_2) in enumerate(zip(*networks, strict=True)):
        for row, target in zip(rows[number], wanted[number], strict=True):
            outputs = np.maximum(row @ weights_1 + biases_1[0], 0) @ weights_2 + biases_2[0]
            found -= float(target @ (outputs - np.log(np.exp(outputs).sum()))) / len(rows[number])
        found += penalty / 2 * float((weights_1**2).sum() + (weights_2**2).sum())
    return found


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_slopes_of_networks_are_those_of_finite_differences(penalty: float):
    rng = np.random.default_rng(0)
    networks = Perceptrons.drawn((2, 3, 4, 3), rng)
    networks.biases_1[...] = rng.normal(size=(2, 1, 4))
    networks.biases_2[...] = rng.normal(size=(2, 1, 3))
    rows, wanted = rng.normal(size=(2, 5, 3)), np.eye(3)[rng.integers(0, 3, (2, 5))]
    slopes = networks.slopes(rows, wanted, penalty)
    for values, found in zip(networks, slopes, strict=True):
        assert found.shape == values.shape
        for place in np.ndindex(values.shape):
            before, losses = values[place], []
            for step in (1e-6, -1e-6):
                values[place] = before + step
                losses.append(network_loss(networks, rows, wanted, penalty))
            values[place] = before
            assert found[place] == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-7)


def test_networks_answer_with_the_mean_of_their_softmaxes():
    rng = np.random.default_rng(0)
    networks, rows = Perceptrons.drawn((3, 4, 5, 2), rng), rng.normal(size=(6, 4))
    alone = [Perceptrons(*(part[number : number + 1] for part in networks)).predict(rows) for number in range(3)]
    np.testing.assert_allclose(networks.predict(rows), np.mean(alone, axis=0))
    np.testing.assert_allclose(networks.predict(rows).sum(axis=1), 1)
    outputs = np.maximum(rows[0] @ networks.weights_1[0], 0) @ networks.weights_2[0]
    np.testing.assert_allclose(alone[0][0], np.exp(outputs) / np.exp(outputs).sum())


def test_training_learns_and_leaves_what_it_was_given():
    rng = np.random.default_rng(0)
    networks = Perceptrons.drawn((2, 3, 8, 3), rng)
    before = [part.copy() for part in networks]
    rows = rng.normal(size=(2, 60, 3))
    wanted = np.eye(3)[rows.argmax(axis=2)]
    trained = train(networks, iter([(rows, wanted)] * 300), penalty=0.0, learning_rate=0.02)
    assert network_loss(trained, rows, wanted, 0.0) < 0.2 * network_loss(networks, rows, wanted, 0.0)
    for part, copy in zip(networks, before, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_the_first_step_of_adam_is_of_the_learning_rate_against_each_slope():
    rng = np.random.default_rng(0)
    networks = Perceptrons.drawn((1, 3, 4, 3), rng)
    rows, wanted = rng.normal(size=(1, 5, 3)), np.eye(3)[rng.integers(0, 3, (1, 5))]
    slopes = networks.slopes(rows, wanted, 0.1)
    after = train(networks, iter([(rows, wanted)]), penalty=0.1, learning_rate=0.01)
    for one, other, slope in zip(networks, after, slopes, strict=True):
        steep = np.abs(slope) > 1e-4
        assert steep.any()
        np.testing.assert_allclose((other - one)[steep], -0.01 * np.sign(slope)[steep], rtol=1e-3)


@laws
@given(npst.arrays(bool, st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 4))), seeds)
def test_one_alert_is_hidden_of_each_user_who_has_any(labels: np.ndarray, seed: int):
    assume(labels.any(axis=-1).all())
    hidden = hide_one(labels, np.random.default_rng(seed))
    assert (hidden.sum(axis=-1) == 1).all()
    assert (hidden <= labels).all()


def test_each_alert_of_a_user_is_as_likely_to_be_hidden():
    labels = np.tile([True, False, True, True], (30_000, 1))
    shares = hide_one(labels, np.random.default_rng(0)).mean(axis=0)
    # Three deviations of a share of a third in 30,000 are 0.008.
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.01)
