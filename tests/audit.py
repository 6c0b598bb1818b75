"""Audit what requirements.lock pins: licences against a list, known vulnerabilities by `uv audit`. `make audit`.

Licences are read from the metadata of what is installed. Vulnerabilities are asked of a service on the network; where
that cannot be reached it is said, and nothing fails, since a network that is down is no fault of the code. What is
found fails.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]

ALLOWED = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "PSF-2.0", "Zlib"}
# What obliges to more than naming it: package, licence and why it may be here. Nothing of it is altered or copied.
EXCEPTIONS = {
    "psycopg": ("LGPL-3.0-only", "a library of its own, imported and replaceable, as the LGPL asks"),
    "psycopg-binary": ("LGPL-3.0-only", "as psycopg"),
    "psycopg-pool": ("LGPL-3.0-only", "as psycopg"),
    "certifi": ("MPL-2.0", "a list of certificates; files under the MPL stay under it, and oblige no others"),
    "pathspec": ("MPL-2.0", "as certifi; only builds and checks use it"),
    "hypothesis": ("MPL-2.0", "as certifi; only tests use it"),
    "axe-playwright-python": ("", "its metadata name none; its file LICENSE is the MIT's; only tests use it"),
}
# By their identifiers, or where there are none the reasons that they do not concern us.
IGNORED_VULNERABILITIES: dict[str, str] = {}

_IDENTIFIERS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_UNREACHABLE = ("error sending request", "Request failed after", "network access", "dns error", "timed out")

Pin = tuple[str, str]


def pins(lock: str) -> list[Pin]:
    """Return name and version of all that a lock pins, for any platform."""
    return re.findall(r"^([\w.-]+)==([\w.!+]+)", lock, flags=re.MULTILINE)


def licence_of(package: Distribution) -> str:
    """Return the licence that the metadata name, as an SPDX expression; empty where they name none."""
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [each.split(" :: ")[-1] for each in metadata.get_all("Classifier") or [] if "License ::" in each]
    if classifiers:
        return " AND ".join(_IDENTIFIERS.get(each, each) for each in classifiers)
    told = metadata["License"].strip().partition("\n")[0] if "License" in metadata else ""
    return _IDENTIFIERS.get(told, told)


def is_allowed(expression: str) -> bool:
    """Return whether an expression allows us what we do: of alternatives one, of a conjunction all."""
    return all(any(each in ALLOWED for each in part.split(" OR ")) for part in expression.split(" AND "))


def licence_faults(found: Iterable[tuple[str, str]]) -> list[str]:
    """Return what is wrong with the licences of packages, and with the exceptions made for them."""
    licences = dict(found)
    faults = [
        f"{name}: {licence or 'no licence'} is not on the list of tests/audit.py"
        for name, licence in licences.items()
        if not is_allowed(licence) and (name not in EXCEPTIONS or EXCEPTIONS[name][0] != licence)
    ]
    stale = [name for name in EXCEPTIONS if name in licences and is_allowed(licences[name])]
    return faults + [f"{name} needs no exception any more" for name in stale]


def uv_lock(pinned: Sequence[Pin]) -> str:
    """Return the same pins as `uv audit` reads them."""
    name, source = "audited", 'source = { registry = "." }'
    own = "\n".join(f'    {{ name = "{each}", version = "{version}", {source} }},' for each, version in pinned)
    packages = [f'[[package]]\nname = "{each}"\nversion = "{version}"\n{source}\n' for each, version in pinned]
    root = f'[[package]]\nname = "{name}"\nversion = "0"\nsource = {{ virtual = "." }}\ndependencies = [\n{own}\n]\n'
    return "\n".join(['version = 1\nrequires-python = ">=3.11"\n', root, *packages])


def audit_vulnerabilities(pinned: Sequence[Pin], *options: str) -> tuple[str, bool]:
    """Return what is known of these versions, in words, and whether that is a fault.

    Parameters
    ----------
    options : str
        Further ones of `uv audit`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        project = (
            f'[project]\nname = "audited"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = {_names(pinned)}\n'
        )
        Path(scratch, "pyproject.toml").write_text(project)
        Path(scratch, "uv.lock").write_text(uv_lock(pinned))
        ignored = [f"--ignore={each}" for each in IGNORED_VULNERABILITIES]
        command = [f"{sysconfig.get_path('scripts')}/uv", "audit", "--frozen", "--output-format=json", *ignored]
        done = subprocess.run(
            [*command, *options],
            cwd=scratch,
            env={**os.environ, "UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "30"},
            capture_output=True,
            text=True,
            check=False,
        )
    return _judged(done, n_pinned=len(pinned))


def _names(pinned: Sequence[Pin]) -> str:
    return json.dumps(sorted({name for name, _ in pinned}))


def _judged(done: subprocess.CompletedProcess[str], *, n_pinned: int) -> tuple[str, bool]:
    if not done.stdout.strip():
        reason = done.stderr.strip().splitlines()[-1].removeprefix("  cause: ") if done.stderr.strip() else "no answer"
        if any(each in done.stderr for each in _UNREACHABLE):
            return f"NOT CHECKED, the service that knows them cannot be reached ({reason})", False
        return f"NOT CHECKED, `uv audit` failed: {reason}", True
    report = json.loads(done.stdout)
    if (n_audited := report["summary"]["audited_packages"]) != n_pinned:
        return f"{n_audited} of {n_pinned} versions were looked up; the others were passed over", True
    found = [
        f"{each['dependency']['name']} {each['dependency']['version']}: {each['display_id']} {each['summary'] or ''}"
        for each in report["vulnerabilities"]
    ]
    return "; ".join(found) or f"none in {n_audited} versions", bool(found)


def main() -> int:
    """Print what was found; 1 where something has to be done."""
    pinned = pins((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    found, absent = {}, []
    for name, _ in pinned:
        try:
            found[name] = licence_of(distribution(name))
        except PackageNotFoundError:
            absent.append(name)  # of another platform
    faults = licence_faults(found.items())
    print(
        f"licences: {len(found)} packages read, {len(faults)} faults; not installed here: {', '.join(absent) or 'none'}"
    )
    for each in faults:
        print(f"  {each}")
    told, is_fault = audit_vulnerabilities(pinned)
    print(f"known vulnerabilities: {told}")
    return 1 if faults or is_fault else 0


if __name__ == "__main__":
    sys.exit(main())
