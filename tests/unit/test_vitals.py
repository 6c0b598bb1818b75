"""What the vitals are, apart from the servers that they are read from."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from alertrec.settings import Settings
from alertrec.vitals import NAMES, Vital, unknown_vitals
from alertrec.web.health import VitalFigures

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def vital(
    value: float | None, *, limit: float | None = 2.0, is_missing: bool = False, queue: str | None = None
) -> Vital:
    return Vital("queue_length", value, limit, "messages", "waiting", queue=queue, is_missing=is_missing)


@pytest.mark.parametrize(
    ("given", "in_danger"),
    [
        (vital(2.0), False),
        (vital(2.1), True),
        (vital(None), False),
        (vital(None, is_missing=True), True),
        (vital(1e9, limit=None), False),
    ],
)
def test_danger_is_beyond_the_limit_or_where_nobody_knows(given: Vital, in_danger: bool):
    assert given.is_in_danger is in_danger


def test_operations_has_a_paragraph_for_each_alarm_and_for_nothing_else():
    alarms = OPERATIONS.read_text("utf-8").split("\n## Alarms\n")[1].split("\n## ")[0]
    paragraphs = re.findall(r"^### (\w+)\n\n(\S.+?)(?:\n\n|\Z)", alarms, flags=re.MULTILINE | re.DOTALL)
    assert [name for name, _ in paragraphs] == list(NAMES)
    assert all(len(said) > 60 for _, said in paragraphs)


def test_what_is_not_known_is_in_danger_under_every_name():
    vitals = unknown_vitals(Settings(retrain_days=3))
    assert list(dict.fromkeys(each.name for each in vitals)) == list(NAMES)
    assert all(each.is_in_danger and each.value is None for each in vitals)
    assert next(each.limit for each in vitals if each.name == "model_age_days") == 6


def samples(figures: VitalFigures) -> dict[tuple[str, ...], float]:
    found = [sample for family in figures.collect() for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in found}


def figures_of(read: Callable[[], Sequence[Vital]], **options: float) -> VitalFigures:
    return VitalFigures(read, [vital(None, is_missing=True)], **options)


def test_one_queue_in_danger_is_danger():
    figures = figures_of(lambda: [vital(1.0, queue="batch"), vital(3.0, queue="control")])
    assert samples(figures) == {
        ("alertrec_queue_length", "batch"): 1.0,
        ("alertrec_queue_length", "control"): 3.0,
        ("alertrec_in_danger", "queue_length"): 1.0,
    }


@pytest.mark.parametrize(("good_for_seconds", "n_asked"), [(60.0, 1), (0.0, 3)])
def test_the_servers_are_asked_once_in_a_while(good_for_seconds: float, n_asked: int):
    asked = []
    figures = figures_of(lambda: asked.append(1) or [vital(1.0)], good_for_seconds=good_for_seconds)
    assert samples(figures) == samples(figures)
    assert samples(figures)["alertrec_in_danger", "queue_length"] == 0.0
    assert len(asked) == n_asked


def test_a_server_that_never_answers_holds_up_no_scrape_and_is_asked_by_one():
    thawed, asked = threading.Event(), []
    figures = figures_of(lambda: asked.append(1) or (thawed.wait(20) and [vital(1.0)]), patience_seconds=0.01)
    assert samples(figures) == samples(figures) == {("alertrec_in_danger", "queue_length"): 1.0}
    assert asked == [1]
    thawed.set()


def test_a_server_that_came_back_is_known_again():
    thawed = threading.Event()
    figures = figures_of(lambda: thawed.wait(20) and [vital(1.0)], patience_seconds=0.01)
    samples(figures)
    thawed.set()
    figures._patience_seconds = 20
    assert samples(figures)["alertrec_in_danger", "queue_length"] == 0.0
