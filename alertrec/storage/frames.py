"""Rows in bulk, both ways, by COPY in the transaction of a SQLAlchemy connection."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, cast

import polars as pl
from sqlalchemy import Connection, SelectBase
from sqlalchemy.dialects import postgresql

from alertrec.storage.database import driver_connection

_DIALECT = postgresql.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
_BLOCK = 1 << 20

Schema = Mapping[str, Any]  # column → polars type


def read_frame(connection: Connection, query: SelectBase, schema: Schema) -> pl.DataFrame:
    """Run a query and return its rows.

    Parameters
    ----------
    query : select whose columns are those of `schema`, in its order; moments as microseconds since 1970
    schema : mapping of column to polars type

    Notes
    -----
    COPY as CSV, parsed by polars: no row becomes a Python object, and parameters are bound by psycopg.
    """
    compiled = query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    buffer = io.BytesIO()
    # The statement is made of our own table metadata; values travel as parameters.
    statement = f"COPY ({compiled}) TO STDOUT (FORMAT csv)"
    with driver_connection(connection).cursor().copy(cast("Any", statement), compiled.params) as copy:
        for block in copy:
            buffer.write(block)
    if buffer.tell() == 0:
        return pl.DataFrame(schema=dict(schema))
    buffer.seek(0)
    return pl.read_csv(buffer, has_header=False, schema=dict(schema))


def copy_frame(connection: Connection, table: str, frame: pl.DataFrame) -> None:
    """Append a frame to a table of the same columns; null becomes NULL, an empty text stays one."""
    columns = ", ".join(f'"{name}"' for name in frame.columns)
    content = memoryview(frame.write_csv(include_header=False, quote_style="non_numeric").encode())
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT csv)"
    with driver_connection(connection).cursor().copy(cast("Any", statement)) as copy:
        for start in range(0, len(content), _BLOCK):
            copy.write(content[start : start + _BLOCK])
