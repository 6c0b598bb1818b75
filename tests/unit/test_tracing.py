"""Traces: when there are any, and what a span may tell."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from alertrec import tracing
from alertrec.tracing import spans

ROOT = Path(__file__).parents[2]
SECRET = "Merchant of Ann"
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "bank"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (COLLECTOR, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (COLLECTOR | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (COLLECTOR | {"OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_traces_are_asked_for_by_the_standard_variables(environ: dict[str, str], asked: bool):
    assert tracing.are_asked_for(environ) is asked
    assert tracing.obstacle(environ) is None


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin"),
        (COLLECTOR | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        (COLLECTOR | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, "grpc"),
    ],
)
def test_what_there_are_no_traces_by_is_said_with_the_remedy(
    environ: dict[str, str], named: str, caplog: pytest.LogCaptureFixture
):
    tracing.start("alertrec web", environ)  # does nothing, and keeps no process from its work
    assert tracing.here() is None
    tracing.say_obstacle(environ)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert named in record.getMessage()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracing, "_LIBRARIES", ("opentelemetry-sdk", "opentelemetry-of-tomorrow"))
    message = tracing.obstacle(COLLECTOR)
    assert message is not None
    assert "opentelemetry-of-tomorrow is missing; install alertrec[traces]" in message
    assert tracing.obstacle({}) is None


@pytest.mark.parametrize("service", ["worker", "web"])
def test_a_process_that_does_not_trace_loads_nothing_for_it(service: str, tmp_path: Path):
    # FastAPI and redis load OpenTelemetry's interface by themselves where it is installed; that does nothing.
    code = f"""
import os, sys, threading
import tasks.celery_app
from alertrec import tracing
if {service!r} == "worker":
    tasks.celery_app._prepare_child()
else:
    from alertrec.settings import Settings
    from alertrec.web import create_app
    tracing.start("alertrec web", os.environ)
    app = create_app(Settings.from_env(os.environ))
    assert not app._native_telemetry.enabled()
of_traces = "opentelemetry.sdk.trace opentelemetry.exporter opentelemetry.instrumentation alertrec.tracing.spans"
print(*(name for name in of_traces.split() if name in sys.modules), threading.active_count())
"""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "ALERTREC_"))}
    servers = {"ALERTREC_DATABASE_URL": "postgresql://h/d", "ALERTREC_REDIS_URL": "redis://h/0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**inherited, **servers, "PYTHONPATH": str(ROOT), "FASTAPI_OTEL_AUTO_CONFIGURE": "true"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["1"]), done.stderr


# --- what a span may tell


class Sent(InMemorySpanExporter):
    """What was sent, as it left."""

    def one(self) -> ReadableSpan:
        (span,) = self.get_finished_spans()
        return span


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def provider(sent: Sent) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.sampler = spans.NoLoneQueries(provider.sampler)
    provider.add_span_processor(SimpleSpanProcessor(spans.ScrubbingExporter(sent)))
    yield provider
    provider.shutdown()


def test_a_span_tells_what_is_listed_and_nothing_else(provider: TracerProvider, sent: Sent):
    told: dict[str, Any] = {
        "http.route": "/dashboard/users/{user_id}",
        "http.response.status_code": 404,
        "db.statement": "SELECT * FROM users WHERE id = %(id)s AND name = 'Ann''s' AND cut = 'off",
        "url.path": f"/dashboard/users/{SECRET}",
        "url.query": SECRET,
        "http.target": SECRET,
        "client.address": SECRET,
        "server.address": SECRET,
        "user_agent.original": SECRET,
        "db.statement.parameters": SECRET,
        "db.user": SECRET,
        "celery.args": SECRET,
    }
    with provider.get_tracer("t").start_as_current_span("GET /dashboard", attributes=told):
        pass
    assert dict(sent.one().attributes or {}) == {
        "http.route": "/dashboard/users/{user_id}",
        "http.response.status_code": 404,
        "db.statement": "SELECT * FROM users WHERE id = %(id)s AND name = '…' AND cut = '…'",
    }


def test_an_error_is_told_by_its_kind(provider: TracerProvider, sent: Sent):
    def fail() -> None:
        with provider.get_tracer("t").start_as_current_span("run") as span:
            span.add_event(SECRET, {"customer": SECRET})
            raise KeyError(SECRET)

    with pytest.raises(KeyError):
        fail()
    found = sent.one()
    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, None)
    assert [(event.name, dict(event.attributes or {})) for event in found.events] == [
        ("exception", {"exception.type": "KeyError"})
    ]
    assert SECRET not in found.to_json()


def test_what_callers_add_to_their_place_in_a_trace_ends_with_us(provider: TracerProvider, sent: Sent):
    said = TraceState([("bank", "customer-of-ann")])
    caller = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=said)
    parent = set_span_in_context(NonRecordingSpan(caller))
    with provider.get_tracer("t").start_as_current_span("GET", parent, SpanKind.SERVER, links=[Link(caller)]):
        pass
    found = sent.one()
    assert found.context is not None
    assert found.parent is not None
    assert (found.context.trace_id, found.parent.span_id) == (1, 2)
    assert "customer-of-ann" not in found.to_json()
    assert found.links == ()


def test_queries_are_traced_as_part_of_something_only(provider: TracerProvider, sent: Sent):
    tracer = provider.get_tracer("t")
    with tracer.start_as_current_span("UPDATE", kind=SpanKind.CLIENT):
        pass
    assert sent.get_finished_spans() == ()
    with tracer.start_as_current_span("run"):
        for name in (";", "SELECT"):
            with tracer.start_as_current_span(name, kind=SpanKind.CLIENT):
                pass
    assert [span.name for span in sent.get_finished_spans()] == ["SELECT", "run"]


class Flaky(SpanExporter):
    """A collector that answers as it is told to."""

    def __init__(self, *answers: SpanExportResult | Exception) -> None:
        self.answers = list(answers)

    def export(self, _: object) -> SpanExportResult:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_collector_that_is_away_is_told_of_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    away, there = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    exporter = spans.ScrubbingExporter(Flaky(there, away, ValueError(SECRET), away, there, there, ValueError(SECRET)))
    for _ in range(7):
        exporter.export([])
    assert [record.getMessage() for record in caplog.records] == [
        "traces are lost: the collector does not take them",
        "traces are sent again",
        "traces are lost: ValueError",
    ]


def test_the_environment_may_name_a_process(monkeypatch: pytest.MonkeyPatch):
    def name() -> object:
        return spans._resource("alertrec web").attributes["service.name"]

    for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(variable, raising=False)
    assert name() == "alertrec web"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=bank")
    assert name() == "bank"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "bank 2")
    assert name() == "bank 2"
