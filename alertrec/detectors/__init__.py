"""When a rule with these parameters would have fired on these transactions, exactly."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from alertrec.catalog import BY_KEY, Parameters
from alertrec.detectors import kinds
from alertrec.detectors.events import Events, in_window
from alertrec.detectors.kinds import DETECTORS
from alertrec.detectors.parameters import checked
from alertrec.detectors.streams import recurring_streams
from alertrec.ledger import USER_ID, Floats, Ledger, Mask

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "DETECTORS",
    "Events",
    "can_fire",
    "detect",
    "firings",
    "fixed_parameters",
    "in_window",
    "least_dials",
    "recurring_streams",
]

Frame = TypeVar("Frame", "pd.DataFrame", pl.DataFrame)


def firings(
    alert_type: str,
    parameters: Parameters,
    users: Frame,
    transactions: Frame,
    *,
    as_of: datetime | None = None,
) -> Frame:
    """Return when a rule would have fired for each of some users.

    Amounts, counts and percentages above the threshold fire, not those at it. Days are those of the user's
    `time_zone`, or UTC; weeks are ISO weeks. A week's or a day's rule fires once, at the purchase that passes the
    threshold. Refunds never fire, and are not taken off what was spent: the alert had been sent by then; they lower the
    balance. Declined, cancelled and reversed transactions never happened. Of rows with one `id` the first counts; two
    rows alike but for their ids are two purchases.

    Parameters
    ----------
    alert_type : str
        A key of the catalogue.
    parameters : mapping
        As the rule's JSON has them, such as `{"amount": 250.0}`.
    users, transactions : pandas or polars frames, as `build_user_features` takes them
        Users may have `time_zone`, the name of an IANA zone; one that is not known counts as UTC.
    as_of : datetime, optional
        Transactions dated later are not seen, and `credit_balance` is the balance then. By default all are seen.

    Returns
    -------
    Frame of the kind that came in: `user_id`, `at` (UTC without a zone), `merchant_name`, `amount`, `transaction_id`
    (null where transactions have no `id`): by user in their order, then by time.

    Raises
    ------
    DataError
        If there is no such alert type, or the parameters are not those of its rules.
    """
    if isinstance(users, pl.DataFrame) and isinstance(transactions, pl.DataFrame):
        return _firings(alert_type, parameters, Ledger.of(users, transactions, as_of))
    return _firings(alert_type, parameters, Ledger.of_pandas(users, transactions, as_of)).to_pandas()


def detect(ledger: Ledger, alert_type: str, parameters: Parameters) -> Events:
    """Return the events of an alert type; of the parameters, only the dial does not matter."""
    return DETECTORS[BY_KEY[alert_type].detector](ledger, parameters)


def can_fire(ledger: Ledger, alert_type: str, parameters: Parameters) -> Mask:
    """Return which accounts have what such a rule watches, shape (n_users,)."""
    return kinds.can_fire(ledger, BY_KEY[alert_type].detector, parameters)


def least_dials(ledger: Ledger, alert_type: str) -> Floats:
    """Return the least number above which rules of this type can fire as things stand, shape (n_users,)."""
    return kinds.least_dials(ledger, BY_KEY[alert_type].detector)


def fixed_parameters(ledger: Ledger, alert_type: str, user: int) -> Parameters:
    """Return the parameters of a type's rules for one user; that of the dial is the catalogue's."""
    parameters = BY_KEY[alert_type].parameters
    return {**parameters, "scope": kinds.home_scope(ledger, user)} if "scope" in parameters else parameters


def _firings(alert_type: str, parameters: Parameters, ledger: Ledger) -> pl.DataFrame:
    rule = checked(alert_type, parameters)
    events = detect(ledger, alert_type, rule)
    dial = float(rule[BY_KEY[alert_type].dial.name])
    fired = ledger.dated[events.entry[events.fired(dial)]]
    transaction_id = pl.col("id") if "id" in fired.columns else pl.lit(None, pl.String)
    return fired.select(
        ledger.accounts[USER_ID].gather(fired["user"]).alias(USER_ID),
        "at",
        "merchant_name",
        "amount",
        transaction_id.alias("transaction_id"),
    )
