"""A real browser on a real system: web app and worker as processes, servers of their own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from alertrec import fitting, service
from alertrec.embedded import Servers
from alertrec.workspace import Workspace
from tests.browser.chromium import find_chromium
from tests.integration.processes import (
    broker,
    database,
    environment,
    load_bank,
    process,
    wait_for,
    worker,
)
from tests.integration.worlds import offers_of, read_items, workspace_on

N_USERS = 150
N_CUSTOMERS = 8
expect.set_options(timeout=15_000)


@dataclass(frozen=True)
class Site:
    """A running web app, and a workspace to look behind it."""

    url: str
    workspace: Workspace
    customers: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window; the tests skip by name where there is none.

    Not for longer than a module: as long as Playwright runs, no other test can run an event loop of its own.
    """
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed; `make browser` installs one")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def site(
    browser: Browser, running_servers: Servers, _template: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A bank of some users who all have lists, a worker, and the web app in a process of its own."""
    home = tmp_path_factory.mktemp("site")
    with database(running_servers) as database_url, broker(running_servers) as redis_url:
        load_bank(database_url, home, n_users=N_USERS)
        with workspace_on(database_url, home, redis_url=redis_url) as workspace:
            for _ in range(2):
                fitting.request_training(workspace, force=True, promoted_by="test")
                fitting.run_training(workspace)
            service.refresh_locally(workspace)
            env = environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=home)
            items = read_items(workspace)
            customers = sorted(items, key=lambda user_id: (-n_telling(items[user_id]), user_id))[:N_CUSTOMERS]
            command = [sys.executable, "-m", "alertrec", "serve", "--sample-users", ",".join(customers)]
            log = home / "serve.log"
            with worker(env, home, name="site"), process(command, env=env, cwd=home, log=log) as served:

                def address() -> str | None:
                    assert served.poll() is None, log.read_text()
                    found = re.search(r"running on (http://\S+)", log.read_text())
                    return found[1] if found else None

                yield Site(wait_for(address) or "", workspace, customers)


def n_telling(items: list[dict[str, Any]]) -> int:
    """Return how many of the cards that are seen at first offer a rule that would have fired."""
    return sum(item["would_have_fired"]["count"] > 0 for item in offers_of(items[:4]))


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser of its own: nobody is signed in."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must not complain: errors of scripts, and what the policy refuses, fail the test."""
    complaints: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    yield page
    assert complaints == []
