"""Rows of model versions: which there are, and which is champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from alertrec.storage import locks
from alertrec.storage.tables import model_versions

CHAMPION = "champion"


@dataclass(frozen=True)
class ModelVersion:
    """One stored model."""

    version: str
    algorithm: str
    parameters: Mapping[str, Any]
    training_window: Mapping[str, Any]
    data_counts: Mapping[str, Any]
    metrics: Mapping[str, Any]
    location: str
    sha256: str
    created_at: datetime
    alias: str | None = None
    promoted_by: str | None = None
    promoted_at: datetime | None = None


def insert_version(connection: Connection, model: ModelVersion) -> None:
    """Add a version."""
    connection.execute(insert(model_versions).values(model.__dict__))


def promote(connection: Connection, version: str, *, promoted_by: str) -> bool:
    """Make a version the champion; False if there is no such version."""
    table = model_versions
    _retire_champion(connection)
    values = {"alias": CHAMPION, "promoted_by": promoted_by, "promoted_at": func.clock_timestamp()}
    return connection.execute(update(table).where(table.c.version == version).values(values)).rowcount == 1


def roll_back(connection: Connection, present: str, version: str) -> None:
    """Make a version champion again in place of the present one, which no longer counts as one that served well."""
    table = model_versions
    _retire_champion(connection)
    connection.execute(update(table).where(table.c.version == present).values(promoted_at=None))
    connection.execute(update(table).where(table.c.version == version).values(alias=CHAMPION))


def champion(connection: Connection) -> ModelVersion | None:
    """Return the version in force."""
    return _first(connection.execute(select(model_versions).where(model_versions.c.alias == CHAMPION)).first())


def newest(connection: Connection) -> ModelVersion | None:
    """Return the version that was trained last, whether it serves or not."""
    return _first(
        connection.execute(select(model_versions).order_by(model_versions.c.created_at.desc()).limit(1)).first()
    )


def promoted_before(connection: Connection, version: str | None = None) -> list[ModelVersion]:
    """Return the other versions that were champion once and were not rolled back, the latest first."""
    table = model_versions
    query = select(table).where(table.c.promoted_at.is_not(None)).order_by(table.c.promoted_at.desc())
    return [_version(row) for row in connection.execute(query) if row.version != version]


def all_versions(connection: Connection) -> list[ModelVersion]:
    """Return every version, the newest first."""
    return [
        _version(row) for row in connection.execute(select(model_versions).order_by(model_versions.c.created_at.desc()))
    ]


def find(connection: Connection, version: str) -> ModelVersion | None:
    """Return a version by its name."""
    return _first(connection.execute(select(model_versions).where(model_versions.c.version == version)).first())


def delete_version(connection: Connection, version: str) -> bool:
    """Remove the row of a version; False if it has an alias by now, and stays."""
    table = model_versions
    removed = delete(table).where(table.c.version == version, table.c.alias.is_(None)).returning(table.c.version)
    return connection.execute(removed).first() is not None


def _retire_champion(connection: Connection) -> None:
    """Take the alias from its holder; of two who promote at once, the second waits for the first."""
    connection.execute(select(func.pg_advisory_xact_lock(locks.PROMOTION)))
    connection.execute(update(model_versions).where(model_versions.c.alias == CHAMPION).values(alias=None))


def _first(row: Row[Any] | None) -> ModelVersion | None:
    return None if row is None else _version(row)


def _version(row: Row[Any]) -> ModelVersion:
    return ModelVersion(**row._mapping)
