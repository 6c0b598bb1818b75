"""Traces: one path from a request to the task that it sends, and to the queries of both, told to a collector.

Off unless the standard variables of OpenTelemetry name a collector; then the extra `traces` is needed. Until `start` is
called, all else here does nothing. What a span may tell stands in `alertrec.tracing.spans`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from alertrec.tracing.spans import Spans

logger = logging.getLogger(__name__)

_LIBRARIES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-instrumentation-psycopg")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# Asked for by machines, every few seconds, or files.
_UNTRACED = ("/health/", "/metrics", "/static/")

_spans: Spans | None = None  # of this process


def are_asked_for(environ: Mapping[str, str]) -> bool:
    """Return whether the environment asks for traces: by an exporter, or by a collector's address."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = _given(environ, "OTEL_TRACES_EXPORTER")
    return exporter != "none" if exporter else bool(_given(environ, *_ENDPOINTS))


def obstacle(environ: Mapping[str, str]) -> str | None:
    """Return why traces that are asked for cannot be had, and the remedy; None where they can."""
    if not are_asked_for(environ):
        return None
    exporter, protocol = _given(environ, "OTEL_TRACES_EXPORTER") or "otlp", _given(environ, *_PROTOCOLS)
    if exporter != "otlp":
        return f"there are no traces for OTEL_TRACES_EXPORTER={exporter}; known are otlp and none"
    if protocol not in (None, "http/protobuf"):
        return f"there are no traces by the protocol {protocol}; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    missing = [name for name in _LIBRARIES if not _is_installed(name)]
    if missing:
        return (
            f"traces are asked for, but {missing[0]} is missing; install alertrec[traces], or unset the OTEL_ variables"
        )
    return None


def say_obstacle(environ: Mapping[str, str]) -> None:
    """Log why there are no traces, if they are asked for: no reason to keep a process from its work."""
    if why := obstacle(environ):
        logger.warning(why)


def start(service: str, environ: Mapping[str, str]) -> None:
    """Begin to trace in this process, if that is asked for and can be had; before it connects, and after any fork.

    Parameters
    ----------
    service : str
        The name of this process in traces, unless the environment gives another.
    """
    global _spans  # noqa: PLW0603  # one a process is the point
    if are_asked_for(environ) and obstacle(environ) is None:
        from alertrec.tracing.spans import Spans

        _spans = Spans(service)


def stop() -> None:
    """Send what has been traced, for at most two seconds, and trace no more."""
    global _spans  # noqa: PLW0603
    if _spans is not None:
        _spans.close()
        _spans = None


def for_fastapi() -> TelemetryConfig:
    """Return how FastAPI, which traces by itself, is to do so.

    It takes no settings from the environment: as it would send them, spans and logs show paths and queries, which may
    name customers.
    """
    silent: TelemetryConfig = {
        "tracing": False,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
    }
    if _spans is None:
        return silent
    return {**silent, "tracing": True, "tracer_provider": _spans.provider, "exclude": _is_untraced}


def sending(task: str) -> AbstractContextManager[Mapping[str, str]]:
    """Trace the sending of a task; yields the headers by which its run is found to belong to the same trace."""
    return nullcontext({}) if _spans is None else _spans.sending(task)


def running(
    task: str, *, sent_by: object, task_id: object, n_retries: object, no_failures: tuple[type[Exception], ...] = ()
) -> AbstractContextManager[None]:
    """Trace a run of a task.

    Parameters
    ----------
    sent_by
        The header `traceparent` of its message, which may be anything.
    no_failures : tuple of exception types
        By which a run may end that has not failed.
    """
    if _spans is None:
        return nullcontext()
    return _spans.running(task, sent_by=sent_by, task_id=task_id, n_retries=n_retries, no_failures=no_failures)


def here() -> object:
    """Return the place in a trace that this is, for `at`."""
    return None if _spans is None else _spans.here()


def at(place: object) -> AbstractContextManager[None]:
    """Have what is done inside belong to a place in a trace."""
    return nullcontext() if _spans is None or place is None else _spans.at(place)


def _given(environ: Mapping[str, str], *names: str) -> str | None:
    return next((value for name in names if (value := environ.get(name, "").strip())), None)


def _is_installed(name: str) -> bool:
    # Asked of the metadata: to look for a module would load its package, in a process that forks.
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _is_untraced(scope: Mapping[str, Any]) -> bool:
    return str(scope["path"]).startswith(_UNTRACED)
