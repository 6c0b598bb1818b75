"""Arrays in the order of a ledger: where a group begins, and what adds up within it."""

from __future__ import annotations

import numpy as np
import polars as pl

from alertrec.ledger import Ints, Mask


def starts_of(*keys: Ints) -> Mask:
    """Return where any of some keys differs from the place before; equal ones stand together."""
    starts = np.zeros(len(keys[0]), dtype=bool)
    starts[:1] = True
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return starts


def running_total(values: Ints, starts: Mask) -> Ints:
    """Return the sum of each group up to each place, itself included; exact, since the numbers are whole."""
    total = np.cumsum(values)
    at = np.flatnonzero(starts)
    before = np.concatenate([[0], total[at[1:] - 1]]) if len(at) else at
    return total - np.repeat(before, np.diff(np.append(at, len(values))))


def is_first(group: Ints, member: Ints) -> Mask:
    """Return where a member of a group comes for the first time; both are numbers from 0 on."""
    key = group * (member.max(initial=0) + 1) + member
    return pl.Series(key).is_first_distinct().to_numpy()
