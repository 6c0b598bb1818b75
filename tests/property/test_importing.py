from __future__ import annotations

import csv
import io
import tempfile
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from alertrec.importing import parsing, reading
from alertrec.importing.relations import REASONS, TRANSACTIONS
from alertrec.importing.validation import REASON, ROW, validate

# A text column can hold any of these; half a surrogate pair exists in Python only.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
maybe_texts = st.none() | texts
USERS = ["u1", "u2"]

rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from(["1", "2", "3", "", None]) | texts,
            "user_id": st.sampled_from([*USERS, "u3", None]),
            "amount": st.sampled_from(["1", "-2.5", "$3", "nan", None]) | maybe_texts,
            "transaction_date": st.sampled_from(["2026-01-02", "2026-01-02T03:04:05Z", "soon", None]) | maybe_texts,
            "merchant_name": maybe_texts,
            "status": st.sampled_from(["settled", "CANCELED", "x", None]),
        }
    ),
    max_size=12,
)
SCHEMA = dict.fromkeys(("id", "user_id", "amount", "transaction_date", "merchant_name", "status"), pl.String)


@given(rows)
def test_each_row_is_either_accepted_or_refused_once(given_rows: list[dict[str, str | None]]):
    frame = pl.DataFrame(given_rows, schema=SCHEMA).with_row_index(ROW, offset=1)
    checked = validate(frame, TRANSACTIONS, user_ids=pl.Series(USERS))
    refused = checked.rejected[ROW].to_list()
    assert checked.accepted.height + len(refused) == frame.height
    assert len(set(refused)) == len(refused)
    assert set(checked.rejected[REASON]) <= set(REASONS)
    kept = frame.filter(~pl.col(ROW).is_in(refused))
    assert kept["id"].to_list() == checked.accepted["id"].to_list()


@given(rows)
def test_what_is_accepted_could_be_stored(given_rows: list[dict[str, str | None]]):
    frame = pl.DataFrame(given_rows, schema=SCHEMA).with_row_index(ROW, offset=1)
    accepted = validate(frame, TRANSACTIONS, user_ids=pl.Series(USERS)).accepted
    assert (
        accepted.select("id", "user_id", "amount", "transaction_date", "status").null_count().sum_horizontal()[0] == 0
    )
    assert accepted["id"].is_unique().all()
    assert set(accepted["user_id"]) <= set(USERS)
    assert not any("\0" in name for name in accepted["merchant_name"].drop_nulls())


@given(rows, st.integers(0, 12))
def test_slices_give_what_the_whole_gives(given_rows: list[dict[str, str | None]], cut: int):
    frame = pl.DataFrame(given_rows, schema=SCHEMA).with_row_index(ROW, offset=1)
    known = pl.Series(USERS)
    whole = validate(frame, TRANSACTIONS, user_ids=known)
    first = validate(frame[:cut], TRANSACTIONS, user_ids=known)
    second = validate(frame[cut:], TRANSACTIONS, user_ids=known, taken_ids=first.accepted["id"])
    assert pl.concat([first.accepted, second.accepted]).equals(whole.accepted)
    assert pl.concat([first.rejected, second.rejected]).equals(whole.rejected)


@given(st.decimals(min_value=-(10**14) + 1, max_value=10**14 - 1, places=4))
def test_every_amount_of_four_decimals_is_read_exactly(amount: Decimal):
    assert parsing.parse_money(pl.Series([f"{amount:f}"])).to_list() == [amount]


@given(st.lists(st.text("0123456789.eE+-,$ nNaAiIfF_", max_size=10), max_size=8))
def test_a_text_is_money_only_if_python_reads_it_as_a_decimal(amounts: list[str]):
    for text, money in zip(amounts, parsing.parse_money(pl.Series(amounts, dtype=pl.String)), strict=True):
        if money is not None:
            assert abs(Decimal(text.strip()) - money) <= Decimal("0.0001")


moments = st.datetimes(
    min_value=datetime(1900, 1, 2),
    max_value=datetime(2200, 12, 30),
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


@given(moments, st.sampled_from([" ", "T"]))
def test_what_python_writes_as_iso_is_read_as_the_same_moment(moment: datetime, between: str):
    assert parsing.parse_time(pl.Series([moment.isoformat(between)])).to_list() == [moment]
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    assert parsing.parse_time(pl.Series([naive.isoformat(between)])).to_list() == [moment]


@settings(max_examples=50)
@given(st.lists(st.tuples(texts, texts), max_size=20))
def test_what_a_csv_writer_quotes_comes_back(pairs: list[tuple[str, str]]):
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *pairs])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pairs.csv"
        path.write_bytes(written.getvalue().encode())
        with reading.open_source(path) as source:
            slices = [each.frame.select("a", "b").rows() for each in source.slices]
    assert [row for rows_ in slices for row in rows_] == pairs


@given(st.binary(max_size=40), st.integers(1, 9))
def test_repaired_bytes_are_utf8_and_good_bytes_stay(data: bytes, block: int):
    stream = reading.Utf8Repair(io.BytesIO(data))
    repaired = b"".join(iter(lambda: stream.read(block), b""))
    text = data.decode(errors="surrogateescape")
    assert repaired.decode() == "".join("\0" if "\udc80" <= each <= "\udcff" else each for each in text)
