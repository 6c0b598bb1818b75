"""Progress on the terminal: bars where there is one, lines where output goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from alertrec.cli.common import notes

if TYPE_CHECKING:
    from alertrec.watching import JobState

Report = Callable[[str, int, int], None]  # step, done, of


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Yield a function that shows how far each step is."""
    if not notes.is_terminal:
        yield _lines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=notes) as progress:
        bars = {}

        def report(step: str, done: int, of: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=of)
            progress.update(bars[step], completed=done, total=of)

        yield report


def follow(states: Iterable[JobState], report: Report) -> JobState:
    """Show the states of a job as they come, and return the last one."""
    for state in states:
        report(state.step, state.total if state.finished else state.done, state.total)
    return state


def _lines() -> Report:
    """Return a reporter that says each step once, when it begins and when it is done."""
    said: set[tuple[str, bool]] = set()

    def report(step: str, done: int, of: int) -> None:
        key = (step, done >= of)
        if key not in said:
            said.add(key)
            notes.print(f"{step}: {done:,} of {of:,}")

    return report
