"""The detectors: each turns a ledger into the events of one kind of rule, for all users at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import polars as pl

from alertrec.catalog import Parameters
from alertrec.detectors.events import Events
from alertrec.detectors.parameters import SCOPES
from alertrec.detectors.runs import is_first, running_total, starts_of
from alertrec.ledger import UNITS, Floats, Ints, Ledger, Mask, place
from alertrec.transactions import BALANCE_RAISED_BY

Detector = Callable[[Ledger, Parameters], Events]

STATE, COUNTRY = SCOPES
_MONDAY = 3  # the epoch was a Thursday, three days after a Monday


def weekly_total(ledger: Ledger, _: Parameters) -> Events:
    """Return the purchases by which the total of an ISO week passes each amount."""
    entry = ledger.purchases
    week = (ledger.day[entry] + _MONDAY) // 7
    total = running_total(ledger.units[entry], starts_of(ledger.user[entry], week))
    return Events(entry, (total - ledger.units[entry]) / UNITS, total / UNITS)


def daily_purchases(ledger: Ledger, _: Parameters) -> Events:
    """Return the purchases by which the number of purchases of a day passes each count."""
    entry = ledger.purchases
    number = running_total(np.ones_like(entry), starts_of(ledger.user[entry], ledger.day[entry])).astype(np.float64)
    return Events(entry, number - 1, number)


def daily_merchants(ledger: Ledger, _: Parameters) -> Events:
    """Return the purchases by which the number of different merchants of a day passes each count."""
    entry = ledger.purchases[ledger.merchant[ledger.purchases] >= 0]
    day = np.cumsum(starts_of(ledger.user[entry], ledger.day[entry]), dtype=np.int64)  # a number a user and day
    entry = entry[is_first(day, ledger.merchant[entry])]
    number = running_total(np.ones_like(entry), starts_of(ledger.user[entry], ledger.day[entry])).astype(np.float64)
    return Events(entry, number - 1, number)


def purchase(ledger: Ledger, _: Parameters) -> Events:
    """Return every purchase."""
    return Events.below(ledger.purchases, ledger.amount[ledger.purchases])


def first_purchase(ledger: Ledger, _: Parameters) -> Events:
    """Return the purchases at a merchant where the user was not seen before in the history that is known."""
    entry = ledger.purchases[ledger.merchant[ledger.purchases] >= 0]
    entry = entry[is_first(ledger.user[entry], ledger.merchant[entry])]
    return Events.below(entry, ledger.amount[entry])


def away_from_home(ledger: Ledger, parameters: Parameters) -> Events:
    """Return the purchases outside the user's home state or country, by the parameter `scope`.

    Where either side is unknown, as with most online purchases, nothing is told. Another country is another state.
    """
    away = _differs(ledger, COUNTRY)
    if parameters["scope"] == STATE:
        away |= _differs(ledger, STATE)
    entry = np.flatnonzero(away & ledger.is_purchase)
    return Events.below(entry, ledger.amount[entry])


def utilization(ledger: Ledger, _: Parameters) -> Events:
    """Return the movements by which the balance passes each percentage of the credit limit.

    The balance is walked back from the account's present one. Where it would have been below zero, a payment that is
    not among the transactions lies between; before that, the balance is not known and nothing is told.
    """
    has_balance = ledger.accounts["has_balance"].to_numpy()
    entry = np.flatnonzero(has_balance[ledger.user])
    user = ledger.user[entry]
    raises = ledger.dated["transaction_type"].is_in(list(BALANCE_RAISED_BY)).to_numpy()[entry]
    effect = np.where(raises, ledger.units[entry], -ledger.units[entry])
    # From the last entry back: what all entries from this one on have moved.
    moved = running_total(effect[::-1], starts_of(user[::-1]))[::-1]
    before = _units(ledger, "credit_balance")[user] - moved
    known = running_total((before[::-1] < 0).astype(np.int64), starts_of(user[::-1]))[::-1] == 0
    limit = _units(ledger, "credit_limit")[user]
    kept = known & raises
    # One division of whole numbers, so that exactly 57 % is 57.0 and not above it.
    low, high = (100.0 * each[kept] / limit[kept] for each in (before, before + effect))
    return Events(entry[kept], low, high)


def recurring_charge(ledger: Ledger, _: Parameters) -> Events:
    """Return the charges by which a stream is new, which fire every rule, or costs more than the time before."""
    found = ledger.streams
    entry = np.flatnonzero(found.is_new | (found.rise > 0))
    purchases = ledger.purchases
    return Events.below(purchases[entry], np.where(found.is_new[entry], np.inf, found.rise[entry]))


DETECTORS: Mapping[str, Detector] = MappingProxyType(
    {
        each.__name__: each
        for each in (
            weekly_total,
            daily_purchases,
            daily_merchants,
            utilization,
            purchase,
            first_purchase,
            away_from_home,
            recurring_charge,
        )
    }
)


def can_fire(ledger: Ledger, detector: str, parameters: Parameters) -> Mask:
    """Return which accounts have what a rule watches: a credit limit and balance, a home; shape (n_users,)."""
    accounts = ledger.accounts
    if detector == utilization.__name__:
        return accounts["has_balance"].to_numpy()
    if detector == away_from_home.__name__:
        known = accounts["home_country"].is_not_null()
        return (known | accounts["home_state"].is_not_null() if parameters["scope"] == STATE else known).to_numpy()
    return np.ones(ledger.n_users, dtype=bool)


def least_dials(ledger: Ledger, detector: str) -> Floats:
    """Return the least number above which a rule can fire as things stand, -inf where any can; shape (n_users,).

    A utilisation can pass only what is at or above the present one: below it, it would have to fall first.
    """
    if detector != utilization.__name__:
        return np.full(ledger.n_users, -np.inf)
    return 100.0 * ledger.accounts["credit_utilization"].to_numpy()


def home_scope(ledger: Ledger, user: int) -> str:
    """Return the narrowest scope that is known of a user's home."""
    return COUNTRY if ledger.accounts["home_state"][user] is None else STATE


def _differs(ledger: Ledger, of: str) -> Mask:
    """Return where the merchant's state or country is known and not that of the user's home."""
    there = ledger.dated.select(place(pl.col(f"merchant_{of}"))).to_series()
    home = ledger.accounts[f"home_{of}"].gather(ledger.user)
    return (there != home).fill_null(False).to_numpy().copy()


def _units(ledger: Ledger, column: str) -> Ints:
    values: Floats = ledger.accounts[column].to_numpy()
    return np.rint(values * UNITS).astype(np.int64)
