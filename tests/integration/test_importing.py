from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy
from sqlalchemy import Engine, func, select, text

from alertrec.errors import DataError
from alertrec.importing import ImportReport, RelationReport, import_files, load_mapping
from alertrec.sample_bank import make_sample_bank
from alertrec.storage.tables import alert_rules, source_metadata, transactions, users

ROOT = Path(__file__).parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"
AS_OF = datetime(2026, 10, 1, tzinfo=UTC)


@pytest.fixture
def bank(database_url: str) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection:
        source_metadata.create_all(connection)
    yield engine
    engine.dispose()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "users.csv").write_text("id,credit_limit,address_city\nu1,100.50,\nu2,,Prague\n")
    (tmp_path / "transactions.csv").write_text(
        "id,user_id,amount,transaction_date,merchant_name\n"
        't1,u1,12.5,2026-01-02T03:04:05+01:00,""\n'
        "t2,u2,-3,2026-01-03,\n"
    )
    (tmp_path / "alert_rules.csv").write_text("id,user_id,alert_type\nr1,u1,alert_high_spender\n")
    return tmp_path


def load(engine: Engine, directory: Path, *names: str, schema: str = "public", **options: Any) -> ImportReport:
    names = names or ("users.csv", "transactions.csv", "alert_rules.csv")
    files = {name.partition(".")[0]: directory / name for name in names}
    with engine.begin() as connection:
        return import_files(connection, schema=schema, rejects_path=directory / "rejects.jsonl", **files, **options)


def rows(engine: Engine, table: sqlalchemy.Table, *columns: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        statement = select(*(table.c[name] for name in columns)).order_by(table.c.id)
        return [tuple(row) for row in connection.execute(statement)]


def reports(report: ImportReport) -> dict[str, tuple[int, int, int, int]]:
    return {
        relation: (each.n_read, each.n_inserted, each.n_updated, each.n_unchanged)
        for relation, each in report.relations.items()
    }


def test_an_export_is_loaded_with_nulls_empty_texts_and_defaults(bank: Engine, export: Path):
    report = load(bank, export)
    assert reports(report) == {"users": (2, 2, 0, 0), "transactions": (2, 2, 0, 0), "alert_rules": (1, 1, 0, 0)}
    assert rows(bank, users, "id", "is_active", "credit_limit", "address_city") == [
        ("u1", True, Decimal("100.5"), None),
        ("u2", True, None, "Prague"),
    ]
    assert rows(bank, transactions, "amount", "merchant_name", "transaction_date", "transaction_type", "status") == [
        (Decimal("12.5"), "", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC), "PURCHASE", "SETTLED"),
        (Decimal(-3), None, datetime(2026, 1, 3, tzinfo=UTC), "PURCHASE", "SETTLED"),
    ]
    ((made, changed),) = rows(bank, alert_rules, "created_at", "updated_at")
    assert made == changed
    assert not (export / "rejects.jsonl").exists()


def test_importing_again_changes_nothing(bank: Engine, export: Path):
    load(bank, export)
    before = rows(bank, alert_rules, "id", "created_at")
    report = load(bank, export)
    assert reports(report) == {"users": (2, 0, 0, 2), "transactions": (2, 0, 0, 2), "alert_rules": (1, 0, 0, 1)}
    assert rows(bank, alert_rules, "id", "created_at") == before


def test_a_rule_without_a_time_keeps_the_one_it_got(bank: Engine, export: Path):
    (export / "alert_rules.csv").write_text("id,user_id,created_at\nr1,u1,\nr2,u2,2026-01-02\n")
    load(bank, export)
    before = rows(bank, alert_rules, "id", "created_at", "updated_at")
    assert before[1][1:] == (datetime(2026, 1, 2, tzinfo=UTC),) * 2
    assert reports(load(bank, export))["alert_rules"] == (2, 0, 0, 2)
    assert rows(bank, alert_rules, "id", "created_at", "updated_at") == before


def test_what_differs_is_updated_and_columns_that_a_file_lacks_stay(bank: Engine, export: Path):
    load(bank, export)
    (export / "users.csv").write_text("id,address_city\nu1,Brno\nu2,Prague\nu3,\n")
    assert reports(load(bank, export, "users.csv")) == {"users": (3, 1, 1, 1)}
    assert rows(bank, users, "id", "credit_limit", "address_city") == [
        ("u1", Decimal("100.5"), "Brno"),
        ("u2", None, "Prague"),
        ("u3", None, None),
    ]


def test_bad_rows_are_counted_and_written_and_the_others_loaded(bank: Engine, export: Path):
    (export / "users.csv").write_text("id,credit_limit\nu1,5\nu2,-5\n")
    (export / "transactions.csv").write_bytes(
        b"id,user_id,amount,transaction_date,merchant_name,note\n"
        b"t1,u1,$1,2026-01-02,a,x\n"
        b"t2,u2,1,2026-01-02,a,x\n"
        b"t3,u1,1,2026-01-02,caf\xe9,x\n"
        b"t4,u1\n"
        b"t5,u1,1,2026-01-02,caf\xc3\xa9,\xe9\n"
        b"t5,u1,2,2026-01-02,a,x\n"
    )
    report = load(bank, export)
    assert report.relations["users"].rejected == {"negative_limit": 1}
    assert report.relations["transactions"] == RelationReport(
        n_read=6,
        n_inserted=1,
        n_updated=0,
        n_unchanged=0,
        rejected=dict.fromkeys(
            ("malformed_row", "unparsable_amount", "unknown_user", "invalid_text", "duplicate_id"), 1
        ),
    )
    assert report.n_rejected == 6
    assert rows(bank, transactions, "id", "amount", "merchant_name") == [("t5", 1, "café")]
    lines = [json.loads(line) for line in (export / "rejects.jsonl").read_text().splitlines()]
    assert [(line["relation"], line["row"], line["reason"]) for line in lines] == [
        ("users", 2, "negative_limit"),
        ("transactions", 4, "malformed_row"),
        ("transactions", 1, "unparsable_amount"),
        ("transactions", 2, "unknown_user"),
        ("transactions", 3, "invalid_text"),
        ("transactions", 6, "duplicate_id"),
    ]
    assert lines[2]["record"] == {
        "id": "t1", "user_id": "u1", "amount": "$1", "transaction_date": "2026-01-02",
        "merchant_name": "a", "note": "x",
    }  # fmt: skip
    assert lines[1]["record"] == {"line": "t4,u1"}


def test_users_of_an_earlier_import_are_known(bank: Engine, export: Path):
    load(bank, export, "users.csv")
    assert reports(load(bank, export, "transactions.csv")) == {"transactions": (2, 2, 0, 0)}


def test_an_error_in_a_later_file_leaves_nothing_of_an_earlier_one(bank: Engine, export: Path):
    (export / "transactions.csv").write_text("id,user_id\n")
    with pytest.raises(DataError, match="no column amount, transaction_date"):
        load(bank, export)
    assert rows(bank, users, "id") == []


def test_texts_come_through_letter_by_letter(bank: Engine, tmp_path: Path):
    names = ["\\.", "\\N", "", None, 'say "hi", all', "two\nlines", "a\r\nb", "\\.\n\\.", " x ", "𝄞", "%s {}", "NULL"]
    frame = pl.DataFrame({"id": [f"{n:02}" for n in range(len(names))], "address_city": names})
    frame.write_parquet(tmp_path / "users.parquet")
    load(bank, tmp_path, "users.parquet")
    assert [name for (name,) in rows(bank, users, "address_city")] == names


def test_a_file_of_ids_alone_is_loaded_once(bank: Engine, tmp_path: Path):
    (tmp_path / "users.csv").write_text("id\n1\n\\.\n3\n")
    assert reports(load(bank, tmp_path, "users.csv")) == {"users": (3, 3, 0, 0)}
    assert reports(load(bank, tmp_path, "users.csv")) == {"users": (3, 0, 0, 3)}


def test_a_file_without_rows_is_fine(bank: Engine, export: Path):
    (export / "users.csv").write_text("id\n")
    assert reports(load(bank, export, "users.csv")) == {"users": (0, 0, 0, 0)}


def test_parameters_become_json(bank: Engine, export: Path):
    (export / "alert_rules.csv").write_text('id,user_id,parameters\nr1,u1,"{""amount"": 5}"\nr2,u1,[]\nr3,u1,\n')
    report = load(bank, export)
    assert report.relations["alert_rules"].rejected == {"unparsable_parameters": 1}
    assert rows(bank, alert_rules, "id", "parameters") == [("r1", {"amount": 5}), ("r3", None)]


def test_time_zones_are_loaded_and_names_of_none_are_refused(bank: Engine, export: Path):
    (export / "users.csv").write_text("id,time_zone\nu1,Europe/Prague\nu2,\nu3,Mars/Phobos\n")
    report = load(bank, export, "users.csv")
    assert report.relations["users"].rejected == {"unknown_time_zone": 1}
    assert rows(bank, users, "id", "time_zone") == [("u1", "Europe/Prague"), ("u2", None)]


def test_time_zones_are_loaded_into_a_table_of_the_last_release(bank: Engine, export: Path):
    load(bank, export)
    with bank.begin() as connection:
        connection.execute(text("ALTER TABLE users DROP COLUMN time_zone"))
    assert reports(load(bank, export))["users"] == (2, 0, 0, 2)  # nothing is added that the file has not
    with bank.connect() as connection:
        assert "time_zone" not in connection.execute(text("SELECT * FROM users LIMIT 1")).mappings().one()
    (export / "users.csv").write_text("id,time_zone\nu1,Europe/Prague\nu2,\n")
    assert reports(load(bank, export, "users.csv"))["users"] == (2, 0, 1, 1)
    assert rows(bank, users, "id", "time_zone") == [("u1", "Europe/Prague"), ("u2", None)]
    assert reports(load(bank, export, "users.csv"))["users"] == (2, 0, 0, 2)


def test_readers_are_not_locked_out_where_there_is_nothing_to_add(bank: Engine, export: Path):
    (export / "users.csv").write_text("id,time_zone\nu1,Europe/Prague\n")
    with bank.connect() as reader:
        reader.execute(select(users))  # holds its lock until the end of the block
        with bank.connect() as connection:
            connection.execute(text("SET lock_timeout = '2s'"))
            import_files(connection, schema="public", users=export / "users.csv", rejects_path=export / "rejects.jsonl")
            connection.commit()
    assert rows(bank, users, "time_zone") == [("Europe/Prague",)]


def test_a_view_that_lacks_the_time_zone_is_named(bank: Engine, export: Path):
    with bank.begin() as connection:
        connection.execute(text("CREATE SCHEMA bank"))
        connection.execute(text("CREATE VIEW bank.users AS SELECT id FROM public.users"))
    (export / "users.csv").write_text("id,time_zone\nu1,Europe/Prague\n")
    with pytest.raises(DataError, match=r"users has no column time_zone, and it cannot be added \(ALTER"):
        load(bank, export, "users.csv", schema="bank")


def test_numbers_as_keys_of_typed_columns_become_text(bank: Engine, tmp_path: Path):
    pl.DataFrame({"id": [1, 2]}).write_parquet(tmp_path / "users.parquet")
    pl.DataFrame(
        {"id": [7, 8], "user_id": [1.0, 2.0], "amount": [1, 2], "transaction_date": [AS_OF, AS_OF]}
    ).write_parquet(tmp_path / "transactions.parquet")
    load(bank, tmp_path, "users.parquet", "transactions.parquet")
    assert rows(bank, transactions, "id", "user_id") == [("7", "1"), ("8", "2")]


def test_another_schema_of_any_name_is_filled(bank: Engine, export: Path):
    schema = 'the "bank" 100%'
    quoted = bank.dialect.identifier_preparer.quote_identifier(schema)
    with bank.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {quoted}")
        source_metadata.create_all(connection.execution_options(schema_translate_map={None: schema}))
        connection.exec_driver_sql(f"ALTER TABLE {quoted}.users DROP COLUMN time_zone")
    assert reports(load(bank, export, schema=schema))["users"] == (2, 2, 0, 0)
    assert rows(bank, users, "id") == []
    (export / "users.csv").write_text("id,time_zone\nu1,Europe/Prague\n")
    assert reports(load(bank, export, "users.csv", schema=schema))["users"] == (1, 0, 1, 0)


def test_progress_goes_up_to_what_was_read(bank: Engine, export: Path):
    calls: list[tuple[str, int, int]] = []
    load(bank, export, progress=lambda *call: calls.append(call))
    assert calls[0] == ("users", 0, 2)
    assert [call for call in calls if call[0] == "transactions"][-1] == ("transactions", 2, 2)
    assert all(done <= total for _, done, total in calls)


def test_two_imports_may_share_a_transaction_and_statistics_are_fresh(bank: Engine, export: Path):
    with bank.begin() as connection:
        for _ in range(2):
            report = import_files(
                connection, schema="public", users=export / "users.csv", rejects_path=export / "rejects.jsonl"
            )
    assert reports(report) == {"users": (2, 0, 0, 2)}
    with bank.connect() as connection:
        assert connection.scalar(text("SELECT reltuples FROM pg_class WHERE oid = 'users'::regclass")) == 2


def test_the_sample_bank_is_importable_without_rejects(bank: Engine, tmp_path: Path):
    sample = make_sample_bank(100, as_of=AS_OF)
    for name, frame in vars(sample).items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    report = load(bank, tmp_path, "users.parquet", "transactions.parquet", "alert_rules.parquet")
    assert report.n_rejected == 0
    assert report.relations["transactions"].n_inserted == sample.transactions.height


def real_data(name: str) -> Path:
    directory = SHARED_DATA / name
    if not directory.is_dir():
        pytest.skip(f"the data set {name} is not beside the checkout")
    return directory


def test_the_card_transactions_of_sparkov_load_once(bank: Engine, tmp_path: Path):
    source = real_data("sparkov")
    files = {name: source / f"{name}.parquet" for name in ("users", "transactions", "alert_rules")}
    with bank.begin() as connection:
        report = import_files(connection, schema="public", rejects_path=tmp_path / "rejects.jsonl", **files)
    assert report.n_rejected == 0
    assert {name: each.n_inserted for name, each in report.relations.items()} == {
        "users": 893,
        "transactions": 503_122,
        "alert_rules": 2045,
    }
    with bank.begin() as connection:
        again = import_files(connection, schema="public", rejects_path=tmp_path / "rejects.jsonl", **files)
    assert sum(each.n_unchanged for each in again.relations.values()) == 893 + 503_122 + 2045


def test_the_transactions_of_a_real_czech_bank_load_by_its_mapping(bank: Engine, tmp_path: Path):
    source = real_data("berka")
    with bank.begin() as connection:
        report = import_files(
            connection,
            schema="public",
            users=source / "account.csv.gz",
            transactions=source / "trans_test.csv.gz",
            mapping=load_mapping(ROOT / "docs" / "mappings" / "berka.toml"),
            rejects_path=tmp_path / "rejects.jsonl",
        )
    assert report.n_rejected == 0
    with bank.connect() as connection:
        kinds = connection.execute(
            select(transactions.c.transaction_type, func.count()).group_by(transactions.c.transaction_type)
        )
        # Household 2192, insurance 681, other remittances 1549 and card 54 make 4476 purchases.
        assert dict(kinds.all()) == {
            "DEPOSIT": 6752, "FEE": 3229, "INTEREST": 5130, "PURCHASE": 4476, "WITHDRAWAL": 10_613,
        }  # fmt: skip
        first = connection.execute(select(transactions).where(transactions.c.id == "6145")).one()
    assert (first.transaction_date, first.amount, first.currency) == (
        datetime(1996, 7, 28, tzinfo=UTC),
        Decimal(900),
        "CZK",
    )
