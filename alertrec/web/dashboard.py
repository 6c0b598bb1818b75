"""The pages of the operator and the product owner: how offers do, models, operations, one customer.

Each page renews itself: its part `#live` is asked for again by htmx, and dashboard.js takes over what has changed. All
of it works without scripts as well, but for the pictures, of which there are tables.

Use cases are imported where they are called: they load pandas and scikit-learn, which the web app's start need not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from alertrec.errors import AlertrecError, UnknownUserError, first_line
from alertrec.sending import send_if_possible
from alertrec.task_names import REFRESH_RECOMMENDATIONS, TRAIN_MODEL
from alertrec.web.access import check_csrf
from alertrec.web.pictures import alerts_chart, days_chart, reliability_chart, spending_chart, verdict
from alertrec.web.rendering import render

if TYPE_CHECKING:
    from alertrec.explanation import Explanation
    from alertrec.monitoring import ModelRow
    from alertrec.user_story import UserStory
    from alertrec.workspace import Workspace

RELIABILITY_DAYS = 90
POLL_SECONDS = 5
POLL_SECONDS_AT_WORK = 1
POLL_SECONDS_OF_A_USER = 10
UNFINISHED = ("pending", "running")
MOST_DRIFT = 12

Period = Literal["7", "30", "90"]
PERIODS: tuple[Period, ...] = ("7", "30", "90")
Found = TypeVar("Found")


def create_dashboard(
    workspace: Callable[[], Workspace], admin: Callable[..., Any], flower_url: Callable[[], str | None]
) -> APIRouter:
    """Return the routes of the dashboard.

    Parameters
    ----------
    workspace : function
        Returns the means of this process.
    admin : FastAPI dependency
        Returns the id of the admin who asks, and refuses anybody else.
    flower_url : function
        Returns the address of Flower, None where it does not run.
    """
    router = APIRouter(prefix="/dashboard", dependencies=[Depends(admin)], include_in_schema=False)
    pages = Pages(workspace, flower_url)
    _add_pages(router, pages)
    _add_changes(router, pages, admin)
    return router


def _add_pages(router: APIRouter, pages: Pages) -> None:
    @router.get("")
    def overview(request: Request, days: Period = "30") -> Response:
        return pages.overview(request, int(days))

    @router.get("/models")
    def models(request: Request, done: str = "", version: str = "") -> Response:
        return pages.models(request, done=done, version=version)

    @router.get("/operations")
    def operations(request: Request, done: str = "") -> Response:
        return pages.operations(request, done=done)

    @router.get("/users")
    def users(request: Request, user_id: str = "") -> Response:
        wanted = user_id.strip()
        return RedirectResponse(_address_of(wanted), 303) if wanted else pages.users(request)

    @router.get("/users/{user_id:path}")
    def user(request: Request, user_id: str, explain: bool = False) -> Response:
        return pages.user(request, user_id, explain=explain)


def _add_changes(router: APIRouter, pages: Pages, admin: Callable[..., Any]) -> None:
    @router.post("/models/roll-back", dependencies=[Depends(check_csrf)])
    def roll_back(request: Request, admin_id: str = Depends(admin)) -> Response:
        return pages.roll_back(request, admin_id)

    @router.post("/models/{version}/promote", dependencies=[Depends(check_csrf)])
    def promote(request: Request, version: str, admin_id: str = Depends(admin)) -> Response:
        return pages.promote(request, version, admin_id)

    @router.post("/operations/train", dependencies=[Depends(check_csrf)])
    def train(request: Request, admin_id: str = Depends(admin)) -> Response:
        return pages.train(request, admin_id)

    @router.post("/operations/refresh", dependencies=[Depends(check_csrf)])
    def refresh(request: Request) -> Response:
        return pages.refresh(request)


@dataclass(frozen=True)
class Asked:
    """What was answered, or why nothing was: a server that is away is a finding of these pages, not their end."""

    answer: Any
    problem: str = ""


class Recent:
    """Answers of the last seconds, so that pages that poll side by side share one."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, Any]] = {}

    def get(self, name: str, seconds: float, ask: Callable[[], Found]) -> Found:
        """Return the answer of that name, asked anew where it is older than `seconds`; two at once may both ask."""
        kept = self._answers.get(name)
        if kept is None or kept[0] < time.monotonic():
            found = ask()
            now = time.monotonic()
            fresh = {key: kept for key, kept in tuple(self._answers.items()) if kept[0] >= now}
            self._answers = {**fresh, name: (now + seconds, found)}
            return found
        answer: Found = kept[1]
        return answer


class Pages:
    """What each page shows; see `create_dashboard`."""

    def __init__(self, workspace: Callable[[], Workspace], flower_url: Callable[[], str | None]) -> None:
        self._workspace, self._flower_url = workspace, flower_url
        self._recent = Recent()

    def overview(self, request: Request, days: int) -> Response:
        """Show what became of the offers."""
        from alertrec import monitoring

        workspace = self._workspace()
        found = self._recent.get(f"engagement {days}", 1, lambda: monitoring.engagement(workspace, days=days))
        kept = self._recent.get("reliability", 1, lambda: monitoring.reliability(workspace, days=RELIABILITY_DAYS))
        return render(
            request,
            "dashboard/overview.html.j2",
            address=f"/dashboard?days={days}",
            seconds=POLL_SECONDS,
            periods=PERIODS,
            engagement=found,
            reliability=kept,
            reliability_days=RELIABILITY_DAYS,
            verdict=verdict(kept),
            charts={
                "days": days_chart(found.by_day),
                "alerts": alerts_chart(found.by_alert),
                "reliability": reliability_chart(kept),
            },
        )

    def models(self, request: Request, *, done: str = "", version: str = "", refusal: str = "") -> Response:
        """Show the model versions, after what was done to them, or why it was not."""
        from alertrec import monitoring

        workspace = self._workspace()
        rows = monitoring.models_overview(workspace)
        drift = self._recent.get("drift", 15, lambda: _asked(lambda: monitoring.drift(workspace)))
        champion = next((each for each in rows if each.alias is not None), None)
        return render(
            request,
            "dashboard/models.html.j2",
            409 if refusal else 200,
            address="/dashboard/models",
            seconds=POLL_SECONDS,
            models=rows,
            champion=champion.version if champion else None,
            earlier=_champion_before(rows, champion),
            drift=drift,
            drift_scale=max([0.3, *(row.psi for row in drift.answer or ())]),
            most=MOST_DRIFT,
            refusal=refusal,
            # An address can say anything; what it says was done is repeated only where it is so.
            done=done if champion and champion.version == version else "",
        )

    def promote(self, request: Request, version: str, admin_id: str) -> Response:
        """Make a version champion."""
        from alertrec import promotion

        def change(workspace: Workspace) -> str:
            promotion.promote(workspace, version, promoted_by=admin_id)
            return version

        return self._changed(request, "promoted", change)

    def roll_back(self, request: Request, admin_id: str) -> Response:
        """Make the champion before champion again."""
        from alertrec import promotion

        return self._changed(
            request, "rolled-back", lambda workspace: promotion.roll_back(workspace, promoted_by=admin_id)
        )

    def _changed(self, request: Request, done: str, change: Callable[[Workspace], str]) -> Response:
        try:
            version = change(self._workspace())
        except AlertrecError as error:
            return self.models(request, refusal=str(error))
        # A page of its own, so that loading it again promotes nothing again.
        return RedirectResponse(f"/dashboard/models?done={done}&version={quote(version, safe='')}", 303)

    def train(self, request: Request, admin_id: str) -> Response:
        """Have a model trained now."""
        from alertrec import fitting

        def ask(workspace: Workspace) -> None:
            job_id = fitting.request_training(workspace, force=True, promoted_by=admin_id)
            send_if_possible(workspace, TRAIN_MODEL, False, str(job_id))  # positions of a message, not of a function

        return self._asked_for(request, "training", ask)

    def refresh(self, request: Request) -> Response:
        """Have all lists renewed now."""
        from alertrec import service

        def ask(workspace: Workspace) -> None:
            job_id = service.request_refresh(workspace)
            send_if_possible(workspace, REFRESH_RECOMMENDATIONS, service.ALL_USERS, str(job_id))

        return self._asked_for(request, "refresh", ask)

    def _asked_for(self, request: Request, job: str, ask: Callable[[Workspace], None]) -> Response:
        try:
            ask(self._workspace())
        except AlertrecError as error:
            return self.operations(request, refusal=str(error))
        return RedirectResponse(f"/dashboard/operations?done={job}", 303)

    def operations(self, request: Request, *, done: str = "", refusal: str = "") -> Response:
        """Show jobs, queues, workers and freshness, after what was asked for, or why it cannot be."""
        from alertrec import doctor, monitoring

        workspace = self._workspace()
        settings = workspace.settings
        jobs = monitoring.jobs_overview(workspace)
        at_work = [job for job in jobs if job.status in UNFINISHED]
        return render(
            request,
            "dashboard/operations.html.j2",
            409 if refusal else 200,
            done=done,
            refusal=refusal,
            address="/dashboard/operations",
            seconds=POLL_SECONDS_AT_WORK if at_work else POLL_SECONDS,
            at_work=at_work,
            finished=[job for job in jobs if job.status not in UNFINISHED],
            health=monitoring.health(workspace),
            queues=_asked(lambda: doctor.queue_lengths(settings)),
            workers=self._recent.get("workers", POLL_SECONDS, lambda: _asked(lambda: doctor.workers(settings))),
            last_tick=_asked(lambda: doctor.last_tick(settings)),
            silent_seconds=doctor.BEAT_SILENT_SECONDS,
            flower_url=self._flower_url(),
        )

    def users(self, request: Request, user_id: str | None = None) -> Response:
        """Show the search, with the id that was not found."""
        status = 200 if user_id is None else 404
        return render(request, "dashboard/users.html.j2", status, address="", seconds=0, unknown=user_id)

    def user(self, request: Request, user_id: str, *, explain: bool) -> Response:
        """Show one customer, with the reasons of the model where they are asked for."""
        from alertrec.monitoring import short_title
        from alertrec.user_story import user_story

        workspace, address = self._workspace(), _address_of(user_id)
        try:
            story = user_story(workspace, user_id)
        except UnknownUserError:
            return self.users(request, user_id)
        return render(
            request,
            "dashboard/user.html.j2",
            address=f"{address}?explain=true" if explain else address,
            explain_address=f"{address}?explain=true",
            seconds=POLL_SECONDS_OF_A_USER,
            story=story,
            words=workspace.policy.words,
            chart=spending_chart(story, workspace.policy.words.money),
            short_title=short_title,
            explained=self._explained(workspace, story) if explain else None,
        )

    def _explained(self, workspace: Workspace, story: UserStory) -> Asked | None:
        from alertrec import service

        if story.stored_list is None:
            return None
        name = f"{story.user_id} {story.stored_list.generated_at}"
        return self._recent.get(name, 60, lambda: _asked(lambda: _told(service.explain_list(workspace, story.user_id))))


@dataclass(frozen=True)
class Reasons:
    """An explanation, what it says in words, and the largest contribution, to which the others are drawn."""

    explanation: Explanation
    sentences: list[str]
    largest: float


def _told(explanations: Mapping[str, Explanation]) -> dict[str, Reasons]:
    from alertrec.catalog import ALERT_TYPES
    from alertrec.explanation import sentences
    from alertrec.monitoring import short_title

    titles = {entry.key: short_title(entry.key) for entry in ALERT_TYPES}
    return {
        alert_type: Reasons(each, sentences(each, titles), max((abs(c.value) for c in each.contributions), default=1))
        for alert_type, each in explanations.items()
    }


def _champion_before(rows: Sequence[ModelRow], champion: ModelRow | None) -> str | None:
    """Return the version to which a rollback goes."""
    if champion is None or champion.promoted_at is None:
        return None
    served = [(each.promoted_at, each.version) for each in rows if each.promoted_at is not None]
    return max((each for each in served if each[0] < champion.promoted_at), default=(None, None))[1]


def _address_of(user_id: str) -> str:
    return f"/dashboard/users/{quote(user_id, safe='')}"


def _asked(ask: Callable[[], Any]) -> Asked:
    try:
        return Asked(ask())
    except Exception as error:  # whatever is wrong is shown, as `alertrec doctor` does
        return Asked(None, first_line(error))
