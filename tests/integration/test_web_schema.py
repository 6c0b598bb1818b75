"""The OpenAPI document says what the API does; whatever else is sent to it is refused in words and fails nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from alertrec.embedded import Servers
from alertrec.settings import Settings
from alertrec.web import create_app
from alertrec.workspace import Workspace
from tests.integration.web_worlds import (
    API,
    PROBLEM,
    SECRET,
    as_admin,
    as_user,
    bank,
    problem,
    serve,
    state,
    workspace_of,
)
from tests.integration.worlds import read_items

CREATE = f"{API}/create-rule"
LARGE = "alert_large_transaction"
STREAM = f"{API}/stream"  # its answer does not end; `test_web_live.py` reads it
NOWHERE = Settings(
    database_url="postgresql://nobody@127.0.0.1:1/none", redis_url="redis://127.0.0.1:1/0", web_secret=SECRET
)
DOCUMENT: dict[str, Any] = create_app(NOWHERE).openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
MADE_UP = [found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).exclude(path=STREAM).get_all_operations()]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def settings(running_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A bank for all tests of this module: none hangs on what others leave there."""
    base, data_dir = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("schema")
    # One customer sends all of this, as fast as they can.
    with bank(running_servers, running_servers.redis_url, base, data_dir, rate_limits=0.0) as settings:
        yield settings


@pytest.fixture(scope="module")
def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(settings, tmp_path_factory.mktemp("serve")) as url:
        yield url


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def workspace(settings: Settings) -> Iterator[Workspace]:
    with workspace_of(settings) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def card(workspace: Workspace) -> tuple[str, dict[str, Any]]:
    """A customer, and an offer of theirs."""
    return next((user_id, items[0]) for user_id, items in read_items(workspace).items())


@pytest.fixture(scope="module")
def user_id(card: tuple[str, Any]) -> str:
    return card[0]


@pytest.fixture(scope="module")
def offer(card: tuple[str, Any]) -> dict[str, Any]:
    return card[1]


# The document


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_says_what_it_does(name: str):
    operation = OPERATIONS[name]
    assert operation.get("summary")
    assert operation.get("description") or len(operation["summary"].split()) > 2


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_answer_has_a_shape(name: str):
    for status, answer in OPERATIONS[name]["responses"].items():
        assert answer["description"]
        if name in {f"GET {STREAM}", "GET /metrics"} and status == "200":
            continue  # one never ends, the other is of Prometheus
        schemas = [content["schema"] for content in answer.get("content", {}).values()]
        assert schemas, f"{status} has no schema"
        assert all(schema != {} for schema in schemas), f"the schema of {status} says nothing"


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_error_is_a_problem_and_nothing_else(name: str):
    if not name.split()[1].startswith("/api/"):
        return  # health, which says which server is away
    for status, answer in OPERATIONS[name]["responses"].items():
        if status != "200":
            assert list(answer["content"]) == [PROBLEM], status
            assert answer["content"][PROBLEM]["schema"]["title"] == "Problem", status


def test_every_example_is_of_its_shape():
    components, wrong, n_examples = DOCUMENT["components"], {}, 0
    for name, schema in components["schemas"].items():
        for example in [schema["example"]] if "example" in schema else schema.get("examples", []):
            whole = {"$ref": f"#/components/schemas/{name}", "components": components}
            errors = [error.message for error in jsonschema_rs.validator_for(whole).iter_errors(example)]
            wrong |= {name: errors} if errors else {}
            n_examples += 1
    assert wrong == {}
    assert n_examples >= 8


def test_customers_and_staff_find_all_that_the_earlier_system_served():
    assert set(OPERATIONS) >= {
        f"GET {API}", f"GET {API}/categories", f"POST {API}/create-rule", f"POST {API}/trigger-generation",
        f"POST {API}/generate-all", f"POST {API}/cleanup", f"GET {API}/jobs/{{job_id}}", f"GET {API}/metrics",
        f"POST {API}/test-websocket",
    }  # fmt: skip


# What is made up from it


@pytest.mark.parametrize("role", ["customer", "staff"])
@pytest.mark.parametrize("operation", MADE_UP, ids=lambda operation: operation.label)
def test_made_up_requests_are_answered_as_the_document_says(
    operation: schemathesis.APIOperation,
    role: str,
    server: str,
    settings: Settings,
    user_id: str,
    offer: dict[str, Any],
):
    headers = as_user(settings, user_id) if role == "customer" else as_admin(settings)

    @given(
        case=st.one_of(operation.as_strategy(generation_mode=mode) for mode in modes_of(operation)),
        is_about_an_offer=st.booleans(),
    )
    @hypothesis.settings(
        max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    def check(case: schemathesis.Case, is_about_an_offer: bool) -> None:
        if is_about_an_offer:  # which nobody makes up
            for part in (case.path_parameters, case.body):
                if isinstance(part, dict) and "recommendation_id" in part:
                    part["recommendation_id"] = str(offer["recommendation_id"])
        case.call_and_validate(base_url=server, headers=headers, checks=CHECKS)

    check()


def modes_of(operation: schemathesis.APIOperation) -> list[GenerationMode]:
    """Return whether what is wrong can be made up as well: of what takes nothing, nothing is wrong."""
    takes = operation.definition.raw.get("parameters") or operation.definition.raw.get("requestBody")
    return [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if takes else [GenerationMode.POSITIVE]


# What comes from outside and is none of it

WISH = {"title": "x", "natural_language_query": "Alert me about any purchase over $5"}
PREVIEW = {"alert_type": LARGE, "parameters": {"amount": 5.0}}
SHOWN = {"event_id": "0f0c6f9e-2a1b-4b68-9a55-1f6f0d8c2f11", "action": "shown"}
HOSTILE = [
    ("create-rule", {**WISH, "title": "a\x00b"}),
    ("create-rule", {**WISH, "natural_language_query": "purchase over $5\x00"}),
    ("create-rule", {**WISH, "title": "\ud800"}),
    ("create-rule", {**WISH, "natural_language_query": "any purchase over $5 \udfff"}),
    ("create-rule", {**WISH, "reasoning": "\ud800"}),
    ("create-rule", {**WISH, "parameters": {"\ud800": 1.0}}),
    ("create-rule", {**WISH, "parameters": {"a\x00b": 1.0}}),
    ("create-rule", {**WISH, "parameters": {"amount": "\ud800"}}),
    ("create-rule", {**WISH, "parameters": {"x" * 60_000: 1.0}}),
    ("create-rule", {**WISH, "parameters": {"amount": 5.0, "\ud800": [1]}}),
    ("create-rule", {**WISH, "title": "x" * 60_000}),
    ("create-rule", {**WISH, "natural_language_query": "9" * 60_000}),
    ("create-rule", {**WISH, "title": ["x"]}),
    ("create-rule", {**WISH, "title": None}),
    ("create-rule", {**WISH, "event_id": 7}),
    ("create-rule", {**WISH, "event_id": "\ud800"}),
    ("create-rule", {**WISH, "recommendation_id": "1"}),
    ("create-rule", {**WISH, "alert_type": "\ud800"}),
    ("create-rule", {**WISH, "alert_type": "alert_of_mine"}),
    ("create-rule", {"title": "x"}),
    ("create-rule", [WISH]),
    ("create-rule", None),
    ("preview", {**PREVIEW, "parameters": {"amount": "\ud800"}}),
    ("preview", {**PREVIEW, "parameters": {"\ud800": 1}}),
    ("preview", {**PREVIEW, "parameters": {"amount": "x" * 60_000}}),
    ("preview", {**PREVIEW, "alert_type": "a\x00b"}),
    ("preview", {}),
    ("feedback", {**SHOWN, "action": "created"}),
    ("feedback", {**SHOWN, "action": "\ud800"}),
    ("feedback", {**SHOWN, "action": "x" * 60_000}),
    ("feedback", {**SHOWN, "event_id": "a\x00b"}),
    ("feedback", {**SHOWN, "occurred_at": "yesterday"}),
    ("feedback", {**SHOWN, "occurred_at": "2026-01-01T00:00:00"}),
    ("feedback", {**SHOWN, "occurred_at": 1e300}),
    ("feedback", {**SHOWN, "due_at": "\ud800"}),
    ("feedback", {"action": "shown"}),
    ("feedback", "shown"),
]


@pytest.mark.parametrize(("route", "body"), HOSTILE, ids=lambda value: ascii(value)[:60])
def test_what_no_page_sends_is_refused_in_words(
    client: httpx.Client,
    settings: Settings,
    workspace: Workspace,
    user_id: str,
    offer: dict[str, Any],
    route: str,
    body: Any,
):
    before = state(workspace)
    path = f"{API}/{offer['recommendation_id']}/feedback" if route == "feedback" else f"{API}/{route}"
    headers = {**as_user(settings, user_id), "content-type": "application/json"}
    answer = client.post(path, headers=headers, content=json.dumps(body))
    assert problem(answer, 422)
    assert len(answer.content) < 20_000
    assert state(workspace) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"title": "\xed\xa0\x80", "natural_language_query": "purchase over $5"}',
        b"[" * 65_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 100_000,
        b'{"title": NaN, "natural_language_query": Infinity}',
        b'{"title": "x", "natural_language_query": "x", "parameters": {"amount": ' + b"9" * 10_000 + b"}}",
        b'{"title": "x", "natural_language_query": "purchase over $5", "parameters": {"amount": NaN}}',
        b'{"title": "x", "natural_language_query": "purchase over $5", "parameters": {"amount": -Infinity}}',
    ],
    ids=lambda content: ascii(content)[:40],
)
@pytest.mark.parametrize("route", ["create-rule", "preview", "feedback"])
def test_bytes_that_are_no_request_are_refused_in_words(
    client: httpx.Client, settings: Settings, offer: dict[str, Any], user_id: str, route: str, content: bytes
):
    path = f"{API}/{offer['recommendation_id']}/feedback" if route == "feedback" else f"{API}/{route}"
    headers = {**as_user(settings, user_id), "content-type": "application/json"}
    answer = client.post(path, headers=headers, content=content)
    assert answer.status_code in {400, 413, 422}, answer.text
    problem(answer, answer.status_code)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{API}?force_refresh=perhaps"),
        ("GET", f"{API}?explain=%00"),
        ("GET", f"{API}?explain=%ff"),
        ("POST", f"{API}/%00/feedback"),
        ("POST", f"{API}/not-a-uuid/feedback"),
        ("GET", f"{API}/jobs/%ed%a0%80"),
        ("GET", f"{API}/jobs/1"),
        ("GET", f"{API}/metrics?last_n_minutes=0"),
        ("GET", f"{API}/metrics?last_n_minutes=99999999999999999999"),
        ("POST", f"{API}/test-websocket"),
        ("POST", f"{API}/test-websocket?user_id="),
        ("POST", f"{API}/test-websocket?user_id=%00"),
        ("POST", f"{API}/test-websocket?user_id={'x' * 5_000}"),
        ("POST", f"{API}/models/%00/promote"),
        ("POST", f"{API}/models/no-such-model/promote"),
        ("POST", f"{API}/models/%ed%a0%80/promote"),
        ("POST", f"{API}/models/rollback"),
    ],
)
def test_paths_and_queries_that_mean_nothing_are_refused_in_words(
    client: httpx.Client, settings: Settings, method: str, path: str
):
    body = SHOWN if path.endswith("feedback") else None
    assert problem(client.request(method, path, headers=as_admin(settings), json=body), 422)


def test_a_problem_does_not_repeat_what_a_customer_sent(client: httpx.Client, settings: Settings, user_id: str):
    wish = {**WISH, "alert_type": "my IBAN is secret", "event_id": "my IBAN is secret"}
    answer = client.post(CREATE, headers=as_user(settings, user_id), json=wish)
    problem(answer, 422)
    assert "IBAN" not in answer.text
