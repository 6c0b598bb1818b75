"""The columns that an import takes, how each is parsed, and why a row is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from alertrec.catalog import ALERT_KEYS
from alertrec.importing import parsing
from alertrec.transactions import PURCHASE, SETTLED, STATUSES, TRANSACTION_TYPES

USERS, TRANSACTIONS, ALERT_RULES = "users", "transactions", "alert_rules"

ID, USER_ID = "id", "user_id"
CREDIT_LIMIT = "credit_limit"
CREATED_AT, UPDATED_AT = "created_at", "updated_at"

MALFORMED_ROW = "malformed_row"
INVALID_TEXT = "invalid_text"
MISSING_ID = "missing_id"
DUPLICATE_ID = "duplicate_id"
UNKNOWN_USER = "unknown_user"
UNPARSABLE_AMOUNT = "unparsable_amount"
UNPARSABLE_DATE = "unparsable_date"
UNPARSABLE_NUMBER = "unparsable_number"
NEGATIVE_LIMIT = "negative_limit"
UNPARSABLE_BOOLEAN = "unparsable_boolean"
UNPARSABLE_PARAMETERS = "unparsable_parameters"
UNKNOWN_TIME_ZONE = "unknown_time_zone"
UNKNOWN_TYPE = "unknown_type"
UNKNOWN_STATUS = "unknown_status"
UNKNOWN_ALERT_TYPE = "unknown_alert_type"

_NUMBER = "a finite number below 10^14, such as 12.50"
EXPECTED = {
    MALFORMED_ROW: "as many fields as the header has",
    INVALID_TEXT: "UTF-8 without a NUL, and of an id at most 1000 bytes",
    MISSING_ID: "an id",
    UNKNOWN_USER: "the id of a user in the users' file or in the database",
    UNPARSABLE_AMOUNT: _NUMBER,
    UNPARSABLE_DATE: "a time of the years 1900 to 2200, in ISO 8601 or the date_format of the mapping",
    UNPARSABLE_NUMBER: _NUMBER,
    NEGATIVE_LIMIT: "a number of at least 0",
    UNPARSABLE_BOOLEAN: "true, t, yes, y, 1, false, f, no, n or 0",
    UNPARSABLE_PARAMETERS: 'a JSON object, such as {"amount": 500}',
    UNKNOWN_TIME_ZONE: "the name of an IANA zone, such as Europe/Prague",
    UNKNOWN_TYPE: f"one of {', '.join(TRANSACTION_TYPES)}",
    UNKNOWN_STATUS: f"one of {', '.join(STATUSES)}",
    UNKNOWN_ALERT_TYPE: f"one of {', '.join(ALERT_KEYS)}",
    DUPLICATE_ID: "an id that no row before it has",
}
"""What a row lacks that is refused, by reason; of several reasons that fit a row, the first in this order is given."""

REASONS = tuple(EXPECTED)


@dataclass(frozen=True)
class Field:
    """One column of a relation.

    Attributes
    ----------
    parse : callable
        Series as the file holds it → series as it is stored, null where unusable.
    reason : str
        Why a row is refused whose value is given but unusable, or missing although required.
    default : str, bool or None
        Takes the place of a missing value; None leaves it NULL.
    """

    name: str
    parse: Callable[[pl.Series], pl.Series]
    reason: str
    required: bool = False
    default: str | bool | None = None


def _texts(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name, parsing.parse_text, INVALID_TEXT) for name in names)


_ID = Field(ID, parsing.parse_key, MISSING_ID, required=True)
_USER_ID = Field(USER_ID, parsing.parse_key, UNKNOWN_USER, required=True)
_IS_ACTIVE = Field("is_active", parsing.parse_flag, UNPARSABLE_BOOLEAN, default=True)
_CREATED_AT = Field(CREATED_AT, parsing.parse_time, UNPARSABLE_DATE)

FIELDS: dict[str, tuple[Field, ...]] = {
    USERS: (
        _ID,
        _IS_ACTIVE,
        Field(CREDIT_LIMIT, parsing.parse_money, UNPARSABLE_NUMBER),
        Field("credit_balance", parsing.parse_money, UNPARSABLE_NUMBER),
        *_texts("address_city", "address_state", "address_country"),
        Field("location_consent_given", parsing.parse_flag, UNPARSABLE_BOOLEAN),
        _CREATED_AT,
        Field("time_zone", parsing.parse_time_zone, UNKNOWN_TIME_ZONE),
    ),
    TRANSACTIONS: (
        _ID,
        _USER_ID,
        Field("amount", parsing.parse_money, UNPARSABLE_AMOUNT, required=True),
        *_texts("currency", "merchant_name", "merchant_category"),
        *_texts("merchant_city", "merchant_state", "merchant_country"),
        Field("transaction_date", parsing.parse_time, UNPARSABLE_DATE, required=True),
        Field("transaction_type", parsing.parse_transaction_type, UNKNOWN_TYPE, default=PURCHASE),
        Field("status", parsing.parse_status, UNKNOWN_STATUS, default=SETTLED),
    ),
    ALERT_RULES: (
        _ID,
        _USER_ID,
        Field("alert_type", parsing.parse_alert_type, UNKNOWN_ALERT_TYPE),
        *_texts("natural_language_query"),
        _IS_ACTIVE,
        Field("parameters", parsing.parse_object, UNPARSABLE_PARAMETERS),
        _CREATED_AT,
        Field(UPDATED_AT, parsing.parse_time, UNPARSABLE_DATE),
    ),
}
"""The fields by relation, in the order in which the relations are loaded."""
