"""The parameters of a rule, checked.

What a rule of an alert type may hold follows from its catalogue entry: the number that its dial names, and the
other keys of its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from reprlib import repr as shortened

from alertrec.catalog import BY_KEY, AlertType
from alertrec.errors import DataError
from alertrec.transactions import MAX_AMOUNT

Value = float | int | str

SCOPES = ("state", "country")
_CHOICES = {"scope": SCOPES}  # of any other key of texts, only the value in the catalogue


def checked(alert_type: str, parameters: Mapping[str, object]) -> dict[str, Value]:
    """Return the parameters of a rule, complete and in the promised types.

    Parameters
    ----------
    alert_type : str
        A key of the catalogue.
    parameters : mapping
        Such as `{"amount": 250}`. What has a value of its own where it is not stated is filled in: a period, the
        scope "state", and the amount 0 (any) of types that offer it.

    Returns
    -------
    dict
        `amount` and `percent` as float, `count` as int, all else as str.

    Raises
    ------
    DataError
        If the type is not known, a key is missing or not known, or a value is none that the type allows.
    """
    if alert_type not in BY_KEY:
        raise DataError(f"unknown alert type {shortened(alert_type)}; expected one of {', '.join(BY_KEY)}")
    entry = BY_KEY[alert_type]
    for key in parameters:
        if key not in entry.parameters:
            expected = ", ".join(entry.parameters)
            raise DataError(f"{alert_type}: unknown parameter {shortened(key)}; expected no other than {expected}")
    return {key: _checked_value(entry, key, parameters) for key in entry.parameters}


def _checked_value(entry: AlertType, key: str, parameters: Mapping[str, object]) -> Value:
    default = entry.parameters[key]
    is_dial = key == entry.dial.name
    if key not in parameters:
        if is_dial and entry.dial.steps[0] > 0:
            raise DataError(f"{entry.key}: no {key!r}; expected {_EXPECTED[key]}, such as {default!r}")
        return default
    value = parameters[key]
    if is_dial:
        number = _checked_number(entry, value)
        if number is None:
            least = ", above 0" if key == "amount" and entry.dial.steps[0] > 0 else ""
            raise DataError(
                f"{entry.key}: {key} is {shortened(value)}; expected {_EXPECTED[key]}{least}, such as {default!r}"
            )
        return number
    choices = _CHOICES.get(key, (default,))
    if not isinstance(value, str) or value not in choices:
        raise DataError(f"{entry.key}: {key} is {shortened(value)}; expected {' or '.join(map(repr, choices))}")
    return value


_EXPECTED = {
    "amount": f"an amount of at most {MAX_AMOUNT:,.0f} with at most two decimals",
    "count": "a whole number of at least 1",
    "percent": "a number above 0",
}


def _checked_number(entry: AlertType, value: object) -> float | int | None:
    """Return a number that the dial takes, None for any other value; a bool and a number as text are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value) + 0.0  # -0.0 becomes 0.0
    except OverflowError:
        return None
    if not (math.isfinite(number) and number >= 0):
        return None
    match entry.dial.name:
        case "amount":
            fits = number <= MAX_AMOUNT and round(number, 2) == number and (number > 0 or entry.dial.steps[0] == 0)
            return number if fits else None
        case "count":
            return int(number) if number >= 1 and number.is_integer() else None
        case _:
            return number if number > 0 else None
