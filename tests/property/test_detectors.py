"""The laws of the detectors; `tests.rule_oracle` says when a rule fires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertrec.catalog import ALERT_KEYS, BY_KEY
from alertrec.detectors import firings, recurring_streams
from tests import rule_oracle
from tests.rule_oracle import History
from tests.strategies import (
    AS_OF,
    FIRST_DAY,
    LATER,
    USERS_SCHEMA,
    Bank,
    Row,
    Zone,
    banks,
    laws,
    number,
    purchases,
    zones,
)

NAIVE_AS_OF = AS_OF.replace(tzinfo=None)
COLUMNS = ["user_id", "at", "merchant_name", "amount", "transaction_id"]
Firing = tuple[str, datetime, str | None, float]

# Kinds of a merchant's name on a statement; which of them are one merchant, `merchant_key` says.
SPELLINGS = (
    str,
    str.upper,
    lambda name: f"{name} ",
    lambda name: f"{name} #1234",
    lambda name: f"SQ *{name}",
    lambda name: f"{name} 800-555-0134 CA",
)
MOVING = ("REFUND", "payment", "DEPOSIT", "FEE", "interest", "WITHDRAWAL", "TRANSFER")
_time_zones = st.sampled_from(
    [
        None,
        None,
        "UTC",
        "America/New_York",
        "Asia/Kolkata",
        "Pacific/Kiritimati",
        "Pacific/Pago_Pago",
        "Mars/Olympus",
        "",
    ]
)
_limits = st.sampled_from([*[1000.0, 300.0, 2500.75] * 3, 0.01, None, 0.0, float("inf")])
_balances = st.one_of(
    *(
        st.integers(0, 12_000).map(lambda quarters: quarters / 4),
        st.integers(400_000, 900_000).map(lambda cents: cents / 100),
    ),
    st.sampled_from([*range(100, 3000, 100), 0.0, -200.0, None, float("nan")]),
)
# Few round ones, so that totals and thresholds meet, and some whose sums are not exact in floats.
_amounts = st.one_of(
    st.sampled_from([0.1, 9.99, 10.0, 25.0, 33.33, 50.0, 100.0, 250.0]),
    st.integers(1, 40_000).map(lambda cents: cents / 100),
)
# Gaps at the edges of every band, one skipped charge, and gaps of no band.
_gaps = st.sampled_from([6, 7, 8, 12, 13, 14, 15, 16, 19, 25, 28, 30, 31, 35, 45, 100, 190, 350, 365, 380])
_other_gaps = st.sampled_from([1, 5, 9, 11, 14, 20, 24, 26, 27, 30, 35, 36, 49, 50, 55, 60, 66, 67, 70, 191])
_steady = (1, 1, 1, 1, 1.1, 1.25)
_unsteady = (1, 1.05, 1.25, 1.26, 1.5, 2, 2.01, 0.8, 0.5)


@st.composite
def recurring(draw: st.DrawFn, users: list[Row], gap: int | None = None) -> list[Row]:
    """Draw charges of one merchant at even gaps; now and then an odd gap, another amount, a declined one."""
    like = draw(purchases()) | {
        "user_id": draw(st.sampled_from(users))["id"],
        "merchant_name": draw(st.sampled_from(["Gym", "Daily News", "Streamly"])),
        "amount": draw(_amounts),
        "transaction_type": "PURCHASE",
    }
    gap, n_calm = gap or draw(_gaps), draw(st.sampled_from([0, 3, 4, 8]))
    at = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day) + timedelta(days=draw(st.integers(0, 240)))
    at += timedelta(hours=draw(st.sampled_from([0, 4, 5, 12, 23])))
    rows = []
    for place in range(draw(st.integers(2, 8))):
        is_calm = place < n_calm
        if at > NAIVE_AS_OF:
            break
        amount = round(like["amount"] * draw(st.sampled_from(_steady if is_calm else _unsteady)), 2)
        is_declined = not is_calm and draw(st.integers(0, 5)) == 5
        is_usual = is_calm or draw(st.integers(0, 4)) < 4
        status = {"status": "DECLINED"} if is_declined else {}
        rows.append(like | {"transaction_date": at, "amount": amount} | status)
        at += timedelta(days=gap + draw(st.sampled_from([0, 0, 0, 1, -1])) if is_usual else draw(_other_gaps))
    return rows


@st.composite
def billed_by_one(draw: st.DrawFn, users: list[Row]) -> list[Row]:
    """Draw what one merchant bills: mostly two subscriptions of a price each, and a few other purchases there."""
    like = draw(purchases()) | {
        "user_id": draw(st.sampled_from(users))["id"],
        "merchant_name": draw(st.sampled_from(["Gym", "Bill", "Streamly"])),
        "transaction_type": "PURCHASE",
        "status": "SETTLED",
    }
    start = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day) + timedelta(
        hours=draw(st.sampled_from([0, 5, 23]))
    )
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        gap, amount = draw(st.sampled_from([30, 30, 28, 365, 7])), draw(st.sampled_from([2.99, 9.99, 10.99]))
        at = start + timedelta(days=draw(st.sampled_from([0, 0, 14, 15, 40, 100, 200])))
        for _ in range(draw(st.integers(2, 7))):
            rows.append(like | {"transaction_date": at, "amount": amount})
            at += timedelta(days=gap + draw(st.sampled_from([0, 0, 0, 1, -1, 30])))
    others = st.tuples(st.integers(0, 400), st.sampled_from([2.99, 9.99, 10.99, 25.0, 60.0]))
    for days, amount in draw(st.lists(others, max_size=4)):
        rows.append(like | {"transaction_date": start + timedelta(days=days), "amount": amount})
    return [row for row in rows if row["transaction_date"] <= NAIVE_AS_OF]


@st.composite
def movements(draw: st.DrawFn) -> Row:
    """Draw a row that moves the balance, or a transfer, which does not."""
    sign = draw(st.sampled_from([1, 1, -1]))
    kind = draw(st.sampled_from(MOVING))
    return draw(purchases()) | {"transaction_type": kind, "amount": sign * draw(_amounts)}


@st.composite
def rule_banks(draw: st.DrawFn, *, with_future: bool = True) -> Bank:
    """Draw a bank with time zones, balances, streams, ties in time and merchants of several spellings."""
    bank = draw(banks(with_future=with_future))
    account = {"time_zone": _time_zones, "credit_limit": _limits, "credit_balance": _balances}
    users = [user | {name: draw(of) for name, of in account.items()} for user in bank.users]
    rows = list(bank.transactions)
    for stream in draw(st.lists(recurring(users) | billed_by_one(users), max_size=4)):
        rows += stream
    rows += draw(st.lists(movements(), max_size=8))
    rows += [row | {"amount": draw(_amounts)} for row in draw(st.lists(purchases(), max_size=8))]
    if rows:
        ties = draw(st.lists(st.tuples(st.sampled_from(rows), st.sampled_from(rows)), max_size=8))
        rows += [row | _when_and_who(other) for row, other in ties]
        rows += draw(st.lists(st.sampled_from(rows), max_size=3))  # identical but for their ids
    spellings = draw(st.lists(st.sampled_from(SPELLINGS), min_size=1, max_size=6))
    for place, row in enumerate(rows):
        if row["merchant_name"] is not None:
            rows[place] = row | {"merchant_name": spellings[place % len(spellings)](row["merchant_name"])}
    return Bank(
        users, number([{name: row[name] for name in row if name != "id"} for row in draw(st.permutations(rows))])
    )


def _when_and_who(row: Row) -> Row:
    return {name: row[name] for name in ("transaction_date", "user_id")}


@st.composite
def rules(draw: st.DrawFn, bank: Bank, alert_type: str) -> dict[str, Any]:
    """Draw parameters, mostly such at which something happens with these transactions, or just beside it."""
    dial = BY_KEY[alert_type].dial
    scope = draw(st.sampled_from(["state", "country"]))
    met = [
        round(float(bound), 2)
        for user in bank.users
        for event in History(user, bank.transactions, NAIVE_AS_OF).events(alert_type, scope)
        for bound in (event.low, event.high)
        if bound is not None
    ]
    # Low ones too: a utilisation that is not known, but guessed, would be near zero.
    values = st.one_of(st.sampled_from(dial.steps), st.integers(1, 120).map(lambda quarters: quarters / 4))
    if met:
        beside = st.tuples(st.sampled_from(met), st.sampled_from([0, 0, 0, 0.01, -0.01])).map(sum)
        values = st.one_of(beside, beside, beside, values)
    least = 0.0 if dial.steps[0] == 0 else 1.0 if dial.name == "count" else 0.01
    value = max(round(draw(values), 2), least)
    return dict(BY_KEY[alert_type].parameters) | {
        dial.name: int(value) if dial.name == "count" else value,
        **({"scope": scope} if "scope" in BY_KEY[alert_type].parameters else {}),
    }


@st.composite
def cases(draw: st.DrawFn, *, with_future: bool = True) -> tuple[Bank, str, dict[str, Any]]:
    """Draw a bank, an alert type, and parameters of it."""
    bank = draw(rule_banks(with_future=with_future))
    alert_type = draw(st.sampled_from(ALERT_KEYS))
    return bank, alert_type, draw(rules(bank, alert_type))


def frames(bank: Bank, zone: Zone = "naive") -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.DataFrame(bank.users, schema=USERS_SCHEMA | {"time_zone": pl.String}), bank.transactions_frame(zone)


def fire(bank: Bank, alert_type: str, parameters: dict[str, Any], as_of: datetime | None = AS_OF) -> pl.DataFrame:
    return firings(alert_type, parameters, *frames(bank), as_of=as_of)


def without_ids(found: pl.DataFrame) -> list[Firing]:
    return found.select(COLUMNS[:-1]).rows()


def expected(bank: Bank, alert_type: str, parameters: dict[str, Any], as_of: datetime = NAIVE_AS_OF) -> list[Firing]:
    return [
        (user["id"], event.at, event.row["merchant_name"], abs(event.row["amount"]))
        for user in bank.users
        for event in History(user, bank.transactions, as_of).fired(alert_type, parameters)
    ]


def remaining(some: Iterable[Firing], others: Iterable[Firing]) -> Counter[Firing]:
    """Return which of some firings, counted, are not among others."""
    return Counter(some) - Counter(others)


@pytest.mark.parametrize("alert_type", ALERT_KEYS)
@settings(laws, max_examples=50)
@given(rule_banks(), zones, st.sampled_from([AS_OF, NAIVE_AS_OF]), st.data())
def test_a_rule_fires_as_a_slow_count_row_by_row_says(
    alert_type: str, bank: Bank, zone: Zone, as_of: datetime, data: st.DataObject
):
    for parameters in data.draw(st.lists(rules(bank, alert_type), min_size=1, max_size=4)):
        found = firings(alert_type, parameters, *frames(bank, zone), as_of=as_of)
        assert found.columns == COLUMNS
        assert found.schema["at"] == pl.Datetime("us")
        assert without_ids(found) == expected(bank, alert_type, parameters)


@settings(laws, max_examples=60)
@given(st.data(), _time_zones, st.sampled_from([(7, 8), (14, 15), (17, 19), (30, 35), (45, 49), (365, 380)]))
def test_a_stream_is_new_only_if_it_begins_well_within_what_is_known(
    data: st.DataObject, time_zone: str | None, gap_and_longest: tuple[int, int]
):
    gap, longest = gap_and_longest
    days = longest + data.draw(st.sampled_from([0, 1]))
    user = dict.fromkeys(["credit_limit", "credit_balance", "address_state", "address_country"])
    user |= {"id": "u0", "time_zone": time_zone}
    charges = data.draw(recurring([user], gap))
    earlier = {"transaction_date": charges[0]["transaction_date"] - timedelta(days=days), "status": "SETTLED"}
    bank = Bank([user], number([charges[0] | earlier | {"merchant_name": "Elsewhere"}, *charges]))
    for percent in (0.01, 10.0, 100.0):
        parameters = {"percent": percent}
        found = fire(bank, "alert_subscription_monitoring", parameters)
        assert without_ids(found) == expected(bank, "alert_subscription_monitoring", parameters)


@settings(laws, max_examples=60)
@given(rule_banks(with_future=False))
def test_streams_stand_as_a_slow_walk_charge_by_charge_says(bank: Bank):
    found = recurring_streams(*frames(bank), as_of=AS_OF)
    columns = ["user_id", "frequency", "status", "n_charges", "first_date", "last_date", "last_amount"]
    told = [
        (
            user["id"],
            stream.frequency,
            stream.state,
            len(stream.charges),
            stream.charges[0].day,
            stream.charges[-1].day,
            stream.charges[-1].units / 10_000,
        )
        for user in bank.users
        for stream in rule_oracle.streams(user, bank.transactions, NAIVE_AS_OF)
    ]
    assert sorted(found.select(columns).rows()) == sorted(told)


@laws
@given(cases())
def test_each_firing_names_a_transaction_of_its_own(case: tuple[Bank, str, dict[str, Any]]):
    bank, alert_type, parameters = case
    found = fire(bank, alert_type, parameters)
    rows = {row["id"]: row for row in bank.transactions}
    named = [rows[each] for each in found["transaction_id"]]
    assert found["transaction_id"].is_unique().all()
    assert without_ids(found) == [
        (row["user_id"], row["transaction_date"], row["merchant_name"], abs(row["amount"])) for row in named
    ]


@laws
@given(cases())
def test_without_ids_the_firings_are_the_same_and_name_no_transaction(case: tuple[Bank, str, dict[str, Any]]):
    bank, alert_type, parameters = case
    users, transactions = frames(bank)
    found = firings(alert_type, parameters, users, transactions.drop("id"), as_of=AS_OF)
    assert without_ids(found) == expected(bank, alert_type, parameters)
    assert found["transaction_id"].null_count() == found.height


@laws
@given(cases(), st.data())
def test_rows_that_share_an_id_count_once_and_the_first_of_them(
    case: tuple[Bank, str, dict[str, Any]], data: st.DataObject
):
    bank, alert_type, parameters = case
    if not bank.transactions:
        return
    dates = st.sampled_from([{}, {}, {"transaction_date": None}, {"transaction_date": LATER}])
    others = data.draw(st.lists(st.tuples(st.sampled_from(bank.transactions), purchases(), dates), max_size=5))
    # The others differ in all but the user, and come before or after.
    copies = [row | date | {"id": first["id"], "user_id": first["user_id"]} for first, row, date in others]
    for rows in (bank.transactions + copies, copies + bank.transactions):
        doubled = bank.with_transactions(rows)
        assert without_ids(fire(doubled, alert_type, parameters)) == expected(doubled, alert_type, parameters)


@laws
@given(cases())
def test_columns_that_may_be_missing_count_as_empty(case: tuple[Bank, str, dict[str, Any]]):
    bank, alert_type, parameters = case
    optional = ("merchant_state", "merchant_country", "transaction_type", "status")
    bare = [dict.fromkeys(["time_zone", "credit_limit", "address_state"]), dict.fromkeys(optional)]
    emptied = Bank([user | bare[0] for user in bank.users], [row | bare[1] for row in bank.transactions])
    users, transactions = frames(bank)
    found = firings(alert_type, parameters, users.drop(bare[0]), transactions.drop(optional), as_of=AS_OF)
    assert without_ids(found) == expected(emptied, alert_type, parameters)


@laws
@given(rule_banks(), st.lists(purchases(), min_size=1, max_size=5), st.data())
def test_another_purchase_never_takes_away_a_firing_of_large_transaction(
    bank: Bank, more: Sequence[Row], data: st.DataObject
):
    parameters = data.draw(rules(bank, "alert_large_transaction"))
    richer = bank.with_transactions(number(list(more), "more") + bank.transactions)
    before, after = (without_ids(fire(each, "alert_large_transaction", parameters)) for each in (bank, richer))
    assert not remaining(before, after)


@laws
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case: tuple[Bank, str, dict[str, Any]], random: Any):
    bank, alert_type, parameters = case
    shuffled = list(bank.transactions)
    random.shuffle(shuffled)
    assert without_ids(fire(bank.with_transactions(shuffled), alert_type, parameters)) == without_ids(
        fire(bank, alert_type, parameters)
    )


@laws
@given(cases())
def test_one_user_alone_and_a_chunk_and_everybody_have_the_same_firings(case: tuple[Bank, str, dict[str, Any]]):
    bank, alert_type, parameters = case
    everybody = without_ids(fire(bank, alert_type, parameters))
    for size in (1, 2):
        found = []
        for start in range(0, len(bank.users), size):
            chunk = Bank(bank.users[start : start + size], bank.transactions)
            ids = [user["id"] for user in chunk.users]
            own = chunk.with_transactions([row for row in bank.transactions if row["user_id"] in ids])
            firing = without_ids(fire(own, alert_type, parameters))
            assert without_ids(fire(chunk, alert_type, parameters)) == firing
            found += firing
        assert found == everybody


@laws
@given(cases(with_future=False), st.lists(purchases() | movements(), min_size=1, max_size=5), st.integers(0, 10**10))
def test_what_comes_later_changes_nothing(
    case: tuple[Bank, str, dict[str, Any]], later: Sequence[Row], microseconds: int
):
    bank, alert_type, parameters = case
    moment = NAIVE_AS_OF + timedelta(microseconds=1 + microseconds)
    future = number([row | {"transaction_date": moment} for row in later], "future")
    before = without_ids(fire(bank, alert_type, parameters))
    richer = bank.with_transactions(future + bank.transactions)
    assert without_ids(fire(richer, alert_type, parameters)) == before
    if BY_KEY[alert_type].detector != "utilization":  # its balance is that of another moment
        since = without_ids(fire(richer, alert_type, parameters, moment))
        assert [firing for firing in since if firing[1] <= NAIVE_AS_OF] == before


@laws
@given(cases())
def test_without_as_of_everything_is_seen(case: tuple[Bank, str, dict[str, Any]]):
    bank, alert_type, parameters = case
    assert without_ids(fire(bank, alert_type, parameters, None)) == expected(
        bank, alert_type, parameters, LATER + timedelta(days=1000)
    )


@laws
@given(cases(), zones)
def test_pandas_gives_the_firings_of_polars_as_pandas(case: tuple[Bank, str, dict[str, Any]], zone: Zone):
    pandas = pytest.importorskip("pandas")
    bank, alert_type, parameters = case
    users, transactions = frames(bank, zone)
    found = firings(alert_type, parameters, users.to_pandas(), transactions.to_pandas(), as_of=AS_OF)
    assert isinstance(found, pandas.DataFrame)
    assert list(found.columns) == COLUMNS
    same = [
        (row.user_id, row.at.to_pydatetime(), None if pandas.isna(row.merchant_name) else row.merchant_name, row.amount)
        for row in found.itertuples()
    ]
    assert same == expected(bank, alert_type, parameters)
