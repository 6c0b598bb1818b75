"""The plots as plain shapes with coordinates; `charts.html.j2` draws them, and escapes what is text.

A drawing is 400 units wide, which a phone shows almost at full size and a desktop beside a second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alertrec.reporting.axes import Axis, axis_for
from alertrec.reporting.contents import Estimate
from alertrec.reporting.wording import interval, number

WIDTH, LABELS_END, PLOT_END = 400, 138, 336
ROW_HEIGHT, HEAD_HEIGHT, AXIS_HEIGHT = 26, 22, 44
MAX_LABEL = 19

# The chosen model has its row shaded; a firm mark looks like it, without the shade.
PLAIN, CHOSEN, FIRM, WARNED, BAD = "plain", "chosen", "firm", "warned", "bad"


@dataclass(frozen=True)
class Mark:
    """A row to plot: its label, its value, how it is to look, and a remark in small print behind the label."""

    label: str
    estimate: Estimate
    tone: str = PLAIN
    remark: str = ""


@dataclass(frozen=True)
class Reference:
    """A value drawn as a dashed line across the rows."""

    value: float
    label: str


@dataclass(frozen=True)
class Row:
    """A row as drawn; `mark` is None for a heading. `x`, `x_low`, `x_high` are None where there is nothing to draw."""

    y: float
    label: str
    full: str
    text: str = ""
    mark: Mark | None = None
    x: float | None = None
    x_low: float | None = None
    x_high: float | None = None


@dataclass(frozen=True)
class RowChart:
    """Rows of dots with intervals, or of bars, over one axis."""

    title: str
    desc: str
    unit: str
    bars: bool
    axis: Axis
    rows: tuple[Row, ...]
    references: tuple[tuple[float, str], ...]
    bottom: float

    width, labels_end = WIDTH, LABELS_END

    @property
    def height(self) -> float:
        return self.bottom + AXIS_HEIGHT


def row_chart(
    title: str,
    marks: Iterable[Mark | str],
    *,
    unit: str,
    decimals: int = 3,
    references: Sequence[Reference] = (),
    bars: bool = False,
) -> RowChart | None:
    """Lay marks out as rows, each text among them as a heading; None if no mark has a value.

    Parameters
    ----------
    unit : str
        What the axis reads.
    bars : bool
        Draw bars from zero, not dots with their intervals.
    """
    all_marks = list(marks)
    known = [mark for mark in all_marks if isinstance(mark, Mark) and mark.estimate.is_known]
    if not known:
        return None
    values = [value for mark in known for value in (mark.estimate.value, mark.estimate.low, mark.estimate.high)]
    fixed = [reference.value for reference in references] + ([0.0] if bars else [])
    axis = axis_for([*values, *fixed], start=LABELS_END + 8, end=PLOT_END)
    rows, bottom = _rows(all_marks, axis, decimals, top=24 if references else 8)
    return RowChart(
        title=title,
        desc="; ".join(row.full for row in rows if row.mark is not None) + f". Axis: {unit}.",
        unit=unit,
        bars=bars,
        axis=axis,
        rows=tuple(rows),
        references=tuple((axis(reference.value), reference.label) for reference in references),
        bottom=bottom,
    )


def _rows(marks: Iterable[Mark | str], axis: Axis, decimals: int, top: float) -> tuple[list[Row], float]:
    rows, y = [], top
    for mark in marks:
        height = HEAD_HEIGHT if isinstance(mark, str) else ROW_HEIGHT
        rows.append(_row(mark, y + height / 2, axis, decimals))
        y += height
    return rows, y


def _row(mark: Mark | str, y: float, axis: Axis, decimals: int) -> Row:
    if isinstance(mark, str):
        return Row(y, mark, mark)
    estimate, low_and_high = mark.estimate, interval(mark.estimate, decimals)
    return Row(
        y=y,
        label=clipped(mark.label, MAX_LABEL + (1 - len(mark.remark) if mark.remark else 0)),
        full=f"{mark.label}{f' ({mark.remark})' if mark.remark else ''}: {number(estimate.value, decimals)}"
        + (f" ({low_and_high})" if low_and_high else ""),
        text=number(estimate.value, decimals),
        mark=mark,
        x=axis(estimate.value) if estimate.is_known else None,
        x_low=axis(estimate.low) if low_and_high else None,
        x_high=axis(estimate.high) if low_and_high else None,
    )


def clipped(text: str, n_characters: int) -> str:
    """Return a text, its middle left out if it is too long: features often differ in their last word only."""
    if len(text) <= n_characters:
        return text
    n_kept = max(n_characters - 1, 2)
    return f"{text[: n_kept - n_kept // 2]}…{text[-(n_kept // 2) :]}"
