"""An export holds the current lists, whole, in any of its formats."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from alertrec import exporting, service
from alertrec.errors import DataError
from alertrec.exporting import export_lists
from alertrec.storage.tables import recommendations
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    active_users,
    execute,
    load,
    read_items,
    scalar,
    small_bank,
    train,
    workspace_on,
)

COLUMNS = [column.name for column in recommendations.columns]
FORMATS = ("parquet", "csv", "jsonl")
_JSON = ("parameters", "reasons", "would_have_fired", "change")
_TIMES = ("generated_at", "expires_at")


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, tmp_path / "data") as workspace:
        yield workspace


@pytest.fixture
def served(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace whose users all have a list."""
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    service.refresh_locally(workspace, as_of=AS_OF)
    return workspace


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def stored(workspace: Workspace) -> list[dict[str, Any]]:
    items = (item for each in read_items(workspace).values() for item in each)
    return [{**item, "recommendation_id": str(item["recommendation_id"])} for item in items]


def read_back(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an export with their values as Python has them."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    elif path.suffix == ".csv":
        rows = pl.read_csv(path, infer_schema=False).cast({"rank": pl.Int64, "probability": pl.Float64}).to_dicts()
    else:
        rows = pl.read_parquet(path).to_dicts()
    for row in rows:
        for name in _TIMES:
            moment = row[name] if isinstance(row[name], datetime) else datetime.fromisoformat(row[name])
            assert moment.utcoffset() is not None
            row[name] = moment.astimezone(UTC)
        for name in _JSON:
            if isinstance(row[name], str):
                row[name] = json.loads(row[name])
    return rows


@pytest.mark.parametrize("ending", FORMATS)
def test_an_export_holds_the_rows_of_the_table_in_the_order_of_users_and_ranks(
    served: Workspace, out: Path, ending: str
):
    path = out / f"lists.{ending}"
    n_rows = export_lists(served, path)
    rows = read_back(path)
    assert len(rows) == n_rows > 50
    assert list(rows[0]) == COLUMNS
    assert rows == stored(served)


@pytest.mark.parametrize("ending", FORMATS)
def test_an_export_of_many_blocks_is_that_of_one(
    served: Workspace, out: Path, ending: str, monkeypatch: pytest.MonkeyPatch
):
    stream = exporting.stream_current_items
    monkeypatch.setattr(exporting, "stream_current_items", lambda connection: stream(connection, 7))
    export_lists(served, out / f"lists.{ending}")
    assert read_back(out / f"lists.{ending}") == stored(served)


def test_an_export_leaves_out_what_has_expired(served: Workspace, out: Path):
    user_id = next(iter(read_items(served)))
    for table in ("recommendation_lists", "recommendations"):
        execute(
            served,
            f"UPDATE alertrec.{table} SET expires_at = now() - interval '1 second' WHERE user_id = :id",  # noqa: S608  # of our own
            id=user_id,
        )
    export_lists(served, out / "lists.jsonl")
    exported = {row["user_id"] for row in read_back(out / "lists.jsonl")}
    assert exported == set(read_items(served)) - {user_id}
    assert len(exported) < len(active_users(served))


@pytest.mark.parametrize("ending", FORMATS)
def test_an_export_of_no_lists_has_the_columns_and_no_rows(workspace: Workspace, out: Path, ending: str):
    path = out / f"lists.{ending}"
    assert export_lists(workspace, path) == 0
    if ending == "jsonl":
        assert path.read_text() == ""
    else:
        frame = pl.read_csv(path) if ending == "csv" else pl.read_parquet(path)
        assert (frame.columns, frame.height) == (COLUMNS, 0)


def test_a_text_of_any_kind_comes_through_every_format(served: Workspace, out: Path):
    text = 'a "quoted", two-lined\ntext; ünïcode \\ and a comma,'
    execute(served, "UPDATE alertrec.recommendations SET reasoning = :text", text=text)
    for ending in FORMATS:
        export_lists(served, out / f"lists.{ending}")
        assert {row["reasoning"] for row in read_back(out / f"lists.{ending}")} == {text}


@pytest.mark.parametrize("ending", FORMATS)
def test_advice_comes_through_every_format_without_a_probability(served: Workspace, out: Path, ending: str):
    user_id = next(iter(read_items(served)))
    execute(
        served,
        "UPDATE alertrec.recommendations SET probability = NULL, recommendation_type = 'change', "
        'change = \'{"advice": "retire", "fired": {"count": 0}}\' WHERE user_id = :id AND rank = 1',
        id=user_id,
    )
    export_lists(served, out / f"lists.{ending}")
    rows = read_back(out / f"lists.{ending}")
    assert rows == stored(served)
    first = rows[0]
    assert (first["probability"], first["recommendation_type"]) == (None, "change")
    assert first["change"] == {"advice": "retire", "fired": {"count": 0}}


@pytest.mark.parametrize("name", ["lists.xlsx", "lists", "lists.parquet.gz"])
def test_an_unknown_ending_is_refused_with_those_that_are_known(workspace: Workspace, out: Path, name: str):
    with pytest.raises(DataError, match=r"\.parquet, \.csv, \.jsonl"):
        export_lists(workspace, out / name)
    assert list(out.iterdir()) == []


def test_a_directory_that_is_not_there_is_named(workspace: Workspace, out: Path):
    with pytest.raises(DataError, match=r"nowhere/lists\.csv"):
        export_lists(workspace, out / "nowhere" / "lists.csv")


@pytest.mark.parametrize("ending", FORMATS)
def test_an_export_that_fails_leaves_the_earlier_one_and_no_part_of_itself(
    served: Workspace, out: Path, ending: str, monkeypatch: pytest.MonkeyPatch
):
    stream = exporting.stream_current_items
    monkeypatch.setattr(exporting, "stream_current_items", lambda connection: stream(connection, 7))
    path = out / f"lists.{ending}"
    path.write_text("the earlier one")
    with largest_file(4096), pytest.raises(DataError, match="File too large"):
        export_lists(served, path)
    assert [each.name for each in out.iterdir()] == [path.name]
    assert path.read_text() == "the earlier one"


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Refuse what this process writes beyond so many bytes of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_export_changes_nothing(served: Workspace, out: Path):
    before = stored(served)
    export_lists(served, out / "lists.csv")
    assert stored(served) == before
    assert scalar(served, "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'") == 0
