"""Bringing a database to the schema of this release, and checking that it has it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.errors import InsufficientPrivilege, WrongObjectType
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.types import Boolean, DateTime, Float, Integer, Numeric, String

from alertrec.errors import DataError, first_line
from alertrec.storage import locks
from alertrec.storage.database import driver_connection
from alertrec.storage.source import Source
from alertrec.storage.tables import OPTIONAL


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring alertrec's own tables to a revision, up; the caller commits the end of it.

    What takes long is done in steps, each committed when it is done, so that lists are read and written meanwhile.
    """
    _prepare(connection)
    command.upgrade(_config(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Bring alertrec's own tables back to an earlier revision, likewise; "base" drops them all."""
    _prepare(connection)
    command.downgrade(_config(connection), revision)


def create_source_relations(connection: Connection, source: Source) -> None:
    """Create the source tables that are missing; relations that are there, tables or views, stay as they are."""
    source.metadata.create_all(connection)


def add_optional_columns(connection: Connection, table: Table, names: Collection[str]) -> None:
    """Add those of some columns that are optional and that a source table, made by an earlier release, lacks.

    For who is about to fill them, and not for whoever creates tables: those of adopters stay as they are until then.

    Raises
    ------
    DataError
        If the relation is a view, or somebody else's.
    """
    assert table.schema is not None
    wanted = {column.name for column in table.columns if OPTIONAL in column.info}.intersection(names)
    # Looked for first: even with nothing to add, ADD COLUMN IF NOT EXISTS waits for all readers and locks them out.
    there = inspect(connection).get_columns(table.name, schema=table.schema) if wanted else []
    for name in sorted(wanted.difference(column["name"] for column in there)):
        # All of them are texts without a default, which costs no rewrite.
        statement = SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} text")
        try:
            driver_connection(connection).execute(
                statement.format(Identifier(table.schema, table.name), Identifier(name))
            )
        except (WrongObjectType, InsufficientPrivilege) as error:
            raise DataError(
                f"{table.name} has no column {name}, and it cannot be added ({first_line(error)}); "
                f"add it, as text, or leave it out of the file"
            ) from error


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the database has; None before the first migration."""
    # Not by Alembic, which makes a table of its own for each look: SQLAlchemy would remember hundreds of statements.
    return connection.scalar(_REVISION) if connection.scalar(_IS_MIGRATED) else None


@cache  # loading all migrations takes longer than all else of a readiness check, which asks each time
def newest_revision() -> str | None:
    """Return the revision that this release needs."""
    return ScriptDirectory(str(_SCRIPTS)).get_current_head()


def source_faults(connection: Connection, source: Source) -> Mapping[str, Sequence[str]]:
    """Return what is wrong with each source relation: it or a column is missing, or of a type that cannot be read."""
    found = {
        table.name: _faults(connection, table) for table in (source.users, source.transactions, source.alert_rules)
    }
    return {name: faults for name, faults in found.items() if faults}


_READABLE = (
    (Boolean, Boolean, "boolean"),
    (DateTime, DateTime, "a timestamp"),
    (Numeric, (Numeric, Float, Integer), "a number"),
    (String, String, "text"),
)
_SCRIPTS = Path(__file__).parent / "migrations"
_IS_MIGRATED = text("SELECT to_regclass('alertrec.alembic_version') IS NOT NULL")
_REVISION = text("SELECT version_num FROM alertrec.alembic_version")


def _prepare(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": locks.MIGRATION})
    # Alembic keeps its version in our schema, so that must be there before the first migration.
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS alertrec"))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _faults(connection: Connection, table: Table) -> list[str]:
    try:
        there = {
            column["name"]: column["type"]
            for column in inspect(connection).get_columns(table.name, schema=table.schema)
        }
    except NoSuchTableError:
        return ["is missing"]
    missing = [
        f"{column.name} is missing"
        for column in table.columns
        if column.name not in there and OPTIONAL not in column.info
    ]
    unreadable = [
        f"{column.name} is {there[column.name]} and not {expected}"
        for column in table.columns
        if column.name in there
        for kind, readable, expected in _READABLE
        if isinstance(column.type, kind) and not isinstance(there[column.name], readable)
    ]
    return missing + unreadable
