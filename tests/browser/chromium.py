"""Where Chromium is, and how to get it: `make browser`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PLAYWRIGHT = (sys.executable, "-m", "playwright")
_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")


def find_chromium() -> str | None:
    """Return the program, the system's or Playwright's; None where there is none."""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install_chromium() -> str | None:
    """Install Playwright's own, or where that cannot be fetched Debian's, and return it."""
    if _run(*_PLAYWRIGHT, "install", "chromium"):
        if os.geteuid() == 0:
            _run(*_PLAYWRIGHT, "install-deps", "chromium")
    elif shutil.which("apt-get"):
        _run(*_APT, "update", "--quiet")
        _run(*_APT, "install", "--yes", "--quiet", "--no-install-recommends", "chromium")
    return find_chromium()


def _run(*command: str) -> bool:
    return subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode == 0


if __name__ == "__main__":
    program = find_chromium() or install_chromium()
    print(f"Chromium: {program}" if program else "error: Chromium could not be installed; tests of the pages will skip")
    sys.exit(0 if program else 1)
