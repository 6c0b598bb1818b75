"""Reliability curves as plain shapes with coordinates; `charts.html.j2` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alertrec.reporting.axes import Axis, axis_for
from alertrec.reporting.charts import WIDTH
from alertrec.reporting.contents import Bin
from alertrec.reporting.wording import counted, interval, number


@dataclass(frozen=True)
class Point:
    """A bin as drawn: its place, the ends of its interval, the size of its dot, the height of its count."""

    x: float
    y: float
    y_low: float
    y_high: float
    radius: float
    bar: float
    full: str


@dataclass(frozen=True)
class ReliabilityChart:
    """Observed shares over predicted probabilities; a perfect model is on the diagonal."""

    title: str
    desc: str
    large: bool
    x: Axis
    y: Axis
    points: tuple[Point, ...]
    width: float
    height: float


def reliability_chart(title: str, bins: Sequence[Bin], *, large: bool) -> ReliabilityChart | None:
    """Lay a reliability curve out, both axes as far as its dots reach; None if it has no point.

    Parameters
    ----------
    large : bool
        With axis titles and, below, a bar for the number of predictions in each bin.
    """
    known = [each for each in bins if math.isfinite(each.predicted) and each.observed.is_known and each.n > 0]
    if not known:
        return None
    width, height = (WIDTH, 440) if large else (192, 158)
    left, right, top, bottom = (54, 380, 12, 318) if large else (42, 170, 8, 136)
    # The intervals do not stretch the axes: a bin of five predictions would press all others into the corner.
    reach = [0.0, *(value for each in known for value in (each.predicted, each.observed.value))]
    if max(reach) > 0.6:
        reach.append(1.0)
    x = axis_for(reach, start=left, end=right, n_steps=4 if large else 2)
    y = axis_for(reach, start=bottom, end=top, n_steps=4 if large else 2)
    most = max(each.n for each in known)
    return ReliabilityChart(
        title=title,
        desc="; ".join(_bin_in_words(each) for each in known) + ".",
        large=large,
        x=x,
        y=y,
        points=tuple(_point(each, x, y, most, 8.0 if large else 5.5) for each in known),
        width=width,
        height=height,
    )


def _point(each: Bin, x: Axis, y: Axis, most: int, largest: float) -> Point:
    observed, share = each.observed, each.n / most
    low, high = (observed.low, observed.high) if observed.has_interval else (observed.value, observed.value)
    return Point(
        x=x(each.predicted),
        y=y(observed.value),
        y_low=y(low),
        y_high=y(high),
        radius=round(max(0.45 * largest, largest * math.sqrt(share)), 2),
        bar=round(max(1.0, 48 * share), 2),
        full=_bin_in_words(each),
    )


def _bin_in_words(each: Bin) -> str:
    low_and_high = interval(each.observed)
    ends = f" ({low_and_high})" if low_and_high else ""
    return (
        f"predicted {number(each.predicted)}, observed {number(each.observed.value)}{ends}, {counted(each.n, 'time')}"
    )
