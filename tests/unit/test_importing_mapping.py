from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from alertrec.errors import DataError
from alertrec.importing import Mapping, RelationMapping, load_mapping
from alertrec.importing.mapping import check_columns, project
from alertrec.importing.validation import ROW

ROOT = Path(__file__).parents[2]
BANK = """
[transactions]
separator = ";"
date_format = "%d.%m.%Y"
[transactions.columns]
id = "no"
merchant_name = ["payee", "purpose"]
[transactions.constants]
currency = "EUR"
[transactions.values.status]
booked = "SETTLED"
[transactions.values.merchant_name]
"-" = ""
"""


@pytest.fixture
def bank_file(tmp_path: Path) -> Path:
    path = tmp_path / "bank.toml"
    path.write_text(BANK)
    return path


def test_a_mapping_is_read_as_written(bank_file: Path):
    mapping = load_mapping(bank_file)
    assert mapping.users == RelationMapping()
    assert mapping.transactions == RelationMapping(
        separator=";",
        date_format="%d.%m.%Y",
        columns={"id": ("no",), "merchant_name": ("payee", "purpose")},
        constants={"currency": "EUR"},
        values={"status": {"booked": "SETTLED"}, "merchant_name": {"-": ""}},
    )


def test_the_mapping_of_the_czech_bank_is_valid():
    assert load_mapping(ROOT / "docs" / "mappings" / "berka.toml") != Mapping()


def test_the_mapping_in_the_documentation_is_valid(tmp_path: Path):
    document = (ROOT / "docs" / "import.md").read_text()
    path = tmp_path / "documented.toml"
    path.write_text(document.partition("```toml\n")[2].partition("```")[0])
    assert load_mapping(path).transactions.columns["merchant_name"] == ("payee", "purpose")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[customers]\n", r"customers is not known; known are users, transactions, alert_rules"),
        ("[users]\nseperator = ';'\n", r"users\.seperator is not known"),
        ("[users.columns]\nname = 'x'\n", r"users\.columns\.name is not known; known are id"),
        ("[users.constants]\nname = 'x'\n", r"users\.constants\.name is not known"),
        ("[users.values.name]\nx = 'y'\n", r"users\.values\.name is not known"),
        ("[users]\nseparator = ';;'\n", r"users\.separator must be one character"),
        ("[users]\ndate_format = 'nonsense'\n", r"users\.date_format must be a strptime format"),
        ("[users]\ndate_format = '%H:%M'\n", r"users\.date_format must be a strptime format"),
        ("[users]\ndate_format = '%'\n", r"users\.date_format must be a strptime format"),
        ("[users.columns]\nid = 3\n", r"users\.columns\.id must be the name"),
        ("[users.columns]\nid = []\n", r"users\.columns\.id must be the name"),
        ("[users.constants]\nid = [1]\n", r"users\.constants\.id must be a text"),
        ("[users.values]\nid = 1\n", r"must be a table"),
        ("users = 1\n", r"users must be a table"),
        ("[users.columns]\nid = 'a'\n[users.constants]\nid = 'b'\n", r"users\.constants\.id is also in users\.columns"),
        ("[users\n", r"cannot be read"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "bank.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_mapping(path)


def test_a_mapping_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        load_mapping(tmp_path / "none.toml")


def test_the_first_source_that_is_not_blank_after_its_words_are_replaced_counts():
    mapping = RelationMapping(
        columns={"merchant_name": ("payee", "purpose")}, values={"merchant_name": {"0": "", "x": "Xylo"}}
    )
    source = pl.DataFrame(
        {
            ROW: [1, 2, 3, 4],
            "payee": ["Ann", "0", None, "x"],
            "purpose": ["rent", "rent", " ", "rent"],
        }
    )
    assert project(source, "transactions", mapping)["merchant_name"].to_list() == ["Ann", "rent", None, "Xylo"]


def test_columns_of_our_own_names_are_taken_and_others_ignored():
    source = pl.DataFrame({ROW: [1, 2], "id": ["a", "b"], "shoe_size": [41, 42], "credit_limit": [1.5, None]})
    projected = project(source, "users", RelationMapping(constants={"address_country": "CZ", "is_active": "false"}))
    assert projected.columns == [ROW, "id", "is_active", "credit_limit", "address_country"]
    assert projected["credit_limit"].dtype == pl.Float64
    assert projected["address_country"].to_list() == ["CZ", "CZ"]


def test_a_missing_column_is_named_with_what_was_found_and_expected():
    with pytest.raises(DataError) as caught:
        check_columns(["id", "when"], "transactions", RelationMapping(), path=Path("t.csv"))
    assert str(caught.value) == (
        "t.csv: no column user_id, amount, transaction_date; found: 'id', 'when'; transactions needs id, user_id, "
        "amount, transaction_date. Name the columns, and the separator if it is not a comma, in a mapping (--mapping)"
    )


def test_a_mapped_column_that_the_file_lacks_is_named():
    mapping = RelationMapping(columns={"id": ("no",)})
    with pytest.raises(DataError, match=r"takes users\.id from a column 'no', which the file has not; found: 'id'"):
        check_columns(["id"], "users", mapping, path=Path("u.csv"))
