"""The laws of recurring streams; `stream_oracle` says what they are."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alertrec.recurring import FREQUENCIES, STATUSES, Streams, find_streams
from tests.property.stream_oracle import Charge, Found, Stream, oracle
from tests.strategies import laws

EDGES = sorted(
    {edge + more for edge in (6, 8, 9, 12, 13, 15, 19, 25, 26, 30, 35, 55, 66, 190, 350, 380) for more in (-1, 0, 1)}
    | {0, 1, 3, 24, 50, 95, 104, 105, 106, 115, 116}
)
# Around 10.00: equal to the cent and just not, the edges of 1.25 and of 2, and 15 % more.
AMOUNTS = [100_000, 100_049, 100_050, 125_000, 125_001, 80_000, 79_999, 200_000, 200_001, 50_000, 49_999, 115_000]
# Of subscriptions that one merchant bills; the first two are taken for one that changes its price.
PRICES = [99_900, 109_900, 29_900, 149_900]
START, USERS, MERCHANTS = 20_000, 3, 3


@st.composite
def charges_of_one(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Days and amounts of one user at one merchant: mostly a rhythm that is kept, sometimes another gap or amount."""
    usual, price = draw(st.sampled_from(EDGES)), draw(st.sampled_from(AMOUNTS))
    gaps = st.one_of(st.just(usual), st.just(usual), st.integers(usual - 2, usual + 2), st.sampled_from(EDGES))
    amounts = st.one_of(st.just(price), st.just(price), st.sampled_from(AMOUNTS))
    days = np.cumsum(
        [draw(st.sampled_from([0, 0, 1, 17])), *(max(gap, 0) for gap in draw(st.lists(gaps, max_size=12)))]
    )
    return [(START + int(day), draw(amounts)) for day in days]


@st.composite
def charges_side_by_side(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Days and amounts of one user at one merchant: up to three rhythms, each with a price, and other purchases."""
    price = st.sampled_from(PRICES)
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        usual, paid = draw(st.sampled_from([30, 30, 30, 365, 7, 60])), draw(price)
        day = START + draw(st.sampled_from([0, 0, 14, 15, 40, 100]))
        for _ in range(draw(st.integers(1, 9))):
            rows.append((day, paid))
            day += usual + draw(st.sampled_from([0, 0, 0, 1, -1, 5, -6, 30]))
            paid = draw(price) if draw(st.integers(0, 9)) == 9 else paid
    others = st.tuples(st.integers(START, START + 400), st.one_of(price, st.sampled_from(AMOUNTS)))
    rows += draw(st.lists(others, max_size=6))
    rows += draw(st.lists(st.sampled_from(rows), max_size=2))
    return sorted(draw(st.permutations(rows)), key=lambda row: row[0])


@st.composite
def ledgers(draw: st.DrawFn) -> list[Charge]:
    """Charges by user and day; at a merchant of no name too."""
    pairs = [(user, merchant) for user in range(USERS) for merchant in range(-1, MERCHANTS)]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=5, unique=True))
    rows = [Charge(*pair, *each) for pair in chosen for each in draw(charges_of_one() | charges_side_by_side())]
    return sorted(rows, key=lambda row: (row.user, row.day))


users_days = st.lists(st.sampled_from([START - edge for edge in [*EDGES, 400]]), min_size=USERS, max_size=USERS)
ends = st.lists(st.sampled_from([*EDGES, 400]), min_size=USERS, max_size=USERS)


def find(rows: list[Charge], known_since: list[int], until: list[int]) -> Streams:
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return find_streams(*columns, known_since=np.array(known_since), until=np.array(until))


def as_found(streams: Streams) -> Found:
    """Return the streams as the oracle has them."""
    names = [field.name for field in fields(Streams)][2:]
    rows = [
        dict(zip(names, row, strict=True))
        for row in zip(*(getattr(streams, name).tolist() for name in names), strict=True)
    ]
    named = [row | {"frequency": FREQUENCIES[row["frequency"]], "status": STATUSES[row["status"]]} for row in rows]
    rise = [None if value == -np.inf else value for value in streams.rise.tolist()]
    return Found(streams.is_new.tolist(), rise, [Stream(**row) for row in named])


def last_days(rows: list[Charge], more: list[int]) -> list[int]:
    return [max((row.day for row in rows if row.user == user), default=START) + more[user] for user in range(USERS)]


@settings(laws, max_examples=120)
@given(ledgers(), users_days, ends)
def test_streams_agree_with_a_slow_walk_charge_by_charge(rows: list[Charge], known_since: list[int], more: list[int]):
    until = last_days(rows, more)
    assert as_found(find(rows, known_since, until)) == oracle(rows, known_since, until)


@laws
@given(ledgers(), users_days, ends, st.permutations(range(USERS)), st.permutations(range(MERCHANTS)))
def test_numbering_users_and_merchants_otherwise_changes_nothing(
    rows: list[Charge], known_since: list[int], more: list[int], users: list[int], merchants: list[int]
):
    until = last_days(rows, more)
    before = find(rows, known_since, until)
    renamed = [
        (row._replace(user=users[row.user], merchant=merchants[row.merchant] if row.merchant >= 0 else -1), place)
        for place, row in enumerate(rows)
    ]
    # One user's charges of one day: those at one merchant keep their order, the others may have any.
    renamed.sort(key=lambda each: (each[0].user, each[0].day, each[0].merchant, each[1]))
    places = [place for _, place in renamed]
    old_users = [users.index(user) for user in range(USERS)]
    after = find(
        [row for row, _ in renamed], [known_since[user] for user in old_users], [until[user] for user in old_users]
    )
    assert (after.is_new == before.is_new[places]).all()
    assert (after.rise == before.rise[places]).all()
    back = [
        each._replace(user=users.index(each.user), merchant=merchants.index(each.merchant))
        for each in as_found(after).streams
    ]
    assert sorted(back) == sorted(as_found(before).streams)


@laws
@given(ledgers(), users_days, ends, st.integers(0, 60))
def test_what_comes_later_changes_nothing_before(rows: list[Charge], known_since: list[int], more: list[int], n: int):
    until = last_days(rows, more)
    latest = max(row.day for row in rows)
    cut = latest - n * 10
    earlier = [row.day <= cut for row in rows]
    whole, part = (find(each, known_since, until) for each in (rows, [row for row in rows if row.day <= cut]))
    assert (whole.is_new[earlier] == part.is_new).all()
    assert (whole.rise[earlier] == part.rise).all()


@laws
@given(ledgers(), users_days, ends)
def test_where_all_charges_cost_the_same_a_merchant_has_one_stream_and_it_is_new_once_a_run(
    rows: list[Charge], known_since: list[int], more: list[int]
):
    until = last_days(rows, more)
    found = find([row._replace(amount=PRICES[row.merchant]) for row in rows], known_since, until)
    pairs = list(zip(found.user.tolist(), found.merchant.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert (found.rise == -np.inf).all()
