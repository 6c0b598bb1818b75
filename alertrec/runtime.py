"""From settings to a workspace: join or start the embedded servers where none are configured, and migrate those."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from alertrec.embedded import remembered, servers
from alertrec.errors import ConfigError
from alertrec.settings import Settings

if TYPE_CHECKING:
    from alertrec.workspace import Workspace


@contextmanager
def connected(settings: Settings) -> Iterator[Settings]:
    """Yield settings with both URLs: those configured, or those of the embedded servers, which stop afterwards.

    Raises
    ------
    ConfigError, TransientError
        If there are no embedded servers for this platform, or they do not start.
    """
    if settings.database_url is not None:
        yield settings
        return
    with servers(settings.data_dir) as running:
        yield replace(settings, database_url=running.database_url, redis_url=running.redis_url)


def remembered_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings of a process that starts no servers: with the URLs of embedded ones that run, if any do."""
    settings = Settings.from_env(environ)
    if settings.database_url is None and (running := remembered(settings.data_dir)):
        return replace(settings, database_url=running.database_url, redis_url=running.redis_url)
    return settings


@contextmanager
def opened(settings: Settings, *, check_schema: bool = True) -> Iterator[Workspace]:
    """Yield a workspace on a database of this release's schema.

    The embedded database is brought to it, source tables included; one's own is checked, never changed unasked.

    Raises
    ------
    ConfigError
        If the database lacks migrations of this release.
    """
    from alertrec.storage.schema import create_source_relations, migrate
    from alertrec.workspace import open_workspace

    with connected(settings) as complete:
        workspace = open_workspace(complete, application_name="alertrec command")
        try:
            if settings.database_url is None:
                with workspace.engine.begin() as connection:
                    migrate(connection)
                    create_source_relations(connection, workspace.source)
            elif check_schema:
                require_schema(workspace)
            yield workspace
        finally:
            workspace.engine.dispose()


def require_schema(workspace: Workspace) -> None:
    """Raise `ConfigError` unless the database has all migrations of this release."""
    from alertrec.storage.schema import current_revision, newest_revision

    with workspace.engine.connect() as connection:
        found, needed = current_revision(connection), newest_revision()
    if found != needed:
        raise ConfigError(
            f"the database has revision {found} of alertrec's tables, {needed} is needed; run `alertrec migrate`"
        )


def child_environment(settings: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a process of ours that is to use the same servers and data directory."""
    assert settings.database_url is not None
    assert settings.redis_url is not None
    return {
        **environ,
        "ALERTREC_DATABASE_URL": settings.database_url,
        "ALERTREC_REDIS_URL": settings.redis_url,
        "ALERTREC_DATA_DIR": str(settings.data_dir.absolute()),
    }
