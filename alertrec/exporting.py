"""All current lists into one file, for those who take them elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import polars as pl
from sqlalchemy.dialects.postgresql import JSONB

from alertrec.errors import DataError
from alertrec.storage.lists import stream_current_items
from alertrec.storage.tables import recommendations
from alertrec.workspace import Workspace

Row = dict[str, Any]
WriteRows = Callable[[Sequence[Row]], None]

_JSON_COLUMNS = {column.name for column in recommendations.columns if isinstance(column.type, JSONB)}
_SCHEMA = {
    column.name: pl.Datetime("us", "UTC")
    if column.name in {"generated_at", "expires_at"}
    else {"rank": pl.Int64(), "probability": pl.Float64()}.get(column.name, pl.String())
    for column in recommendations.columns
}


def export_lists(workspace: Workspace, out: Path) -> int:
    """Write the recommendations of all current lists, by user and rank, and return their number.

    Parameters
    ----------
    out : Path
        `.parquet`, `.csv` or `.jsonl`; columns as the table's. JSON columns are objects in JSON lines and text in
        the others; the probability of advice is null. The file appears whole or not at all.

    Raises
    ------
    DataError
        If the name has another ending, or the directory cannot be written to.
    """
    writer = _WRITERS.get(out.suffix)
    if writer is None:
        raise DataError(f"the name of an export ends in {', '.join(_WRITERS)}; {out.name!r} does not")
    part = out.with_name(f".{out.name}.part")
    n_rows = 0
    try:
        with (
            part.open("wb") as file,
            writer(file) as write,
            workspace.engine.connect() as connection,
            closing(stream_current_items(connection)) as blocks,
        ):
            for rows in blocks:
                write([dict(row._mapping) for row in rows])
                n_rows += len(rows)
        part.replace(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror or error}); choose another --out") from error
    finally:
        part.unlink(missing_ok=True)
    return n_rows


@contextmanager
def _json_lines(file: IO[bytes]) -> Iterator[WriteRows]:
    yield lambda rows: file.writelines(json.dumps(row, default=_plain).encode() + b"\n" for row in rows)


@contextmanager
def _csv(file: IO[bytes]) -> Iterator[WriteRows]:
    file.write(pl.DataFrame(schema=_SCHEMA).write_csv().encode())
    yield lambda rows: _frame(rows).write_csv(file, include_header=False, datetime_format="%Y-%m-%dT%H:%M:%S%.6f%:z")


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[WriteRows]:
    import pyarrow.parquet

    schema = pl.DataFrame(schema=_SCHEMA).to_arrow().schema
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        yield lambda rows: writer.write_table(_frame(rows).to_arrow())


_WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}


def _frame(rows: Sequence[Row]) -> pl.DataFrame:
    flat = [
        {name: _text(value) if name in _JSON_COLUMNS else _plain_id(value) for name, value in row.items()}
        for row in rows
    ]
    return pl.DataFrame(flat, schema=_SCHEMA)


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _plain_id(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
