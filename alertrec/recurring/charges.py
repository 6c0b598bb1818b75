"""Charges in the order that they are walked in: by what they have in common, then by time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alertrec.recurring.rhythms import Integers

_CENT = 100  # ten-thousandths


@dataclass(frozen=True)
class Charges:
    """Charges by key, then time; those of a key are walked as one row."""

    place: Integers  # in the ledger
    key: Integers
    day: Integers
    amount: Integers

    def take(self, chosen: NDArray[np.bool_] | Integers) -> Charges:
        """Return some of the charges."""
        return Charges(self.place[chosen], self.key[chosen], self.day[chosen], self.amount[chosen])

    def same_cents(self, one: Integers, other: Integers) -> NDArray[np.bool_]:
        """Return which pairs of charges are equal to the cent."""
        half = _CENT // 2
        return np.asarray((self.amount[one] + half) // _CENT == (self.amount[other] + half) // _CENT)


def by_merchant(user: Integers, merchant: Integers, day: Integers, amount: Integers) -> Charges:
    """Return the charges at merchants that have a name, with a key for each user and merchant."""
    place = np.flatnonzero(merchant >= 0)
    if not len(place):
        return Charges(place, place, place, place)
    key = user[place] * (int(merchant.max()) + 1) + merchant[place]
    # Key and place in one number: sorting numbers is several times as fast as a stable sort of places by their keys.
    bits = len(user).bit_length()
    assert int(key.max()).bit_length() + bits < 64, "more users, merchants and charges than fit into one sort"
    packed = (key << bits) | place
    packed.sort()
    place, key = packed & ((1 << bits) - 1), packed >> bits
    return Charges(place, key, day[place], amount[place])


def by_amount(charges: Charges) -> Charges:
    """Return charges by merchant with a key for each user, merchant and amount."""
    found = charges.take(np.lexsort((charges.amount, charges.key)))
    differ = np.append(0, (found.key[1:] != found.key[:-1]) | (found.amount[1:] != found.amount[:-1]))
    return Charges(found.place, np.cumsum(differ)[: len(found.key)], found.day, found.amount)


def one_a_day(charges: Charges) -> Charges:
    """Return the first charge of each day."""
    same_day = (charges.key[1:] == charges.key[:-1]) & (charges.day[1:] <= charges.day[:-1])
    return charges.take(np.append(True, ~same_day)) if same_day.any() else charges
