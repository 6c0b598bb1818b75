"""Real customers of an insurer, who say more by what they have than by who they are: what must hold there.

The data is not part of this repository. Nothing was searched on the users who are judged here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from alertrec.evaluation.metrics import judge
from alertrec.evaluation.protocols import Trial
from alertrec.models import make_model
from tests.conftest import SHARED_DATA

FILE = SHARED_DATA / "caravan" / "Caravan.csv.gz"
SEEDS = (0, 1)


class Customers(NamedTuple):
    """43 features of where they live, and which of 21 policies they have."""

    features: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def customers() -> Customers:
    if not FILE.is_file():
        pytest.skip("the data set `caravan/` is not beside the checkout")
    table = pd.read_csv(FILE)
    features, policies = (
        table[[name for name in table.columns if name.startswith(letter)]].to_numpy(float) for letter in "MA"
    )
    assert (features.shape, policies.shape) == ((5822, 43), (5822, 21))
    return Customers(features, policies > 0)


def figures(name: str, customers: Customers) -> dict[str, float]:
    """Return each metric in leave-one-out over a fifth of the customers, the mean over the seeds."""
    found = [_judged(name, customers, seed) for seed in SEEDS]
    return {metric: float(np.mean([values[metric] for values in found])) for metric in found[0]}


def _judged(name: str, customers: Customers, seed: int) -> dict[str, float]:
    features, labels = customers
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    n_held_out = int(0.2 * len(labels))
    train, rows = order[n_held_out:], order[:n_held_out]
    rows = rows[labels[rows].any(axis=1)]
    wanted = np.zeros((len(rows), labels.shape[1]), dtype=bool)
    for place, row in enumerate(rows):
        wanted[place, rng.choice(np.flatnonzero(labels[row]))] = True
    trial = Trial(rows, labels[rows] & ~wanted, wanted)
    model = make_model(name, random_state=0).fit(features[train], labels[train])
    probabilities = model.predict_proba(features[rows], trial.enabled)
    return judge(probabilities, trial, labels[train].mean(axis=0)).values()


def test_five_neighbours_do_better_than_popularity_by_smoothing_alone(customers: Customers):
    knn, popularity = figures("knn", customers), figures("popularity", customers)
    assert knn["log_loss"] < popularity["log_loss"]
    assert knn["mrr"] > popularity["mrr"]
    assert popularity["log_loss"] == pytest.approx(0.118, abs=0.002)  # what is known of this data set


def test_boosting_foretells_the_policy_that_was_hidden(customers: Customers):
    assert figures("boosting", customers)["log_loss"] < 0.0875


def test_the_ensemble_foretells_it_better_and_says_how_sure_it_is(customers: Customers):
    found = figures("ensemble", customers)
    assert found["log_loss"] <= 0.0855
    assert found["mrr"] >= 0.775
    assert found["calibration_error"] < 0.003
