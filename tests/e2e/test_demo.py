"""The demo from an empty directory: one happy and one unhappy path."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from alertrec.embedded import running
from tests.integration.processes import alive, environment, family_of, forget, process, run, wait_for


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """An empty working directory."""
    yield tmp_path
    forget(tmp_path / ".alertrec")


def seen_while_running(started: subprocess.Popen[bytes], home: Path) -> set[psutil.Process]:
    """Wait for the end of a process, and return all that ever ran below it or served it."""
    seen: set[psutil.Process] = set()

    def has_ended() -> bool:
        if started.poll() is None:
            # One may end between two looks.
            with contextlib.suppress(psutil.NoSuchProcess, ValueError):
                seen.update(family_of(started.pid, home))
        return started.poll() is not None

    wait_for(has_ended, seconds=180)
    return seen


def get(url: str) -> str:
    with urlopen(url, timeout=30) as answer:  # noqa: S310  # the demo's own address
        text: str = answer.read().decode()
        return text


def test_the_demo_recommends_with_reasons_opens_its_pages_and_leaves_nothing_running(directory: Path):
    command = [sys.executable, "-m", "alertrec", "demo", "--users", "200"]
    log = directory / "demo.log"
    with process(command, env=environment(), cwd=directory, log=log) as started:

        def is_open() -> bool:
            assert started.poll() is None, log.read_text()
            return "Ctrl-C stops all of it" in log.read_text()

        wait_for(is_open, seconds=180)
        found = re.search(r"web app: (http://127\.0\.0\.1:\d+)", log.read_text())
        assert found is not None, log.read_text()
        page = get(found[1])
        assert "The operator" in page
        assert len(set(re.findall(r"user-\d+", page))) == 6  # as whom anybody may sign in
        # Simulated customers look at what they are offered.
        wait_for(lambda: re.search(r"requests_total\{.*/feedback\",status=\"200\"\}", get(f"{found[1]}/metrics")))
        started.send_signal(signal.SIGINT)
        seen = seen_while_running(started, directory / ".alertrec")
        assert started.returncode == 0, log.read_text()
        assert alive(list(seen)) == []
    output = log.read_text()
    assert len(seen) > 10
    assert not running(directory / ".alertrec")
    assert len(re.findall(r"^user-\d+  \w+$", output, re.MULTILINE)) == 3
    assert len(re.findall(r"^  1\. .+  (\d+%, (high|medium|low) confidence|advice)$", output, re.MULTILINE)) == 3
    assert re.search(r"Your .+\$[\d,.]+", output), "a reason with a number of the user's own"
    assert "Traceback" not in output


def test_the_demo_says_in_one_line_what_is_missing(tmp_path: Path):
    done = run("demo", "--once", env=environment(DATABASE_URL="postgresql://me@127.0.0.1:1/bank"), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: ALERTREC_DATABASE_URL is set but ALERTREC_REDIS_URL is not; "
        "set both to use your own servers, or neither to use the embedded ones"
    ]
    assert list(tmp_path.iterdir()) == []
