from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertrec.catalog import ALERT_KEYS, ALERT_TYPES, AlertType, classify
from alertrec.detectors.parameters import _CHOICES, checked
from alertrec.errors import DataError
from alertrec.rules.texts import from_text, parameters_of
from alertrec.wording import Words
from tests.strategies import laws

LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "cs_CZ", "hi_IN", "ja_JP")
CURRENCIES = ("USD", "EUR", "GBP", "CZK", "INR", "JPY")

_types = st.sampled_from(ALERT_TYPES)
_cents = st.integers(1, 10**11).map(lambda cents: cents / 100)
_words = st.builds(Words, st.sampled_from(LOCALES), st.sampled_from(CURRENCIES[:-1]))  # the yen has no cents

# Texts made of what rules are made of find more than characters drawn at random.
_pieces = st.sampled_from(
    ["$", "€", "USD", "%", " per cent", "1", "250", "1,200", "1.200,50", ",", ".", "k", "one", "f\u0130ve", "a dozen",
     " ", "\u00a0", " or more", "over ", "under ", "week", "24h", "monthly", "outside my state", "abroad", "²", "-"]
)  # fmt: skip
_texts = st.text(max_size=60) | st.lists(_pieces, max_size=12).map("".join)
_values = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["state", "country", "week", "5"])
_KEYS = ("amount", "count", "percent", "period", "scope", "x")
_anything = st.dictionaries(st.sampled_from(_KEYS), _values)


def settings_of(entry: AlertType, number: float) -> list[dict[str, object]]:
    """Return the parameters with this number, and with each choice of the other keys."""
    others = [key for key in entry.parameters if key != entry.dial.name]
    choices = [_CHOICES.get(key, (entry.parameters[key],)) for key in others]
    return [
        {entry.dial.name: number} | dict(zip(others, chosen, strict=True)) for chosen in itertools.product(*choices)
    ]


@pytest.mark.parametrize("currency", CURRENCIES)
@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("entry", ALERT_TYPES, ids=lambda entry: entry.key)
def test_what_is_offered_reads_back_as_what_it_is(entry: AlertType, locale: str, currency: str):
    words = Words(locale, currency)
    for step in entry.dial.steps:
        for parameters in settings_of(entry, step):
            text = words.fill(entry.query_for(parameters), parameters)
            assert from_text(entry.key, text) == parameters, text
            assert classify(text) == entry.key, text


@laws
@given(_types, _words, _cents, st.integers(1, 10**6), st.integers(1, 10**5))
def test_so_does_every_number_that_is_no_step(entry: AlertType, words: Words, amount: float, count: int, basis: int):
    number = {"amount": amount, "count": count, "percent": basis / 100}[entry.dial.name]
    for parameters in settings_of(entry, number):
        assert from_text(entry.key, words.fill(entry.query_for(parameters), parameters)) == parameters


@laws
@given(st.sampled_from(ALERT_KEYS), _texts)
def test_any_text_gives_checked_parameters_or_none(alert_type: str, text: str):
    found = from_text(alert_type, text)
    assert found is None or checked(alert_type, found) == found


@laws
@given(_types, _anything, st.none() | _texts)
def test_checked_parameters_stay_as_they_are(entry: AlertType, parameters: dict[str, object], text: str | None):
    try:
        found = checked(entry.key, parameters)
    except DataError:
        assert parameters_of(entry.key, parameters, text) == (None if text is None else from_text(entry.key, text))
        return
    assert checked(entry.key, found) == found
    assert tuple(found) == tuple(entry.parameters)
    assert found.items() >= parameters.items()
    assert not parameters or parameters_of(entry.key, parameters, text) == found
