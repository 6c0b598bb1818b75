"""Migrations up and down, and source relations that are somebody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, text

from alertrec import service
from alertrec.storage.schema import (
    create_source_relations,
    current_revision,
    downgrade,
    migrate,
    newest_revision,
    source_faults,
)
from alertrec.storage.source import Source
from alertrec.storage.tables import OWN_SCHEMA, own_metadata
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    active_users,
    execute,
    in_background,
    load,
    log,
    n_waiting,
    read_lists,
    scalar,
    small_bank,
    train,
    wait_until,
    workspace_on,
)

PUBLIC = Source("public")


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, tmp_path) as workspace:
        yield workspace


def differences(connection: Connection) -> list[Any]:
    """Return what a migration would still have to change, in either direction."""
    options = {
        "version_table_schema": OWN_SCHEMA,
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name == OWN_SCHEMA,
        "compare_type": True,
        "compare_server_default": True,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), own_metadata))


def definitions(connection: Connection, schema: str) -> set[tuple[str, ...]]:
    """Return every column, constraint and index of a schema in PostgreSQL's own words, less the schema's name."""
    query = text("""
        SELECT 'column', table_name, column_name, data_type, is_nullable, coalesce(column_default, '')
        FROM information_schema.columns WHERE table_schema = :schema
        UNION ALL
        SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
        FROM pg_constraint WHERE connamespace = to_regnamespace(:schema) AND contype <> 'n'
        UNION ALL
        SELECT 'index', tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = :schema
    """)
    rows = connection.execute(query, {"schema": schema})
    return {tuple(value.replace(f"{schema}.", "") for value in row) for row in rows if "alembic_version" not in row[1]}


def test_the_migrations_lead_to_the_tables_as_declared(engine: Engine):
    with engine.connect() as connection:
        assert differences(connection) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE alertrec.job_runs ADD COLUMN note text",
        "ALTER TABLE alertrec.job_runs DROP COLUMN error",
        "ALTER TABLE alertrec.job_chunks ALTER COLUMN chunk TYPE integer",
        "DROP INDEX alertrec.ix_job_runs_unfinished",
        "CREATE TABLE alertrec.leftover (id text)",
    ],
)
def test_the_comparison_of_schemas_sees_a_difference(engine: Engine, change: str):
    with engine.connect() as connection:
        connection.execute(text(change))
        assert differences(connection) != []


def test_the_migrated_constraints_and_defaults_are_those_declared(engine: Engine):
    # Alembic compares neither checks nor all of an index; PostgreSQL's own words do.
    declared = MetaData(schema="declared")
    for table in own_metadata.tables.values():
        table.to_metadata(declared, schema="declared")
    with engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA declared"))
        declared.create_all(connection)
        assert definitions(connection, OWN_SCHEMA) == definitions(connection, "declared")


def test_a_filled_database_goes_down_to_nothing_and_up_again(workspace: Workspace, tmp_path: Path):
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    service.refresh_locally(workspace, as_of=AS_OF)
    n_transactions = scalar(workspace, "SELECT count(*) FROM transactions")
    with workspace.engine.begin() as connection:
        downgrade(connection, "base")
        own = "SELECT count(*) FROM pg_tables WHERE schemaname = 'alertrec' AND tablename <> 'alembic_version'"
        assert connection.scalar(text(own)) == 0
        assert current_revision(connection) is None
    with workspace.engine.begin() as connection:
        migrate(connection)
        assert current_revision(connection) == newest_revision()
        assert differences(connection) == []
    assert scalar(workspace, "SELECT count(*) FROM transactions") == n_transactions
    assert read_lists(workspace) == {}


def test_every_revision_goes_down_and_up_again_and_keeps_the_rows_of_a_filled_database(
    workspace: Workspace, tmp_path: Path
):
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    service.refresh_locally(workspace, as_of=AS_OF)
    user_id = active_users(workspace)[0]
    log(workspace, user_id, "created", AS_OF, alert_rule_id="r1", alert_type="alert_high_spender")
    with workspace.engine.connect() as connection:
        declared = definitions(connection, OWN_SCHEMA)
    to_revision(workspace, "0002")  # what the third one adds, and takes away again, has tests of its own
    tables = ("alert_actions", "model_versions", "recommendation_lists", "recommendations", "job_runs")
    before = {table: execute(workspace, f"SELECT * FROM alertrec.{table} ORDER BY 1, 2") for table in tables}  # noqa: S608  # names of our own
    assert all(before.values())

    def rows() -> dict[str, Any]:
        return {
            table: execute(workspace, f"SELECT {', '.join(before[table][0])} FROM alertrec.{table} ORDER BY 1, 2")  # noqa: S608  # names of our own
            for table in tables
        }

    revisions = []
    while revision_of(workspace) != "0001":
        with workspace.engine.begin() as connection:
            downgrade(connection, "-1")
            assert differences(connection) != []
        revisions.append(revision_of(workspace))
        assert rows() == before
    assert revisions == ["0001"]
    with workspace.engine.begin() as connection:
        migrate(connection)
        assert differences(connection) == []
        assert definitions(connection, OWN_SCHEMA) == declared
    assert rows() == before


def revision_of(workspace: Workspace) -> str | None:
    with workspace.engine.connect() as connection:
        return current_revision(connection)


def to_revision(workspace: Workspace, revision: str) -> None:
    with workspace.engine.begin() as connection:
        downgrade(connection, revision)


_COMMON = "now(), now() + interval '1 day'"
_INSERT_LIST = f"INSERT INTO alertrec.recommendation_lists VALUES (:user_id, :kind, 'm1', {_COMMON}, now(), :n_items)"  # noqa: S608  # words of our own
_COLUMNS_OF_0002 = (
    "user_id, alert_type, rank, probability, confidence_level, parameters, reasons, title, description, "
    "natural_language_query, category, priority, reasoning, recommendation_id, model_version, generated_at, expires_at"
)
_INSERT_ITEM = (
    f"INSERT INTO alertrec.recommendations ({_COLUMNS_OF_0002}) VALUES "  # noqa: S608  # names of our own
    f"(:user_id, :alert, :rank, 0.5, 'low', '{{}}', '[]', '', '', '', '', '', '', gen_random_uuid(), 'm1', {_COMMON})"
)


def add_list(workspace: Workspace, user_id: str, kind: str, *alerts: str) -> None:
    """Write a list as the release before the third revision does."""
    execute(workspace, _INSERT_LIST, user_id=user_id, kind=kind, n_items=len(alerts))
    for rank, alert in enumerate(alerts, start=1):
        execute(workspace, _INSERT_ITEM, user_id=user_id, alert=alert, rank=rank)


def ranked_alerts(workspace: Workspace) -> dict[str, list[tuple[int, str]]]:
    items = execute(workspace, "SELECT user_id, rank, alert_type FROM alertrec.recommendations ORDER BY 1, 2")
    found: dict[str, list[tuple[int, str]]] = {}
    for item in items:
        found.setdefault(item["user_id"], []).append((item["rank"], item["alert_type"]))
    return found


def test_offers_that_are_there_take_the_type_of_their_list(workspace: Workspace):
    to_revision(workspace, "0002")
    add_list(workspace, "u1", "ml_hybrid", "a", "b")
    add_list(workspace, "u2", "new_user", "a")
    execute(workspace, _INSERT_ITEM, user_id="nobody's", alert="a", rank=1)
    before = execute(workspace, "SELECT * FROM alertrec.recommendations ORDER BY user_id, rank")
    with workspace.engine.begin() as connection:
        migrate(connection)
    after = execute(workspace, "SELECT * FROM alertrec.recommendations ORDER BY user_id, rank")
    kinds = {"u1": "ml_hybrid", "u2": "new_user", "nobody's": "default"}
    assert after == [{**row, "recommendation_type": kinds[row["user_id"]], "change": None} for row in before]


def test_advice_goes_with_the_third_revision_and_offers_stay(workspace: Workspace):
    add_list(workspace, "u1", "ml_hybrid", "a", "b", "c")
    add_list(workspace, "u2", "ml_hybrid", "a")
    add_list(workspace, "u3", "new_user", "a", "b")
    execute(
        workspace,
        "UPDATE alertrec.recommendations SET probability = NULL, recommendation_type = 'change', change = '{}' "
        "WHERE (user_id, alert_type) IN (('u1', 'a'), ('u2', 'a'))",
    )
    to_revision(workspace, "0002")
    assert ranked_alerts(workspace) == {"u1": [(1, "b"), (2, "c")], "u3": [(1, "a"), (2, "b")]}
    assert {user_id: row["n_items"] for user_id, row in read_lists(workspace).items()} == {"u1": 2, "u2": 0, "u3": 2}


def test_a_worker_of_the_release_before_the_third_revision_still_writes(workspace: Workspace):
    # Word for word what it does, after the migration and on a connection opened since.
    with workspace.engine.begin() as connection:
        for statement in (
            "CREATE TEMPORARY TABLE new_items (LIKE alertrec.recommendations) ON COMMIT DELETE ROWS",
            _INSERT_ITEM.replace("alertrec.recommendations", "new_items"),
            f"INSERT INTO alertrec.recommendations ({_COLUMNS_OF_0002}) SELECT {_COLUMNS_OF_0002} FROM new_items",  # noqa: S608  # names of our own
        ):
            connection.execute(text(statement), {"user_id": "u1", "alert": "a", "rank": 1})
    (item,) = execute(workspace, "SELECT * FROM alertrec.recommendations")
    assert (item["recommendation_type"], item["change"], item["probability"]) == ("default", None, 0.5)


def test_migrating_a_migrated_database_changes_nothing(workspace: Workspace, tmp_path: Path):
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    with workspace.engine.begin() as connection:
        migrate(connection)
    assert scalar(workspace, "SELECT count(*) FROM alertrec.model_versions") == 1


def test_two_migrations_at_once_wait_for_each_other(workspace: Workspace):
    execute(workspace, "DROP SCHEMA alertrec CASCADE")

    def migrate_as_another_process() -> str | None:
        with workspace.engine.begin() as connection:
            migrate(connection)
            return current_revision(connection)

    with workspace.engine.connect() as first:
        migrate(first)
        with in_background(migrate_as_another_process) as second:
            wait_until(lambda: n_waiting(workspace) == 1 or second.done())
            assert not second.done()
            first.commit()
            assert second.result() == newest_revision()
    with workspace.engine.connect() as connection:
        assert differences(connection) == []


def as_views(workspace: Workspace) -> None:
    """Turn the source tables into a bank's own, of other names and types, and cover them with views in `offers`."""
    with workspace.engine.begin() as connection:
        connection.exec_driver_sql(_BANKS_OWN_TABLES)
        connection.exec_driver_sql(_VIEWS)


_BANKS_OWN_TABLES = """
    CREATE SCHEMA core;
    ALTER TABLE users SET SCHEMA core;
    ALTER TABLE transactions SET SCHEMA core;
    ALTER TABLE alert_rules SET SCHEMA core;
    ALTER TABLE core.users RENAME TO customers;
    ALTER TABLE core.customers RENAME COLUMN id TO customer_no;
    ALTER TABLE core.customers RENAME COLUMN is_active TO state;
    ALTER TABLE core.customers ALTER state DROP DEFAULT;
    ALTER TABLE core.customers ALTER state TYPE char(1) USING CASE WHEN state THEN 'A' ELSE 'C' END;
    ALTER TABLE core.transactions RENAME TO bookings;
    ALTER TABLE core.bookings RENAME COLUMN amount TO cents;
    ALTER TABLE core.bookings ALTER cents TYPE bigint USING (cents * 100)::bigint;
    ALTER TABLE core.bookings ALTER transaction_date TYPE timestamp;
    ALTER TABLE core.alert_rules RENAME TO notifications
"""
_VIEWS = """
    CREATE SCHEMA offers;
    CREATE VIEW offers.users AS SELECT customer_no::varchar(40) AS id, state = 'A' AS is_active,
        credit_limit, credit_balance, address_city, address_state, address_country, location_consent_given,
        created_at FROM core.customers;
    CREATE VIEW offers.transactions AS SELECT id, user_id, (cents / 100.0)::numeric(12, 2) AS amount, currency,
        merchant_name, merchant_category, merchant_city, merchant_state, merchant_country,
        transaction_date AT TIME ZONE 'UTC' AS transaction_date, transaction_type, status FROM core.bookings;
    CREATE VIEW offers.alert_rules AS SELECT id, user_id, alert_type, natural_language_query, is_active,
        NULL::jsonb AS parameters, created_at, updated_at FROM core.notifications
"""


def test_views_over_a_banks_own_tables_are_accepted_and_refreshed_from(database_url: str, tmp_path: Path):
    with workspace_on(database_url, tmp_path, source_schema="offers") as workspace:
        load(workspace, small_bank(), tmp_path)
        everybody = active_users(workspace)
        as_views(workspace)
        with workspace.engine.connect() as connection:
            assert source_faults(connection, workspace.source) == {}
        train(workspace)
        service.refresh_locally(workspace, as_of=AS_OF)
        assert sorted(read_lists(workspace)) == everybody


def test_lists_from_views_are_those_from_tables(database_url: str, tmp_path: Path):
    with workspace_on(database_url, tmp_path) as workspace:
        load(workspace, small_bank(), tmp_path)
        everybody = active_users(workspace)
        with workspace.engine.connect() as connection:
            before = workspace.source.read(connection, None, as_of=AS_OF)
        as_views(workspace)
        with workspace.engine.connect() as connection:
            after = Source("offers").read(connection, None, as_of=AS_OF)
    assert after.users["id"].to_list() == everybody
    assert after.users.equals(before.users)
    assert sorted(after.transactions.rows(), key=repr) == sorted(before.transactions.rows(), key=repr)
    assert sorted(after.rules.rows(), key=repr) == sorted(before.rules.rows(), key=repr)


def test_missing_and_mistyped_columns_are_named(engine: Engine):
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE users DROP COLUMN credit_limit, DROP COLUMN is_active"))
        connection.execute(text("ALTER TABLE transactions ALTER COLUMN transaction_date TYPE text"))
        faults = source_faults(connection, PUBLIC)
    assert set(faults) == {"users", "transactions"}
    assert faults["users"] == ["is_active is missing", "credit_limit is missing"]
    assert faults["transactions"] == ["transaction_date is TEXT and not a timestamp"]


def test_the_time_zone_may_be_missing_but_not_be_something_else_than_text(engine: Engine):
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE users DROP COLUMN time_zone"))
        assert source_faults(connection, PUBLIC) == {}
        connection.execute(text("ALTER TABLE users ADD COLUMN time_zone varchar(40)"))
        assert source_faults(connection, PUBLIC) == {}
        connection.execute(text("ALTER TABLE users ALTER COLUMN time_zone TYPE integer USING 1"))
        assert source_faults(connection, PUBLIC) == {"users": ["time_zone is INTEGER and not text"]}


def zones(connection: Connection, source: Source) -> dict[str, str | None]:
    users = source.read(connection, None, as_of=AS_OF).users
    assert users.columns[-1] == "time_zone"
    return dict(users.select("id", "time_zone").iter_rows())


_TWO_USERS = """
    INSERT INTO users (id, time_zone, created_at) VALUES ('u1', 'Europe/Prague', now()), ('u2', NULL, now()),
        ('gone', 'Asia/Tokyo', now());
    UPDATE users SET is_active = false WHERE id = 'gone'
"""


def test_time_zones_are_read_from_tables_and_views_and_are_null_where_there_is_no_such_column(engine: Engine):
    with engine.begin() as connection:
        connection.execute(text(_TWO_USERS))
        assert zones(connection, PUBLIC) == {"u1": "Europe/Prague", "u2": None}
        for schema, columns in (("with_zones", "*"), ("without_zones", "id, is_active, credit_limit, credit_balance")):
            connection.execute(text(f"CREATE SCHEMA {schema}"))
            connection.execute(
                text(
                    f"CREATE VIEW {schema}.users AS SELECT {columns}"  # noqa: S608  # names of our own
                    f"{'' if columns == '*' else ', address_state, address_country'} FROM public.users"
                )
            )
            for name in ("transactions", "alert_rules"):
                connection.execute(text(f"CREATE VIEW {schema}.{name} AS SELECT * FROM public.{name}"))  # noqa: S608  # names of our own
        assert zones(connection, Source("with_zones")) == {"u1": "Europe/Prague", "u2": None}
        assert zones(connection, Source("without_zones")) == {"u1": None, "u2": None}
        connection.execute(text("DROP SCHEMA with_zones CASCADE"))
        connection.execute(text("ALTER TABLE users DROP COLUMN time_zone"))
        assert zones(connection, PUBLIC) == {"u1": None, "u2": None}


def test_the_right_to_read_the_columns_that_are_read_is_enough(engine: Engine):
    with engine.connect() as connection:  # and no commit: a role would outlive the database
        connection.execute(text("ALTER TABLE users DROP COLUMN time_zone, ADD COLUMN secret text"))
        connection.execute(text("INSERT INTO users (id) VALUES ('u1')"))
        for statement in (
            "CREATE ROLE clerk",
            "GRANT USAGE ON SCHEMA alertrec TO clerk",
            "GRANT SELECT ON alertrec.alert_actions, transactions, alert_rules TO clerk",
            "GRANT SELECT (id, is_active, credit_limit, credit_balance, address_state, address_country) "
            "ON users TO clerk",
            "SET ROLE clerk",
        ):
            connection.execute(text(statement))
        assert zones(connection, PUBLIC) == {"u1": None}


def test_rules_come_with_their_ids_and_with_the_parameters_that_are_known(workspace: Workspace):
    execute(workspace, "INSERT INTO users (id) VALUES ('u1')")
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, alert_type, parameters, created_at) VALUES "
        "('r1', 'u1', 'alert_large_transaction', CAST(:parameters AS jsonb), :at), "
        "('r2', 'u1', 'alert_new_merchant', NULL, :at)",
        parameters='{"amount": 400, "of": "a \\"quoted\\" shop"}',
        at=AS_OF,
    )
    log(workspace, "u1", "created", AS_OF, alert_rule_id="elsewhere", alert_type="alert_high_spender")
    with workspace.engine.connect() as connection:
        rules = workspace.source.read(connection, None, as_of=AS_OF).rules.sort("rule_id")
    assert rules.columns == ["user_id", "alert_type", "natural_language_query", "rule_id", "parameters"]
    assert rules["rule_id"].to_list() == ["elsewhere", "r1", "r2"]
    unknown, known, none = rules["parameters"]
    assert (unknown, none) == (None, None)
    assert json.loads(known) == {"amount": 400, "of": 'a "quoted" shop'}


def test_a_missing_relation_is_told_from_source_faults(engine: Engine):
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE alert_rules"))
        assert source_faults(connection, PUBLIC) == {"alert_rules": ["is missing"]}
        assert source_faults(connection, Source("nowhere")) == {
            "users": ["is missing"],
            "transactions": ["is missing"],
            "alert_rules": ["is missing"],
        }


@pytest.mark.parametrize("number", ["numeric", "double precision", "real", "integer", "bigint"])
def test_amounts_may_be_numbers_of_any_kind(engine: Engine, number: str):
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE transactions ALTER COLUMN amount TYPE {number}"))
        assert source_faults(connection, PUBLIC) == {}


def test_creating_source_relations_leaves_those_alone_that_are_there(engine: Engine):
    with engine.begin() as connection:
        for statement in (
            "CREATE SCHEMA bank",
            "CREATE TABLE bank.customers (id text, note text)",
            "CREATE VIEW bank.users AS SELECT * FROM bank.customers",
            "CREATE TABLE bank.transactions (id text, other text)",
        ):
            connection.execute(text(statement))
        create_source_relations(connection, Source("bank"))
        found = connection.execute(
            text("""
                SELECT table_name, table_type, count(*) FROM information_schema.tables
                JOIN information_schema.columns USING (table_schema, table_name)
                WHERE table_schema = 'bank' GROUP BY 1, 2 ORDER BY 1
            """)
        )
        assert [tuple(row) for row in found] == [
            ("alert_rules", "BASE TABLE", 8),
            ("customers", "BASE TABLE", 2),
            ("transactions", "BASE TABLE", 2),
            ("users", "VIEW", 2),
        ]


def test_creating_source_relations_twice_keeps_their_rows(engine: Engine):
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id) VALUES ('u1')"))
        create_source_relations(connection, PUBLIC)
        assert connection.scalar(text("SELECT count(*) FROM users")) == 1
