"""Engines and raw connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, Engine, make_url
from sqlalchemy import create_engine as sqlalchemy_create_engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from alertrec.errors import TransientError, first_line

# Every relation is named with its schema. The path is set all the same: by default, the schema of the user's own name
# comes first, and a user `alertrec` would have ours as the default one.
SESSION_OPTIONS = "-c timezone=UTC -c search_path=public"
# A connection whose other end is gone without a word is given up within a minute, not after the kernel's two hours.
NETWORK_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # ms
}


def create_engine(database_url: str, *, application_name: str = "alertrec") -> Engine:
    """Return an engine on psycopg whose sessions run in UTC.

    Connections are opened at first use and checked before each, so that a restart of the server costs no query.
    """
    return sqlalchemy_create_engine(
        make_url(database_url).set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_size=4,
        max_overflow=4,
        pool_timeout=10,
        hide_parameters=True,  # what is bound is customers' data, and errors end in logs
        connect_args={
            **NETWORK_OPTIONS,
            "options": SESSION_OPTIONS,
            "application_name": application_name,
            "client_encoding": "utf8",
        },
    )


def driver_connection(connection: Connection) -> psycopg.Connection[Any]:
    """Return the psycopg connection beneath, for COPY; it is in the same transaction."""
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


@contextmanager
def transient_errors(doing: str) -> Iterator[None]:
    """Raise `TransientError` where the database was away or ended the transaction for a reason that passes."""
    try:
        yield
    except (
        OperationalError,
        InterfaceError,
        PoolTimeoutError,
        psycopg.OperationalError,
        psycopg.InterfaceError,
    ) as error:
        raise TransientError(f"the database failed while {doing}: {first_line(error)}; try again") from error
