"""What the users of a made-up bank are and do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alertrec.sample_bank.vocabulary import (
    ABROAD,
    CATEGORIES,
    FEE_MERCHANT,
    HOMES,
    KINDS,
    NOWHERE,
    PAYMENT_MERCHANT,
    PER_CATEGORY,
    SEGMENTS,
    SUBSCRIPTIONS,
)
from alertrec.transactions import FEE, PAYMENT, PURCHASE, REFUND

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DAY = 86_400  # seconds


@dataclass(frozen=True)
class Users:
    """Draws of the users, all of shape (n_users,)."""

    segment: Ints
    home: Ints
    scale: Floats
    pace: Floats  # 0 for those who buy nothing
    favourite: Ints
    limit: Floats
    utilization: Floats

    def of_segment(self, name: str) -> Floats:
        return np.array([getattr(each, name) for each in SEGMENTS], dtype=float)[self.segment]


@dataclass(frozen=True)
class Charges:
    """Rows of transactions to be; `second` counts from the epoch, `place` indexes the cities."""

    user: Ints
    second: Ints
    amount: Floats
    merchant: Ints  # index into `merchants()`
    place: Ints
    kind: Ints  # index into `KINDS`

    def where(self, chosen: NDArray[Any]) -> Charges:
        return Charges(**{name: values[chosen] for name, values in vars(self).items()})


def draw_users(rng: np.random.Generator, n_users: int) -> Users:
    """Return the users: their segments, homes, limits and pace."""
    segment = rng.choice(len(SEGMENTS), n_users, p=[each.share for each in SEGMENTS])
    limits = np.array([each.limit for each in SEGMENTS])[segment]
    typical = np.array([each.utilization for each in SEGMENTS])[segment]
    quiet = rng.random(n_users) < 0.02
    return Users(
        segment=segment,
        home=(rng.random(n_users) ** 1.6 * len(HOMES)).astype(int),
        scale=rng.lognormal(0, 0.25, n_users),
        pace=np.where(quiet, 0.0, rng.gamma(8, 1 / 8, n_users)),
        favourite=rng.integers(0, 12, n_users),
        limit=np.maximum(500, np.round(limits * rng.lognormal(0, 0.35, n_users), -2)),
        utilization=rng.beta(6 * typical, 6 * (1 - typical)),
    )


def draw_charges(rng: np.random.Generator, users: Users, *, start: int, end: int) -> Charges:
    """Return all charges from `start` to before `end`, by time; both count seconds from the epoch."""
    # Drawn in whole days, of which the parts before `start` and after `end` are dropped.
    first_day, days = start // DAY, (end - start) // DAY + 1
    purchases = [draw(rng, users, first_day=first_day, days=days) for draw in (_shopping, _trips, _subscriptions)]
    bought = _joined(purchases)
    charges = _joined([bought, _refunds(rng, bought), _bank_side(rng, users, first_day=first_day, days=days)])
    charges = charges.where((charges.second >= start) & (charges.second < end))
    return charges.where(np.lexsort((charges.user, charges.second)))


def _joined(parts: list[Charges]) -> Charges:
    return Charges(**{name: np.concatenate([getattr(each, name) for each in parts]) for name in vars(parts[0])})


def _shopping(rng: np.random.Generator, users: Users, *, first_day: int, days: int) -> Charges:
    user = np.repeat(np.arange(len(users.pace)), rng.poisson(users.of_segment("per_day") * users.pace * days))
    day, category = np.empty_like(user), np.empty_like(user)
    for index, segment in enumerate(SEGMENTS):
        mine = np.flatnonzero(users.segment[user] == index)
        # The epoch was a Thursday: days 2 and 3 after it are the weekend.
        weekday = (first_day + np.arange(days)) % 7
        day[mine] = _weighted(rng, np.where((weekday == 2) | (weekday == 3), segment.weekend, 1.0), len(mine))
        category[mine] = _weighted(rng, np.array(segment.taste), len(mine))
    second = (first_day + day) * DAY + _second_of_day(rng, users.of_segment("night")[user])
    merchant = _merchant(rng, users, user, category)
    return _purchases(user, second, _amount(rng, users, user, category), merchant=merchant, place=users.home[user])


def _purchases(user: Ints, second: Ints, amount: Floats, *, merchant: Ints, place: Ints) -> Charges:
    return Charges(user, second, amount, merchant, place, np.full(len(user), KINDS.index(PURCHASE)))


def _weighted(rng: np.random.Generator, weights: Floats, size: int) -> Ints:
    edges = np.cumsum(weights) / weights.sum()
    return np.minimum(np.searchsorted(edges, rng.random(size), side="right"), len(weights) - 1)


def _second_of_day(rng: np.random.Generator, night: Floats) -> Ints:
    by_day = np.clip(rng.normal(14.0, 3.5, len(night)), 7.0, 21.99)
    by_night = 22.0 + 6.0 * rng.random(len(night))
    hour = np.where(rng.random(len(night)) < night, by_night, by_day) % 24
    return (hour * 3600).astype(int)


def _merchant(rng: np.random.Generator, users: Users, user: Ints, category: Ints) -> Ints:
    # A power of a uniform draw falls off like Zipf's law; the user's favourite shifts whose head it is.
    rank = (PER_CATEGORY * rng.random(len(user)) ** users.of_segment("loyalty")[user]).astype(int)
    return category * PER_CATEGORY + (rank + users.favourite[user]) % PER_CATEGORY


def _amount(rng: np.random.Generator, users: Users, user: Ints, category: Ints) -> Floats:
    typical = np.array([each.typical for each in CATEGORIES])[category]
    spread = np.array([each.spread for each in CATEGORIES])[category]
    scale = users.scale[user] * users.of_segment("scale")[user]
    return np.maximum(0.5, np.round(typical * scale * np.exp(spread * rng.standard_normal(len(user))), 2))


def _trips(rng: np.random.Generator, users: Users, *, first_day: int, days: int) -> Charges:
    expected = users.of_segment("trips") * days / 180 * (users.pace > 0)
    traveller = np.repeat(np.arange(len(users.pace)), rng.poisson(expected))
    n_trips = len(traveller)
    # The first homes are the big cities; one destination in four is abroad, and nobody travels home.
    domestic = (users.home[traveller] + rng.integers(1, len(HOMES), n_trips)) % len(HOMES)
    abroad = len(HOMES) + rng.integers(0, len(ABROAD), n_trips)
    place = np.where(rng.random(n_trips) < 0.25, abroad, domestic)
    first, nights = rng.integers(0, days, n_trips), rng.integers(2, 9, n_trips)
    trip = np.repeat(np.arange(n_trips), rng.poisson(1.8 * nights))
    user = traveller[trip]
    category = rng.choice([1, 1, 1, 2, 4, 6, 9, 9, 10], len(trip))
    day = first[trip] + (rng.random(len(trip)) * nights[trip]).astype(int)
    second = (first_day + day) * DAY + _second_of_day(rng, users.of_segment("night")[user])
    merchant = category * PER_CATEGORY + rng.integers(0, PER_CATEGORY, len(trip))
    return _purchases(user, second, _amount(rng, users, user, category), merchant=merchant, place=place[trip])


def _subscriptions(rng: np.random.Generator, users: Users, *, first_day: int, days: int) -> Charges:
    expected = users.of_segment("subscriptions") * (users.pace > 0)
    owner = np.repeat(np.arange(len(users.pace)), rng.poisson(expected))
    n_owned = len(owner)
    service = rng.integers(0, len(SUBSCRIPTIONS), n_owned)
    # The same service twice would be one merchant charging twice a month.
    _, once = np.unique(owner * len(SUBSCRIPTIONS) + service, return_index=True)
    owner, service, n_owned = owner[once], service[once], len(once)
    price = np.array([price for _, price, _ in SUBSCRIPTIONS], dtype=float)[service]
    every = np.array([every for _, _, every in SUBSCRIPTIONS], dtype=float)[service]
    begins = np.where(rng.random(n_owned) < 0.7, 0, rng.integers(0, days, n_owned))
    ends = np.where(rng.random(n_owned) < 0.85, days, rng.integers(0, days, n_owned))
    dearer_from = np.where(rng.random(n_owned) < 0.35, rng.integers(0, days, n_owned), days)
    rise = 1 + np.round(rng.uniform(0.06, 0.25, n_owned), 2)
    phase = rng.random(n_owned) * every
    day = np.round(phase[:, None] + every[:, None] * np.arange(days // 7 + 1)).astype(int)
    owned, charge = np.nonzero((day >= begins[:, None]) & (day < ends[:, None]))
    day = day[owned, charge]
    amount = np.round(price[owned] * np.where(day >= dearer_from[owned], rise[owned], 1.0), 2)
    merchant = PER_CATEGORY * len(CATEGORIES) + service[owned]
    second = (first_day + day) * DAY + rng.integers(0, DAY, len(day))
    return _purchases(owner[owned], second, amount, merchant=merchant, place=np.full(len(day), NOWHERE))


def _refunds(rng: np.random.Generator, bought: Charges) -> Charges:
    returned = bought.where(np.flatnonzero(rng.random(len(bought.user)) < 0.01))
    later = returned.second + rng.integers(DAY, 14 * DAY, len(returned.second))
    kind = np.full(len(later), KINDS.index(REFUND))
    return Charges(returned.user, later, returned.amount, returned.merchant, returned.place, kind)


def _bank_side(rng: np.random.Generator, users: Users, *, first_day: int, days: int) -> Charges:
    """Draw the monthly payment of each card, and now and then a fee for being late."""
    paying = np.flatnonzero(users.pace > 0)
    day = rng.integers(0, 28, len(paying))[:, None] + 30 * np.arange(days // 30 + 1)
    user = np.repeat(paying, day.shape[1])
    second = (first_day + day.ravel()) * DAY + rng.integers(8 * 3600, 20 * 3600, day.size)
    is_fee = rng.random(len(user)) < 0.04
    amount = np.where(
        is_fee, 29.0, np.round(users.limit[user] * users.utilization[user] * rng.uniform(0.2, 0.6, len(user)))
    )
    merchant = np.where(is_fee, FEE_MERCHANT, PAYMENT_MERCHANT)
    kind = np.where(is_fee, KINDS.index(FEE), KINDS.index(PAYMENT))
    return Charges(user, second, np.maximum(amount, 5.0), merchant, np.full(len(user), NOWHERE), kind)
