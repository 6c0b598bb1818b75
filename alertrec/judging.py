"""A training's choice: candidates judged on the data that was read, against the champion in force."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from alertrec import feedback, gates
from alertrec.calibration import Calibration
from alertrec.catalog import ALERT_KEYS
from alertrec.errors import ConfigError, ModelStoreError
from alertrec.feature_engineering import FEATURES
from alertrec.feedback import Answered, Answers
from alertrec.gates import Gate
from alertrec.ledger import Floats
from alertrec.models.boosting import load_lightgbm
from alertrec.recommender import AlertRecommenderModel
from alertrec.selection import (
    CHAMPION,
    FEWEST_JUDGED,
    KNN,
    InForce,
    Population,
    Progress,
    Recipe,
    Selection,
    input_columns,
    select,
)
from alertrec.storage import jobs, models
from alertrec.training_data import FROM_RULES, TrainingData, read_earlier, read_training_data
from alertrec.workspace import Workspace

logger = logging.getLogger(__name__)

DEFAULT_NEIGHBORS = 5
# Days before the moment of training at which the split in time is made, where there is no champion to ask when it was.
SPLIT_DAYS = 30
REPORT_FORMAT = 1
PASSED_BY_FORCE = {"enough_data", "no_drift", f"beats_{CHAMPION}"}


@dataclass(frozen=True)
class Judged:
    """The algorithm that was chosen, and why; without a selection, the promised one, which nothing could judge.

    Attributes
    ----------
    selection : Selection or None
    has_champion : bool
    n_judged : int
        Users with alerts, who could have been judged.
    answers : Answers
        What customers answered to offers. Nothing here is judged by it, it only moves what is served.
    """

    neighbours: Mapping[str, Any]
    selection: Selection | None
    has_champion: bool
    n_judged: int
    split_at: datetime | None = None
    answers: Answers = field(default_factory=Answers.none)

    @property
    def algorithm(self) -> str:
        """The name of the model that is to be fitted."""
        return self.selection.algorithm if self.selection else KNN

    @property
    def calibration(self) -> Calibration:
        """What turns its probabilities into those that are offered: as it was judged, and moved by the answers."""
        judged = self.selection.calibration if self.selection else Calibration.identity()
        return judged.with_shifts(self._shifts)

    @property
    def answered(self) -> dict[str, Answered]:
        """How often offers of each alert type were answered and taken, and the shift of its log-odds."""
        return feedback.tally(self.answers, self._shifts, ALERT_KEYS)

    @cached_property
    def _shifts(self) -> Floats:
        return feedback.shifts(self.answers, len(ALERT_KEYS))

    @property
    def gates(self) -> list[Gate]:
        """What was checked."""
        if self.selection is not None:
            return self.selection.gates
        counted = gates.enough_data(self.n_judged)
        few = f"of {self.n_judged} users with alerts, fewer than {gates.MIN_JUDGED} were held out"
        return [replace(counted, passed=False, message=few) if counted.passed else counted]

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures of the chosen model in leave-one-out, each with its interval; empty where nobody was judged."""
        if self.selection is None:
            return {}
        found: dict[str, Any] = self.selection.report["protocols"]["leave_one_out"]["models"][self.algorithm]["metrics"]
        return found

    def refusals(self, *, force: bool) -> list[Gate]:
        """Return the gates that keep the model from serving.

        Parameters
        ----------
        force : bool
            Replace the champion whatever it is worth: only what is wrong with the model itself refuses it.
        """
        if self.selection is None and not self.has_champion:
            return []  # the promised default serves until there is something to judge by
        return [gate for gate in self.gates if not gate.passed and not (force and gate.name in PASSED_BY_FORCE)]

    def report(self, *, as_of: datetime, created_at: datetime) -> dict[str, Any]:
        """Return all figures, as JSON holds them."""
        head: dict[str, Any] = {"format": REPORT_FORMAT, "created_at": created_at.isoformat()}
        head |= {"as_of": as_of.isoformat()} | ({"answers": self.answered} if self.answers else {})
        if self.selection is None:
            gates_ = [gate.to_json() for gate in self.gates]
            return {**head, "algorithm": self.algorithm, "n_users": self.n_judged, "gates": gates_}
        report = {**head, **self.selection.report}
        if self.split_at is not None and "models" in report["protocols"]["split_in_time"]:
            report["protocols"]["split_in_time"]["split_at"] = self.split_at.isoformat()
        return report


def evaluate(
    workspace: Workspace,
    *,
    as_of: datetime | None = None,
    n_neighbors: int = DEFAULT_NEIGHBORS,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Judge the candidates on the data as they are, as a training does, and return the report; nothing is stored.

    Raises
    ------
    NotEnoughDataError
        Under 10 users with purchases, or 100 purchases.
    """
    with workspace.engine.connect() as connection:
        now = jobs.database_time(connection)
    data = read_training_data(workspace, as_of=as_of or now, progress=progress)
    judged = judge_candidates(workspace, data, as_of=as_of or now, n_neighbors=n_neighbors, progress=progress)
    return judged.report(as_of=as_of or now, created_at=now)


def judge_candidates(
    workspace: Workspace, data: TrainingData, *, as_of: datetime, n_neighbors: int, progress: Progress
) -> Judged:
    """Judge the candidates on users held out, in time, and against the champion in force."""
    neighbours = {"n_neighbors": n_neighbors}
    champion = _champion(workspace)
    n_judged = int(data.users.labels.any(axis=1).sum())
    if data.label_source != FROM_RULES:
        # Rules of thumb are made of the features; foretelling them by the features would prove nothing.
        return Judged(neighbours, None, champion is not None, 0, answers=data.answers)
    split_at = _split_at(champion, as_of)
    earlier = read_earlier(workspace, data.users, as_of=split_at, progress=progress)
    in_force = InForce(champion, earlier.labels) if champion is not None else None
    selection = select(
        data.users,
        ALERT_KEYS,
        earlier=earlier,
        in_force=in_force,
        recipe=Recipe({KNN: neighbours}, without=_not_available(n_judged)),
        progress=progress,
    )
    return Judged(neighbours, selection, champion is not None, n_judged, split_at, data.answers)


def fit_model(users: Population, judged: Judged) -> AlertRecommenderModel:
    """Fit what was chosen on all users."""
    return AlertRecommenderModel().fit(
        users.features,
        users.labels,
        algorithm=judged.algorithm,
        parameters=judged.selection.parameters if judged.selection and judged.algorithm != KNN else {},
        neighbours=judged.neighbours,
        input_columns=input_columns(judged.algorithm),
        calibration=judged.calibration,
    )


def _not_available(n_judged: int) -> frozenset[str]:
    """Return the candidates that need a library which this system lacks; the others are judged without them."""
    if n_judged < FEWEST_JUDGED["boosting"]:
        return frozenset()  # nothing that loads it is tried
    try:
        load_lightgbm()
    except ConfigError as error:
        logger.warning("judged without boosted trees: %s", error, extra={"action": "candidates_left_out"})
        return frozenset({"boosting", "ensemble"})
    return frozenset()


def _champion(workspace: Workspace) -> AlertRecommenderModel | None:
    """Return the champion, unless it cannot be read or knows other alerts or features: then anything is better."""
    with workspace.engine.connect() as connection:
        stored = models.champion(connection)
    if stored is None:
        return None
    try:
        model = workspace.champions.load(stored)
    except ModelStoreError as error:
        facts = {"action": "model_refused", "model_version": stored.version}
        logger.warning("the champion is not compared with: %s", error, extra=facts)
        return None
    return model if model.alert_columns == ALERT_KEYS and set(model.input_columns) <= set(FEATURES) else None


def _split_at(champion: AlertRecommenderModel | None, as_of: datetime) -> datetime:
    """Return the moment the champion was trained at, or some weeks before `as_of`."""
    if champion is not None and (until := champion.card.get("training_window", {}).get("until")):
        return min(datetime.fromisoformat(until), as_of)
    return as_of - timedelta(days=SPLIT_DAYS)
