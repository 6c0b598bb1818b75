"""From the tables to a champion: read, judge, fit, store, promote what passes the gates."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed_version
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from alertrec.drift import profile
from alertrec.errors import AlertrecError, TransientError, reason_of
from alertrec.feature_engineering import FEATURES, HISTORY_DAYS
from alertrec.gates import Gate
from alertrec.judging import DEFAULT_NEIGHBORS, Judged, fit_model, judge_candidates
from alertrec.ledger import USER_ID
from alertrec.promotion import is_due
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.usual import UsualDials
from alertrec.schedule import TRAINING
from alertrec.selection import Progress
from alertrec.storage import jobs, locks, models
from alertrec.storage.database import transient_errors
from alertrec.storage.jobs import ClaimedRun
from alertrec.storage.models import ModelVersion
from alertrec.training_data import TrainingData, read_training_data
from alertrec.workspace import Workspace

logger = logging.getLogger(__name__)

# A weekly run must find the model of the week before old enough, though that one started a little later than this.
SLACK_DAYS = 0.5

# Held while a model is trained, by a connection of its own: freed by the server the moment that connection ends.


@dataclass(frozen=True)
class TrainingOutcome:
    """How a training ended: with a model that serves or was refused, or with a reason why there is none.

    Attributes
    ----------
    refused : tuple of str
        The gates that keep the model from serving, each with its figure; empty where it is champion.
    """

    job_id: UUID
    version: str | None = None
    refused: tuple[str, ...] = ()
    skipped: str | None = None
    error: str | None = None


def request_training(
    workspace: Workspace, *, force: bool = False, waited: timedelta | None = None, **arguments: Any
) -> UUID:
    """Ask for a training, and return its job; one that waits, or is under way, is joined.

    What is asked for here is added to one that waits. One that is under way is joined if it does the same.

    Parameters
    ----------
    force : bool
        Train even if the last training is recent, and replace the champion unless the new model itself is at fault.
    waited : timedelta, optional
        How long ago somebody asked: a training of the same kind that began since answers it, so that ten who ask at
        once get one.
    **arguments
        `as_of` (datetime), `n_neighbors` (int), `use_real_alerts` (bool), `promoted_by` (str).
    """
    if as_of := arguments.pop("as_of", None):
        arguments["as_of"] = as_of.isoformat()
    with transient_errors("a training was asked for"), workspace.engine.begin() as connection:
        # Two who ask at once get one job.
        connection.execute(select(func.pg_advisory_xact_lock(locks.TRAINING_REQUESTS)))
        wanted = {"force": True, **arguments} if force else arguments
        now = jobs.database_time(connection)
        later = jobs.run_begun_since(connection, TRAINING, now - waited) if waited is not None else None
        # One that was not forced may have found that nothing was due.
        if later and _answers(later.arguments, wanted) and (later.arguments.get("force") or not force):
            return later.job_id
        open_run = jobs.unfinished_run(connection, TRAINING)
        if open_run is None or (open_run.under_way and not _answers(open_run.arguments, wanted)):
            return jobs.ask_for_run(connection, TRAINING, wanted)
        if not open_run.under_way:
            jobs.add_arguments(connection, open_run.job_id, {**wanted, "request": "joined"})
        return open_run.job_id


def run_training(workspace: Workspace, progress: Progress = lambda *_: None) -> TrainingOutcome | None:
    """Do the oldest training that waits; None where nothing waits, or another process is training.

    What goes wrong in a known way, such as too little data, ends in the outcome and not in an exception.

    Raises
    ------
    TransientError
        If the database failed; the run waits to be tried again.
    """
    with transient_errors("the training lock was held"), locks.alone(workspace.engine, locks.TRAINING) as is_alone:
        if not is_alone:
            return None
        with transient_errors("a training was claimed"), workspace.engine.begin() as connection:
            run = jobs.claim_run(connection, TRAINING)
        if run is None:
            return None
        if run.n_lost >= jobs.MAX_LOST:
            return _finish(workspace, run, error=f"given up after {run.n_lost} attempts that never came back")
        try:
            return _train(workspace, run, _reporting(workspace, run, progress))
        except TransientError as error:
            # The run stays open, for the retry of its task or the next tick.
            with contextlib.suppress(TransientError), transient_errors("a training was given back"):
                _release(workspace, run, str(error))
            raise
        except AlertrecError as error:
            return _finish(workspace, run, error=str(error))
        except Exception as error:
            _finish(workspace, run, error=reason_of(error))
            raise


def _train(workspace: Workspace, run: ClaimedRun, progress: Progress) -> TrainingOutcome:
    started = time.perf_counter()
    arguments = run.arguments
    with workspace.engine.connect() as connection:
        now = jobs.database_time(connection)
        if not arguments.get("force") and not is_due(connection, workspace.settings.retrain_days - SLACK_DAYS):
            return _finish(
                workspace, run, skipped=f"the last training is younger than {workspace.settings.retrain_days} days"
            )
    as_of = datetime.fromisoformat(arguments["as_of"]) if arguments.get("as_of") else now
    data = read_training_data(
        workspace, as_of=as_of, use_real_alerts=arguments.get("use_real_alerts", True), progress=progress
    )
    judged = judge_candidates(
        workspace, data, as_of=as_of, n_neighbors=arguments.get("n_neighbors", DEFAULT_NEIGHBORS), progress=progress
    )
    progress("fitting", 0, 1)
    model = fit_model(data.users, judged)
    # What fits those whose own history is too short.
    model.usual = UsualDials.of(data.users.features[USER_ID].to_list(), data.dials, remembered=model.user_ids)
    progress("storing", 0, 1)
    version = f"{now:%Y%m%dT%H%M%SZ}-{run.job_id.hex[:4]}{run.attempt}"
    stored = _store(workspace, version, model, data, judged, as_of=as_of, created_at=now)
    outcome = _publish(workspace, run, stored, judged.refusals(force=bool(arguments.get("force"))))
    facts = {"model_version": version, "n_users": len(data.users), "seconds": time.perf_counter() - started}
    logger.info("model trained", extra={"action": "model_trained", "algorithm": judged.algorithm, **facts})
    return outcome


def _store(
    workspace: Workspace,
    version: str,
    model: AlertRecommenderModel,
    data: TrainingData,
    judged: Judged,
    *,
    as_of: datetime,
    created_at: datetime,
) -> ModelVersion:
    window = {
        "from": (as_of - timedelta(days=HISTORY_DAYS)).astimezone(UTC).isoformat(),
        "until": as_of.astimezone(UTC).isoformat(),
    }
    counts = {
        "n_users": len(data.users),
        "n_transactions": data.n_transactions,
        "n_rules": data.n_rules,
        "label_source": data.label_source,
        "n_enabled": dict(zip(model.alert_columns, data.users.labels.sum(axis=0).tolist(), strict=True)),
        **_answered(version, data, judged),
    }
    model.card |= {
        "version": version,
        "created_at": created_at.isoformat(),
        "training_window": window,
        "data_counts": counts,
        "metrics": judged.metrics,
        "report": {"version": version, **judged.report(as_of=as_of, created_at=created_at)},
        "feature_profile": profile(data.users.matrix(FEATURES), FEATURES),
        "made_with": {name: installed_version(name) for name in ("alertrec", "numpy", "polars", "lightgbm")}
        | {"python": platform.python_version()},
    }
    sha256 = workspace.store.save(version, model.card, model.to_arrays())
    return ModelVersion(
        version=version,
        algorithm=model.card["algorithm"],
        parameters=model.card["parameters"],
        training_window=window,
        data_counts=counts,
        metrics=judged.metrics,
        location=workspace.settings.model_location,
        sha256=sha256,
        created_at=created_at,
    )


def _answered(version: str, data: TrainingData, judged: Judged) -> dict[str, Any]:
    """Return what customers answered, and the shifts that this version promises with, and those answered did."""
    if not judged.answers:
        return {}
    answered = judged.answered
    mine = {alert: each["shift"] for alert, each in answered.items() if each["shift"]}
    return {"answers": answered, "shifts": {**data.promised_with, **({version: mine} if mine else {})}}


def _publish(workspace: Workspace, run: ClaimedRun, stored: ModelVersion, refusals: Sequence[Gate]) -> TrainingOutcome:
    """Register the version, and promote it unless a gate refuses, in the transaction that finishes the run."""
    refused = tuple(gate.message for gate in refusals)
    result: dict[str, Any] = {"version": stored.version} | ({"refused": list(refused)} if refused else {})
    with transient_errors("a model was published"), workspace.engine.begin() as connection:
        models.insert_version(connection, stored)
        if not refused:
            promoted_by = run.arguments.get("promoted_by", "training")
            models.promote(connection, stored.version, promoted_by=promoted_by)
        if jobs.finish_run(connection, run, result=result):
            return TrainingOutcome(run.job_id, version=stored.version, refused=refused)
        connection.rollback()
    workspace.store.delete(stored.version)
    return TrainingOutcome(run.job_id, error="another process took this training over")


def _finish(
    workspace: Workspace, run: ClaimedRun, *, skipped: str | None = None, error: str | None = None
) -> TrainingOutcome:
    with transient_errors("a training was finished"), workspace.engine.begin() as connection:
        jobs.finish_run(connection, run, result={"skipped": skipped} if skipped else None, error=error)
    logger.info("training ended without a model", extra={"action": "training_ended", "reason": skipped or error})
    return TrainingOutcome(run.job_id, skipped=skipped, error=error)


def _release(workspace: Workspace, run: ClaimedRun, reason: str) -> None:
    with workspace.engine.begin() as connection:
        jobs.release_run(connection, run, error=reason)


def _answers(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether a training under way, with these arguments, is what somebody wants."""
    return all(given.get(name) == value for name, value in wanted.items() if name not in {"force", "promoted_by"})


def _reporting(workspace: Workspace, run: ClaimedRun, progress: Progress) -> Progress:
    """Pass progress on, and store it for those who watch the job."""

    def report(step: str, done: int, of: int) -> None:
        progress(step, done, of)
        with workspace.engine.begin() as connection:
            jobs.report_progress(connection, run, {"step": step, "done": done, "of": of})

    return report
