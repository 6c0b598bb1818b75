from __future__ import annotations

import re
from datetime import date

import numpy as np
import pytest

from alertrec.errors import DataError
from alertrec.wording import Words

GERMAN = Words("de_DE", "EUR")
HARD, NARROW = "\u00a0", "\u202f"  # spaces at which no line breaks


@pytest.mark.parametrize(
    ("words", "amount", "said"),
    [
        (Words(), 250, "$250"),
        (Words(), 1234.5, "$1,234.50"),
        (Words(), 1_000_000.0, "$1,000,000"),
        (Words(), 0.05, "$0.05"),
        (Words(), 249.999, "$250"),
        (Words(), -0.001, "$0"),
        (Words(), -12.3, "-$12.30"),
        (Words(), np.float64(412.5), "$412.50"),
        (GERMAN, 250, f"250{HARD}€"),
        (GERMAN, 1234.5, f"1.234,50{HARD}€"),
        (Words("fr_FR", "EUR"), 1234.5, f"1{NARROW}234,50{HARD}€"),
        (Words("hi_IN", "INR"), 1234567, "₹12,34,567"),
        (Words("ja_JP", "JPY"), 1234.6, "￥1,235"),  # the yen has no decimals
        (Words("en_US", "KWD"), 1.5, f"KWD{HARD}1.500"),  # the dinar has three
        (Words("cs_CZ", "CZK"), 500, f"500{HARD}Kč"),
    ],
)
def test_money_has_the_decimals_of_its_currency_and_none_where_it_is_whole(words: Words, amount: float, said: str):
    assert words.money(amount) == said


@pytest.mark.parametrize("locale", ["en_US", "en_GB", "de_DE", "fr_FR", "cs_CZ", "hi_IN", "ja_JP", "de_CH", "ar_EG"])
def test_whole_money_has_no_decimals_anywhere(locale: str):
    assert re.sub(r"\D", "", Words(locale, "USD").money(1250)) == "1250"
    assert re.sub(r"\D", "", Words(locale, "USD").money(1250.5)) == "125050"


def test_words_of_two_banks_are_kept_apart():
    assert [Words().money(1500), GERMAN.money(1500), Words(currency="EUR").money(1500)] == [
        "$1,500",
        f"1.500{HARD}€",
        "€1,500",
    ]


def test_counts_percents_shares_and_dates_follow_the_locale():
    day = date(2026, 9, 12)
    assert (Words().count(1200.0), Words().count(2.6), GERMAN.count(1200)) == ("1,200", "3", "1.200")
    assert [Words().percent(value) for value in (70, 12.5, 100.0, 33.333, 0.07)] == [
        "70%",
        "12.5%",
        "100%",
        "33.33%",
        "0.07%",
    ]
    assert GERMAN.percent(12.5) == f"12,5{HARD}%"
    assert [Words().share(value) for value in (0.704, 0.7, 0, 1.0)] == ["70%", "70%", "0%", "100%"]
    assert (Words().date(day), GERMAN.date(day)) == ("Sep 12, 2026", "12.09.2026")


def test_a_template_is_filled_with_every_format():
    template = "{a:money}, {n:count}, {p:percent}, {s:share}, {d:date}, {scope} {{as it is}}"
    values = {"a": 1234.5, "n": 3.0, "p": 12.5, "s": 0.704, "d": date(2026, 9, 12), "scope": "state", "unused": None}
    assert Words().fill(template, values) == "$1,234.50, 3, 12.5%, 70%, Sep 12, 2026, state {as it is}"
    assert Words().fill("nothing to fill", {}) == "nothing to fill"
    assert Words().fill("", {}) == ""


def test_a_missing_value_and_an_unknown_format_are_errors_of_our_own():
    with pytest.raises(KeyError, match="amount"):
        Words().fill("over {amount:money}", {"count": 1})
    for spec in (".2f", "fill", "locale"):
        with pytest.raises(ValueError, match=f"unknown format '{spec}'.*money, count"):
            Words().fill(f"{{amount:{spec}}}", {"amount": 1.0})


@pytest.mark.parametrize("locale", ["xx_YY", "english", "", "en-US", None, 5])
def test_an_unknown_locale_is_refused_with_an_example(locale: str):
    with pytest.raises(DataError, match=r'unknown locale .*such as "en_US"') as error:
        Words(locale=locale)
    assert repr(locale) in str(error.value)


@pytest.mark.parametrize("currency", ["usd", "XYZ1", "", "dollars", None])
def test_an_unknown_currency_is_refused_with_an_example(currency: str):
    with pytest.raises(DataError, match=r'unknown currency .*such as "USD"') as error:
        Words(currency=currency)
    assert repr(currency) in str(error.value)
