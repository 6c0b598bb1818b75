"""A Parquet or CSV file → slices of its rows, numbered as they stand in the file."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from alertrec.errors import DataError
from alertrec.importing.parsing import NUL
from alertrec.importing.validation import ROW

SLICE_ROWS = 131_072
# A row of a CSV file has to fit into one block.
BLOCK_BYTES = 1 << 24

_UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException, pl.exceptions.PolarsError, csv.Error, UnicodeError)


@dataclass(frozen=True)
class Slice:
    """Some rows of a file.

    Attributes
    ----------
    frame : DataFrame
        The file's columns and `ROW`, the number of the row in the file from 1.
    malformed : list of (int, str)
        Row number and text of the rows that have more or fewer fields than the header.
    """

    frame: pl.DataFrame
    malformed: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """An open file: its columns, about how many rows it has, and its slices, to be gone through once."""

    columns: list[str]
    n_rows: int
    slices: Iterator[Slice]


@contextmanager
def open_source(path: Path, *, separator: str = ",") -> Iterator[Source]:
    """Open a file by the ending of its name: .parquet, .csv or .csv.gz.

    Raises
    ------
    DataError
        If the file is missing, of another kind, or cannot be read, here or while its slices are gone through.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; check the path")
    with ExitStack() as stack:
        with _data_errors(path):
            source = _opened(path, separator, stack)
        yield replace(source, slices=_guarded(source.slices, path))


def _opened(path: Path, separator: str, stack: ExitStack) -> Source:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_source(
            stack.enter_context(pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)), path
        )
    if name.endswith((".csv", ".csv.gz")):
        return _csv_source(stack.enter_context(_open_bytes(path)), separator, path)
    raise DataError(f"{path.name} is not a file that can be imported; .parquet, .csv and .csv.gz are")


def _guarded(slices: Iterator[Slice], path: Path) -> Iterator[Slice]:
    # Around the reading alone: what goes wrong with a slice later is no fault of the file.
    with _data_errors(path):
        yield from slices


@contextmanager
def _data_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "; is a quotation mark left open?" if "straddl" in reason else ""
        raise DataError(f"{path} cannot be read: {reason}{hint}; export it again") from error


def _parquet_source(file: pyarrow.parquet.ParquetFile, path: Path) -> Source:
    return Source(_distinct(file.schema_arrow.names, path), file.metadata.num_rows, _parquet_slices(file))


def _parquet_slices(file: pyarrow.parquet.ParquetFile) -> Iterator[Slice]:
    start = 1
    for batch in file.iter_batches(batch_size=SLICE_ROWS):
        yield Slice(_numbered(pa.table(_undecoded(batch)), np.arange(start, start + batch.num_rows)))
        start += batch.num_rows


def _undecoded(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    # Nothing has checked the text yet, and one value that is not UTF-8 would make the whole column unreadable;
    # as bytes it is decoded value by value later.
    def bytes_for_text(column: pa.Array) -> pa.Array:
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        return column.cast(pa.large_binary()) if is_text else column

    return {name: bytes_for_text(batch.column(name)) for name in batch.schema.names}


def _numbered(table: pa.Table, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pl.DataFrame:
    frame = cast(pl.DataFrame, pl.from_arrow(table))
    return frame.with_columns(pl.Series(ROW, rows))


def _csv_source(raw: BinaryIO, separator: str, path: Path) -> Source:
    n_rows = _count_lines(path) - 1
    stream: io.BufferedReader = io.BufferedReader(Utf8Repair(raw), BLOCK_BYTES)
    header = next(filter(None, csv.reader(_lines(stream), delimiter=separator)), [])
    if not header:
        raise DataError(f"{path} is empty; a header and rows are expected")
    columns = _distinct(header, path)
    return Source(columns, max(n_rows, 0), _csv_slices(stream, columns, separator))


def _distinct(names: list[str], path: Path) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path} has several columns named {name!r}; give each its own name")
    return names


def _lines(stream: io.BufferedReader) -> Iterator[str]:
    while line := stream.readline():
        yield line.decode().removeprefix("\N{BYTE ORDER MARK}")


def _csv_slices(stream: io.BufferedReader, columns: list[str], separator: str) -> Iterator[Slice]:
    if not stream.peek(1).strip():
        return
    refused: list[tuple[int, str]] = []
    n_good = n_told = 0
    for batch in _open_csv(stream, columns, separator, refused=refused):
        rows = _row_numbers(n_good, batch.num_rows, refused)
        n_good += batch.num_rows
        frame = _numbered(pa.Table.from_batches([batch]), rows)
        yield Slice(frame, refused[n_told:])
        n_told = len(refused)
    if n_told < len(refused):
        yield Slice(pl.DataFrame(schema={**dict.fromkeys(columns, pl.String), ROW: pl.Int64}), refused[n_told:])


def _open_csv(
    stream: io.BufferedReader, columns: list[str], separator: str, *, refused: list[tuple[int, str]]
) -> Iterator[pa.RecordBatch]:
    def refuse(row: pyarrow.csv.InvalidRow) -> str:
        refused.append((row.number, row.text))
        return "skip"

    reader = pyarrow.csv.open_csv(
        stream,
        # One thread, since only then are refused rows numbered; parsing is a small part of an import.
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=columns),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=separator, newlines_in_values=True, invalid_row_handler=refuse
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.large_string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
            check_utf8=False,
        ),
    )
    return iter(reader)


def _row_numbers(
    n_before: int, n_rows: int, refused: list[tuple[int, str]]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the numbers of good rows in the file, given how many good rows came before them."""
    numbers = np.array([number for number, _ in refused], dtype=np.int64)
    good_before_refused = numbers - 1 - np.arange(len(numbers))
    good = np.arange(n_before, n_before + n_rows)
    return good + 1 + np.searchsorted(good_before_refused, good, side="right")


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _count_lines(path: Path) -> int:
    """Return the number of lines: an estimate of the rows, since a quoted text may hold several."""
    with _open_bytes(path) as file:
        return sum(block.count(b"\n") for block in iter(partial(file.read, BLOCK_BYTES), b""))


class Utf8Repair(io.RawIOBase):
    """A stream of UTF-8 in which every byte that is none has become a NUL, which marks its row as unusable."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
        self._ready = b""

    def readable(self) -> bool:
        """Return True, as every stream for reading does."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # Buffer is 3.12's
        """Fill the buffer as far as one block goes; 0 at the end."""
        while not self._ready:
            block = self._raw.read(len(buffer))
            self._ready = _repaired(self._decoder.decode(block, final=not block))
            if not block:
                break
        n_bytes = min(len(buffer), len(self._ready))
        buffer[:n_bytes], self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
        return n_bytes


def _repaired(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\udc80-\udcff]", NUL, text).encode()
