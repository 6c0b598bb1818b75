"""The second walk, over the charges of each single amount; those of which it can tell nothing are dropped before."""

from __future__ import annotations

import numpy as np

from alertrec.recurring.charges import Charges, by_amount, one_a_day
from alertrec.recurring.rhythms import Integers
from alertrec.recurring.walk import Runs, walk

# Odd numbers without a pattern: what is multiplied by them is scattered over the upper bits.
_FACTORS = (
    (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)),
    (np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)),
)
_SPARSE_BITS = 2  # four times as many numbers as charges


def walk_amounts(charges: Charges, every: Runs) -> Runs:
    """Walk the charges of each amount at each merchant; `every` are the runs of all of a merchant's charges."""
    return walk(one_a_day(by_amount(_not_in_one_run(_alike(charges), charges, every))))


def _alike(charges: Charges) -> Charges:
    """Return the charges that are not the only ones of their amount at their merchant, and a few others."""
    # Most are the only ones. Those that share a number with another, twice over, are so few that they can be sorted.
    found = charges
    for factors in _FACTORS:
        numbers = _scattered(found, *factors)
        found = found.take(np.flatnonzero(np.bincount(numbers).take(numbers) > 1))
    return found


def _scattered(charges: Charges, key_factor: np.uint64, amount_factor: np.uint64) -> Integers:
    """Return a number of each charge, the same for the same key and amount, and for few others."""
    mixed = charges.key.view(np.uint64) * key_factor + charges.amount.view(np.uint64) * amount_factor
    bits = len(mixed).bit_length() + _SPARSE_BITS
    return (mixed >> np.uint64(64 - bits)).view(np.int64)


def _not_in_one_run(alike: Charges, charges: Charges, every: Runs) -> Charges:
    """Return the charges but those at merchants of which all charges stand in one run: nothing hides there."""
    key = every.charges.key[every.standing]
    n_charges = np.searchsorted(charges.key, key, side="right") - np.searchsorted(charges.key, key)
    return alike.take(~np.isin(alike.key, key[every.position[every.standing] == n_charges]))
