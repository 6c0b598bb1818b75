"""A hundred thousand bad rows, requests, settings and arguments: a clear error each, none stored, none lost."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
import hypothesis
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from alertrec.action_types import ACTIONS
from alertrec.actions import parse_action
from alertrec.embedded import Servers
from alertrec.errors import ConfigError, DataError
from alertrec.importing import import_files
from alertrec.importing.relations import EXPECTED
from alertrec.settings import Settings
from alertrec.task_names import QUEUE_OF
from alertrec.web import create_app
from tasks.arguments import chunk_of, flag_of, job_of, user_of
from tests.bad_input import (
    FAULTS,
    N_USERS,
    Call,
    File,
    bad_arguments,
    bad_calls,
    bad_events,
    bad_file,
    bad_requests,
    bad_settings,
)
from tests.integration.messages import envelope, letters_of
from tests.integration.processes import (
    Environment,
    Worker,
    broker,
    connected,
    database,
    environment,
    wait_for,
    worker,
)
from tests.integration.web_worlds import PROBLEM, as_admin, as_user, bank, browsing, state, workspace_of
from tests.integration.worlds import read_lists

SEED = 20261123
N_BAD = {"users": 18_000, "transactions": 45_000, "alert_rules": 18_000}
N_GOOD = 4_000
N_REQUESTS = 5_000
N_SETTINGS = 6_000
N_EVENTS = 10_000
N_ARGUMENTS = 2_000
N_CALLS = 300


# --- rows of files


@pytest.fixture(scope="module")
def customers(running_servers: Servers, _template: None) -> Iterator[Engine]:
    """An empty bank for all tests of this module that need no lists."""
    with database(running_servers) as url, connected(url) as engine:
        yield engine


@pytest.fixture(scope="module")
def files() -> dict[str, File]:
    return {
        relation: bad_file(relation, n_bad=n_bad, n_good=N_GOOD, seed=SEED + number)
        for number, (relation, n_bad) in enumerate(N_BAD.items())
    }


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-input")


@pytest.fixture(scope="module")
def loaded(customers: Engine, files: dict[str, File], scratch: Path) -> Any:
    """The report of the import of all files, and what was refused."""
    paths = {relation: scratch / f"{relation}.csv" for relation in files}
    for relation, path in paths.items():
        path.write_bytes(files[relation].content)
    return imported(customers, scratch / "rejects.jsonl", **paths)


def imported(engine: Engine, rejects: Path, **paths: Any) -> Any:
    with engine.begin() as connection:
        report = import_files(connection, schema="public", rejects_path=rejects, **paths)
    lines = rejects.read_text(encoding="utf-8").splitlines() if rejects.exists() else []
    return report, [json.loads(line) for line in lines]


def ids_of(engine: Engine, relation: str) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text(f"SELECT id FROM {relation}")))  # noqa: S608  # names of our own


@pytest.mark.parametrize("relation", N_BAD)
def test_each_bad_row_is_refused_once_with_its_column_and_reason_and_the_good_ones_are_stored(
    customers: Engine, files: dict[str, File], loaded: Any, relation: str
):
    report, lines = loaded
    file, mine = files[relation], [line for line in lines if line["relation"] == relation]
    assert len(file.refused) == len(mine) == N_BAD[relation]
    assert {line["row"]: (line["column"], line["reason"]) for line in mine} == file.refused
    assert all(line["expected"] == EXPECTED[line["reason"]] and line["record"] for line in mine)
    counts = report.relations[relation]
    n_rows = N_USERS + N_BAD[relation] + N_GOOD
    assert (counts.n_read, counts.n_inserted, counts.n_rejected) == (n_rows, N_USERS + N_GOOD, N_BAD[relation])
    assert sorted(ids_of(customers, relation)) == sorted(row["id"] for row in file.good)
    print(f"{relation}: {len(mine)} rows refused, {len(file.values)} distinct values, {len(FAULTS[relation])} faults")


def test_what_came_stands_beside_what_was_expected(files: dict[str, File], loaded: Any):
    _, lines = loaded
    shown = [(line["column"], line["record"].get(line["column"])) for line in lines if line["column"]]
    came = {value for file in files.values() for value in file.values}
    # A byte that is no UTF-8 is shown as a NUL, and an empty field as null.
    assert {(column, value) for column, value in shown if value and "\0" not in value} <= came


def test_good_rows_are_stored_as_they_came(customers: Engine, files: dict[str, File], loaded: Any):
    with customers.connect() as connection:
        rows = connection.execute(text("SELECT id, user_id, amount, merchant_name FROM transactions"))
        stored = {row.id: (row.user_id, row.amount, row.merchant_name) for row in rows}
    assert stored == {
        row["id"]: (row["user_id"], Decimal(row["amount"]), row["merchant_name"]) for row in files["transactions"].good
    }


def test_typed_columns_are_judged_as_text_is(customers: Engine, loaded: Any, scratch: Path):
    draw, n_rows = Random(SEED), 6_000  # noqa: S311  # of no secret
    wrong_amounts = [math.nan, math.inf, -math.inf, 1e14, -1e300, None]
    wrong_days = [date(1899, 12, 31), date(2201, 1, 1), date(1, 1, 1), date(9999, 12, 31), None]
    rows: list[dict[str, Any]] = []
    expected: dict[int, tuple[str, str]] = {}
    for number in range(1, n_rows + 1):
        row = {"id": number, "user_id": b"users-0", "amount": draw.random() * 100, "transaction_date": date(2026, 1, 2)}
        if (kind := draw.randrange(5)) == 0:
            row["amount"], expected[number] = draw.choice(wrong_amounts), ("amount", "unparsable_amount")
        elif kind == 1:
            row["transaction_date"] = draw.choice(wrong_days)
            expected[number] = ("transaction_date", "unparsable_date")
        elif kind == 2:
            row["user_id"], expected[number] = b"users-\xff0", ("user_id", "invalid_text")
        elif kind == 3:
            row["id"], expected[number] = None, ("id", "missing_id")
        rows.append(row)
    types = {"id": pl.Int64, "user_id": pl.Binary, "amount": pl.Float64, "transaction_date": pl.Date}
    pl.DataFrame(rows, schema=types).write_parquet(scratch / "typed.parquet")
    before = set(ids_of(customers, "transactions"))
    report, lines = imported(customers, scratch / "typed.jsonl", transactions=scratch / "typed.parquet")
    assert {line["row"]: (line["column"], line["reason"]) for line in lines} == expected
    assert report.n_rejected == len(lines) == len(expected)
    good = {str(number) for number in range(1, n_rows + 1) if number not in expected}
    assert set(ids_of(customers, "transactions")) - before == good
    print(f"parquet: {len(lines)} rows refused")


_HEADER = "id,user_id,amount,transaction_date\n"


def _whole_parquet(path: Path) -> bytes:
    rows = {"id": list(range(5_000)), "user_id": "users-0", "amount": 1.0, "transaction_date": "2026-01-02"}
    pq.write_table(pl.DataFrame(rows).to_arrow(), path, write_page_checksum=True)
    return path.read_bytes()


def _torn(content: bytes) -> bytes:
    return content[:200] + bytes(400) + content[600:]


def _nested(path: Path) -> None:
    pl.DataFrame({"id": [["x"]], "user_id": "users-0", "amount": 1.0, "transaction_date": "2026-01-02"}).write_parquet(
        path
    )


BROKEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "truncated": ("t.parquet", lambda path: path.write_bytes(_whole_parquet(path)[:-100])),
    "torn in the middle": ("t.parquet", lambda path: path.write_bytes(_torn(_whole_parquet(path)))),
    "not Parquet": ("t.parquet", lambda path: path.write_bytes(b"id,user_id\n" * 50)),
    "an empty Parquet file": ("t.parquet", lambda path: path.write_bytes(b"")),
    "an empty CSV file": ("t.csv", lambda path: path.write_bytes(b"")),
    "blank lines alone": ("t.csv", lambda path: path.write_bytes(b"\n\n\n")),
    "NULs alone": ("t.csv", lambda path: path.write_bytes(b"\0" * 1000)),
    "random bytes": ("t.csv", lambda path: path.write_bytes(Random(SEED).randbytes(10_000))),  # noqa: S311
    "columns are missing": ("t.csv", lambda path: path.write_text("id,user_id,amount\nx,users-0,1\n")),
    "a column twice": ("t.csv", lambda path: path.write_text("id,id,user_id,amount,transaction_date\n")),
    "a quote left open": ("t.csv", lambda path: path.write_text(_HEADER + 'x,users-0,1,"2026' + "x" * (1 << 25))),
    "not gzip": ("t.csv.gz", lambda path: path.write_text(_HEADER)),
    "nested columns": ("t.parquet", _nested),
    "a directory": ("t.csv", lambda path: path.mkdir()),
    "no file": ("t.csv", lambda _: None),
    "a link to nothing": ("t.csv", lambda path: path.symlink_to("nowhere")),
    "a pipe": ("t.csv", os.mkfifo),
    "of another kind": ("t.jsonl", lambda path: path.write_text("{}")),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_broken_as_a_whole_is_refused_by_name_and_nothing_of_it_is_stored(
    customers: Engine, loaded: Any, tmp_path: Path, kind: str
):
    name, make = BROKEN[kind]
    make(tmp_path / name)
    before = sorted(ids_of(customers, "transactions"))
    with pytest.raises(DataError) as refused:
        imported(customers, tmp_path / "rejects.jsonl", transactions=tmp_path / name)
    assert name in str(refused.value) or "column 'id' holds" in str(refused.value)
    assert len(str(refused.value)) < 1_000
    assert sorted(ids_of(customers, "transactions")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_by_name(customers: Engine, tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text(_HEADER)
    path.chmod(0)
    with pytest.raises(DataError, match=r"t\.csv"):
        imported(customers, tmp_path / "rejects.jsonl", transactions=path)


# --- requests


@pytest.fixture(scope="module")
def web_settings(running_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    base, data_dir = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("bad-requests")
    with (
        broker(running_servers) as redis_url,
        bank(running_servers, redis_url, base, data_dir, rate_limits=0.0) as settings,
    ):
        yield settings


@pytest.mark.slow
async def test_each_bad_request_is_refused_in_words_and_changes_nothing(web_settings: Settings):
    counted, wrong = Counter[tuple[str, int]](), []
    with workspace_of(web_settings) as workspace:
        before, user_id = state(workspace), min(read_lists(workspace))
        headers = {"customer": as_user(web_settings, user_id), "staff": as_admin(web_settings)}
        waiting = asyncio.Semaphore(8)

        async def check(client: httpx.AsyncClient, call: Call) -> None:
            own = {"authorization": call.token} if call.role == "nobody" else headers[call.role]
            sent = {**own, "content-type": call.content_type}
            lines = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
            async with waiting:
                answer = await client.request(call.method, call.path, content=call.content, headers=lines)
            counted[call.kind, answer.status_code] += 1
            if not _is_refusal(answer):
                wrong.append((call, answer.status_code, answer.text[:200]))

        async with browsing(create_app(web_settings)) as client:
            await asyncio.gather(*(check(client, call) for call in bad_requests(N_REQUESTS, seed=SEED)))
        print(f"requests: {counted.total()}", *sorted(counted.items()), sep="\n")
        assert wrong == []
        assert state(workspace) == before
    assert counted.total() == N_REQUESTS


def _is_refusal(answer: httpx.Response) -> bool:
    """Return whether an answer says, in a few words, that nothing was done and why."""
    if not 400 <= answer.status_code < 500 or answer.headers["content-type"] != PROBLEM or len(answer.content) > 20_000:
        return False
    told = answer.json()
    return told["status"] == answer.status_code and bool(told["title"]) and bool(told["detail"])


# --- settings


def test_each_bad_setting_is_refused_by_name_and_no_secret_is_told():
    counted = Counter[str]()
    for variable, environ in bad_settings(N_SETTINGS, seed=SEED):
        with pytest.raises(ConfigError) as refused:
            Settings.from_env(environ)
        assert variable in str(refused.value), environ
        assert "s3cret" not in str(refused.value), environ
        assert refused.value.__cause__ is None
        assert refused.value.__suppress_context__ or refused.value.__context__ is None
        counted[variable if "is not a setting" not in str(refused.value) else "unknown"] += 1
    print(f"settings: {counted.total()}", dict(counted))
    assert counted.total() == N_SETTINGS


@given(st.dictionaries(st.sampled_from(["ALERTREC_THRESHOLD", "ALERTREC_MAX_ITEMS", "ALERTREC_WEB_SECRET"]), st.text()))
@hypothesis.settings(deadline=None)
def test_whatever_a_setting_holds_it_is_taken_or_refused_by_name(environ: dict[str, str]):
    told, settings = "", Settings()
    try:
        settings = Settings.from_env(environ)
    except ConfigError as error:
        told = str(error)
    assert not told or any(variable in told for variable in environ)
    assert 0 <= settings.threshold <= 1
    assert settings.max_items >= 1
    assert settings.web_secret is None or len(settings.web_secret) >= 32


# --- arguments of tasks

PARSERS: dict[str, Callable[[Any], object]] = {
    "user": user_of,
    "job": job_of,
    "chunk": chunk_of,
    "flag": lambda value: flag_of("force", value),
}


def test_each_bad_event_is_refused_by_the_field_that_is_wrong():
    counted = Counter[str]()
    for kind, event in bad_events(N_EVENTS, seed=SEED):
        with pytest.raises(DataError) as refused:
            parse_action(event)
        assert kind in str(refused.value), event
        counted[kind] += 1
    print(f"events: {counted.total()}", dict(counted))
    assert counted.total() == N_EVENTS


def test_each_bad_argument_is_refused_by_its_name():
    counted = Counter[str]()
    for kind, value in bad_arguments(N_ARGUMENTS, seed=SEED):
        with pytest.raises(DataError, match=r"must be .*, not "):
            PARSERS[kind](value)
        counted[kind] += 1
    print(f"arguments: {counted.total()}", dict(counted))
    assert counted.total() == N_ARGUMENTS


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = ("event_id", "user_id", "action", "occurred_at", "alert_rule_id", "alert_type", "recommendation_id", "due_at")
_NEAR = st.fixed_dictionaries(
    {"user_id": st.text(max_size=300) | _JSON, "action": st.sampled_from(ACTIONS) | _JSON},
    optional={
        name: _JSON | st.uuids().map(str) | st.datetimes().map(datetime.isoformat)
        for name in _FIELDS
        if name not in {"user_id", "action"}
    },
)


@given(_JSON | _NEAR)
@hypothesis.settings(deadline=None, max_examples=500)
def test_whatever_an_event_is_it_is_refused_or_could_be_stored(event: Any):
    try:
        action = parse_action(event)
    except DataError:
        return
    assert action.action in ACTIONS
    for value in (action.user_id, action.alert_rule_id, action.alert_type):
        assert value is None or (b"\0" not in value.encode() and 0 < len(value) <= 255)
    for moment in (action.occurred_at, action.due_at):
        assert moment is None or datetime(1900, 1, 1, tzinfo=UTC) <= moment


@pytest.fixture(scope="module")
def env(running_servers: Servers, scratch: Path, _template: None) -> Iterator[Environment]:
    with database(running_servers) as database_url, broker(running_servers) as redis_url:
        yield environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=scratch / "data")


@pytest.fixture(scope="module")
def at_work(env: Environment, scratch: Path) -> Iterator[Worker]:
    with worker(env, scratch, name="test-bad-input", concurrency=2) as started:
        yield started


@pytest.mark.slow
def test_each_bad_call_of_a_task_leaves_a_dead_letter_and_nothing_else(env: Environment, at_work: Worker):
    import redis

    calls = {f"bad-{number}": call for number, call in enumerate(bad_calls(N_CALLS, seed=SEED))}
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client, connected(env["ALERTREC_DATABASE_URL"]) as engine:
        for message_id, (name, arguments) in calls.items():
            task = f"alertrec.{name}"
            client.lpush(QUEUE_OF[task], envelope(task, arguments, id=message_id))
        missing = set(calls)

        def are_recorded() -> bool:
            missing.difference_update(row["message_id"] for row in letters_of(engine))
            return not missing and client.hlen("unacked") == 0

        try:
            wait_for(are_recorded)
        except AssertionError:
            pytest.fail(f"lost: {[calls[each] for each in sorted(missing)]}")
        assert stored_by_tasks(engine) == 0
        letters = letters_of(engine)
    print(f"calls: {len(letters)}", dict(Counter(calls[row["message_id"]][0] for row in letters)))
    assert len(letters) == N_CALLS
    assert {row["reason"].partition(" at ")[0] for row in letters} <= {
        "DataError",
        "asked for a user that is not known",
    }
    assert at_work.process.poll() is None
    assert at_work.answers()


def stored_by_tasks(engine: Engine) -> int:
    tables = ("alert_actions", "job_runs", "job_chunks", "recommendation_lists", "model_versions")
    with engine.connect() as connection:
        return sum(connection.scalar(text(f"SELECT count(*) FROM alertrec.{each}")) or 0 for each in tables)  # noqa: S608
