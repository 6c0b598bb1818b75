"""The audit finds what it is there for: a licence that is not on the list, and a vulnerability that is known."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.audit import audit_vulnerabilities, licence_faults, pins
from tests.integration.web_worlds import free_port

LOCK = """
jinja2==3.1.4 \\
    --hash=sha256:4a3aee7acbbe7303aede8e9648d13b8bf88a429282aa6122a993f0ac800cb369
numpy==2.4.6 ; python_full_version < '3.12' \\
numpy==2.5.5 ; python_full_version >= '3.12' \\
    # via pandas==3
"""
PINS = [("jinja2", "3.1.4"), ("numpy", "2.4.6"), ("numpy", "2.5.5")]
FLAW = {"id": "GHSA-0000", "modified": "2025-01-01T00:00:00Z"}


class Known(BaseHTTPRequestHandler):
    """A service that knows of one flaw, in jinja2 3.1.4."""

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
        is_flawed = [(each["package"]["name"], each["version"]) == PINS[0] for each in queries]
        self._answer({"results": [{"vulns": [FLAW]} if each else {} for each in is_flawed]})

    def do_GET(self) -> None:
        self._answer(FLAW | {"summary": "a template escapes", "affected": []})

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Known) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"--service-url=http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize(
    ("licences", "n_faults"),
    [
        ({"a": "MIT", "b": "BSD-3-Clause AND 0BSD", "c": "GPL-3.0-only OR MIT", "psycopg": "LGPL-3.0-only"}, 0),
        ({"a": "GPL-3.0-only"}, 1),
        ({"a": "MIT AND AGPL-3.0-only"}, 1),
        ({"a": ""}, 1),
        ({"a": "LGPL-3.0-only"}, 1),  # excepted are packages, not licences
        ({"psycopg": "GPL-3.0-only"}, 1),  # and with the licence that they had
        ({"psycopg": "MIT"}, 1),  # an exception that is not needed any more
    ],
)
def test_what_is_not_on_the_list_is_a_fault(licences: dict[str, str], n_faults: int) -> None:
    assert len(licence_faults(licences.items())) == n_faults


def test_every_pin_is_looked_up_and_a_known_flaw_is_a_fault(service: str) -> None:
    assert pins(LOCK) == PINS
    assert audit_vulnerabilities(PINS, service) == ("jinja2 3.1.4: GHSA-0000 a template escapes", True)
    assert audit_vulnerabilities(PINS[1:], service) == ("none in 2 versions", False)


def test_a_service_that_is_away_is_told_and_is_no_fault() -> None:
    told, is_fault = audit_vulnerabilities(PINS, f"--service-url=http://127.0.0.1:{free_port()}/")
    assert told.startswith("NOT CHECKED, the service that knows them cannot be reached")
    assert not is_fault


def test_an_audit_that_fails_by_itself_is_a_fault() -> None:
    told, is_fault = audit_vulnerabilities(PINS, "--no-such-option")
    assert told.startswith("NOT CHECKED, `uv audit` failed")
    assert is_fault
