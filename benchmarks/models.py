"""How well the models foretell a hidden alert on `caravan/`, and how fast they are at thirty thousand users.

Of 20 % of the users, held out, one of the items that each has is hidden; given the rest and the features, it is ranked
among those that the user lacks. Mean over five seeds. Run on an otherwise idle machine: `make bench-models`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alertrec.evaluation.metrics import judge
from alertrec.evaluation.protocols import Trial
from alertrec.models import MODELS, make_model

SEEDS = range(5)
HELD_OUT = 0.2
METRICS = ("hit_at_1", "hit_at_3", "mrr", "log_loss")
N_USERS, N_FEATURES, N_ALERTS = 30_000, 60, 21


def main() -> None:
    """Measure and print one row a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--caravan", type=Path, default=Path("../shared/data/caravan/Caravan.csv.gz"))
    path = parser.parse_args().caravan
    if not path.is_file():
        sys.exit(f"error: {path} is not there; give it with --caravan")
    table = pl.read_csv(path)
    features = table.select(pl.selectors.starts_with("M")).to_numpy().astype(np.float64)
    labels = table.select(pl.selectors.starts_with("A")).to_numpy() > 0
    print(f"{'':<14}" + "".join(f"{name:>12}" for name in METRICS) + f"{'fit, s':>12}{'users/s':>12}")
    speeds = _speeds()
    for name in MODELS:
        found = np.mean([_judged(name, features, labels, seed) for seed in SEEDS], axis=0)
        fit, rate = speeds[name]
        print(f"{name:<14}" + "".join(f"{value:>12.4f}" for value in found) + f"{fit:>12.1f}{rate:>12,.0f}", flush=True)


def _judged(name: str, features: NDArray[np.float64], labels: NDArray[np.bool_], seed: int) -> list[float]:
    train, trial = _held_out(labels, seed)
    model = make_model(name).fit(features[train], labels[train])
    said = model.predict_proba(features[trial.rows], trial.enabled)
    values = judge(said, trial, labels[train].mean(axis=0)).values()
    return [values[metric] for metric in METRICS]


def _held_out(labels: NDArray[np.bool_], seed: int) -> tuple[NDArray[np.intp], Trial]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    n_held_out = int(HELD_OUT * len(labels))
    rows = order[:n_held_out][labels[order[:n_held_out]].any(axis=1)]
    hidden = np.array([rng.choice(np.flatnonzero(labels[row])) for row in rows])
    wanted = np.arange(labels.shape[1]) == hidden[:, None]
    return order[n_held_out:], Trial(rows, labels[rows] & ~wanted, wanted)


def _speeds() -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N_USERS, N_FEATURES))
    scores = features @ (rng.normal(size=(N_FEATURES, N_ALERTS)) * 0.3) + rng.normal(size=(N_USERS, N_ALERTS))
    labels = scores > 2.6  # one in six: three and a half alerts a user
    return {name: _speed(name, features, labels) for name in MODELS}


def _speed(name: str, features: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Return seconds to fit, and users a second who are predicted."""
    started = time.perf_counter()
    model = make_model(name).fit(features, labels)
    fitted = time.perf_counter()
    model.predict_proba(features, labels)
    return fitted - started, len(features) / (time.perf_counter() - fitted)


if __name__ == "__main__":
    main()
