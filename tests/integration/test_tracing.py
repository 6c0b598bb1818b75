"""Traces as a collector gets them from real processes: one path from request to query, and no customer on it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
import redis
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.task_names import GENERATE_RECOMMENDATIONS, INTERACTIVE
from tests.integration.processes import Environment, Worker, broker, process, wait_for, web_app, worker
from tests.integration.web_worlds import (
    API,
    as_admin,
    as_user,
    bank,
    free_port,
    serve,
    serving,
    token,
    variables,
)

USER, OTHER_USER = "user-0007", "user-0008"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"  # of a request whose caller traces as well
SAID_BY_THE_CALLER = "Merchant of Ann"
AMOUNT = 1234.5
WEB, TASKS = "alertrec web", "alertrec worker"
# What only a process that traces has loaded, and the process that forks must not have.
_OF_THE_EXPORTER = "_message.abi3.so"


@dataclass(frozen=True)
class Span:
    """A span as it came."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    told: dict[str, Any]


@dataclass
class Collector:
    """Takes what processes send to it."""

    port: int
    received: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spans(self) -> list[Span]:
        return [
            Span(
                next(each.value.string_value for each in of.resource.attributes if each.key == "service.name"),
                span.name,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                {each.key: each.value.string_value or each.value.int_value for each in span.attributes},
            )
            for body in tuple(self.received)
            for of in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in of.scope_spans
            for span in scope.spans
        ]

    def of_trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans() if span.trace_id == trace_id]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans() if span.name == name]


@contextmanager
def collector(port: int = 0) -> Iterator[Collector]:
    """Run a collector on the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taking.received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        taking = Collector(server.server_port)
        listening = threading.Thread(target=server.serve_forever, args=(0.05,))
        listening.start()
        try:
            yield taking
        finally:
            server.shutdown()
            listening.join()


@contextmanager
def traced(url: str, *, seconds: float = 0.2, patience: int = 2) -> Iterator[None]:
    """Have the processes that are started meanwhile trace, after some seconds send what they have, and wait for the
    collector for as long as their patience is.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(patience))
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", str(round(seconds * 1000)))
        # Of whoever runs the tests.
        for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracing")


@pytest.fixture(scope="module")
def settings(
    running_servers: Servers, _template: None, scratch: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    with (
        broker(running_servers) as redis_url,
        bank(running_servers, redis_url, tmp_path_factory.getbasetemp(), scratch / "data", rate_limits=0.0) as settings,
    ):
        yield settings


@pytest.fixture
def own(
    running_servers: Servers, _template: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A bank and a broker that no worker of another test looks at."""
    with (
        broker(running_servers) as redis_url,
        bank(running_servers, redis_url, tmp_path_factory.getbasetemp(), tmp_path / "data", rate_limits=0.0) as own,
    ):
        yield own


@pytest.fixture(scope="module")
def found() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def web(settings: Settings, found: Collector, scratch: Path) -> Iterator[str]:
    with traced(found.url), serve(settings, scratch) as url:
        yield url


@pytest.fixture(scope="module")
def message(web: str, settings: Settings) -> dict[str, Any]:
    """The headers of the message of a request whose caller says more than it should, while no worker takes it."""
    headers = {
        "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01",
        "tracestate": f"bank={USER}",
        "baggage": f"customer={USER}",
    }
    answer = httpx.get(f"{web}{API}?force_refresh=true", headers=headers | as_user(settings, USER))
    assert answer.status_code == 200, answer.text
    assert settings.redis_url is not None
    with redis.Redis.from_url(settings.redis_url) as client:
        (waiting,) = client.lrange(INTERACTIVE, 0, -1)
    found: dict[str, Any] = json.loads(waiting)["headers"]
    return found


@pytest.fixture(scope="module")
def tasks(message: dict[str, Any], settings: Settings, found: Collector, scratch: Path) -> Iterator[Worker]:
    """A worker; it comes when the message waits."""
    with traced(found.url), worker(variables(settings), scratch, name="traced") as running:
        yield running


def test_a_message_carries_its_place_in_the_trace_and_nothing_else_of_its_sender(message: dict[str, Any]):
    version, trace_id, _, sampled = message["traceparent"].split("-")
    assert (version, trace_id, sampled) == ("00", TRACE_ID, "01")
    assert USER not in json.dumps(message)
    assert {"tracestate", "baggage"} & set(message) == set()


def test_one_trace_leads_from_a_request_to_the_queries_of_its_task(
    tasks: Worker, message: dict[str, Any], found: Collector
):
    def is_whole() -> bool:
        names = {(span.service, span.name.split()[0]) for span in found.of_trace(TRACE_ID)}
        return {(WEB, "GET"), (WEB, "send"), (TASKS, "run"), (TASKS, "SELECT"), (TASKS, "INSERT")} <= names

    wait_for(is_whole)
    spans = {span.span_id: span for span in found.of_trace(TRACE_ID)}

    def above(span: Span) -> list[str]:
        return [span.name, *(above(spans[span.parent_id]) if span.parent_id in spans else [])]

    request, send, run = (
        f"GET {API}", f"send {GENERATE_RECOMMENDATIONS}", f"run {GENERATE_RECOMMENDATIONS}"
    )  # fmt: skip
    paths = {(span.service, *above(span)) for span in spans.values()}
    assert (WEB, request) in paths
    assert (TASKS, "INSERT", run, send, request) in paths
    (read,) = (
        span
        for span in spans.values()
        if "recommendation_lists" in str(span.told.get("db.statement")) and span.service == WEB
    )
    assert (read.name, above(read)) == ("SELECT", ["SELECT", request])
    ran = next(span for span in spans.values() if span.name == run)
    assert ran.told["messaging.message.id"] == message["id"]
    assert (ran.told["messaging.destination.name"], ran.told["celery.retries"]) == (INTERACTIVE, "0")
    answered = next(span for span in spans.values() if span.name == request)
    assert (answered.told["http.route"], answered.told["http.response.status_code"]) == (API, 200)


def test_nothing_of_a_customer_is_among_all_that_a_collector_gets(
    web: str, settings: Settings, tasks: Worker, found: Collector
):
    signed_in, staff = as_user(settings, USER), as_admin(settings)
    name = {"user-agent": SAID_BY_THE_CALLER, "x-forwarded-for": "203.0.113.77"}
    rule = {"alert_type": "alert_large_transaction", "parameters": {"amount": AMOUNT}}
    wish = rule | {"title": SAID_BY_THE_CALLER, "natural_language_query": f"Tell me of any purchase over {AMOUNT}"}
    with httpx.Client(base_url=web, headers=name, timeout=30) as browser:
        statuses = [
            browser.get(f"{API}?explain=true&user={USER}", headers=signed_in).status_code,
            browser.post(f"{API}/preview", json=rule, headers=signed_in).status_code,
            browser.post(f"{API}/create-rule", json=wish, headers=signed_in).status_code,
            browser.post(
                f"{API}/create-rule", json=wish | {"parameters": SAID_BY_THE_CALLER}, headers=signed_in
            ).status_code,
            browser.get(f"/dashboard/users/{USER}?amount={AMOUNT}", headers=staff).status_code,
            browser.get(f"/nowhere/{USER}?token={token(settings, USER)}").status_code,
            browser.request("PROPFIND", f"/{USER}").status_code,
            browser.get(f"{API}/jobs/{USER}", headers=staff).status_code,
        ]
    assert statuses[:5] == [200, 200, 200, 422, 200]
    assert 404 in statuses
    with web_app(variables(settings)) as send:
        send("generate_recommendations", SAID_BY_THE_CALLER)
        send("log_alert_action", {"user_id": USER, "action": "dismissed", "recommendation_id": SAID_BY_THE_CALLER})
        send("log_alert_action", {"user_id": USER, "action": "created", "alert_rule_id": SAID_BY_THE_CALLER})
        send("generate_recommendations", OTHER_USER)
    wait_for(lambda: len(found.named(f"run {GENERATE_RECOMMENDATIONS}")) >= 3)
    wait_for(lambda: len(found.named("run alertrec.log_alert_action")) >= 2)
    wait_for(lambda: found.named("POST /api/alerts/recommendations/create-rule"))
    wait_for(lambda: found.named("GET /dashboard/users/{user_id}"))
    wait_for(lambda: {"GET", "HTTP"} <= {span.name for span in found.spans()})  # of what is no route
    told = b"\n".join(found.received)
    for secret in (USER, OTHER_USER, SAID_BY_THE_CALLER, str(AMOUNT), "203.0.113.77", "127.0.0.1"):
        assert secret.encode() not in told, secret
    for header in (signed_in, staff):
        assert header["authorization"].split(".")[2].encode() not in told


def test_a_task_that_fails_says_of_which_kind_and_no_more(tasks: Worker, settings: Settings, found: Collector):
    with web_app(variables(settings)) as send:
        send("log_alert_action", {"user_id": USER, "action": SAID_BY_THE_CALLER})
    wait_for(
        lambda: any(span.told.get("error.type") == "DataError" for span in found.named("run alertrec.log_alert_action"))
    )
    assert SAID_BY_THE_CALLER.encode() not in b"".join(found.received)


def test_only_the_children_of_a_worker_trace(tasks: Worker):
    def loaded(one: psutil.Process) -> set[str]:
        return {Path(each.path).name for each in one.memory_maps()}

    (child,) = tasks.children()
    assert _OF_THE_EXPORTER in loaded(child)
    assert _OF_THE_EXPORTER not in loaded(psutil.Process(tasks.process.pid))


# --- how processes end


@contextmanager
def celery_worker(env: Environment, cwd: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a worker of one child with options that `alertrec worker` does not have."""
    log = cwd / f"celery-{uuid4().hex[:6]}.log"
    arguments = ["--queues", INTERACTIVE, "--concurrency", "1", "--loglevel", "INFO", *options]
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--hostname", f"{log.stem}@%h", *arguments]
    python_path = str(Path(__file__).parents[2])
    with process(command, env={**env, "PYTHONPATH": python_path}, cwd=cwd, log=log) as started:
        wait_for(lambda: "ready." in log.read_text())
        yield started, log


@pytest.mark.slow
def test_what_was_traced_is_sent_when_a_child_is_replaced_and_when_all_ends(own: Settings, tmp_path: Path):
    with collector() as found, traced(found.url, seconds=600):  # by itself, in ten minutes
        with serving(own, tmp_path) as (url, served), celery_worker(
            variables(own), tmp_path, "--max-tasks-per-child", "1"
        ) as (working, _):  # fmt: skip
            for user in ("user-0011", "user-0012"):
                answer = httpx.get(f"{url}{API}?force_refresh=true", headers=as_user(own, user))
                assert answer.status_code == 200
            wait_for(lambda: len(found.named(f"run {GENERATE_RECOMMENDATIONS}")) == 2)
            assert {span.service for span in found.spans()} == {TASKS}
            working.terminate()
            served.terminate()
            served.wait(30)
        assert len(found.named(f"GET {API}")) == 2


@pytest.mark.slow
def test_a_collector_that_is_away_is_told_of_once_and_found_again(own: Settings, tmp_path: Path):
    port = free_port()
    with (
        traced(f"http://127.0.0.1:{port}"),
        worker(variables(own), tmp_path, name="alone") as alone,
        serve(own, tmp_path) as url,
    ):
        for n in range(5):
            answer = httpx.get(f"{url}{API}?force_refresh=true", headers=as_user(own, f"user-002{n}"))
            assert answer.status_code == 200
        served = next(tmp_path.glob("serve-*.log"))
        wait_for(lambda: alone.logged("generate_recommendations", "succeeded") == 5)
        wait_for(lambda: alone.logged("traces are lost") and "traces are lost" in served.read_text())
        with collector(port) as found:

            def is_back() -> bool:
                httpx.get(f"{url}{API}?force_refresh=true", headers=as_user(own, "user-0025"))
                return {WEB, TASKS} <= {span.service for span in found.spans()}

            wait_for(is_back)
            wait_for(lambda: alone.logged("traces are sent again"))
            log = alone.text() + served.read_text()
    assert log.count("traces are lost") == 2  # by each once
    assert "opentelemetry" not in log
    assert "Transient" not in log


@pytest.mark.slow
def test_a_collector_that_never_answers_holds_nothing_up(own: Settings, tmp_path: Path):
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as frozen,
        traced(f"http://127.0.0.1:{frozen.getsockname()[1]}", patience=60),
        worker(variables(own), tmp_path, name="held") as held,
        serving(own, tmp_path) as (url, served),
    ):
        answer = httpx.get(f"{url}{API}?force_refresh=true", headers=as_user(own, USER))
        assert answer.status_code == 200
        wait_for(lambda: held.logged("generate_recommendations", "succeeded"))
        began = time.monotonic()
        served.terminate()
        served.wait(30)
        web_seconds = time.monotonic() - began
        (child,) = held.children()
        began = time.monotonic()
        held.process.terminate()
        held.process.wait(60)
        worker_seconds = time.monotonic() - began
        assert not child.is_running()
    print(f"web {web_seconds:.2f} s, worker {worker_seconds:.2f} s")
    assert held.process.returncode == 0
    assert web_seconds < 15
    assert worker_seconds < 30
