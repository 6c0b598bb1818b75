"""The columns that an import takes, how each is parsed, and why a row is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from alertrec.importing import parsing
from alertrec.transactions import PURCHASE, SETTLED

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

REASONS = (
    MALFORMED_ROW,
    INVALID_TEXT,
    MISSING_ID,
    UNKNOWN_USER,
    UNPARSABLE_AMOUNT,
    UNPARSABLE_DATE,
    UNPARSABLE_NUMBER,
    NEGATIVE_LIMIT,
    UNPARSABLE_BOOLEAN,
    UNPARSABLE_PARAMETERS,
    UNKNOWN_TIME_ZONE,
    UNKNOWN_TYPE,
    UNKNOWN_STATUS,
    UNKNOWN_ALERT_TYPE,
    DUPLICATE_ID,
)
"""Every reason; of several that fit a row, the first in this order is given."""


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
