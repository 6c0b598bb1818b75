"""The parameters of a rule, read from a customer's words.

What is not understood makes the whole text one that is not: rather no back-test than a wrong one.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from babel.numbers import is_currency

from alertrec.catalog import BY_KEY, AlertType, Parameters
from alertrec.detectors.parameters import Value, checked
from alertrec.errors import DataError

_MAX_LENGTH = 1_000  # of a text; a longer one is no rule


def from_text(alert_type: str, text: str) -> dict[str, Value] | None:
    """Return the parameters that a rule's text states.

    Amounts may be written as "$1,200", "1.200,50 €", "USD 250" or "250 dollars", counts in words. A rule fires above
    its number: "5 or more" purchases are more than 4.

    Returns
    -------
    dict or None
        As `checked` returns them. None where the text cannot be tested on past transactions: it states no number
        though the type needs one, several, one of another kind, a limit from below, or a period that is not the
        type's. None for an alert type that is not known.
    """
    found = _stated(alert_type, text) if len(text) <= _MAX_LENGTH else None
    return None if found is None else dict(found)


@lru_cache(maxsize=65_536)
def _stated(alert_type: str, text: str) -> Parameters | None:
    entry = BY_KEY.get(alert_type)
    if entry is None:
        return None
    plain = _plain(text)
    if _FROM_BELOW.search(plain) or not _period_fits(entry, plain):
        return None
    number = _number_of(entry, _PERIOD.sub(" ", plain))
    if number is None:
        return None
    return _accepted(alert_type, {entry.dial.name: number, **_scope_of(entry, plain)})


def parameters_of(alert_type: str, stored: object, text: str | None) -> dict[str, Value] | None:
    """Return the parameters of a rule: those that are stored, or else those that its text states.

    Parameters
    ----------
    stored : object
        A mapping, or a JSON text of an object; anything else, an empty one, and one that `checked` refuses say
        nothing.
    text : str or None
        The rule in a customer's words.
    """
    mapping = _loaded(stored) if isinstance(stored, str) else stored
    found = _accepted(alert_type, mapping) if isinstance(mapping, Mapping) and mapping else None
    return found if found is not None or text is None else from_text(alert_type, text)


def _accepted(alert_type: str, parameters: Mapping[str, object]) -> dict[str, Value] | None:
    try:
        return checked(alert_type, parameters)
    except DataError:
        return None


def _loaded(stored: str) -> object:
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):
        return None


_SMALL = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_MULTIPLES = {"k": 1_000, "dozen": 12, "hundred": 100, "thousand": 1_000, "million": 1_000_000}

# "any one purchase" and "in one day" state no number.
_IN_WORDS = re.compile(
    rf"\b(?:(?:(?<=than )|(?<=over )|(?<=above )|(?<=least ))one|{'|'.join(list(_SMALL)[1:])})\b", re.IGNORECASE
)
_A_MULTIPLE = re.compile(r"\ba (?=(?:dozen|hundred|thousand|million)\b)", re.IGNORECASE)

_SIGN = r"[a-z]{0,3}[$¢£¤¥฿\u20a0-\u20cf][a-z]{0,2}"
_CODE = r"(?-i:[A-Z]{3})(?![a-z])"
_MONEY = r"(?:usd|eur|gbp|jpy|inr|czk|chf|cad|aud|dollars?|bucks|euros?|pounds?|rupees?|yen|francs?|crowns?|kč|kr)\b"
_PERCENT = r"%|(?:percent|per cent|pct)\b"
_NUMBER = re.compile(
    rf"(?:(?P<sign_before>{_SIGN})|\b(?P<code_before>{_CODE})|(?P<percent_before>%))? ?"
    r"(?P<digits>\d{1,3}(?:[ '’]\d{3})+(?:[.,]\d+)?(?!\d)|(?<!\w)\.\d+|\d[\d.,]*\d|\d)"
    rf"(?: ?(?P<times>{'|'.join(_MULTIPLES)})\b)?"
    rf"(?: ?(?:(?P<percent>{_PERCENT})|(?P<money>{_SIGN}|{_MONEY})|(?P<code>{_CODE}))|(?P<glued>-?[^\W\d_]))?",
    re.IGNORECASE,
)
_NO_QUANTITY = re.compile(
    r"\bend(?:ing|s)(?: in| with)?:? \d{4}\b|[*•x]{2,12} ?\d{4}\b|\b\d+(?:st|nd|rd|th)\b", re.IGNORECASE
)
_PERIOD = re.compile(
    r"\b(?P<times>(?:other|few|several|couple of|half an?|[\d.,]{1,9}) ?-?)?"
    r"(?P<noun>(?:minute|min|hour|hr|day|weekday|weekend|week|fortnight|month|quarter|year)s?\b|(?<=\d)h\b)"
    r"|\b(?P<adverb>hourly|daily|(?:bi-?)?weekly|fortnightly|monthly|quarterly|yearly|annual(?:ly)?)\b",
    re.IGNORECASE,
)
_FROM_BELOW = re.compile(
    r"\b(?:below|under|at most|(?<!no )(?<!not )(?:less|fewer|lower|smaller) than|drops?|falls?|decreases?|"
    r"(?:is|limit|credit) left|remain\w*|available)\b",
    re.IGNORECASE,
)
_AT_LEAST = re.compile(
    r"\b(?:at least|minimum|reach\w*|hits?|not? (?:less|fewer) than|(?:or|and) (?:more|above|over|up))\b|\d ?\+|≥|>=",
    re.IGNORECASE,
)
_ABOVE = re.compile(rf"\b(?:over|above|beyond|than|of|by|exceed\w*|pass(?:es)?|tops?)\b|>|{_AT_LEAST.pattern}", re.I)
_COUNTRY = re.compile(
    r"\b(?:country|countries|abroad|international\w*|overseas|foreign|united states|usa|the u\.?s)\b", re.IGNORECASE
)
_STATE = re.compile(r"(?<!united )\bstates?\b", re.IGNORECASE)


def _plain(text: str) -> str:
    """Return a text with single common spaces, without marks of direction, and with small numbers as digits."""
    text = " ".join(re.sub("[\u061c\u200e\u200f]", "", unicodedata.normalize("NFKC", text)).split())
    text = _IN_WORDS.sub(_as_digits, text)
    return _NO_QUANTITY.sub(" ", _A_MULTIPLE.sub("1 ", text))


def _as_digits(match: re.Match[str]) -> str:
    # Where case is ignored, an i is also a dotted capital or a dotless small one, and lower() keeps them apart.
    return str(_SMALL.get(match.group().lower(), match.group()))


def _period_fits(entry: AlertType, plain: str) -> bool:
    """Whether a text names no period but the one that the type knows; types without one may name any."""
    period = entry.parameters.get("period")
    if not isinstance(period, str):
        return True
    names = {period, f"{period}s", "daily" if period == "day" else f"{period}ly"}
    return all(
        (match["noun"] or match["adverb"]).lower() in names and (match["times"] or "1").rstrip(" -") == "1"
        for match in _PERIOD.finditer(plain)
    )


def _scope_of(entry: AlertType, plain: str) -> dict[str, str]:
    """Return the scope where the type has one; outside the state is also who is outside the country."""
    if "scope" not in entry.parameters:
        return {}
    return {"scope": "country" if _COUNTRY.search(plain) and not _STATE.search(plain) else "state"}


def _number_of(entry: AlertType, plain: str) -> float | None:
    """Return what the dial is to be set to; None where the text does not state just that."""
    dial = entry.dial.name
    matches = list(_NUMBER.finditer(plain))
    if not matches:
        return _without_number(entry)
    match, number = matches[0], _value(matches[0])
    if len(matches) > 1 or match["glued"] or number is None:
        return None
    unit = _unit(match)
    if unit is None and dial != "count" and not (_ABOVE.search(plain) and (dial == "amount" or 1 < number <= 100)):
        return None
    if unit not in {None, dial}:
        return None
    return number - 1 if dial == "count" and _AT_LEAST.search(plain) else number


def _without_number(entry: AlertType) -> float | None:
    """Return what the dial stands at in a text without any number."""
    return float(entry.parameters[entry.dial.name]) if entry.dial.is_optional else None


def _unit(match: re.Match[str]) -> str | None:
    """Return which dial a number's unit belongs to, None where it has no unit."""
    if match["percent"] or match["percent_before"]:
        return "percent"
    # Capital letters beside a number may be a shouted word: "THE 10".
    codes = (match["code_before"] or "", match["code"] or "")
    return "amount" if match["sign_before"] or match["money"] or any(map(is_currency, codes)) else None


def _value(match: re.Match[str]) -> float | None:
    """Return the number that digits and separators write, None where they write none, such as "1,2,3"."""
    digits = re.sub("[ '’]", "", match["digits"])
    for written in _WRITTEN:
        if parts := written.fullmatch(digits):
            whole, fraction = (re.sub(r"\D", "", part or "") or "0" for part in parts.groups())
            return round(float(f"{whole}.{fraction}") * _MULTIPLES.get((match["times"] or "").lower(), 1), 6)
    return None


# Three digits behind a single point or comma are thousands: "1.200" and "1,200" are alike. Indian groups are of two.
_COMMAS, _POINTS = (rf"[1-9]\d{{0,2}}(?:[{sign}]\d{{2,3}})*[{sign}]\d{{3}}" for sign in ",.")
_WRITTEN = (
    re.compile(rf"({_COMMAS}|{_POINTS})()"),
    re.compile(rf"(\d*|{_COMMAS})(?:\.(\d+))?"),
    re.compile(rf"(\d+|{_POINTS}),(\d+)"),
)
