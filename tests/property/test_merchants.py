"""The laws of merchants' keys."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from alertrec.merchants import merchant_codes, merchant_key
from tests.strategies import laws

PIECES = [
    *("netflix", "7-Eleven", "Inc", "and", "co", "s.a.", ".com", "www.", "https://", "SQ *", "sp ", "PP*", "POS "),
    *("purchase ", "12", "345", "866-579-7172", "é", "İ", "ß", "*", " *", "#", "&", "-", "'", ".", "/", "_", " "),
]
names = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(PIECES), max_size=8).map("".join))


@settings(laws, max_examples=150)
@given(names)
def test_the_key_of_a_key_is_that_key(name: str):
    key = merchant_key(name)
    assert key is None or (key.strip() and merchant_key(key) == key)
    assert (key is None) == (not name.split())


@laws
@given(st.lists(st.one_of(st.none(), names), max_size=12))
def test_codes_are_places_among_the_sorted_keys(given_names: list[str | None]):
    keys = [merchant_key(name) for name in given_names]
    known = sorted({key for key in keys if key is not None})
    expected = [-1 if key is None else known.index(key) for key in keys]
    assert merchant_codes(pl.Series(given_names, dtype=pl.String)).tolist() == expected
