"""Descriptors of one merchant → one key: NETFLIX.COM, Netflix Inc and PAYPAL *NETFLIX 866-579-7172 CA are "netflix".

What dresses a name up is taken off until nothing is left to take, so that the key of a key is the key. A name that
would lose its last letter is its own key: an account number stays itself.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

_KEYS_REMEMBERED = 1 << 16

# What the bank writes before a name, and who collects the money for a merchant.
_BANK = re.compile(
    r"(?:(?:pos|debit card|debit|check ?card|recurring|pre-?authori[sz]ed|ach)"
    r"(?: (?:purchase|payment|pmt|debit|credit|withdrawal|transaction))?"
    r"|(?:card|visa|web|direct) (?:purchase|payment|pmt|debit)|purchase)"
    r" (?:authori[sz]ed on )?(?:\d\d/\d\d |\d{4} )?(?=\S)"
)
_FACILITATOR = re.compile(
    r"(?:(?:sq|tst|paypal|pp|py|sp|iz|zettle|zettle_|sumup|cko|fs|2co|2co\.com|dri|ic|eb|bt|stripe|toast) ?\*|sp ) ?"
    r"(?!\s*\S*\d\S*\d\S*\d)"  # what follows is a name, not an id
)
_PHONE = re.compile(
    r"[\s*]\W*(?:\+\d[\d ().-]{7,}\d|(?:1[-. ]?)?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]?\d{4}|\d{10,11})(?!\d).*"
)
_TOP_LEVEL = (
    "com|net|org|io|app|tv|info|biz|co|co\\.uk|co\\.jp|com\\.au|com\\.br|de|fr|es|nl|eu|uk|ca|us|ch|at|se|cz|pl"
)
_URL = re.compile(
    r"(?<=\S )\S+\.\w+/\S*"  # an address behind the name
    r"|(?<!\S)(?:https?://(?:www\.)?|www\.)"
    rf"|(?<=\w\w)\.(?:{_TOP_LEVEL})(?:/\S*)?(?![\w-])(?!\.\w)"
)
_IDS = re.compile(r"\* ?\S*\d\S*|# ?\S*")
_ABBREVIATION = re.compile(r"(?<!\w)(?:\w\.)+\w?(?!\w)")
_APOSTROPHES = str.maketrans("", "", "'’`´")
_PUNCTUATION = re.compile(r"[^\w\s&-]|_|(?<![^\W_])[&-]|[&-](?![^\W_])")  # all but 7-eleven's and h&m's
_LEGAL_FORM = re.compile(
    r"(?<=\S)(?: and)? (?:inc|incorporated|llc|llp|lp|ltd|limited|corp|corporation|co|plc|gmbh|kg|ag|ug|sa|sas|sarl"
    r"|srl|bv|nv|ab|oy|oyj|aps|kft|sro|pty|pte)$"
)


@lru_cache(maxsize=_KEYS_REMEMBERED)
def merchant_key(name: str | None) -> str | None:
    """Return what the descriptors of one merchant have in common; None for a blank or missing name.

    Without the bank's words and the payment service in front, web dressing, ids, phone numbers and all behind them,
    the legal form and punctuation, in lower case. The key of a key is that key.
    """
    whole = " ".join((name or "").casefold().split())
    key, before = whole, None
    while key != before:
        key, before = _undress(key), key
    return (key if _has_letter(key) else whole) or None


def merchant_codes(names: pl.Series) -> NDArray[np.int64]:
    """Return a code for the key of each name, in the order of the sorted keys from 0; -1 where there is none.

    Parameters
    ----------
    names : series of text
    """
    unique = names.cast(pl.String).unique().drop_nulls()
    keys = [merchant_key(name) for name in unique.to_list()]
    code_of = {key: code for code, key in enumerate(sorted({key for key in keys if key is not None}))}
    # One place more, for missing names.
    codes = np.array([*(-1 if key is None else code_of[key] for key in keys), -1], np.int64)
    places = names.cast(pl.String).cast(pl.Enum(unique)).to_physical().cast(pl.Int64).fill_null(len(keys))
    return np.take(codes, places.to_numpy())


def _undress(name: str) -> str:
    for pattern in (_BANK, _FACILITATOR):
        if (found := pattern.match(name)) and _has_letter(name[found.end() :]):
            name = name[found.end() :]
    name = _URL.sub("", _PHONE.sub("", name))
    name = _IDS.sub(" ", name).translate(_APOSTROPHES)
    name = _ABBREVIATION.sub(lambda found: found[0].replace(".", ""), name)
    first, *others = _PUNCTUATION.sub(" ", name).split() or [""]
    return _LEGAL_FORM.sub("", " ".join((first, *(word for word in others if _digits(word) < 3))))


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _has_letter(text: str) -> bool:
    return any(map(str.isalpha, text))
