"""Where Chromium is, and how to get it: `make browser`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")
# Playwright's own build where it can be fetched, with the libraries it needs where we may install them; else Debian's.
_WAYS = (
    (sys.executable, "-m", "playwright", "install", *(["--with-deps"] if os.geteuid() == 0 else []), "chromium"),
    (*_APT, "update", "--quiet"),
    (*_APT, "install", "--yes", "--quiet", "--no-install-recommends", "chromium"),
)


def find_chromium() -> str | None:
    """Return the program, the system's or Playwright's; None where there is none."""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install_chromium() -> str | None:
    """Install one, trying one way after the other, and return it."""
    for command in _WAYS:
        if shutil.which(command[0]):
            subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
        if found := find_chromium():
            return found
    return None


if __name__ == "__main__":
    program = find_chromium() or install_chromium()
    print(f"Chromium: {program}" if program else "error: Chromium could not be installed; tests of the pages will skip")
    sys.exit(0 if program else 1)
