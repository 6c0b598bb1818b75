"""What the pictures of the dashboard show, as JSON that dashboard.js draws."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from alertrec.web.rendering import day, percent

if TYPE_CHECKING:
    from datetime import date

    from alertrec.monitoring import AlertEngagement, Day, Reliability
    from alertrec.user_story import UserStory

Chart = Mapping[str, object]


def verdict(reliability: Reliability) -> str:
    """Return in a sentence whether offers are accepted as often as promised."""
    if not reliability.points:
        return ""
    promised = sum(point.predicted * point.n for point in reliability.points) / reliability.n
    observed = sum(point.observed * point.n for point in reliability.points) / reliability.n
    n_off = sum(not point.observed_low <= point.predicted <= point.observed_high for point in reliability.points)
    agree = (
        "All groups agree with their promise within chance."
        if not n_off
        else (
            f"Of {len(reliability.points)} groups, {n_off} "
            f"{'is' if n_off == 1 else 'are'} further from the promise than chance explains."
        )
    )
    return f"Promised were {percent(promised)} on average, and {percent(observed)} were accepted. {agree}"


def days_chart(days: Sequence[Day]) -> Chart:
    """Return what the picture of offers by day shows."""
    names = {"Shown": "shown", "Accepted": "accepted", "Dismissed": "dismissed", "Snoozed": "snoozed"}
    series = [
        {"name": name, "tone": tone, "values": [getattr(each, f"n_{tone}") for each in days]}
        for name, tone in names.items()
    ]
    return {"kind": "days", **_days(each.day for each in days), "series": series}


def alerts_chart(alerts: Sequence[AlertEngagement]) -> Chart:
    """Return what the picture of answers by alert type shows."""
    totals = [each.totals for each in alerts]
    answered = [each.n_accepted + each.n_snoozed + each.n_dismissed for each in totals]
    series = [
        {"name": "Accepted", "tone": "accepted", "values": [each.n_accepted for each in totals]},
        {"name": "Snoozed", "tone": "snoozed", "values": [each.n_snoozed for each in totals]},
        {"name": "Dismissed", "tone": "dismissed", "values": [each.n_dismissed for each in totals]},
        {
            "name": "No answer",
            "tone": "silent",
            "values": [max(each.n_shown - n, 0) for each, n in zip(totals, answered, strict=True)],
        },
    ]
    return {"kind": "alerts", "labels": [textwrap.wrap(each.title, 20) for each in alerts], "series": series}


def reliability_chart(reliability: Reliability) -> Chart:
    """Return what the picture of promised and observed acceptance shows."""
    points = [
        {
            "x": point.predicted,
            "y": point.observed,
            "low": point.observed_low,
            "high": point.observed_high,
            "n": point.n,
            "note": f"{point.n:,} offers: promised {percent(point.predicted)}, accepted {percent(point.observed)} "
            f"({percent(point.observed_low)} – {percent(point.observed_high)})",
        }
        for point in reliability.points
    ]
    furthest = max((end for p in reliability.points for end in (p.predicted, p.observed_high)), default=1.0)
    return {"kind": "reliability", "points": points, "limit": min(1.0, int(furthest * 10 + 1) / 10)}


def spending_chart(story: UserStory, money: Callable[[float], str]) -> Chart:
    """Return what the picture of one customer's spending shows: the days, and in a lane for each rule its firings."""
    place = {each.day: index for index, each in enumerate(story.spending)}
    lanes = [
        [
            {"x": place[each.day], "note": f"Rule {number}: {each.merchant or 'purchase'}, {money(each.amount)}"}
            for each in rule.fired
            if each.day in place
        ]
        for number, rule in enumerate(story.rules, 1)
    ]
    return {
        "kind": "spending",
        **_days(each.day for each in story.spending),
        "values": [each.amount for each in story.spending],
        "notes": [f"{money(each.amount)} in {each.n_purchases} purchases" for each in story.spending],
        "lanes": lanes,
    }


def _days(days: Iterable[date]) -> dict[str, list[str]]:
    every = list(days)
    return {"labels": [f"{each.day} {each:%b}" for each in every], "titles": [day(each) for each in every]}
