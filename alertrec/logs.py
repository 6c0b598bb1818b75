"""How the log is written: lines for people, or one JSON object a record for machines. Only entry points configure it.

No record tells what a message of the queue holds, or what an error says: both may tell of a customer. An error is told
by its kind and the places that it came through; what its text adds stands in the record's own message, where whoever
logged it answers for it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any
from uuid import UUID

TEXT, JSON = FORMATS = ("text", "json")
PROCESS_LINES = "%(asctime)s %(levelname)s %(name)s: %(message)s"
COMMAND_LINES = "%(levelname)s %(name)s: %(message)s"

Facts = Mapping[str, Any]

# What `logging` itself puts into a record, and what others do that is no fact: a copy of the message in colour, and
# Celery's `data`, which has the arguments of the task.
_OF_LOGGING = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message", "data"}
# Of a message that it cannot take, Celery logs what it holds, from the second line on.
_SHOWS_MESSAGES = "celery.worker.consumer.consumer"
_MAX_FRAMES = 50


def configure_logging(
    log_format: str,
    *,
    level: int = logging.INFO,
    lines: str = PROCESS_LINES,
    bound: Callable[[], Facts] = dict,
    force: bool = True,
) -> None:
    """Have this process write its log to the standard error.

    Parameters
    ----------
    log_format : one of `FORMATS`
    lines : str
        The form of a line of text.
    bound : callable
        Returns what each JSON record is to tell of the moment, such as the task that runs.
    force : bool
        In place of however it does; else, only where it does not yet.
    """
    handler = logging.StreamHandler()
    handler.addFilter(without_message_bodies)
    handler.setFormatter(JsonFormatter(bound) if log_format == JSON else TextFormatter(lines))
    logging.basicConfig(level=level, handlers=[handler], force=force)
    logging.captureWarnings(log_format == JSON)


def without_message_bodies(record: logging.LogRecord) -> bool:
    """Cut what Celery says of a message that it cannot take to its first line; a filter that lets all records pass."""
    if record.name == _SHOWS_MESSAGES and record.args:
        record.msg, record.args = (record.getMessage().strip().splitlines() or [""])[0], ()
    return True


class TextFormatter(logging.Formatter):
    """Writes a record as text; of an error where it came from and its kind, and not what it says."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  # as `logging` calls it
        """Return the places of an error, outermost first, and its kind."""
        places = _places_of(ei[1], seen=set())
        return "\n".join(["Traceback, without what errors say:", *places, type(ei[1]).__name__])


class JsonFormatter(logging.Formatter):
    """Writes a record as one line: `ts`, `level`, `logger`, `message`, and the facts that came as `extra`."""

    def __init__(self, bound: Callable[[], Facts] = dict) -> None:
        super().__init__()
        self._bound = bound

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **self._bound(),
            **_task_of(record),
            **{name: value for name, value in vars(record).items() if name not in _OF_LOGGING},
            **_error_of(record),
        }
        return json.dumps(_plain(told))


def _task_of(record: logging.LogRecord) -> Facts:
    """Return the task that Celery tells of in a record of its own."""
    data = getattr(record, "data", None)
    if not isinstance(data, Mapping):
        return {}
    return {key: data[name] for key, name in (("task_id", "id"), ("task", "name")) if name in data}


def _error_of(record: logging.LogRecord) -> Facts:
    """Return the kind of the error of a record and where it came through, its causes first."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return {}
    return {"error_kind": type(error).__name__, "traceback": list(_places_of(error, seen=set()))}


def _places_of(error: BaseException, *, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen:
        yield from _places_of(cause, seen=seen)
        yield f"{type(cause).__name__}, which led to"
    yield from _frames(error.__traceback__)


def _frames(trace: TracebackType | None) -> Iterator[str]:
    # Not `traceback.extract_tb`: of an error in a child of its pool, Celery hands on a likeness of a traceback.
    n_frames = 0
    while trace is not None and n_frames < _MAX_FRAMES:
        code = trace.tb_frame.f_code
        yield f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}"
        trace, n_frames = trace.tb_next, n_frames + 1


def _plain(value: Any) -> Any:
    """Return what has a form in JSON; of any other thing, its kind."""
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (float, datetime, date, UUID)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    return type(value).__name__
