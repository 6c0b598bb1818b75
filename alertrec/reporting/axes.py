"""From values to places on paper: round ticks and linear scales."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from alertrec.reporting.wording import number

ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
CHARACTER, LABEL_GAP = 6.3, 6  # the width of a digit in the labels of ticks, and the least space between two


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in the units of the drawing, and what it reads."""

    place: float
    label: str


@dataclass(frozen=True)
class Axis:
    """A linear axis whose ends are round numbers, `step` apart from tick to tick.

    Attributes
    ----------
    low, high : float
        The values at its ends.
    start, end : float
        Where the ends stand in the drawing; `start` is the larger for an axis that points up.
    """

    low: float
    high: float
    step: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value; one beyond an end is drawn at that end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """The ticks from end to end, all with as many decimals as the step needs."""
        decimals = _decimals(self.step)
        values = [self.low + n * self.step for n in range(round((self.high - self.low) / self.step) + 1)]
        return tuple(Tick(self(value), number(value, decimals)) for value in values)

    @property
    def is_legible(self) -> bool:
        """Whether no label touches the next; those of an axis that points up stand above one another."""
        distance = (self.end - self.start) * self.step / (self.high - self.low)
        return distance < 0 or distance > LABEL_GAP + CHARACTER * max(len(tick.label) for tick in self.ticks)


def axis_for(values: Iterable[float], *, start: float, end: float, n_steps: int = 4) -> Axis:
    """Return the axis with round ends that just holds the values.

    Parameters
    ----------
    values : floats
        What must fit; those that are unknown are passed over. None known: 0 to 1.
    n_steps : int
        About how many steps there should be at most; fewer if the labels would touch.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-6):
        around = abs(low) * 0.1 or 0.5
        low, high = low - around, high + around
    for fewer in range(n_steps, 0, -1):
        step = _round_step((high - low) / fewer)
        # Half a hair of tolerance, so that 0.30000000000000004 does not ask for a tick at 0.4.
        ends = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        axis = Axis(*ends, step, start, end)
        if axis.is_legible:
            break
    return axis


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step for step in ROUND_STEPS if step >= raw / power * (1 - 1e-9)) * power


def _decimals(step: float) -> int:
    for decimals in range(12):
        if math.isclose(step * 10**decimals, round(step * 10**decimals), rel_tol=1e-6, abs_tol=0.0):
            return decimals
    return 12
