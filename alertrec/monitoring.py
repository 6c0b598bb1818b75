"""What the product owner and the operator see: answers to offers, kept promises, models, jobs, freshness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from sqlalchemy import RowMapping

from alertrec.action_types import RECOMMENDATION_ACTIONS
from alertrec.calibration import share_interval
from alertrec.drift import DRIFTED_FROM, STABLE_BELOW
from alertrec.errors import DataError
from alertrec.storage import engagement as counts
from alertrec.storage import jobs, models
from alertrec.storage.database import transient_errors
from alertrec.storage.engagement import Counts
from alertrec.storage.models import ModelVersion
from alertrec.watching import state_of
from alertrec.workspace import Workspace

MAX_DAYS = 366
# How long a rule that was accepted must stay on to count as retained.
RETAINED_DAYS = 30
# An offer that nobody has answered is judged as not accepted this long after it was first shown.
SETTLED_AFTER = timedelta(days=1)
N_BINS = 10

STABLE, MOVED, DRIFTED = "stable", "moved", "drifted"


@dataclass(frozen=True)
class Totals:
    """What became of some offers; an offer is one recommendation to one user, however often it was shown.

    Attributes
    ----------
    n_offers : int
        Offers on which there was at least one action.
    n_shown, n_expanded, n_accepted, n_dismissed, n_snoozed : int
        Of these, the ones with at least one such action; an offer may count in several.
    n_customers : int
        Users who had any of the offers.
    acceptance, engagement, dismissal : float or None
        Shares of the offers shown: accepted; with any answer (expanded, accepted, dismissed, snoozed); dismissed.
        What was answered though nobody logged that it was shown counts in none of them. None where none was shown.
    n_retained_known, n_retained : int
        Offers accepted in as long a time, but `RETAINED_DAYS` earlier, that made a rule; those whose rule was still on
        `RETAINED_DAYS` after it.
    retained : float or None
        Their share; None where none is known.
    """

    n_offers: int
    n_shown: int
    n_expanded: int
    n_accepted: int
    n_dismissed: int
    n_snoozed: int
    n_customers: int
    acceptance: float | None
    engagement: float | None
    dismissal: float | None
    n_retained_known: int
    n_retained: int
    retained: float | None


@dataclass(frozen=True)
class Day:
    """The offers that were first shown on one day, in UTC, and what became of them since."""

    day: date
    n_shown: int
    n_expanded: int
    n_accepted: int
    n_dismissed: int
    n_snoozed: int


@dataclass(frozen=True)
class AlertEngagement:
    """What became of the offers of one alert type."""

    alert_type: str
    title: str
    totals: Totals


@dataclass(frozen=True)
class Engagement:
    """What became of the offers of the last days: `by_day` has every day, the oldest first."""

    days: int
    totals: Totals
    by_day: tuple[Day, ...]
    by_alert: tuple[AlertEngagement, ...]


@dataclass(frozen=True)
class ReliabilityPoint:
    """Offers whose probability lies in [low, high): what was predicted on average, and the share accepted."""

    low: float
    high: float
    predicted: float
    observed: float
    observed_low: float
    observed_high: float
    n: int


@dataclass(frozen=True)
class Reliability:
    """Whether probabilities kept their word: `n` offers are judged; `n_waiting` were shown too lately to be."""

    points: tuple[ReliabilityPoint, ...]
    n: int
    n_waiting: int


@dataclass(frozen=True)
class ModelRow:
    """One stored model; `log_loss` and `mrr` as its training judged them, None where nobody could be judged."""

    version: str
    algorithm: str
    created_at: datetime
    alias: str | None
    promoted_by: str | None
    promoted_at: datetime | None
    log_loss: float | None
    mrr: float | None
    n_users: int
    refusals: tuple[str, ...]


@dataclass(frozen=True)
class DriftRow:
    """How far one feature has moved: its population stability index, and "stable", "moved" or "drifted"."""

    feature: str
    psi: float
    level: str


@dataclass(frozen=True)
class JobRow:
    """One job: `done` of `total` of its present `step`, and why it failed, if it did."""

    job_id: UUID
    job: str
    status: str
    created_at: datetime
    finished_at: datetime | None
    done: int
    total: int
    step: str
    error: str | None


@dataclass(frozen=True)
class Health:
    """How fresh everything is; None where there is nothing to be old."""

    lists_current: int
    lists_expired: int
    actions_waiting: int
    oldest_action_seconds: float | None
    oldest_chunk_seconds: float | None
    champion_version: str | None
    champion_age_days: float | None


def engagement(workspace: Workspace, *, days: int = 30, now: datetime | None = None) -> Engagement:
    """Return what became of the offers first shown in the last days, today included; days are those of UTC.

    Offers and advice on rules count alike; retained is only asked of offers.

    Raises
    ------
    DataError, TransientError
        If `days` is not from 1 to `MAX_DAYS`.
    """
    kept_for = timedelta(days=RETAINED_DAYS)
    with transient_errors("engagement was counted"), workspace.engine.connect() as connection:
        now = now or jobs.database_time(connection)
        since = _first_day(now, days)
        rows = counts.count_offers(connection, since=since, until=now)
        kept = counts.count_retained(
            connection, workspace.source, since=since - kept_for, until=now - kept_for, kept_for=kept_for
        )
    everything = next(row for row in rows if not row["is_of_day"] and not row["is_of_type"])
    return Engagement(
        days=days,
        totals=_totals(everything, kept),
        by_day=_by_day({row["day"]: row for row in rows if row["is_of_day"]}, since.date(), days),
        by_alert=_by_alert([row for row in rows if row["is_of_type"]], kept),
    )


def reliability(workspace: Workspace, *, days: int = 90, now: datetime | None = None) -> Reliability:
    """Return whether the probabilities of the offers first shown in the last days kept their word.

    What has been neither accepted, dismissed nor snoozed is judged a day after it was first shown. The probability is
    the first that was logged of the offer; a list that is renewed may promise another.

    Raises
    ------
    DataError, TransientError
        If `days` is not from 1 to `MAX_DAYS`.
    """
    with transient_errors("reliability was measured"), workspace.engine.connect() as connection:
        now = now or jobs.database_time(connection)
        rows = counts.count_by_probability(
            connection, since=_first_day(now, days), until=now, settled_by=now - SETTLED_AFTER, n_bins=N_BINS
        )
    return Reliability(
        points=tuple(_point(row) for row in rows if row["n"]),
        n=sum(row["n"] for row in rows),
        n_waiting=sum(row["n_waiting"] for row in rows),
    )


def models_overview(workspace: Workspace) -> tuple[ModelRow, ...]:
    """Return all stored models, the newest first; why one was refused is known as long as its training's job is kept.

    Raises
    ------
    TransientError
    """
    with transient_errors("models were listed"), workspace.engine.connect() as connection:
        versions = models.all_versions(connection)
        refused = counts.refusals_by_version(connection)
    return tuple(_model_row(each, refused.get(each.version, ())) for each in versions)


def drift(workspace: Workspace) -> tuple[DriftRow, ...]:
    """Return how far the features have moved, the furthest first, as the newest training found.

    What is read is the report on the card of the newest version, whether it serves or was refused: its features
    against those that the champion of then was trained on. Empty without a model, or where there was no champion yet.
    Versions never change, and the files of one are read through `ModelStore.load`, which checks them.

    Raises
    ------
    ModelStoreError, TransientError
        If the version is missing, truncated or altered.
    """
    with transient_errors("drift was read"), workspace.engine.connect() as connection:
        newest = models.newest(connection)
    if newest is None:
        return ()
    card, _ = workspace.store.load(newest.version, sha256=newest.sha256)
    found: Mapping[str, float] = card.get("report", {}).get("drift") or {}
    rows = (DriftRow(feature, psi, _level(psi)) for feature, psi in found.items())
    return tuple(sorted(rows, key=lambda row: (-row.psi, row.feature)))


def jobs_overview(workspace: Workspace, limit: int = 20) -> tuple[JobRow, ...]:
    """Return the newest jobs, the newest first.

    Raises
    ------
    TransientError
    """
    with transient_errors("jobs were listed"), workspace.engine.connect() as connection:
        rows = jobs.recent_runs(connection, limit)
    return tuple(_job_row(row) for row in rows)


def health(workspace: Workspace) -> Health:
    """Return how fresh lists, actions, chunks and the champion are, by the database's clock.

    Raises
    ------
    TransientError
    """
    snoozed = timedelta(days=workspace.settings.snoozed_days)
    with transient_errors("freshness was measured"), workspace.engine.connect() as connection:
        now = jobs.database_time(connection)
        found = counts.read_freshness(connection, snoozed=snoozed)
        champion = models.champion(connection)
    return Health(
        **found,
        champion_version=champion.version if champion is not None else None,
        champion_age_days=(now - champion.created_at) / timedelta(days=1) if champion is not None else None,
    )


def short_title(alert_type: str) -> str:
    """Return a short name of an alert type, such as "High spender"; also of one that the catalogue has dropped."""
    return alert_type.removeprefix("alert_").replace("_", " ").capitalize()


def _first_day(now: datetime, days: int) -> datetime:
    """Return the moment at which the last days began, today being the last of them."""
    if not 1 <= days <= MAX_DAYS:
        raise DataError(f"days must be from 1 to {MAX_DAYS}, not {days}")
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days - 1)


def _by_day(found: Mapping[date, Counts], first: date, days: int) -> tuple[Day, ...]:
    every = (first + timedelta(days=number) for number in range(days))
    names = [f"n_{name}" for name in RECOMMENDATION_ACTIONS]
    return tuple(Day(day, **{name: found[day][name] if day in found else 0 for name in names}) for day in every)


def _by_alert(rows: Sequence[Counts], kept: Sequence[Counts]) -> tuple[AlertEngagement, ...]:
    """Return the figures of each type, the most offered first; of offers whose type nothing tells, none."""
    by_type = {row["alert_type"]: row for row in rows}
    kept_of = {row["alert_type"]: [row] for row in kept}
    found = (
        AlertEngagement(key, short_title(key), _totals(by_type.get(key, {}), kept_of.get(key, ())))
        for key in {*by_type, *kept_of} - {None}
    )
    return tuple(sorted(found, key=lambda each: (-each.totals.n_offers, each.alert_type)))


def _totals(row: Counts, kept: Sequence[Counts]) -> Totals:
    """Return the figures of a row of `count_offers`, which may be empty, and of some of `count_retained`."""
    names = ("offers", "customers", *RECOMMENDATION_ACTIONS)
    n_shown, n_known = row.get("n_shown", 0), sum(each["n_known"] for each in kept)
    n_retained = sum(each["n_retained"] for each in kept)
    return Totals(
        **{f"n_{name}": row.get(f"n_{name}", 0) for name in names},
        acceptance=_share(row.get("n_shown_accepted", 0), n_shown),
        engagement=_share(row.get("n_shown_engaged", 0), n_shown),
        dismissal=_share(row.get("n_shown_dismissed", 0), n_shown),
        n_retained_known=n_known,
        n_retained=n_retained,
        retained=_share(n_retained, n_known),
    )


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _point(row: Counts) -> ReliabilityPoint:
    low, high = share_interval(row["n_accepted"], row["n"])
    return ReliabilityPoint(
        low=row["bin"] / N_BINS,
        high=(row["bin"] + 1) / N_BINS,
        predicted=row["predicted"],
        observed=row["n_accepted"] / row["n"],
        observed_low=float(low),
        observed_high=float(high),
        n=row["n"],
    )


def _model_row(model: ModelVersion, refusals: Sequence[str]) -> ModelRow:
    return ModelRow(
        version=model.version,
        algorithm=model.algorithm,
        created_at=model.created_at,
        alias=model.alias,
        promoted_by=model.promoted_by,
        promoted_at=model.promoted_at,
        log_loss=model.metrics.get("log_loss", {}).get("value"),
        mrr=model.metrics.get("mrr", {}).get("value"),
        n_users=model.data_counts.get("n_users", 0),
        refusals=tuple(refusals),
    )


def _level(psi: float) -> str:
    if psi >= DRIFTED_FROM:
        return DRIFTED
    return STABLE if psi < STABLE_BELOW else MOVED


def _job_row(row: RowMapping) -> JobRow:
    state, is_done = state_of(row), row["status"] == jobs.DONE
    return JobRow(
        job_id=row["job_id"],
        job=row["job"],
        status=row["status"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        # What a job last said of itself was said before its end.
        done=state.total if is_done else state.done,
        total=state.total,
        step=row["status"] if is_done else state.step,
        error=state.error,
    )
