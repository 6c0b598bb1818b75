"""Spans as they leave a process: they tell what was done and how long it took, and nothing of a customer.

The libraries that make them put in whatever they see: paths and queries, addresses, what errors say. So every span is
made anew before it is sent, from a list of what it may tell.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from alertrec.task_names import INTERACTIVE, QUEUE_OF

logger = logging.getLogger(__name__)

STOP_SECONDS = 2.0
_MOST_CHARACTERS = 2000  # of an attribute: statements that write many rows are long, and wait in memory
_SERVICE_NAME = "service.name"
_TRACEPARENT = "traceparent"

# What a span may tell. Of a statement the text, in which what is bound does not stand.
_TOLD = frozenset({
    "http.request.method", "http.response.status_code", "http.route", "url.scheme", "network.protocol.name",
    "network.protocol.version", "error.type",
    "db.system", "db.name", "db.statement", "db.system.name", "db.namespace", "db.query.text",
    "messaging.system", "messaging.operation.type", "messaging.destination.name", "messaging.message.id",
    "celery.task_name", "celery.state", "celery.retries",
})  # fmt: skip
_PING = ";"  # as SQLAlchemy asks
_EXCEPTION_TYPE = "exception.type"
_LITERAL = re.compile(r"'(?:[^']|'')*(?:'|\Z)")  # the last one may be cut off


class Spans:
    """What traces one process: requests by FastAPI, tasks by `tasks.base`, queries wherever they are made."""

    def __init__(self, service: str) -> None:
        limits = SpanLimits(max_attribute_length=_MOST_CHARACTERS)
        # Not at exit, where a collector that is away would hold it up.
        self.provider = TracerProvider(resource=_resource(service), span_limits=limits, shutdown_on_exit=False)
        self.provider.sampler = NoLoneQueries(self.provider.sampler)
        self.provider.add_span_processor(BatchSpanProcessor(ScrubbingExporter(OTLPSpanExporter())))
        PsycopgInstrumentor().instrument(tracer_provider=self.provider)
        self._tracer = self.provider.get_tracer("alertrec")
        # `ScrubbingExporter` says once what these say at every attempt.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)

    def close(self) -> None:
        """Send what there is, for at most `STOP_SECONDS`."""
        closing = threading.Thread(target=self.provider.shutdown, daemon=True, name="send the last spans")
        closing.start()
        closing.join(STOP_SECONDS)

    @contextmanager
    def sending(self, task: str) -> Iterator[Mapping[str, str]]:
        """See `alertrec.tracing.sending`."""
        told = _told_of(task, "send")
        with self._span(f"send {task}", SpanKind.PRODUCER, told):
            headers: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(headers)
            # Not what callers of the web app add to it: that ends with them.
            yield {_TRACEPARENT: headers[_TRACEPARENT]} if _TRACEPARENT in headers else {}

    @contextmanager
    def running(
        self,
        task: str,
        *,
        sent_by: object,
        task_id: object,
        n_retries: object,
        no_failures: tuple[type[Exception], ...],
    ) -> Iterator[None]:
        """See `alertrec.tracing.running`."""
        carrier = {_TRACEPARENT: sent_by} if isinstance(sent_by, str) else {}
        parent = TraceContextTextMapPropagator().extract(carrier, Context())
        told = {**_told_of(task, "process"), "messaging.message.id": str(task_id), "celery.retries": str(n_retries)}
        with self._span(f"run {task}", SpanKind.CONSUMER, told, parent, no_failures):
            yield

    def here(self) -> Context:
        """See `alertrec.tracing.here`."""
        return otel_context.get_current()

    @contextmanager
    def at(self, place: object) -> Iterator[None]:
        """See `alertrec.tracing.at`."""
        assert isinstance(place, Context)
        token = otel_context.attach(place)
        try:
            yield
        finally:
            otel_context.detach(token)

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        told: Mapping[str, str],
        parent: Context | None = None,
        no_failures: tuple[type[Exception], ...] = (),
    ) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name, parent, kind, told, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except no_failures as error:
                span.set_attribute("celery.state", type(error).__name__.upper())
                raise
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
                raise


class NoLoneQueries(Sampler):
    """Leaves out queries that belong to nothing, such as signs of life, and those that only ask whether a connection
    lives; of all else, another sampler decides.
    """

    def __init__(self, others: Sampler) -> None:
        self._others = others

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, kind: SpanKind | None = None, *args: Any,
        **kwargs: Any,
    ) -> SamplingResult:  # fmt: skip
        """Return whether a span is recorded."""
        is_lone = not trace.get_current_span(parent_context).get_span_context().is_valid
        if kind is SpanKind.CLIENT and (is_lone or name == _PING):
            return SamplingResult(Decision.DROP)
        return self._others.should_sample(parent_context, trace_id, name, kind, *args, **kwargs)

    def get_description(self) -> str:
        """Return the name of the sampler."""
        return f"NoLoneQueries{{{self._others.get_description()}}}"


class ScrubbingExporter(SpanExporter):
    """Sends spans without what they may not tell; says once that a collector is away, and once that it is back."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, or drop them if the collector does not take them."""
        try:
            result = self._exporter.export([scrubbed(span) for span in spans])
        except Exception as error:  # of a library; whatever it is, the process has better things to do
            result, kind = SpanExportResult.FAILURE, type(error).__name__
        else:
            kind = "the collector does not take them"
        self._tell(is_failing=result is not SpanExportResult.SUCCESS, why=kind)
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()

    def _tell(self, *, is_failing: bool, why: str) -> None:
        if is_failing and not self._is_failing:
            logger.warning("traces are lost: %s", why, extra={"action": "traces_lost"})
        elif self._is_failing and not is_failing:
            logger.info("traces are sent again", extra={"action": "traces_sent"})
        self._is_failing = is_failing


def scrubbed(span: ReadableSpan) -> ReadableSpan:
    """Return a span with what it may tell of another: nothing that came from outside, no value, no text of an error."""
    attributes = {name: _told(value) for name, value in (span.attributes or {}).items() if name in _TOLD}
    kinds = [(event, (event.attributes or {}).get(_EXCEPTION_TYPE)) for event in span.events]
    return ReadableSpan(
        name=_without_literals(span.name),
        context=_bare(span.context),
        parent=_bare(span.parent),
        resource=span.resource,
        attributes=attributes,
        events=[Event("exception", {_EXCEPTION_TYPE: kind}, event.timestamp) for event, kind in kinds if kind],
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _told(value: Any) -> Any:
    return _without_literals(value) if isinstance(value, str) else value


def _without_literals(text: str) -> str:
    return _LITERAL.sub("'…'", text)


def _bare(context: SpanContext | None) -> SpanContext | None:
    """Return a place in a trace without what callers added to it."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


def _told_of(task: str, operation: str) -> dict[str, str]:
    return {
        "messaging.system": "celery",
        "messaging.operation.type": operation,
        "messaging.destination.name": QUEUE_OF.get(task, INTERACTIVE),
        "celery.task_name": task,
    }


def _resource(service: str) -> Resource:
    """Return what is told of the process; a name that the environment gives comes first."""
    given = OTELResourceDetector().detect().attributes.get(_SERVICE_NAME)
    return Resource.create({} if given else {_SERVICE_NAME: service})
