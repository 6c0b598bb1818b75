from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alertrec.errors import DataError
from alertrec.importing.rejects import rejects_file


def test_no_rejects_leave_no_file_and_remove_that_of_an_earlier_import(tmp_path: Path):
    path = tmp_path / "rejects.jsonl"
    path.write_text("old")
    with rejects_file(path):
        pass
    assert not path.exists()


def test_a_reject_is_a_line_that_only_its_owner_reads(tmp_path: Path):
    path = tmp_path / "rejects.jsonl"
    record = {"id": "é", "amount": float("nan"), "when": datetime(2026, 1, 2, tzinfo=UTC), "raw": b"\xff", "none": None}
    with rejects_file(path) as rejects:
        rejects.write("users", 3, {"column": "id", "reason": "missing_id"}, record=record)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "relation": "users",
        "row": 3,
        "column": "id",
        "reason": "missing_id",
        "record": {"id": "é", "amount": "nan", "when": "2026-01-02 00:00:00+00:00", "raw": "\\xff", "none": None},
    }


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    with (
        pytest.raises(DataError, match="cannot be written: No such file"),
        rejects_file(tmp_path / "none" / "rejects.jsonl") as rejects,
    ):
        rejects.write("users", 1, {}, record={})
