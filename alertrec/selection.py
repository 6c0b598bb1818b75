"""Which model deserves to serve: candidates are fitted, judged on users whom they have not seen, calibrated, compared.

Users in, a choice and its report out; nothing is stored or promoted here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alertrec import gates
from alertrec.calibration import Calibration
from alertrec.drift import drifted, population_stability
from alertrec.evaluation.bootstrap import by_alert, by_group, compare, summarise
from alertrec.evaluation.leaks import find_leaks
from alertrec.evaluation.metrics import Judgement, judge, reliability
from alertrec.evaluation.protocols import Trial, folds, leave_one_out, split_in_time
from alertrec.explanation.groups import FEATURE_GROUPS
from alertrec.feature_engineering import FEATURES, SIMILARITY_FEATURES
from alertrec.gates import Gate
from alertrec.models import make_model
from alertrec.models.base import AlertMatrix, Rows, ScoreMatrix
from alertrec.recommender import AlertRecommenderModel

POPULARITY, KNN, LINEAR, CHAMPION = "popularity", "knn", "linear", "champion"
# In this order: of models that noise cannot tell apart, the first one serves. The neighbour model, which everyone
# understands, comes before those that are harder to explain.
CANDIDATES = (KNN, LINEAR, "cooccurrence", "boosting", "neural", "ensemble")
# Judged users from which on a candidate is tried; with fewer, its gain could not be told from noise.
FEWEST_JUDGED = {LINEAR: 30, "cooccurrence": 30, "boosting": 200, "neural": 200, "ensemble": 200}
# Up to this many users, each is held out once; of more, a fifth is, once.
MAX_CROSS_FITTED = 10_000
# Users who enabled an alert later, from which on a split in time, or a comparison with the champion, says anything.
MIN_LATER = 10

Ask = Callable[[Rows, AlertMatrix], ScoreMatrix]  # rows of users, and what they have
Parts = list[tuple[Rows, Rows]]  # training and test rows
Progress = Callable[[str, int, int], None]  # step, done, of


@dataclass(frozen=True)
class Population:
    """Users at one moment, one row each.

    Attributes
    ----------
    features : frame with `user_id` and `FEATURES`
    labels : bool array, shape (n_users, n_alerts)
    groups : mapping of names to a value a user
        By which no user may be served worse: activity, credit limit, home state.
    """

    features: pl.DataFrame
    labels: AlertMatrix
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.features.height

    def matrix(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Return features, shape (n_users, n_columns)."""
        return np.asarray(self.features.select(columns).to_numpy(), dtype=np.float64)


@dataclass(frozen=True)
class InForce:
    """The champion that a candidate has to beat.

    Attributes
    ----------
    before : bool array, shape (n_users, n_alerts)
        What the users of the present population had when it was trained: what they enabled since, it cannot know.
    """

    model: AlertRecommenderModel
    before: AlertMatrix


@dataclass(frozen=True)
class Selection:
    """The model that won, what calibrates it, whether it may serve, and all figures.

    The calibration knows nothing of what customers answered to offers, and no figure does.
    """

    algorithm: str
    parameters: Mapping[str, Any]
    calibration: Calibration
    gates: list[Gate]
    report: dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How models are fitted: everything but the users.

    Attributes
    ----------
    parameters : mapping of candidates to their parameters
    without : candidates that cannot be fitted here
    """

    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    random_state: int = 0

    def fit(self, name: str, users: Population, train: Rows, columns: Sequence[str] | None = None) -> Ask:
        """Fit a model on some of the users, and return what asks it about any of them."""
        columns = columns or input_columns(name)
        matrix = users.matrix(columns)
        model = make_model(name, self.random_state, **self.parameters.get(name, {}))
        model.fit(matrix[train], users.labels[train])
        place = np.full(len(users), -1, dtype=np.intp)
        place[train] = np.arange(len(train))
        return lambda rows, enabled: model.predict_proba(matrix[rows], enabled, training_rows=place[rows])


def input_columns(algorithm: str) -> tuple[str, ...]:
    """Return the features that an algorithm looks at: the neighbour model at the promised ten, all others at all."""
    return SIMILARITY_FEATURES if algorithm == KNN else FEATURES


def select(
    users: Population,
    alert_columns: Sequence[str],
    *,
    earlier: Population | None = None,
    in_force: InForce | None = None,
    recipe: Recipe | None = None,
    progress: Progress = lambda *_: None,
) -> Selection | None:
    """Judge the candidates and choose one.

    Parameters
    ----------
    users : Population
        As they are now.
    earlier : Population, optional
        The same users, row by row, as they were at a moment before: for the split in time.

    Returns
    -------
    Selection or None
        None where too few users have an alert to judge anything by.
    """
    recipe = recipe or Recipe()
    if not gates.enough_data(int(users.labels.any(axis=1).sum())).passed:
        return None
    rng = np.random.default_rng(recipe.random_state)
    parts = _parts(len(users), rng)
    trial = _among(leave_one_out(users.labels, rng), parts)
    if not gates.enough_data(len(trial)).passed:
        return None
    since = None if in_force is None else _among(split_in_time(in_force.before, users.labels), parts)
    tried = [name for name in CANDIDATES if len(trial) >= FEWEST_JUDGED.get(name, 0) and name not in recipe.without]
    names = [POPULARITY, *tried]
    judged, judged_since, calibrations = {}, {}, {}
    for number, name in enumerate(names):
        progress(f"judging {name}", number, len(names))
        said, said_since = _ask_held_out(recipe, name, users, parts, [trial, since])
        calibrations[name] = _calibration(said, trial)
        judged[name] = judge(calibrations[name].apply(said), trial, users.labels.mean(axis=0))
        if since is not None and len(since) >= MIN_LATER:
            judged_since[name] = judge(calibrations[name].apply(said_since), since, users.labels.mean(axis=0))
    chosen = _simplest_of_the_best(judged, rng)
    in_time, leaks_in_time = _in_time(recipe, users, earlier, chosen, calibrations, alert_columns, rng)
    report: dict[str, Any] = {
        "n_users": len(users),
        "n_enabled": dict(zip(alert_columns, users.labels.sum(axis=0).tolist(), strict=True)),
        "algorithm": chosen,
        "protocols": {
            "leave_one_out": {
                "n_users": len(trial),
                "n_folds": len(parts),
                **_models_report(judged, chosen, alert_columns, rng),
            },
            "split_in_time": in_time,
        },
        "groups": by_group(judged[chosen], _of_trial(users.groups, trial), rng),
        "ablation": _ablation(recipe, users, parts, trial, judged, rng, progress),
        "leaks": leaks_in_time
        + find_leaks(users.matrix(FEATURES)[trial.rows], trial.wanted, FEATURES, alert_columns, enabled=trial.enabled),
        "drift": _drift(users, in_force),
    }
    checks = _gates(judged[chosen], report, in_force, alert_columns)
    if in_force is not None:
        assert since is not None
        checks.append(_beats_champion(in_force, users, since, judged_since.get(chosen), rng))
    report["leaks"] = [vars(leak) for leak in report["leaks"]]
    report["gates"] = [gate.to_json() for gate in checks]
    return Selection(chosen, recipe.parameters.get(chosen, {}), calibrations[chosen], checks, report)


def _parts(n_users: int, rng: np.random.Generator) -> Parts:
    return folds(n_users, 3, rng) if n_users <= MAX_CROSS_FITTED else folds(n_users, 5, rng)[:1]


def _among(trial: Trial, parts: Parts) -> Trial:
    """Return the trial without users whom no part holds out."""
    kept = np.isin(trial.rows, np.concatenate([test for _, test in parts]))
    return Trial(trial.rows[kept], trial.enabled[kept], trial.wanted[kept])


def _ask_held_out(
    recipe: Recipe,
    name: str,
    users: Population,
    parts: Parts,
    trials: Sequence[Trial | None],
    columns: Sequence[str] | None = None,
) -> list[ScoreMatrix]:
    """Return what a model says of the users of each trial, each asked where it was fitted without them."""
    said = [np.zeros(trial.enabled.shape if trial is not None else (0, 0)) for trial in trials]
    for train, test in parts:
        ask = recipe.fit(name, users, train, columns)
        for trial, answers in zip(trials, said, strict=True):
            if trial is not None:
                mine = np.isin(trial.rows, test)
                answers[mine] = ask(trial.rows[mine], trial.enabled[mine])
    return said


def _calibration(said: ScoreMatrix, trial: Trial) -> Calibration:
    users, alerts = np.nonzero(~trial.enabled)
    return Calibration.fit(said[users, alerts], trial.wanted[users, alerts], users)


def _simplest_of_the_best(judged: Mapping[str, Judgement], rng: np.random.Generator) -> str:
    """Return the first candidate whose log-loss noise cannot tell from the least."""
    candidates = [name for name in CANDIDATES if name in judged]
    best = min(candidates, key=lambda name: judged[name].values()["log_loss"])
    return next(
        name for name in candidates if name == best or compare(judged[name], judged[best], "log_loss", rng)["low"] <= 0
    )


def _models_report(
    judged: Mapping[str, Judgement], chosen: str, alert_columns: Sequence[str], rng: np.random.Generator
) -> dict[str, Any]:
    shown = {
        name: {
            "metrics": summarise(each, rng),
            "calibrated": True,
            "reliability": reliability(each.probabilities[~each.trial.enabled], each.trial.wanted[~each.trial.enabled]),
            **({"by_alert": by_alert(each, alert_columns)} if name == chosen else {}),
        }
        for name, each in judged.items()
    }
    comparisons = [
        {"model": chosen, "against": other, "metric": metric, **compare(judged[chosen], judged[other], metric, rng)}
        for other in (POPULARITY, KNN)
        if other in judged and other != chosen
        for metric in ("log_loss", "mrr")
    ]
    return {"models": shown, "comparisons": comparisons}


def _in_time(
    recipe: Recipe,
    users: Population,
    earlier: Population | None,
    chosen: str,
    calibrations: Mapping[str, Calibration],
    alert_columns: Sequence[str],
    rng: np.random.Generator,
) -> tuple[dict[str, Any], list[Any]]:
    """Fit on the users as they were, judge on what they enabled after; return the report, and what leaks."""
    if earlier is None:
        return {"skipped": "no earlier state of the rules was given"}, []
    active = np.flatnonzero(earlier.matrix(["amount_count"])[:, 0] > 0)
    trial = split_in_time(earlier.labels, users.labels)
    kept = np.isin(trial.rows, active)
    trial = Trial(trial.rows[kept], trial.enabled[kept], trial.wanted[kept])
    if not earlier.labels[active].any():
        return {"skipped": "nobody had an alert then"}, []
    if len(trial) < MIN_LATER:
        return {"skipped": f"{len(trial)} users enabled an alert after it; at least {MIN_LATER} are needed"}, []
    judged = {}
    for name in dict.fromkeys((POPULARITY, KNN, chosen)):
        said = recipe.fit(name, earlier, active)(trial.rows, trial.enabled)
        judged[name] = judge(calibrations[name].apply(said), trial, earlier.labels[active].mean(axis=0))
    features = earlier.matrix(FEATURES)[trial.rows]
    leaks = find_leaks(features, trial.wanted, FEATURES, alert_columns, enabled=trial.enabled)
    return {"n_users": len(trial), **_models_report(judged, chosen, alert_columns, rng)}, leaks


def _ablation(
    recipe: Recipe,
    users: Population,
    parts: Parts,
    trial: Trial,
    judged: Mapping[str, Judgement],
    rng: np.random.Generator,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Return what each group of features beyond the promised ten gains, by leaving it out of the linear model."""
    if LINEAR not in judged:
        return []
    beyond = {
        group: [name for name in names if name not in SIMILARITY_FEATURES] for group, names in FEATURE_GROUPS.items()
    }
    wanted = {group: names for group, names in beyond.items() if names}
    wanted["all beyond the ten"] = [name for names in beyond.values() for name in names]
    found = []
    for number, (group, without) in enumerate(wanted.items()):
        progress("ablating", number, len(wanted))
        columns = [name for name in FEATURES if name not in without]
        (said,) = _ask_held_out(recipe, LINEAR, users, parts, [trial], columns)
        other = judge(_calibration(said, trial).apply(said), trial, judged[LINEAR].popularity)
        difference = compare(other, judged[LINEAR], "log_loss", rng)
        found.append(
            {"features": group, "columns": without, "log_loss_without": other.values()["log_loss"], **difference}
        )
    return found


def _drift(users: Population, in_force: InForce | None) -> dict[str, float] | None:
    profile = in_force.model.card.get("feature_profile") if in_force is not None else None
    if not profile:
        return None
    both = [name for name in FEATURES if name in profile]  # a release may have added features since
    return population_stability(profile, users.matrix(both), both)


def _gates(
    best: Judgement, report: Mapping[str, Any], in_force: InForce | None, alert_columns: Sequence[str]
) -> list[Gate]:
    metrics = report["protocols"]["leave_one_out"]["models"][report["algorithm"]]["metrics"]
    error = metrics["calibration_error"]
    found = [
        gates.enough_data(len(best.trial)),
        gates.no_alert_collapsed(best.offered, best.trial.wanted, best.trial.enabled, alert_columns),
        gates.calibrated(error["value"], error["low"]),
        gates.no_group_harmed(report["groups"], metrics["log_loss"]["value"]),
        gates.no_leak(report["leaks"]),
    ]
    if in_force is not None and report["drift"] is not None:
        names = drifted(report["drift"], int(in_force.model.card["n_users"]), int(report["n_users"]))
        found.append(gates.no_drift(report["drift"], names))
    return found


def _beats_champion(
    in_force: InForce, users: Population, since: Trial, new: Judgement | None, rng: np.random.Generator
) -> Gate:
    """Compare on what users enabled since the champion was trained, which neither of the two has seen.

    All models are judged without what customers answered to offers, the champion too: an offer that was taken since is
    also an alert that was enabled since, so that shifts learnt from it would have seen the outcome. They ride along
    with what wins. The same goes for all other gates: leave-one-out tells what users have, and not what they would
    answer, so that it can neither prove nor disprove a shift; what holds a shift in bounds is its prior.
    """
    if new is None:
        few = f"{len(since)} users enabled an alert since {CHAMPION} was trained, too few to tell the two apart"
        return Gate(f"beats_{CHAMPION}", False, len(since), MIN_LATER, f"{few} by {MIN_LATER - len(since)}")
    rows = users.features[since.rows.tolist()]
    scores = in_force.model.score(rows, since.enabled, known=np.ones(len(since), dtype=bool))
    old = judge(in_force.model.scorer.calibration.unshifted(scores.probabilities), since, new.popularity)
    return gates.beats(compare(new, old, "log_loss", rng), CHAMPION)


def _of_trial(groups: Mapping[str, Sequence[str | None]], trial: Trial) -> dict[str, list[str | None]]:
    return {name: [members[row] for row in trial.rows.tolist()] for name, members in groups.items()}
