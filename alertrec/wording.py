"""Money, numbers and dates as the bank's customers write them, and sentences filled with them.

The sentences are English; what is put into them follows the locale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from string import Formatter
from typing import Any

from babel.core import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import format_currency, format_decimal, format_percent, get_currency_precision, is_currency

from alertrec.errors import DataError


@dataclass(frozen=True)
class Words:
    """How one bank's customers write money, numbers and dates.

    Spaces inside a number, and between it and its currency, are such that no line breaks there.

    Attributes
    ----------
    locale : str
        Such as "en_US" or "de_DE".
    currency : str
        An ISO 4217 code, such as "USD".

    Raises
    ------
    DataError
        If the locale or the currency is not known.
    """

    locale: str = "en_US"
    currency: str = "USD"

    def __post_init__(self) -> None:
        """Refuse what Babel does not know, before the first sentence rather than in the middle of a batch."""
        try:
            Locale.parse(self.locale)
        except (UnknownLocaleError, ValueError, TypeError) as error:
            raise DataError(
                f"unknown locale {self.locale!r}; expected a language and a country with an underscore between, "
                'such as "en_US" or "de_DE"'
            ) from error
        if not is_currency(self.currency):
            raise DataError(
                f"unknown currency {self.currency!r}; expected an ISO 4217 code in capital letters, "
                'such as "USD" or "EUR"'
            )

    def money(self, amount: float) -> str:
        """Return an amount with the currency's number of decimals, none where it is whole: "$250", "1.234,50 €"."""
        return _said(self, amount, "money")

    def count(self, number: float) -> str:
        """Return a number rounded to a whole one, such as "1,200"."""
        return _said(self, number, "count")

    def percent(self, percent: float) -> str:
        """Return a number of percent with at most two decimals: 70 gives "70%", 12.5 gives "12.5%"."""
        return _said(self, percent, "percent")

    def share(self, share: float) -> str:
        """Return a share as whole percent: 0.704 gives "70%"."""
        return _said(self, share, "share")

    def date(self, day: date) -> str:
        """Return a date of medium length, such as "Sep 12, 2026"."""
        return _said(self, day, "date")

    def fill(self, template: str, values: Mapping[str, Any]) -> str:
        """Return a template with its values put in.

        Parameters
        ----------
        template : str
            With fields such as `{amount:money}`; the formats are `money`, `count`, `percent`, `share`, `date` and
            none at all, for a text as it is.
        values : mapping
            At least the names of the fields; more do no harm.

        Raises
        ------
        KeyError, ValueError
            Where a value is missing; where a format is none of these.
        """
        return "".join(
            literal if name is None else literal + _said(self, values[name], spec)
            for literal, name, spec in _parts(template)
        )


# CLDR asks for a space between a currency's letters and the number, "CHF 250", which Babel leaves out.
_CODE_AT_NUMBER = re.compile(r"(?<=[^\W\d_])(?=\d)")


@lru_cache(maxsize=1024)
def _parts(template: str) -> tuple[tuple[str, str | None, str], ...]:
    """Return the literal texts of a template, each with name and format of the field behind it."""
    return tuple((literal, name, spec or "") for literal, name, spec, _ in Formatter().parse(template))


# Babel takes some 15 us a call, and a batch says the same numbers over and over.
@lru_cache(maxsize=65_536, typed=True)
def _said(words: Words, value: Any, spec: str) -> str:
    if spec in _FORMATS:
        return _FORMATS[spec](_locale(words.locale), words.currency, value)
    if spec:
        raise ValueError(f"unknown format {spec!r} in a template; expected one of {', '.join(_FORMATS)}, or none")
    return str(value)


@lru_cache(maxsize=128)
def _locale(name: str) -> Locale:
    return Locale.parse(name)


def _money(locale: Locale, currency: str, amount: float) -> str:
    rounded = round(float(amount), get_currency_precision(currency)) + 0.0  # there is no -$0
    if rounded.is_integer():
        said = format_currency(rounded, currency, format=_whole_money(locale), locale=locale, currency_digits=False)
    else:
        said = format_currency(rounded, currency, locale=locale)
    return _CODE_AT_NUMBER.sub("\u00a0", said)


def _whole_money(locale: Locale) -> str:
    """Return the locale's pattern for money without its decimals."""
    return str(locale.currency_formats["standard"].pattern).replace(".00", "")


def _count(locale: Locale, _: str, number: float) -> str:
    return format_decimal(round(number), locale=locale)


def _percent(locale: Locale, _: str, percent: float) -> str:
    exact = Decimal(str(round(float(percent), 2))) / 100
    return format_percent(exact, locale=locale, decimal_quantization=False)


def _share(locale: Locale, _: str, share: float) -> str:
    return format_percent(float(share), locale=locale)


def _date(locale: Locale, _: str, day: date) -> str:
    return format_date(day, format="medium", locale=locale)


_FORMATS: Mapping[str, Callable[[Locale, str, Any], str]] = {
    "money": _money,
    "count": _count,
    "percent": _percent,
    "share": _share,
    "date": _date,
}
