"""Pages from templates: one environment, one `render`, and how numbers and moments are written in them."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alertrec.web.access import csrf_token

NOTHING = "–"
_UNITS = ((86_400, "day", "days"), (3_600, "h", "h"), (60, "min", "min"), (1, "s", "s"))


def render(request: Request, name: str, status_code: int = 200, **context: Any) -> HTMLResponse:
    """Return a template filled with a context, and with what every page needs.

    That is `csrf_token`, `viewer` (who is signed in, or None), `path` of the request, and `now`.
    """
    everywhere = {
        "csrf_token": csrf_token(request),
        "viewer": getattr(request.state, "viewer", None),
        "path": request.url.path,
        "now": datetime.now(UTC),
    }
    return HTMLResponse(_environment().get_template(name).render(everywhere | context), status_code)


def percent(share: float | None) -> str:
    """Return a share as percent, with a decimal below ten: 0.704 gives "70%", 0.043 gives "4.3%"."""
    if share is None or not math.isfinite(share):
        return NOTHING
    return f"{share:.1%}" if 0 < abs(share) < 0.0995 else f"{share:.0%}"


def count(number: float | None) -> str:
    """Return a whole number such as "1,240"."""
    return NOTHING if number is None else f"{number:,.0f}"


def decimal(number: float | None, places: int = 3) -> str:
    """Return a number with so many decimals."""
    return NOTHING if number is None or not math.isfinite(number) else f"{number:,.{places}f}"


def signed(number: float) -> str:
    """Return a number with two decimals and its sign."""
    return f"{number:+.2f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Return a time span in its largest unit: 90 gives "1 min", 172,800 gives "2 days", 0.2 gives "< 1 s"."""
    if seconds is None:
        return NOTHING
    for size, one, many in _UNITS:
        number = int(seconds // size)
        if number:
            return f"{number} {one if number == 1 else many}"
    return "< 1 s"


def ago(moment: datetime | None) -> Markup:
    """Return how long ago a moment was, such as "5 min ago", with the moment itself for the pointer."""
    if moment is None:
        return Markup("never")
    seconds = (datetime.now(UTC) - moment).total_seconds()
    said = f"in {duration(-seconds)}" if seconds <= -1 else f"{duration(max(seconds, 0))} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(moment.isoformat(), exactly(moment), said)


def day(moment: date | None) -> str:
    """Return a date such as "7 Nov 2026"."""
    return NOTHING if moment is None else f"{moment.day} {moment:%b %Y}"


def exactly(moment: datetime | None) -> str:
    """Return a moment such as "7 Nov 2026, 14:05 UTC"."""
    return NOTHING if moment is None else f"{day(moment.astimezone(UTC))}, {moment.astimezone(UTC):%H:%M} UTC"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("alertrec.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for written in (percent, count, decimal, signed, duration, ago, day, exactly):
        environment.filters[written.__name__] = written
    return environment
