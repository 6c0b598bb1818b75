from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from alertrec.errors import DataError
from alertrec.importing import reading
from alertrec.importing.parsing import parse_text
from alertrec.importing.validation import ROW

Rows = list[tuple[object, ...]]


def read(path: Path, separator: str = ",") -> tuple[Rows, list[tuple[int, str]]]:
    rows: Rows = []
    malformed: list[tuple[int, str]] = []
    with reading.open_source(path, separator=separator) as source:
        for each in source.slices:
            rows += each.frame.select(ROW, pl.exclude(ROW)).rows()
            malformed += each.malformed
    return rows, malformed


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


def test_an_empty_field_is_null_and_a_quoted_one_is_empty(csv_file: Path):
    csv_file.write_text('id,name\n1,\n2,""\n3,"a ""b"", c"\n')
    assert read(csv_file)[0] == [(1, "1", None), (2, "2", ""), (3, "3", 'a "b", c')]


def test_rows_keep_their_numbers_beside_malformed_ones(csv_file: Path):
    csv_file.write_text('id,name\n1,a\n\n2\n3,"two\nlines"\n4,b,c\n5,d\n')
    rows, malformed = read(csv_file)
    assert rows == [(1, "1", "a"), (3, "3", "two\nlines"), (5, "5", "d")]
    assert malformed == [(2, "2"), (4, "4,b,c")]


def test_numbers_go_on_over_blocks(csv_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 256)
    csv_file.write_text("id,name\n" + "".join(f"{n},x\n" if n % 10 else f"{n}\n" for n in range(1, 501)))
    rows, malformed = read(csv_file)
    assert [row[0] for row in rows] == [n for n in range(1, 501) if n % 10]
    assert all(str(number) == name for number, name, _ in rows)
    assert [number for number, _ in malformed] == list(range(10, 501, 10))


def test_a_file_of_malformed_rows_only_is_read(csv_file: Path):
    csv_file.write_text("id,name\n1\n2\n")
    assert read(csv_file) == ([], [(1, "1"), (2, "2")])


def test_careless_quotes_do_not_stop_a_file(csv_file: Path):
    csv_file.write_text('id,name\n1,Joe "The" Diner\n2,"abc"def\n')
    assert read(csv_file)[0] == [(1, "1", 'Joe "The" Diner'), (2, "2", "abcdef")]


def test_a_byte_that_is_not_utf8_marks_its_own_field_only(csv_file: Path):
    csv_file.write_bytes(b"id,name\n1,caf\xe9\n2,caf\xc3\xa9\n3,\xef\xbf\xbd\n")
    assert read(csv_file)[0] == [(1, "1", "caf\0"), (2, "2", "café"), (3, "3", "\N{REPLACEMENT CHARACTER}")]


@pytest.mark.parametrize("block", [1, 2, 3, 5])
def test_characters_cut_by_a_block_are_whole(block: int, tmp_path: Path):
    data = "aé€𝄞".encode() * 5 + b"\xff\xe2\x82"
    (tmp_path / "raw").write_bytes(data)
    with (tmp_path / "raw").open("rb") as raw:
        stream = reading.Utf8Repair(raw)
        read_back = b"".join(iter(lambda: stream.read(block), b""))
    assert read_back == "aé€𝄞".encode() * 5 + b"\0\0\0"


def test_a_mark_of_byte_order_and_windows_line_ends_are_understood(csv_file: Path):
    csv_file.write_bytes(b"\xef\xbb\xbfid;name\r\n1;a\r\n")
    with reading.open_source(csv_file, separator=";") as source:
        assert source.columns == ["id", "name"]
    assert read(csv_file, ";")[0] == [(1, "1", "a")]


def test_a_compressed_file_is_read(tmp_path: Path):
    path = tmp_path / "rows.CSV.gz"
    path.write_bytes(gzip.compress(b"id\n1\n2\n"))
    with reading.open_source(path) as source:
        assert source.n_rows == 2
    assert read(path)[0] == [(1, "1"), (2, "2")]


def test_blank_lines_before_the_header_are_skipped(csv_file: Path):
    csv_file.write_text("\n\nid\n1\n")
    assert read(csv_file)[0] == [(1, "1")]


def test_an_error_of_the_reader_of_slices_is_not_blamed_on_the_file(csv_file: Path):
    csv_file.write_text("id\n1\n")
    with pytest.raises(OSError, match="disk full"), reading.open_source(csv_file):
        raise OSError("disk full")


@pytest.mark.parametrize("content", [b"id,name\n", b"id,name", b"id,name\n\n\n"])
def test_a_header_alone_is_a_file_without_rows(csv_file: Path, content: bytes):
    csv_file.write_bytes(content)
    assert read(csv_file) == ([], [])


def test_parquet_is_read_in_its_types_and_numbered_over_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "SLICE_ROWS", 2)
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"id": [7, 8, 9], "amount": [1.5, None, 2.5]}).write_parquet(path)
    with reading.open_source(path) as source:
        assert (source.columns, source.n_rows) == (["id", "amount"], 3)
        assert [each.frame.height for each in source.slices] == [2, 1]
    assert read(path)[0] == [(1, 7, 1.5), (2, 8, None), (3, 9, 2.5)]


def test_text_in_parquet_that_is_not_utf8_spoils_one_value(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    broken = pa.array([b"ok", b"\xff"], pa.binary()).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"name": broken}), path)
    with reading.open_source(path) as source:
        (only,) = source.slices
    assert parse_text(only.frame["name"]).to_list() == ["ok", "\0"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.xlsx", b"x", r"\.parquet, \.csv and \.csv\.gz are"),
        ("rows.csv", b"", "is empty"),
        ("rows.csv", b"id,id\n1,2\n", "several columns named 'id'"),
        ("rows.csv.gz", b"no gzip", "cannot be read"),
        ("rows.csv.gz", gzip.compress(b"id\n1\n" * 1000, mtime=0)[:-20], "cannot be read"),
        ("rows.parquet", b"no parquet", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"there is no file .*none\.csv"):
        read(tmp_path / "none.csv")


def test_a_row_longer_than_a_block_is_an_error_with_a_hint(csv_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "BLOCK_BYTES", 64)
    csv_file.write_text('id,name\n1,"open\n' + "2,x\n" * 100)
    with pytest.raises(DataError, match="is a quotation mark left open"):
        read(csv_file)
