"""From the report's JSON to its contents: strict about what must be there, silent about sections that are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from alertrec.errors import DataError
from alertrec.reporting.contents import (
    Ablation,
    AlertScore,
    Answered,
    Bin,
    Comparison,
    Estimate,
    Gate,
    Group,
    Leak,
    ModelScore,
    Protocol,
    Report,
)

FORMAT = 1
T = TypeVar("T")


class Section:
    """A JSON object and where it stands, so that a complaint names the place."""

    def __init__(self, content: Any, path: str = "") -> None:
        if not isinstance(content, Mapping):
            raise DataError(f"{path or 'the report'} must be an object, not {_shown(content)}")
        self.content = content
        self.path = path

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _get(self, key: str, kind: type | tuple[type, ...], words: str) -> Any:
        if key not in self.content:
            raise DataError(f"the report lacks {self._at(key)}, which must be {words}")
        value = self.content[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise DataError(f"{self._at(key)} of the report must be {words}, not {_shown(value)}")
        return value

    def text(self, key: str) -> str:
        return str(self._get(key, str, "a text"))

    def count(self, key: str) -> int:
        return int(self._get(key, int, "a whole number"))

    def truth(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def moment(self, key: str) -> datetime:
        text = self.text(key)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise DataError(f"{self._at(key)} of the report must be an ISO time, not {text!r}") from error
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    def number(self, key: str) -> float:
        """Return a number; NaN for null and for infinity, which nothing can show."""
        value = self._get(key, (int, float, type(None)), "a number or null")
        return float(value) if value is not None and math.isfinite(value) else math.nan

    def estimate(self, key: str = "value") -> Estimate:
        return Estimate(self.number(key), self.number("low"), self.number("high"))

    def child(self, key: str) -> Section:
        return Section(self._get(key, Mapping, "an object"), self._at(key))

    def has(self, key: str) -> bool:
        return self.content.get(key) is not None

    def children(self, key: str) -> Iterator[tuple[str, Section]]:
        """Yield name and content of the objects below a key; none if it is absent or null, as may be each of them."""
        if self.has(key):
            child = self.child(key)
            yield from ((name, child.child(name)) for name in child.content if child.has(name))

    def each(self, key: str, read: Callable[[Section], T]) -> tuple[T, ...]:
        """Return what `read` makes of the objects in a list; nothing if it is absent."""
        values = self._get(key, (list, tuple), "a list") if self.has(key) else ()
        return tuple(read(Section(value, f"{self._at(key)}[{place}]")) for place, value in enumerate(values))


def read_report(content: Mapping[str, Any]) -> Report:
    """Return the contents of a report.

    Raises
    ------
    DataError
        If a required field is missing or of the wrong kind, or the format is another; it names the field.
    """
    report = Section(content)
    if (found := report.count("format")) != FORMAT:
        raise DataError(f"this is a report of format {found}; this version of alertrec reads format {FORMAT}")
    protocols = {name: _protocol(section) for name, section in report.children("protocols")}
    return Report(
        created_at=report.moment("created_at"),
        as_of=report.moment("as_of"),
        version=report.text("version") if report.has("version") else None,
        algorithm=report.text("algorithm"),
        n_users=report.count("n_users"),
        n_enabled=_numbers(report, "n_enabled", Section.count),
        leave_one_out=protocols.get("leave_one_out"),
        split_in_time=protocols.get("split_in_time"),
        groups={
            name: tuple(_group(level, group) for level, group in report.child("groups").children(name))
            for name, _ in report.children("groups")
        },
        gates=report.each("gates", _gate),
        drift=_numbers(report, "drift", Section.number) if report.has("drift") else None,
        ablation=report.each("ablation", _ablation),
        leaks=report.each("leaks", _leak) if report.has("leaks") else None,
        answers=tuple(_answered(alert, section) for alert, section in report.children("answers")),
    )


def _numbers(report: Section, key: str, read: Callable[[Section, str], T]) -> dict[str, T]:
    if not report.has(key):
        return {}
    section = report.child(key)
    return {name: read(section, name) for name in section.content}


def _protocol(section: Section) -> Protocol:
    if section.has("skipped"):
        return Protocol(skipped=section.text("skipped"))
    return Protocol(
        skipped=None,
        split_at=section.moment("split_at") if section.has("split_at") else None,
        n_users=section.count("n_users"),
        n_folds=section.count("n_folds") if section.has("n_folds") else None,
        models={name: _model(name, model) for name, model in section.children("models")},
        comparisons=section.each("comparisons", _comparison),
    )


def _model(name: str, section: Section) -> ModelScore:
    metrics = section.child("metrics")
    return ModelScore(
        name=name,
        metrics={key: metrics.child(key).estimate() for key in metrics.content if metrics.has(key)},
        reliability=section.each("reliability", _bin),
        by_alert=tuple(_alert(alert, score) for alert, score in section.children("by_alert")),
        calibrated=section.has("calibrated") and section.truth("calibrated"),
    )


def _alert(alert: str, section: Section) -> AlertScore:
    counts = section.count("n_wanted"), section.count("n_offered")
    errors = section.number("log_loss"), section.number("calibration_error")
    return AlertScore(alert, *counts, *errors, section.each("reliability", _bin))


def _bin(section: Section) -> Bin:
    return Bin(section.number("predicted"), section.estimate("observed"), section.count("n"))


def _comparison(section: Section) -> Comparison:
    names = section.text("model"), section.text("against"), section.text("metric")
    return Comparison(*names, section.estimate("difference"))


def _group(name: str, section: Section) -> Group:
    log_loss, mrr = (
        section.child(key).estimate() if section.has(key) else Estimate(math.nan) for key in ("log_loss", "mrr")
    )
    return Group(name, section.count("n_users"), log_loss, mrr)


def _gate(section: Section) -> Gate:
    measured, bound = (section.number(key) if section.has(key) else math.nan for key in ("measured", "bound"))
    return Gate(section.text("name"), section.truth("passed"), measured, bound, section.text("message"))


def _ablation(section: Section) -> Ablation:
    columns = section.content.get("columns") or ()
    without = section.number("log_loss_without")
    return Ablation(section.text("features"), tuple(map(str, columns)), without, section.estimate("difference"))


def _leak(section: Section) -> Leak:
    return Leak(section.text("feature"), section.text("alert"), section.number("auc"), section.count("n"))


def _answered(alert: str, section: Section) -> Answered:
    return Answered(alert, section.count("n_answers"), section.count("n_taken"), section.number("shift"))


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
