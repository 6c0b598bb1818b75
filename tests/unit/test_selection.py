from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from alertrec import judging
from alertrec.catalog import ALERT_KEYS
from alertrec.drift import profile
from alertrec.errors import ConfigError
from alertrec.evaluation.metrics import Judgement, judge
from alertrec.evaluation.protocols import Trial
from alertrec.feature_engineering import FEATURES, SIMILARITY_FEATURES
from alertrec.feedback import Answers, shifts
from alertrec.gates import Gate
from alertrec.judging import Judged, fit_model
from alertrec.models.boosting import load_lightgbm
from alertrec.recommender import AlertRecommenderModel
from alertrec.reporting import render_page, render_tables
from alertrec.selection import (
    CANDIDATES,
    FEWEST_JUDGED,
    InForce,
    Population,
    Recipe,
    Selection,
    _simplest_of_the_best,
    input_columns,
    select,
)
from tests.unit.populations import N_ALERTS, draw, random_values, users_frame

AS_OF = datetime(2026, 3, 15, 12, tzinfo=UTC)
# The feature that each alert hangs on: amounts, and others that the neighbour model does not look at.
REASONS = tuple(FEATURES.index(name) for name in (
    "amount_mean", "amount_std", "credit_limit", "credit_balance",
    "night_share", "weekend_share", "out_of_state_share", "spending_trend_30d",
))  # fmt: skip


def population(n_users: int, *, strength: float = 2.0, seed: int = 0) -> Population:
    """Return users each of whose alerts hangs on one feature, whose log-odds rise by `strength` a deviation."""
    rng = np.random.default_rng(seed)
    values = random_values(n_users, rng)
    return Population(users_frame(values), draw(strength * values[:, REASONS] - 0.5, rng))


def few_judged(n_judged: int, n_users: int) -> Population:
    """Return users of whom so many have an alert, one each, as like as not any."""
    labels = np.zeros((n_users, N_ALERTS), dtype=bool)
    labels[np.arange(n_judged), np.arange(n_judged) % N_ALERTS] = True
    return replace(population(n_users), labels=labels)


def changed(users: Population, **columns: NDArray[np.float64]) -> Population:
    """Return the same users with other values of some features."""
    series = [pl.Series(name, values.astype(float)) for name, values in columns.items()]
    return replace(users, features=users.features.with_columns(series))


def before(users: Population, seed: int = 1) -> Population:
    """Return the same users as they were when about half of their alerts were not on yet."""
    kept = np.random.default_rng(seed).random(users.labels.shape) < 0.5
    return replace(users, labels=users.labels & kept)


def chosen(users: Population, **options: Any) -> Selection:
    selection = select(users, ALERT_KEYS, **options)
    assert selection is not None
    return selection


def gate(selection: Selection, name: str) -> Gate:
    (found,) = [each for each in selection.gates if each.name == name]
    return found


def loss(selection: Selection, name: str) -> float:
    models = selection.report["protocols"]["leave_one_out"]["models"]
    return float(models[name]["metrics"]["log_loss"]["value"])


STRONG = population(150)


@cache
def of_strong() -> Selection:
    """The choice for users whose behaviour tells a lot, half of whose alerts came since a moment before."""
    groups = {"home_state": [("NY", "CA", None)[row % 3] for row in range(len(STRONG))]}
    return chosen(replace(STRONG, groups=groups), earlier=before(STRONG))


# Who is chosen.


def test_what_behaviour_tells_is_found_and_beats_popularity_and_the_neighbours_beyond_noise():
    selection = of_strong()
    assert selection.algorithm == selection.report["algorithm"] == "linear"
    for protocol in ("leave_one_out", "split_in_time"):
        found = selection.report["protocols"][protocol]["comparisons"]
        losses = {each["against"]: each for each in found if each["metric"] == "log_loss"}
        assert set(losses) == {"popularity", "knn"}
        assert all(each["high"] < 0 for each in losses.values()), protocol
    assert all(each.passed for each in selection.gates)


def judgement(gain: NDArray[np.float64]) -> Judgement:
    """Return one of as many users, each told so much more of the one of two alerts that they want; in nats a cell."""
    wanted = np.arange(2) == np.arange(len(gain))[:, None] % 2
    trial = Trial(np.arange(len(gain)), np.zeros_like(wanted), wanted)
    said = 0.5 * np.exp(gain)[:, None]
    return judge(np.where(wanted, said, 1 - said), trial, np.full(2, 0.5))


def test_of_models_that_noise_cannot_tell_apart_the_simplest_is_chosen():
    nothing, noise = np.zeros(100), np.resize([0.3, -0.3], 100)
    judged = {
        "popularity": judgement(nothing + 0.5),  # the baseline is no candidate
        "knn": judgement(nothing),  # worse than the best for each and every user
        "linear": judgement(nothing + 0.2 + noise),  # better than the best for one half, worse for the other
        "cooccurrence": judgement(nothing + 0.1),
        "ensemble": judgement(nothing + 0.21),  # the best
    }
    losses = {name: each.values()["log_loss"] for name, each in judged.items()}
    assert losses["ensemble"] == pytest.approx(np.log(2) - 0.21)
    assert min(losses["knn"], losses["cooccurrence"]) > losses["linear"] > losses["ensemble"]

    def best_of(*names: str) -> str:
        return _simplest_of_the_best({name: judged[name] for name in names}, np.random.default_rng(0))

    assert best_of(*judged) == "linear"
    assert best_of("knn", "cooccurrence", "ensemble") == "ensemble"
    assert best_of("ensemble", "cooccurrence", "knn") == "ensemble"
    assert best_of("popularity", "knn") == "knn"


def test_what_few_users_cannot_prove_many_can():
    few = chosen(population(40, strength=1.2, seed=3))
    assert few.algorithm == "knn"
    assert loss(few, "linear") < loss(few, "knn")
    assert chosen(population(180, strength=1.2, seed=3)).algorithm == "linear"


class StoppedError(Exception):
    """Raised once the candidates are known."""


@pytest.mark.parametrize(
    ("n_judged", "expected"),
    [
        (10, ["knn"]),
        (29, ["knn"]),
        (30, ["knn", "linear", "cooccurrence"]),
        (199, ["knn", "linear", "cooccurrence"]),
        (200, list(CANDIDATES)),
    ],
)
def test_candidates_are_tried_from_the_fewest_judged_users_on(n_judged: int, expected: list[str]):
    assert [name for name in CANDIDATES if n_judged >= FEWEST_JUDGED.get(name, 0)] == expected
    counts = []

    def stop(step: str, done: int, of: int) -> None:
        counts.append(of)
        raise StoppedError

    with pytest.raises(StoppedError):  # before anything is fitted
        select(few_judged(n_judged, 220), ALERT_KEYS, progress=stop)
    assert counts == [1 + len(expected)]  # and popularity, which is the baseline


def test_few_judged_users_are_judged_by_the_neighbours_beside_popularity():
    steps = []
    selection = chosen(few_judged(12, 40), progress=lambda step, *_: steps.append(step))
    assert steps == ["judging popularity", "judging knn"]
    assert selection.algorithm == "knn"
    assert list(selection.report["protocols"]["leave_one_out"]["models"]) == ["popularity", "knn"]
    assert selection.report["ablation"] == []
    assert selection.report["n_users"] == 40


def test_of_too_few_judged_users_nothing_is_said():
    assert select(few_judged(9, 40), ALERT_KEYS) is None
    assert select(few_judged(0, 40), ALERT_KEYS) is None
    assert select(few_judged(10, 40), ALERT_KEYS) is not None


def test_the_parameters_of_the_recipe_are_those_that_are_fitted_and_reported():
    users = few_judged(25, 40)
    parameters = {"knn": {"n_neighbors": 7, "smoothing": 3.0}}
    selection = chosen(users, recipe=Recipe(parameters))
    assert (selection.algorithm, dict(selection.parameters)) == ("knn", parameters["knn"])
    others = chosen(users, recipe=Recipe({"knn": {"n_neighbors": 2, "smoothing": 0.5}}))
    assert loss(selection, "knn") != loss(others, "knn")


def test_a_recipe_asks_a_model_about_users_that_it_was_not_fitted_on():
    users, train = population(40), np.arange(0, 40, 2)
    # Alone in having it: whoever were their own neighbour would be told that one of five has it.
    users.labels[:, 7] = np.arange(40) == 0
    ask = Recipe({"knn": {"smoothing": 0.0}}).fit("knn", users, train)
    answers = ask(np.arange(40), users.labels)
    assert answers[0, 7] == 0
    assert answers[1::2, 7].max() == 0.2


def test_the_neighbours_look_at_the_promised_ten_and_others_at_all_features():
    assert input_columns("knn") == SIMILARITY_FEATURES
    assert {input_columns(name) for name in CANDIDATES if name != "knn"} == {FEATURES}


def test_the_choice_is_fitted_on_everybody_and_calibrated():
    selection = of_strong()
    model = fit_model(STRONG, Judged({"n_neighbors": 5}, selection, has_champion=False, n_judged=150))
    assert (model.card["algorithm"], model.input_columns) == ("linear", FEATURES)
    assert (model.scorer.n_users, model.card["neighbours"]) == (150, {"n_neighbors": 5})
    assert model.scorer.calibration == selection.calibration
    nothing = fit_model(STRONG, Judged({"n_neighbors": 3}, None, has_champion=False, n_judged=0))
    assert (nothing.card["algorithm"], nothing.card["parameters"]) == ("knn", {"n_neighbors": 3})


def test_what_features_beyond_the_ten_gain_is_told_by_leaving_them_out():
    found = {each["features"]: each for each in of_strong().report["ablation"]}
    everything = found.pop("all beyond the ten")
    assert set(everything["columns"]) == set(FEATURES) - set(SIMILARITY_FEATURES)
    assert sorted(name for each in found.values() for name in each["columns"]) == sorted(everything["columns"])
    assert everything["low"] > 0  # four alerts hang on some of them
    assert found["times of day and week"]["low"] > 0
    assert found["recurring charges"]["low"] <= 0 < everything["log_loss_without"]


# What is refused.


def test_a_feature_that_knows_the_label_is_caught():
    users = few_judged(28, 40)
    users.labels[:28] = np.arange(N_ALERTS) == np.arange(28)[:, None] % 2
    selection = chosen(changed(users, recurring_price_rise=users.labels[:, 0]))
    refused = gate(selection, "no_leak")
    assert (refused.passed, refused.measured) == (False, 1.0)
    # Of these 28 who have one alert each, it tells both those who want the first and those who want the second.
    assert selection.report["leaks"] == [
        {"feature": "recurring_price_rise", "alert": key, "auc": 1.0, "n": 28} for key in sorted(ALERT_KEYS[:2])
    ]
    assert f"recurring_price_rise alone tells {ALERT_KEYS[0]} (AUC 1.000, 28 users)" in refused.message


@pytest.mark.parametrize("knows", ["what came", "how things stood in the end"])
def test_a_feature_that_knows_what_is_enabled_later_is_caught_in_the_split_in_time(knows: str):
    # Five of 29 had the third alert then, and switched the fourth on; of the other 24, half switched the third on, and
    # half the fourth.
    then, now = np.zeros((29, N_ALERTS), dtype=bool), np.zeros((29, N_ALERTS), dtype=bool)
    then[:, 1] = True
    had, came = np.arange(29) < 5, np.arange(29) % 2 == 0
    then[had, 2] = True
    now |= then
    now[~had & came, 2] = now[had | ~came, 3] = True
    users = replace(population(29), labels=now)
    tells = now[:, 2] & ~then[:, 2] if knows == "what came" else now[:, 2]
    honest = Population(population(29).features, then)
    assert chosen(users, earlier=honest).report["leaks"] == []
    selection = chosen(users, earlier=changed(honest, recurring_price_rise=tells))
    refused = gate(selection, "no_leak")
    assert (refused.passed, refused.measured) == (False, 1.0)
    found = [each for each in selection.report["leaks"] if each["alert"] == ALERT_KEYS[2]]
    assert found == [{"feature": "recurring_price_rise", "alert": ALERT_KEYS[2], "auc": 1.0, "n": 24}]


def test_strong_but_honest_features_are_no_leak():
    users = population(150, strength=3.0)
    selection = chosen(users, earlier=before(users))
    assert gate(selection, "no_leak").passed
    assert selection.report["leaks"] == []
    assert selection.algorithm == "linear"


NOBODY = np.zeros((40, N_ALERTS), dtype=bool)


@pytest.mark.parametrize(
    "earlier",
    [
        None,
        few_judged(25, 40),
        replace(few_judged(25, 40), labels=NOBODY),
        changed(few_judged(10, 40), amount_count=np.zeros(40)),
    ],
    ids=["not given", "nothing was enabled since", "nothing was enabled then", "nobody had purchases then"],
)
def test_without_what_it_needs_there_is_no_split_in_time(earlier: Population | None):
    report = chosen(few_judged(25, 40), earlier=earlier).report
    assert set(report["protocols"]["split_in_time"]) == {"skipped"}
    assert report["leaks"] == []


@pytest.mark.parametrize(("n_then", "n_since"), [(15, 10), (16, None), (1, 24)])
def test_a_split_in_time_is_of_those_who_enabled_something_since(n_then: int, n_since: int | None):
    report = chosen(few_judged(25, 40), earlier=few_judged(n_then, 40)).report
    assert report["protocols"]["split_in_time"].get("n_users") == n_since


def test_who_had_no_purchases_then_is_not_judged_in_the_split_in_time():
    count = np.where(np.arange(40) < 12, 0.0, 5.0)
    then = few_judged(1, 40)
    then.labels[30, 0] = True  # of one who has since switched it off, and had purchases
    report = chosen(few_judged(25, 40), earlier=changed(then, amount_count=count)).report
    assert report["protocols"]["split_in_time"]["n_users"] == 25 - 12


def test_an_alert_that_many_want_and_nobody_is_offered_is_refused():
    labels = np.zeros((60, N_ALERTS), dtype=bool)
    # One alert each; of the four, the three that most have are offered to everybody.
    labels[np.arange(60), np.repeat(np.arange(4), [20, 17, 16, 7])] = True
    users = replace(population(60), labels=labels)
    only_neighbours = Recipe({"knn": {"smoothing": 1e9}, "linear": {"penalty": 1e9}, "cooccurrence": {"ridge": 1e9}})
    refused = gate(chosen(users, recipe=only_neighbours), "no_alert_collapsed")
    assert not refused.passed
    assert refused.message == f"{ALERT_KEYS[3]} is never offered, though 7 of 60 users want it"


def test_a_group_that_is_served_much_worse_is_refused_by_name():
    # Most have one alert of eight, which is hidden: with 1/8 for each, -(ln 1/8 + 7 ln 7/8) / 8 = 0.377 a cell. Every
    # fourth has six, so that of three that could be the hidden one each has 1/3: 0.637 a cell.
    rng = np.random.default_rng(0)
    labels = np.arange(N_ALERTS) == rng.integers(0, N_ALERTS, 120)[:, None]
    many = np.arange(120) % 4 == 0
    labels[many] = rng.permuted(np.tile(np.arange(N_ALERTS) < 6, (30, 1)), axis=1)
    groups = {"home_state": ["TX" if each else "NY" for each in many.tolist()]}
    selection = chosen(Population(population(120).features, labels, groups))
    refused = gate(selection, "no_group_harmed")
    assert not refused.passed
    assert "the log-loss of home_state=TX is " in refused.message
    assert "NY" not in refused.message
    assert gate(of_strong(), "no_group_harmed").passed


def champion(users: Population, algorithm: str = "popularity", **options: Any) -> AlertRecommenderModel:
    model = AlertRecommenderModel().fit(
        users.features, users.labels, algorithm=algorithm, input_columns=input_columns(algorithm), **options
    )
    model.card["feature_profile"] = profile(users.matrix(FEATURES), FEATURES)
    return model


def test_users_who_no_longer_look_like_those_in_training_are_refused():
    users = few_judged(20, 150)
    values = users.features["credit_limit"].to_numpy()
    shifted = changed(users, credit_limit=values + 3, night_share=values * 0 + 9)
    in_force = InForce(champion(shifted), users.labels)
    selection = chosen(users, in_force=in_force)
    refused = gate(selection, "no_drift")
    assert not refused.passed
    drift = selection.report["drift"]
    assert set(drift) == set(FEATURES)
    assert drift["credit_limit"] > 1
    for name in ("credit_limit", "night_share"):
        assert f"population stability index {drift[name]:.3f} of {name} is above the bound 0.25 by" in refused.message
    assert "weekend_share" not in refused.message
    assert refused.measured == max(drift.values())


def test_users_who_look_as_in_training_have_not_drifted():
    users = few_judged(20, 150)
    selection = chosen(users, in_force=InForce(champion(users), users.labels))
    assert gate(selection, "no_drift").passed
    assert set(selection.report["drift"].values()) == {0.0}


def test_without_a_profile_on_the_champions_card_drift_is_not_measured():
    users = few_judged(20, 40)
    model = champion(users)
    del model.card["feature_profile"]
    selection = chosen(users, in_force=InForce(model, users.labels))
    assert selection.report["drift"] is None
    assert "no_drift" not in {each.name for each in selection.gates}


@pytest.mark.parametrize("n_since", [0, 9])
def test_a_champion_stays_while_few_have_enabled_an_alert_since(n_since: int):
    users = few_judged(25, 40)
    then = few_judged(25 - n_since, 40)
    refused = gate(chosen(users, in_force=InForce(champion(then), then.labels)), "beats_champion")
    assert (refused.passed, refused.measured, refused.bound) == (False, n_since, 10)
    assert refused.message.startswith(f"{n_since} users enabled an alert since champion was trained")
    assert refused.message.endswith(f"by {10 - n_since}")


def test_ten_who_enabled_an_alert_since_are_enough_to_compare_by():
    then = few_judged(15, 40)
    found = gate(chosen(few_judged(25, 40), in_force=InForce(champion(then), then.labels)), "beats_champion")
    assert found.bound == 0
    assert "the log-loss is" in found.message


def test_a_champion_that_knows_nothing_is_beaten_by_what_was_enabled_since():
    then = before(STRONG)
    passed = gate(chosen(STRONG, in_force=InForce(champion(then), then.labels)), "beats_champion")
    assert passed.passed
    assert passed.measured is not None
    assert passed.measured < 0


def test_a_champion_that_is_as_good_stays():
    # Fitted on what came since as well: nobody who has not seen it can do better.
    model = champion(STRONG, "linear", calibration=of_strong().calibration)
    selection = chosen(STRONG, in_force=InForce(model, before(STRONG).labels))
    refused = gate(selection, "beats_champion")
    assert not refused.passed
    assert refused.measured is not None
    assert f"{refused.measured:+.4f}" in refused.message
    assert [each.name for each in selection.gates if not each.passed] == ["beats_champion"]


def test_what_customers_answered_to_its_offers_neither_helps_nor_harms_a_champion():
    then = before(STRONG)
    plain = champion(then, calibration=of_strong().calibration)
    calibration = of_strong().calibration.with_shifts(np.linspace(-2, 2, N_ALERTS))
    found, expected = (
        gate(chosen(STRONG, in_force=InForce(model, then.labels)), "beats_champion")
        for model in (champion(then, calibration=calibration), plain)
    )
    assert found.measured == pytest.approx(expected.measured, abs=1e-9)
    assert found.passed == expected.passed


def answers_of(*, taken: dict[int, int], n_answers: int = 40) -> Answers:
    """Return so many answers to offers of each of some alerts, all promised a half."""
    alerts = np.repeat(np.array(list(taken), dtype=np.intp), n_answers)
    is_taken = np.concatenate([np.arange(n_answers) < n_taken for n_taken in taken.values()])
    return Answers(alerts, np.full(len(alerts), 0.5), is_taken, np.zeros(len(alerts)))


@pytest.mark.parametrize("selection", [of_strong, lambda: None], ids=["judged", "not judged"])
def test_what_customers_answered_moves_what_is_served_and_nothing_that_was_judged(
    selection: Callable[[], Selection | None],
):
    answers = answers_of(taken={0: 30, 3: 10})
    plain = Judged({"n_neighbors": 5}, selection(), has_champion=False, n_judged=150)
    judged = replace(plain, answers=answers)
    found = judged.calibration
    np.testing.assert_array_equal(found.shifts, shifts(answers, N_ALERTS))
    assert found.shifts[0] > 0 > found.shifts[3]
    assert replace(found, shifts=()) == plain.calibration
    assert fit_model(STRONG, judged).scorer.calibration == found
    assert (judged.metrics, judged.gates) == (plain.metrics, plain.gates)
    with_answers, without = (each.report(as_of=AS_OF, created_at=AS_OF) for each in (judged, plain))
    assert with_answers.pop("answers") == {
        ALERT_KEYS[0]: {"n_answers": 40, "n_taken": 30, "shift": found.shifts[0]},
        ALERT_KEYS[3]: {"n_answers": 40, "n_taken": 10, "shift": found.shifts[3]},
    }
    assert with_answers == without


def test_a_champion_is_not_its_users_own_neighbour():
    # Who remembers each user with what they enabled since would foretell it by themselves, were they their own
    # neighbour: k = 1 on the labels of now, shown as those of then.
    users = population(28, strength=0.0)
    model = AlertRecommenderModel().fit(users.features, users.labels, neighbours={"n_neighbors": 1, "smoothing": 0.01})
    found = gate(chosen(users, in_force=InForce(model, before(users).labels)), "beats_champion")
    assert found.passed


# Refusals of a training.


DRIFTED = Gate("no_drift", False, 0.5, 0.25, "drifted")
NOT_BETTER = Gate("beats_champion", False, 0.0, 0.0, "not better")
GOOD = Gate("no_leak", True, None, None, "good")


def test_force_replaces_the_champion_unless_the_model_itself_is_at_fault():
    names = ("no_leak", "no_alert_collapsed", "calibrated", "no_group_harmed")
    faults = [replace(GOOD, name=name, passed=False) for name in names]
    selection = replace(of_strong(), gates=[GOOD, *faults, DRIFTED, NOT_BETTER])
    judged = Judged({}, selection, has_champion=True, n_judged=150)
    assert judged.refusals(force=False) == [*faults, DRIFTED, NOT_BETTER]
    assert judged.refusals(force=True) == faults
    sound = replace(judged, selection=replace(selection, gates=[GOOD, DRIFTED, NOT_BETTER]))
    assert [each.name for each in sound.refusals(force=False)] == ["no_drift", "beats_champion"]
    assert sound.refusals(force=True) == []


@pytest.mark.parametrize("n_judged", [0, 9])
def test_what_nobody_could_judge_serves_only_by_force_or_where_there_is_no_champion(n_judged: int):
    for force in (False, True):
        assert Judged({}, None, has_champion=False, n_judged=n_judged).refusals(force=force) == []
    judged = Judged({}, None, has_champion=True, n_judged=n_judged)
    (refused,) = judged.refusals(force=False)
    assert (refused.name, refused.measured) == ("enough_data", n_judged)
    assert judged.refusals(force=True) == []


def test_a_champion_stays_where_too_few_are_held_out_of_many_users():
    # Of more than 10,000 users a fifth is held out: of 15 with an alert, some 3, by which nothing can be judged.
    users = few_judged(15, 10_001)
    assert select(users, ALERT_KEYS) is None
    assert Judged({}, None, has_champion=True, n_judged=15).refusals(force=False) != []


def test_what_was_judged_has_figures_and_what_was_not_has_none():
    judged = Judged({}, of_strong(), has_champion=False, n_judged=150)
    assert judged.algorithm == "linear"
    assert judged.calibration == of_strong().calibration
    assert judged.metrics["log_loss"]["value"] == loss(of_strong(), "linear")
    nothing = Judged({}, None, has_champion=False, n_judged=0)
    assert (nothing.algorithm, nothing.metrics) == ("knn", {})


# The report.


def reported(selection: Selection | None, split_at: datetime | None = None) -> dict[str, Any]:
    judged = Judged({}, selection, has_champion=False, n_judged=7, split_at=split_at)
    content = judged.report(as_of=AS_OF, created_at=AS_OF)
    assert json.loads(json.dumps(content, allow_nan=False)) == content  # nothing but what JSON knows
    return content


def test_a_report_is_shown_as_a_page_and_as_tables():
    content = reported(of_strong(), split_at=AS_OF)
    assert content["protocols"]["split_in_time"]["split_at"] == AS_OF.isoformat()
    assert set(content["groups"]["home_state"]) == {"NY", "CA", "unknown"}
    page = render_page(content)
    for expected in ("linear", "unknown", *ALERT_KEYS[:2]):
        assert expected in page
    assert render_tables(content)


@pytest.mark.parametrize("case", ["few users", "with a champion", "with leaks", "not judged"])
def test_reports_of_every_outcome_can_be_shown(case: str):
    few = few_judged(28, 40)
    few.labels[:28] = np.arange(N_ALERTS) == np.arange(28)[:, None] % 2
    selection = {
        "few users": lambda: chosen(few),
        "with a champion": lambda: chosen(few, in_force=InForce(champion(few), few.labels & False)),
        "with leaks": lambda: chosen(changed(few, recurring_price_rise=few.labels[:, 0])),
        "not judged": lambda: None,
    }[case]()
    content = reported(selection)
    assert render_page(content)
    assert render_tables(content)


def test_an_alert_that_everybody_or_nobody_has_can_be_reported():
    users = population(28)
    users.labels[:, 0], users.labels[:, 1] = True, False
    content = reported(chosen(users, earlier=before(users), in_force=InForce(champion(users), users.labels & False)))
    assert (content["n_enabled"][ALERT_KEYS[0]], content["n_enabled"][ALERT_KEYS[1]]) == (28, 0)
    assert render_page(content)


def test_the_same_users_give_the_same_report_and_another_seed_another():
    users = few_judged(25, 60)
    in_force = InForce(champion(users), users.labels & False)

    def report(random_state: int) -> str:
        found = chosen(users, earlier=before(users), in_force=in_force, recipe=Recipe(random_state=random_state))
        return json.dumps(found.report)

    assert report(0) == report(0)
    assert report(0) != report(1)


def test_select_changes_nothing_that_it_is_given():
    users, then = population(28), before(population(28))
    copies = users.features.clone(), users.labels.copy(), then.labels.copy()
    chosen(users, earlier=then, in_force=InForce(champion(then), then.labels))
    assert users.features.equals(copies[0])
    np.testing.assert_array_equal(users.labels, copies[1])
    np.testing.assert_array_equal(then.labels, copies[2])


def test_candidates_that_cannot_be_fitted_here_are_left_out():
    users = population(250, seed=3)
    found = chosen(users, recipe=Recipe(without=frozenset({"boosting", "neural", "ensemble"})))
    judged = found.report["protocols"]["leave_one_out"]["models"]
    assert set(judged) == {"popularity", "knn", "linear", "cooccurrence"}


@pytest.fixture
def no_libgomp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lightgbm.py").write_text('raise OSError("libgomp.so.1: cannot open shared object file")\n')
    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_where_the_system_lacks_what_lightgbm_needs_the_error_says_what_to_install(no_libgomp: None):
    with pytest.raises(ConfigError, match=r"libgomp\.so\.1.*libgomp1"):
        load_lightgbm()


def test_a_training_goes_on_without_what_cannot_be_loaded(no_libgomp: None, caplog: pytest.LogCaptureFixture):
    assert judging._not_available(FEWEST_JUDGED["boosting"]) == {"boosting", "ensemble"}
    assert "libgomp1" in caplog.text
    assert judging._not_available(FEWEST_JUDGED["boosting"] - 1) == frozenset()
