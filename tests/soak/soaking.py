"""The soak: load, then silence, and what is left then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alertrec.task_names import QUEUES
from tests.integration.processes import tuples, wait_for
from tests.soak.figures import Figure, Watch, keys_of
from tests.soak.load import Load
from tests.soak.system import System, n_wrong_lists, running_system, scalar

DRAINED_SECONDS = 180  # what a killed process was at is tried again with pauses; a tick comes each minute
SAMPLES = 90


@dataclass(frozen=True)
class Report:
    """What was done, what was seen, and which promises were broken."""

    minutes: float
    done: Counter[str]
    answers: Counter[int]
    children: Counter[str]
    figures: Sequence[Figure]
    keys_left: Counter[tuple[str, bool]]  # kind, and whether it goes by itself
    broken: Sequence[str]


def soak(scratch: Path, *, minutes: float) -> Report:
    """Start everything, have it under load for so long, let it come to rest, and look."""
    with running_system(scratch) as system:
        before = _keys(system)
        load, watch = Load(system), Watch(system, seconds=max(1.0, minutes * 60 / SAMPLES / 4))
        with load.running(), watch.running():
            ended = _let_pass(system, minutes * 60)
        is_drained = _comes_true(lambda: is_at_rest(system), DRAINED_SECONDS)
        _comes_true(lambda: n_letters(system) >= load.given_up.total(), 20)  # told below
        after, figures = _keys(system), watch.figures()
        broken = [
            *ended,
            *([] if is_drained else [f"work was not at rest {DRAINED_SECONDS} s after the load"]),
            *(f"{each.name} grew from {each.middle:.1f} to {each.last:.1f}" for each in figures if not each.is_flat),
            *([] if figures else ["too little was sampled to see what grows"]),
            *watch.errors,
            *load.troubles,
            *_keys_left_over(before, after, load),
            *_wrong_rows(system, load),
        ]
        return Report(minutes, load.done, load.answers, watch.children, figures, after, broken)


def is_at_rest(system: System) -> bool:
    """Return whether nothing waits and nothing is under way."""
    return (
        not any(system.broker.llen(queue) for queue in QUEUES)
        and system.broker.hlen("unacked") == 0
        and scalar(system.engine, "SELECT count(*) FROM alertrec.job_runs WHERE finished_at IS NULL") == 0
        and scalar(system.engine, "SELECT count(*) FROM alertrec.alert_actions WHERE processed_at IS NULL") == 0
    )


def n_letters(system: System) -> int:
    """Return how many messages were given up."""
    return scalar(system.engine, "SELECT count(*) FROM alertrec.dead_letters")


def _let_pass(system: System, seconds: float) -> list[str]:
    """Wait for so long, or until a process has ended, and return which have and how."""
    started, ended = time.monotonic(), list[str]()
    while not ended and (passed := time.monotonic() - started) < seconds:
        ended = [
            f"{name} ended with status {process.returncode} after {passed / 60:.1f} minutes"
            for name, process in system.processes.items()
            if process.poll() is not None
        ]
        time.sleep(0.5)
    return ended


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    with suppress(AssertionError):
        return wait_for(condition, seconds=seconds)
    return False


def _keys(system: System) -> Counter[tuple[str, bool]]:
    return Counter((kind, seconds is not None) for kind, seconds in keys_of(system))


def _keys_left_over(before: Counter[tuple[str, bool]], after: Counter[tuple[str, bool]], load: Load) -> Iterator[str]:
    for (kind, ends), n in after.items():
        if not ends and n > before[kind, ends]:
            yield f"{n} keys {kind} stay for ever; there were {before[kind, ends]}"
    n_lost = after["alertrec:lost:…", True]
    if n_lost > load.done["children killed"]:
        yield f"{n_lost} messages are counted as lost; {load.done['children killed']} children were killed"


def _wrong_rows(system: System, load: Load) -> Iterator[str]:
    if n := n_wrong_lists(system.engine):
        yield f"{n} active users have no complete list"
    for job, error in tuples(system.engine, "SELECT job, error FROM alertrec.job_runs WHERE status = 'failed'"):
        yield f"a {job} failed: {error}"
    stored = Counter(str(row[0]) for row in tuples(system.engine, "SELECT event_id FROM alertrec.alert_actions"))
    if lost := load.events - set(stored):
        yield f"{len(lost)} events were taken and are not there"
    letters = [
        f"{task}: {reason}" for task, reason in tuples(system.engine, "SELECT task, reason FROM alertrec.dead_letters")
    ]
    for reason, n in load.given_up.items():
        found = [letter for letter in letters if reason in letter]
        letters = [letter for letter in letters if reason not in letter]
        if len(found) != n:
            yield f"{len(found)} messages were given up as {reason!r}; {n} were sent"
    yield from (f"a message was given up: {letter}" for letter in letters)
