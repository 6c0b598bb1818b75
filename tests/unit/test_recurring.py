from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from itertools import accumulate

import numpy as np
import pytest

from alertrec.recurring import FREQUENCIES, STATUSES, Frequency, Status, Streams, find_streams

LONG_AGO, NEW_YEAR = date(2023, 1, 1), date(2025, 1, 1)
EPOCH = date(1970, 1, 1)

Charge = tuple[date, float, str | None]


def days(*dates: date) -> np.ndarray:
    return np.array([(each - EPOCH).days for each in dates], np.int64)


def find(*charges: Charge, known_since: date = LONG_AGO, until: date | None = None) -> Streams:
    """Find the streams of one user; merchants are numbered in the order of their names."""
    ledger = sorted(charges, key=lambda each: each[0])
    names = sorted({name for _, _, name in charges if name is not None})
    return find_streams(
        np.zeros(len(ledger), np.int64),
        np.array([-1 if name is None else names.index(name) for _, _, name in ledger], np.int64),
        days(*(day for day, _, _ in ledger)),
        np.array([round(amount * 10_000) for _, amount, _ in ledger], np.int64),
        known_since=days(known_since),
        until=days(until or (ledger[-1][0] if ledger else NEW_YEAR)),
    )


def every(gaps: Iterable[int], amounts: float | Iterable[float] = 10.0, name: str | None = "shop") -> list[Charge]:
    """Return charges from New Year on, so many days apart."""
    dates = [NEW_YEAR + timedelta(after) for after in accumulate(gaps, initial=0)]
    prices = [amounts] * len(dates) if isinstance(amounts, float) else list(amounts)
    return [(day, price, name) for day, price in zip(dates, prices, strict=True)]


def on_days(dates: Iterable[date], amount: float = 10.0, name: str = "shop") -> list[Charge]:
    return [(day, amount, name) for day in dates]


def stand(streams: Streams) -> list[tuple[Frequency, Status, int]]:
    """Return frequency, status and number of charges of every stream."""
    columns = (streams.frequency.tolist(), streams.status.tolist(), streams.n_charges.tolist())
    return [(FREQUENCIES[frequency], STATUSES[status], n) for frequency, status, n in zip(*columns, strict=True)]


def rises(streams: Streams) -> dict[int, float]:
    return {place: value for place, value in enumerate(streams.rise.tolist()) if value > -np.inf}


def new(streams: Streams) -> list[int]:
    return np.flatnonzero(streams.is_new).tolist()


NETFLIX = [date(2025, month, 15) for month in range(1, 7)]


def test_netflix_is_charged_monthly_and_rises_by_15_percent():
    prices = [10.0, 10.0, 10.0, 10.0, 11.5, 11.5]
    streams = find(*((day, price, "netflix") for day, price in zip(NETFLIX, prices, strict=True)))
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 6)]
    assert rises(streams) == {4: 15.0}  # 100 · (11.50 − 10) / 10
    assert new(streams) == [1]  # two equal charges a month apart
    assert (streams.user.tolist(), streams.merchant.tolist()) == ([0], [0])
    assert (streams.first_day, streams.last_day) == (days(NETFLIX[0]), days(NETFLIX[-1]))
    assert (streams.first_amount, streams.last_amount, streams.total_amount) == (100_000, 115_000, 630_000)
    assert streams.next_day == days(date(2025, 7, 15))


def test_a_charge_that_was_declined_is_skipped_over():
    # Without April: gaps of 31, 28, 61 and 31 days; 61 lies within 55 to 66.
    streams = find(*on_days(NETFLIX[:3] + NETFLIX[4:]))
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 5)]
    assert new(streams) == [1]


def test_a_rise_over_a_skipped_charge_is_a_rise():
    assert rises(find(*every([31, 28, 61], [10.0, 10.0, 10.0, 12.0]))) == {3: 20.0}


def test_coffee_every_morning_is_a_habit():
    streams = find(*every([1] * 100, 3.5))
    assert (stand(streams), new(streams), rises(streams)) == ([], [], {})


@pytest.mark.parametrize("gap", [2, 3, 4, 5])
def test_nothing_recurs_more_often_than_weekly(gap: int):
    assert stand(find(*every([gap] * 20))) == []


def test_a_meal_kit_comes_weekly():
    streams = find(*every([7, 7, 6, 8, 14, 7], 62.0))  # one week skipped
    assert stand(streams) == [(Frequency.WEEKLY, Status.MATURE, 7)]
    assert new(streams) == [2]
    assert streams.next_day == days(NEW_YEAR + timedelta(49 + 7))


def test_every_other_friday_is_biweekly():
    streams = find(*every([14, 14, 13, 15, 28]))  # 28: one skipped
    assert stand(streams) == [(Frequency.BIWEEKLY, Status.MATURE, 6)]
    assert streams.next_day == days(NEW_YEAR + timedelta(84 + 14))


def test_the_first_and_the_fifteenth_are_semi_monthly():
    # Gaps 14, 17, 14, 14, 14, 17: the second one makes of a fortnight half a month, for good.
    dates = [date(2025, month, day) for month in (1, 2, 3) for day in (1, 15)] + [date(2025, 4, 1)]
    streams = find(*on_days(dates))
    assert stand(streams) == [(Frequency.SEMI_MONTHLY, Status.MATURE, 7)]
    assert new(streams) == [2]
    assert streams.next_day == days(date(2025, 4, 16))


def test_twice_a_year_apart_is_annual_and_mature():
    streams = find((date(2023, 3, 1), 99.0, "club"), (date(2024, 2, 29), 110.0, "club"), known_since=date(2022, 1, 1))
    assert stand(streams) == [(Frequency.ANNUALLY, Status.MATURE, 2)]
    assert new(streams) == [1]
    assert rises(streams) == {1: pytest.approx(100 * 11 / 99)}
    assert streams.next_day == days(date(2025, 2, 28))


def test_a_cycle_of_28_days_is_monthly():
    assert stand(find(*every([28] * 6))) == [(Frequency.MONTHLY, Status.MATURE, 7)]


def test_an_even_gap_without_a_name_is_unknown():
    streams = find(*every([91, 91, 100, 82]))  # a tenth of 91 leaves nine days
    assert stand(streams) == [(Frequency.UNKNOWN, Status.MATURE, 5)]
    assert new(streams) == [2]
    assert streams.next_day == streams.last_day + 91


@pytest.mark.parametrize(("gap", "goes_on"), [(80, False), (81, True), (99, True), (100, False)])
def test_an_unknown_rhythm_leaves_a_tenth_of_its_period(gap: int, goes_on: bool):
    # At 80 the run of two ends; 80 days are a rhythm of their own, and the third charge is its second.
    assert stand(find(*every([90, gap]))) == ([(Frequency.UNKNOWN, Status.MATURE, 3)] if goes_on else [])


def test_two_equal_charges_are_early_those_that_differ_by_a_cent_are_none():
    assert stand(find(*every([30]))) == [(Frequency.MONTHLY, Status.EARLY_DETECTION, 2)]
    assert stand(find(*every([7]))) == [(Frequency.WEEKLY, Status.EARLY_DETECTION, 2)]
    assert stand(find(*every([30], [10.0, 10.01]))) == []
    assert stand(find(*every([90]))) == []  # no frequency with a name


def test_cents_are_rounded_before_they_are_compared():
    assert len(stand(find(*every([30], [10.0, 10.0049])))) == 1  # 10.00 and 10.00
    assert stand(find(*every([30], [10.0, 10.005]))) == []  # 10.01


def test_only_a_monthly_stream_is_new_by_its_second_charge_and_none_is_new_twice():
    assert new(find(*every([30, 30, 30]))) == [1]
    assert new(find(*every([30, 30, 30], [10.0, 10.5, 10.0, 10.0]))) == [2]
    assert new(find(*every([14, 14, 14]))) == [2]


@pytest.mark.parametrize(
    ("gaps", "longest"), [([7, 7], 15), ([14, 14], 30), ([16, 16], 35), ([30, 30], 66), ([365], 380), ([100, 100], 110)]
)
def test_a_stream_is_buried_the_day_after_its_longest_gap(gaps: list[int], longest: int):
    charges = every(gaps)
    last = charges[-1][0]
    alive, dead = (find(*charges, until=last + timedelta(longest + more)) for more in (0, 1))
    assert [status for _, status, _ in stand(alive)] == [Status.MATURE]
    assert [status for _, status, _ in stand(dead)] == [Status.TOMBSTONED]
    assert dead.next_day == -1
    assert alive.next_day > days(last)


def test_an_early_stream_is_buried_too():
    assert stand(find(*every([30]), until=date(2026, 1, 1))) == [(Frequency.MONTHLY, Status.TOMBSTONED, 2)]


def test_an_extra_purchase_in_between_is_left_out_of_a_mature_stream():
    # Days 0, 30, 60, 70, 90: ten days after the third charge comes another, dearer one.
    streams = find(*every([30, 30, 10, 20], [10.0, 10.0, 10.0, 15.0, 11.0]))
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 4)]
    assert streams.total_amount == 410_000  # 3 · 10 + 11
    assert rises(streams) == {4: 10.0}  # against the 10.00 of the stream


def test_an_extra_purchase_ends_a_run_that_is_not_mature():
    # Days 0, 30, 40, 60: 10 days are a rhythm of their own, 20 do not keep it, but start another.
    streams = find(*every([30, 10, 20]))
    assert (stand(streams), new(streams)) == ([], [1])


def test_a_stream_of_a_year_leaves_extra_purchases_out_from_its_second_charge_on():
    assert stand(find(*every([365, 100, 265]))) == [(Frequency.ANNUALLY, Status.MATURE, 3)]


def test_the_last_charge_of_a_run_that_ends_may_begin_the_next():
    # The gap of 14 days ends the monthly run of two, and makes a fortnightly one of its second charge and the third.
    assert stand(find(*every([30, 14, 14]))) == [(Frequency.BIWEEKLY, Status.MATURE, 3)]
    assert stand(find(*every([30, 14, 14], [10.0, 10.0, 11.0, 11.0]))) == [(Frequency.BIWEEKLY, Status.MATURE, 3)]
    # With amounts more than a tenth apart, the third begins anew with the fourth.
    apart = find(*every([30, 14, 14], [10.0, 10.0, 11.01, 11.01]))
    assert stand(apart) == [(Frequency.BIWEEKLY, Status.EARLY_DETECTION, 2)]


def test_a_run_begins_anew_with_the_charge_that_ended_the_one_before():
    streams = find(*every([30, 3, 30]))
    assert stand(streams) == [(Frequency.MONTHLY, Status.EARLY_DETECTION, 2)]
    assert (streams.first_day, streams.last_day) == (days(NEW_YEAR + timedelta(33)), days(NEW_YEAR + timedelta(63)))
    assert streams.total_amount == 200_000


def test_two_charges_of_one_day_count_as_the_first():
    day = NEW_YEAR + timedelta(30)
    streams = find(*every([30, 30]), (day, 99.0, "shop"))
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 3)]
    assert streams.total_amount == 300_000


BANDS = [
    (Frequency.WEEKLY, 6, 8),
    (Frequency.BIWEEKLY, 13, 15),
    (Frequency.SEMI_MONTHLY, 16, 19),
    (Frequency.MONTHLY, 25, 35),
    (Frequency.ANNUALLY, 350, 380),
]
UNKNOWN_BANDS = [(Frequency.UNKNOWN, 9, 11), (Frequency.UNKNOWN, 20, 24), (Frequency.UNKNOWN, 36, 190)]


@pytest.mark.parametrize(("frequency", "first", "last"), BANDS + UNKNOWN_BANDS)
def test_gaps_belong_to_a_band_with_both_its_edges(frequency: Frequency, first: int, last: int):
    for gap in (first, last):
        assert [(found, status) for found, status, _ in stand(find(*every([gap] * 3)))] == [(frequency, Status.MATURE)]


@pytest.mark.parametrize(("frequency", "first", "last"), BANDS)
def test_gaps_beside_a_band_are_of_another(frequency: Frequency, first: int, last: int):
    for gap in (first - 1, last + 1):
        assert frequency not in {found for found, _, _ in stand(find(*every([gap] * 3)))}


def test_twelve_days_are_half_a_month():
    assert stand(find(*every([12, 12]))) == [(Frequency.SEMI_MONTHLY, Status.MATURE, 3)]


@pytest.mark.parametrize("gap", [5, 191, 349, 381])
def test_gaps_outside_of_every_band_are_no_rhythm(gap: int):
    assert stand(find(*every([gap] * 5))) == []


@pytest.mark.parametrize(("usual", "first", "last"), [(7, 13, 15), (14, 26, 30), (16, 26, 35), (30, 55, 66)])
def test_one_charge_may_be_missing_within_a_band_with_both_its_edges(usual: int, first: int, last: int):
    for gap, n in ((first - 1, 3), (first, 4), (last, 4)):
        assert [each[2] for each in stand(find(*every([usual, usual, gap])))] == [n]
    beyond = find(*every([usual, usual, last + 1]))  # begins again with the last two, which are no mature stream
    assert [each for each in stand(beyond) if each[1] is Status.MATURE] == []


@pytest.mark.parametrize("gap", [7, 14, 16, 60])
def test_before_it_is_mature_a_stream_may_change_by_a_tenth(gap: int):
    assert len(stand(find(*every([gap, gap], [10.0, 11.0, 10.0])))) == 1
    assert stand(find(*every([gap, gap], [10.0, 11.01, 10.0]))) == []
    assert stand(find(*every([gap, gap], [10.0, 10.0, 11.01]))) == []


def test_before_it_is_mature_a_monthly_stream_may_change_by_a_quarter():
    assert len(stand(find(*every([30, 30], [10.0, 12.5, 10.0])))) == 1
    assert stand(find(*every([30, 30], [10.0, 12.51, 12.51]))) == [(Frequency.MONTHLY, Status.EARLY_DETECTION, 2)]
    assert stand(find(*every([30, 30], [10.0, 10.0, 12.51]))) == []


def test_a_mature_stream_may_double_but_no_more():
    assert rises(find(*every([30, 30, 30], [10.0, 10.0, 10.0, 20.0]))) == {3: 100.0}
    other = find(*every([30, 30, 30], [10.0, 10.0, 10.0, 20.01]))  # another purchase
    assert (rises(other), stand(other)) == ({}, [(Frequency.MONTHLY, Status.MATURE, 3)])


def test_a_charge_that_costs_less_is_no_rise():
    assert rises(find(*every([30] * 4, [10.0, 10.0, 10.0, 8.0, 10.0]))) == {4: 25.0}


def test_a_rise_counts_from_the_charge_that_makes_it_mature():
    streams = find(*every([30, 30], [10.0, 11.0, 12.1]))
    assert new(streams) == [2]
    assert rises(streams) == {2: 10.0}


@pytest.mark.parametrize(
    ("gaps", "longest"), [([7, 7], 8), ([14, 14], 15), ([16, 16], 19), ([30], 35), ([365], 380), ([105, 105], 115)]
)
def test_a_stream_is_new_only_if_an_older_charge_would_have_been_seen(gaps: list[int], longest: int):
    charges = every(gaps)
    for reach, expected in ((longest, []), (longest + 1, [len(gaps)])):
        assert new(find(*charges, known_since=NEW_YEAR - timedelta(reach))) == expected


def test_a_stream_that_is_taken_up_again_is_new_again():
    streams = find(*every([30, 30, 200, 30, 30]))
    assert new(streams) == [1, 4]
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 3)]


def test_what_ended_because_the_merchant_went_another_way_is_not_told():
    assert stand(find(*every([30, 30, 30, 200]))) == []


def monthly(day: int, amount: float, n: int = 6, first: int = 1) -> list[Charge]:
    return [(date(2025, first + month, day), amount, "apple.com/bill") for month in range(n)]


def amounts(streams: Streams) -> list[tuple[float, float]]:
    """Return the first and last amount of every stream."""
    return [
        (first / 10_000, last / 10_000)
        for first, last in zip(streams.first_amount.tolist(), streams.last_amount.tolist(), strict=True)
    ]


def test_two_subscriptions_that_one_merchant_bills_are_both_found():
    # Cloud on the 5th, music on the 20th; each is sure, and new, with its third charge.
    streams = find(*monthly(5, 2.99), *monthly(20, 10.99))
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 6)] * 2
    assert amounts(streams) == [(2.99, 2.99), (10.99, 10.99)]
    assert (new(streams), rises(streams)) == ([4, 5], {})
    assert streams.merchant.tolist() == [0, 0]
    assert streams.next_day.tolist() == days(date(2025, 7, 5), date(2025, 7, 20)).tolist()


@pytest.mark.parametrize(("one", "other"), [(2.99, 10.99), (10.99, 2.99)])
def test_two_subscriptions_may_be_billed_on_one_day(one: float, other: float):
    streams = find(*monthly(5, one), *monthly(5, other))
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 6)] * 2
    assert amounts(streams) == [(one, one), (other, other)]  # the first of each day is the stream of all charges
    assert (new(streams), rises(streams)) == ([2, 5], {})  # which is new with its second


def test_a_membership_is_found_among_purchases_at_the_same_shop():
    purchases = [(NEW_YEAR + timedelta(day), 20.0 + day, "apple.com/bill") for day in (3, 11, 17, 40, 52, 60, 95, 110)]
    streams = find(*monthly(15, 14.99), *purchases)
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 6)]
    assert amounts(streams) == [(14.99, 14.99)]
    assert [streams.total_amount[0], len(new(streams))] == [6 * 149_900, 1]


def test_when_one_of_two_becomes_dearer_it_is_another_stream():
    # Without the other one it would be a rise of 15 %. Four months after the last one of 10.99, that stream is over.
    streams = find(*monthly(5, 2.99, 8), *monthly(20, 10.99, 4), *monthly(20, 12.64, 4, first=5))
    assert stand(streams) == [
        (Frequency.MONTHLY, Status.MATURE, 8),
        (Frequency.MONTHLY, Status.TOMBSTONED, 4),
        (Frequency.MONTHLY, Status.MATURE, 4),
    ]
    assert amounts(streams) == [(2.99, 2.99), (10.99, 10.99), (12.64, 12.64)]
    assert (new(streams), rises(streams)) == ([4, 5, 13], {})


def test_one_subscription_that_becomes_dearer_is_one_stream():
    streams = find(*monthly(20, 10.99, 4), *monthly(20, 12.64, 4, first=5))
    assert (stand(streams), new(streams)) == ([(Frequency.MONTHLY, Status.MATURE, 8)], [1])
    assert rises(streams) == {4: pytest.approx(100 * 1.65 / 10.99)}


def test_a_subscription_stands_and_is_not_new_again_when_another_begins():
    # On 20 April the 2.99 comes on schedule, but does not fit: that ends the stream of all charges.
    before = find(*monthly(20, 10.99, 4, first=1), (date(2025, 5, 18), 2.99, "apple.com/bill"))
    assert (stand(before), new(before)) == ([(Frequency.MONTHLY, Status.MATURE, 4)], [1])
    after = find(*monthly(20, 10.99, 8), *monthly(18, 2.99, 4, first=5))
    assert stand(after) == [(Frequency.MONTHLY, Status.MATURE, 4), (Frequency.MONTHLY, Status.MATURE, 8)]
    assert new(after) == [1, 8]


def test_a_price_that_rose_before_other_purchases_came_between_is_not_new():
    # The first charge of 11.50 is a rise; the purchase of 60.00 ends that stream.
    charges = [*monthly(20, 10.0, 4), *monthly(20, 11.5, 3, first=5), (date(2025, 6, 18), 60.0, "apple.com/bill")]
    for more in ([], [(date(2025, 7, 10), 60.0, "apple.com/bill")]):
        streams = find(*charges, *more)
        assert (rises(streams), new(streams)) == ({4: 15.0}, [1])
        assert (11.5, 11.5) in amounts(streams)


def test_a_charge_that_comes_twice_on_a_day_counts_once_beside_others():
    twice = [(date(2025, 2, 5), 2.99, "apple.com/bill")]
    streams = find(*monthly(5, 2.99), *twice, *monthly(20, 10.99))
    assert stand(streams) == [(Frequency.MONTHLY, Status.MATURE, 6)] * 2
    assert len(new(streams)) == 2


def test_of_two_streams_with_one_last_charge_the_longer_one_stands():
    # The purchase of 25.00 ends the stream of all charges, which begins again with the last three, but is not new.
    streams = find(*monthly(15, 10.0, 6), (date(2025, 4, 14), 25.0, "apple.com/bill"))
    assert (stand(streams), new(streams)) == ([(Frequency.MONTHLY, Status.MATURE, 6)], [1])


def test_a_stream_of_all_charges_takes_the_place_of_those_of_its_amounts():
    streams = find(*every([30] * 7, [10.0] * 4 + [11.0] * 4))
    assert (stand(streams), amounts(streams)) == ([(Frequency.MONTHLY, Status.MATURE, 8)], [(10.0, 11.0)])


def test_charges_of_a_year_are_found_among_others():
    # New with the second; 380 days before it, another such charge would have been seen.
    club = [(date(2024, 3, 1), 99.0, "shop"), (date(2025, 3, 3), 99.0, "shop")]
    others = [(date(2024, 7, 1), 30.0, "shop"), (date(2025, 2, 1), 250.0, "shop")]
    streams = find(*club, *others)
    assert stand(streams) == [(Frequency.ANNUALLY, Status.MATURE, 2)]
    assert new(streams) == [3]
    assert new(find(*club, *others, known_since=date(2024, 3, 1) - timedelta(380))) == []


@pytest.mark.parametrize(("reach", "expected"), [(35, [5]), (36, [4, 5])])
def test_a_stream_of_one_amount_is_new_only_if_an_older_charge_would_have_been_seen(reach: int, expected: list[int]):
    # The first charge of 10.99 is that of 20 January; that of 2.99 comes a day later.
    known_since = date(2025, 1, 20) - timedelta(reach)
    streams = find(*monthly(20, 10.99, 3), *monthly(21, 2.99, 3), known_since=known_since)
    assert len(stand(streams)) == 2
    assert new(streams) == expected


def test_a_charge_of_a_weekly_stream_that_cost_as_much_a_year_before_is_no_news():
    # The second and the 54th cost the same, and a purchase in between is left out of the stream.
    prices = [10 + place / 100 for place in range(54)]
    weekly = every([7] * 53, [*prices[:53], prices[1]])
    streams = find(*weekly, (NEW_YEAR + timedelta(100), 30.0, "shop"))
    assert (stand(streams), new(streams)) == ([(Frequency.WEEKLY, Status.MATURE, 54)], [2])


def test_two_equal_charges_among_others_are_not_yet_a_stream():
    assert amounts(find(*monthly(5, 2.99, 2), *monthly(20, 10.99, 3))) == [(10.99, 10.99)]


@pytest.mark.parametrize("gaps", [[3, 4] * 20, [7, 28, 7, 28, 7, 28], [14, 20, 14, 20, 14]])
def test_coffee_of_one_price_now_and_then_is_a_habit_among_other_purchases_too(gaps: list[int]):
    cups = every(gaps, 3.5)
    meals = [(day + timedelta(1), 20.0 + place, "shop") for place, (day, _, _) in enumerate(cups)]
    streams = find(*cups, *meals)
    assert (stand(streams), new(streams)) == ([], [])


def test_users_and_merchants_are_kept_apart():
    # Two users, two merchants, a purchase without a merchant; only the second user's merchant 1 recurs.
    user, merchant = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([1, 0, -1, 1, 0, 1, 1])
    day = np.array([0, 30, 60, 0, 15, 30, 60]) + 20_000
    amount = np.full(7, 100_000)
    since, until = np.array([19_000, 19_980]), np.array([20_060, 20_060])
    streams = find_streams(user, merchant, day, amount, known_since=since, until=until)
    assert (streams.user.tolist(), streams.merchant.tolist(), streams.n_charges.tolist()) == ([1], [1], [3])
    assert new(streams) == []  # 20 days of history before it
    assert len(streams.is_new) == len(streams.rise) == 7


def test_streams_stand_by_merchant_however_many_charges_they_have():
    # Three years at the first merchant, of which the second saw only the beginning.
    streams = find(*every([30] * 36, 10.0, "a"), *every([30, 30], 10.0, "b"))
    assert streams.merchant.tolist() == [0, 1]
    assert streams.n_charges.tolist() == [37, 3]


def test_purchases_without_a_merchant_never_recur():
    streams = find(*every([30] * 5, 10.0, None))
    assert (stand(streams), new(streams)) == ([], [])


def test_no_charges_are_no_streams():
    streams = find()
    assert (len(streams.is_new), len(streams.rise), stand(streams)) == (0, 0, [])


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (date(2025, 1, 31), date(2025, 2, 28)),
        (date(2024, 1, 30), date(2024, 2, 29)),
        (date(2024, 12, 31), date(2025, 1, 31)),
        (date(2025, 2, 28), date(2025, 3, 28)),
    ],
)
def test_the_next_month_may_be_too_short(last: date, expected: date):
    charges = on_days([last - timedelta(60), last - timedelta(30), last])
    assert find(*charges).next_day == days(expected)


def test_the_largest_amounts_do_not_overflow():
    largest = 1e14
    streams = find(*every([30] * 3, [largest / 2, largest / 2, largest / 2, largest]))
    assert rises(streams) == {3: 100.0}
    assert streams.total_amount == 25 * 10**17
