"""The rules once more, slowly: one user after the other, one row after the other, in plain Python.

Numbers are exact: amounts are whole ten-thousandths, and what a rule is compared with is an int, a Decimal or a
Fraction.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from alertrec.catalog import BY_KEY

try:
    from alertrec.merchants import merchant_key
except ModuleNotFoundError:

    def merchant_key(name):
        return " ".join(name.upper().split()) or None if name is not None else None


Row = dict[str, Any]
Number = int | Decimal | Fraction

WINDOW_DAYS = 90
MAX_AMOUNT = 1e14
HAPPENED = {"PENDING", "APPROVED", "SETTLED"}
RAISES = {"PURCHASE", "FEE", "INTEREST", "WITHDRAWAL"}
LOWERS = {"REFUND", "PAYMENT", "DEPOSIT"}

# Days from one charge to the next, and over one charge that is missing.
GAPS = {
    "WEEKLY": (6, 8),
    "BIWEEKLY": (13, 15),
    "SEMI_MONTHLY": (12, 19),
    "MONTHLY": (25, 35),
    "ANNUALLY": (350, 380),
}
SKIPPING = {"WEEKLY": (13, 15), "BIWEEKLY": (26, 30), "SEMI_MONTHLY": (26, 35), "MONTHLY": (55, 66)}


class Event(NamedTuple):
    """A transaction at which a rule with a value from `low` to below `high` fires; None is infinite."""

    row: Row
    at: datetime
    low: Number | None
    high: Number | None

    def fires(self, value: Number) -> bool:
        return (self.low is None or self.low <= value) and (self.high is None or value < self.high)


class Movement(NamedTuple):
    """A transaction that counts: its local day, its amount and what it does to the balance, in ten-thousandths."""

    row: Row
    at: datetime
    day: date
    units: int
    effect: int
    is_purchase: bool
    key: str | None


@dataclass
class Run:
    """Charges of one merchant that follow each other at even gaps; a single one has no frequency."""

    charges: list[Movement]
    frequency: str | None = None
    period: int = 0
    announced: bool = False

    @property
    def is_mature(self) -> bool:
        return len(self.charges) >= _needed(self.frequency)

    @property
    def is_early(self) -> bool:
        if len(self.charges) != 2 or self.frequency in {None, "UNKNOWN"}:
            return False
        first, second = ((charge.units + 50) // 100 for charge in self.charges)
        return first == second

    @property
    def longest_gap_in_tenths(self) -> int:
        """The longest gap of one period, in tenths of a day."""
        return self._unknown_longest if self.frequency == "UNKNOWN" else 10 * GAPS[str(self.frequency)][1]

    @property
    def longest_allowed_in_tenths(self) -> int:
        """The longest gap with which the run goes on, in tenths of a day."""
        if self.frequency == "UNKNOWN":
            return self._unknown_longest
        return 10 * SKIPPING.get(str(self.frequency), GAPS[str(self.frequency)])[1]

    @property
    def _unknown_longest(self) -> int:
        return 10 * self.period + max(20, self.period)

    def is_on_schedule(self, gap: int) -> bool:
        if self.frequency == "UNKNOWN":
            return 10 * abs(gap - self.period) <= max(20, self.period)
        bands = [GAPS[str(self.frequency)]]
        if self.frequency in SKIPPING:
            bands.append(SKIPPING[self.frequency])
        if self.frequency == "BIWEEKLY":
            bands.append(GAPS["SEMI_MONTHLY"])
        return any(low <= gap <= high for low, high in bands)

    def after(self, charge: Movement) -> Run:
        """Return the run that goes on after a charge of a later day: this one or a new one."""
        last = self.charges[-1]
        if len(self.charges) == 1:
            return _started(last, charge)
        gap = (charge.day - last.day).days
        on_schedule = self.is_on_schedule(gap)
        if on_schedule and _within(last, charge, _factor(self.frequency) if len(self.charges) < 3 else Fraction(2)):
            if self.frequency == "BIWEEKLY" and gap in {12, 16, 17, 18, 19}:
                self.frequency = "SEMI_MONTHLY"
            self.charges.append(charge)
            return self
        if not on_schedule and self.is_mature and 10 * gap < self.longest_allowed_in_tenths:
            return self
        return _started(last, charge)


class Stream(NamedTuple):
    """A recurring charge as it stands: UNKNOWN or a frequency; EARLY_DETECTION, MATURE or TOMBSTONED."""

    key: str
    frequency: str
    state: str
    charges: tuple[Movement, ...]


class History:
    """What happened to one user up to `as_of`, prepared once for all rules.

    Parameters
    ----------
    user : dict
        `id`, `credit_limit`, `credit_balance`, `address_state`, `address_country`; optionally `time_zone`.
    rows : sequence of dict
        Transactions, of other users also; dates and `as_of` are UTC without a zone.
    """

    def __init__(self, user: Row, rows: Sequence[Row], as_of: datetime) -> None:
        self.user = user
        self.as_of = as_of
        self.zone = _zone(user.get("time_zone"))
        self.movements = sorted(self._movements(rows), key=_order)
        self.purchases = [each for each in self.movements if each.is_purchase]
        self._events: dict[tuple[str, str | None], list[Event]] = {}

    def local_day(self, moment: datetime) -> date:
        return moment.replace(tzinfo=UTC).astimezone(self.zone).date()

    def events(self, alert_type: str, scope: str | None = None) -> list[Event]:
        """Return the events of a type, in the order of the rows."""
        if (alert_type, scope) not in self._events:
            make = DETECTORS[BY_KEY[alert_type].detector]
            self._events[alert_type, scope] = list(make(self, scope))
        return self._events[alert_type, scope]

    def fired(self, alert_type: str, parameters: Mapping[str, Any]) -> list[Event]:
        """Return the events at which a rule fires, over the whole history."""
        value = _exactly(parameters[BY_KEY[alert_type].dial.name])
        return [event for event in self.events(alert_type, parameters.get("scope")) if event.fires(value)]

    def is_in_window(self, moment: datetime) -> bool:
        return self.as_of - timedelta(days=WINDOW_DAYS) < moment <= self.as_of

    def count_in_window(self, alert_type: str, parameters: Mapping[str, Any]) -> int:
        """Return how often a rule would have fired within the window."""
        return sum(self.is_in_window(event.at) for event in self.fired(alert_type, parameters))

    def would_have_fired(self, alert_type: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the count, the window and the last three firings, the newest first."""
        fired = [event for event in self.fired(alert_type, parameters) if self.is_in_window(event.at)]
        return {
            "count": len(fired),
            "window_days": WINDOW_DAYS,
            "until": self.as_of.replace(tzinfo=UTC).isoformat(),
            "examples": [
                {
                    "date": self.local_day(event.at).isoformat(),
                    "merchant": event.row["merchant_name"],
                    "amount": abs(float(event.row["amount"])),
                }
                for event in fired[:-4:-1]
            ],
        }

    def fit(self, alert_type: str, scope: str | None, allowed: int, first_step: float | None = None) -> float | None:
        """Return the step of the dial that meets a budget of `allowed` firings in the window; None without one."""
        dial = BY_KEY[alert_type].dial
        counts = {
            step: self.count_in_window(alert_type, {dial.name: step, "scope": scope})
            for step in dial.steps
            if first_step is None or step >= first_step
        }
        quiet = [step for step in counts if all(count <= allowed for other, count in counts.items() if other >= step)]
        firing = [step for step in quiet if counts[step] > 0]
        return min(firing or quiet, default=None)

    def charges_and_runs(self) -> Iterator[tuple[str, Run, Movement]]:
        """Yield each charge of each merchant and the run after it, which the next charge changes."""
        by_key: dict[str, list[Movement]] = defaultdict(list)
        for each in self.purchases:
            if each.key is not None:
                by_key[each.key].append(each)
        for key, charges in by_key.items():
            yield from ((key, run, charge) for run, charge in _runs(charges))

    def runs_by_amount(self) -> Iterator[tuple[Run, Movement]]:
        """Yield each charge of each amount at a merchant, and the run of that amount after it."""
        by_amount: dict[tuple[str, int], list[Movement]] = defaultdict(list)
        for each in self.purchases:
            if each.key is not None:
                by_amount[each.key, each.units].append(each)
        for _, charges in sorted(by_amount.items()):
            yield from _runs(charges)

    def _movements(self, rows: Sequence[Row]) -> Iterator[Movement]:
        seen = set()
        for row in rows:
            at = row["transaction_date"]
            if at is None or at > self.as_of:
                continue
            if row.get("id") is not None:
                if row["id"] in seen:
                    continue
                seen.add(row["id"])
            if row["user_id"] is None or str(row["user_id"]) != str(self.user["id"]):
                continue
            status = "SETTLED" if row["status"] is None else row["status"].upper()
            if status not in HAPPENED or not _counts(row["amount"]):
                continue
            kind = _kind(row)
            is_purchase = kind == "PURCHASE" and row["amount"] > 0
            if not is_purchase and (kind == "PURCHASE" or kind not in RAISES | LOWERS):
                continue
            units = round(row["amount"] * 10_000)
            effect = abs(units) if kind in RAISES else -abs(units)
            key = _key(row["merchant_name"]) if is_purchase else None
            yield Movement(row, at, self.local_day(at), units, effect, is_purchase, key)


def events(alert_type: str, user: Row, rows: Sequence[Row], as_of: datetime, scope: str | None = None) -> list[Event]:
    """Return the events of an alert type, in the order of the rows."""
    return History(user, rows, as_of).events(alert_type, scope)


def firings(
    alert_type: str, parameters: Mapping[str, Any], user: Row, rows: Sequence[Row], as_of: datetime
) -> list[Row]:
    """Return the transactions at which a rule fires, over the whole history."""
    return [event.row for event in History(user, rows, as_of).fired(alert_type, parameters)]


def count_in_window(
    alert_type: str, parameters: Mapping[str, Any], user: Row, rows: Sequence[Row], as_of: datetime
) -> int:
    """Return how often a rule would have fired within the window."""
    return History(user, rows, as_of).count_in_window(alert_type, parameters)


def would_have_fired(
    alert_type: str, parameters: Mapping[str, Any], user: Row, rows: Sequence[Row], as_of: datetime
) -> dict[str, Any]:
    """Return what a card says that the rule would have done."""
    return History(user, rows, as_of).would_have_fired(alert_type, parameters)


def fit(
    alert_type: str,
    scope: str | None,
    user: Row,
    rows: Sequence[Row],
    as_of: datetime,
    allowed: int,
    first_step: float | None = None,
) -> float | None:
    """Return the step of the dial that meets a budget of `allowed` firings in the window; None without one."""
    return History(user, rows, as_of).fit(alert_type, scope, allowed, first_step)


def streams(user: Row, rows: Sequence[Row], as_of: datetime) -> list[Stream]:
    """Return the recurring charges as they stand at `as_of`, in the order of merchant keys.

    Of one merchant, first the stream of all its charges, then those of single amounts, ascending.
    """
    history = History(user, rows, as_of)
    of_all = {key: run for key, run, _ in history.charges_and_runs()}
    continued = {
        id(run.charges[-2])
        for _, run, charge in history.charges_and_runs()
        if run.charges[-1] is charge and len(run.charges) > 1 and run.is_mature
    }
    of_amounts = {(charge.key, charge.units): run for run, charge in history.runs_by_amount()}
    chosen = [run for run in of_all.values() if run.is_mature or run.is_early]
    # Two streams may end with one charge: the longer one is told, of two as long that of all charges.
    for run in of_amounts.values():
        if not _counts_beside(run) or id(last := run.charges[-1]) in continued:
            continue
        rivals = [other for other in chosen if other.charges[-1] is last]
        if all(len(rival.charges) < len(run.charges) for rival in rivals):
            chosen = [other for other in chosen if not any(other is rival for rival in rivals)] + [run]
    return sorted((_stream(run, history.local_day(as_of)) for run in chosen), key=lambda stream: stream.key)


def _stream(run: Run, today: date) -> Stream:
    state = "MATURE" if run.is_mature else "EARLY_DETECTION"
    if 10 * (today - run.charges[-1].day).days > run.longest_allowed_in_tenths:
        state = "TOMBSTONED"
    return Stream(str(run.charges[-1].key), str(run.frequency), state, tuple(run.charges))


def _weekly_totals(history: History, _: str | None) -> Iterator[Event]:
    totals: Counter[date] = Counter()
    for each in history.purchases:
        monday = each.day - timedelta(days=each.day.weekday())
        before = totals[monday]
        totals[monday] += each.units
        yield Event(each.row, each.at, _money(before), _money(totals[monday]))


def _daily_purchases(history: History, _: str | None) -> Iterator[Event]:
    counts: Counter[date] = Counter()
    for each in history.purchases:
        counts[each.day] += 1
        yield Event(each.row, each.at, counts[each.day] - 1, counts[each.day])


def _daily_merchants(history: History, _: str | None) -> Iterator[Event]:
    used: dict[date, set[str]] = defaultdict(set)
    for each in history.purchases:
        if each.key is not None and each.key not in used[each.day]:
            used[each.day].add(each.key)
            yield Event(each.row, each.at, len(used[each.day]) - 1, len(used[each.day]))


def _utilization(history: History, _: str | None) -> Iterator[Event]:
    limit, balance = history.user["credit_limit"], history.user["credit_balance"]
    if limit is None or balance is None or not math.isfinite(limit) or not math.isfinite(balance) or limit < 0.01:
        return
    limit, after = round(limit * 10_000), round(balance * 10_000)
    known = []
    for each in reversed(history.movements):
        before = after - each.effect
        if before < 0:
            break
        if each.effect > 0:
            known.append(Event(each.row, each.at, Fraction(100 * before, limit), Fraction(100 * after, limit)))
        after = before
    yield from reversed(known)


def _purchase(history: History, _: str | None) -> Iterator[Event]:
    for each in history.purchases:
        yield Event(each.row, each.at, None, _exactly(each.row["amount"]))


def _first_purchase(history: History, _: str | None) -> Iterator[Event]:
    known = set()
    for each in history.purchases:
        if each.key is not None and each.key not in known:
            known.add(each.key)
            yield Event(each.row, each.at, None, _exactly(each.row["amount"]))


def _away_from_home(history: History, scope: str | None) -> Iterator[Event]:
    def differs(of: str) -> bool:
        here, home = _place(each.row[f"merchant_{of}"]), _place(history.user[f"address_{of}"])
        return bool(here and home and here != home)

    for each in history.purchases:
        if differs("country") or (scope != "country" and differs("state")):
            yield Event(each.row, each.at, None, _exactly(each.row["amount"]))


def _recurring_charges(history: History, _: str | None) -> Iterator[Event]:
    first_day = history.purchases[0].day if history.purchases else date.min
    new, told, rises = set(), set(), {}
    for __, run, charge in history.charges_and_runs():
        if len(run.charges) < 2 or run.charges[-1] is not charge:
            continue
        before = run.charges[-2]
        if _becomes_new(run, first_day):
            new.add(id(charge))
        if run.is_mature or id(charge) in new:
            told.add(id(charge))
        if run.is_mature and charge.units > before.units:
            rises[id(charge)] = Fraction(100 * (charge.units - before.units), before.units) if before.units else None
    for run, charge in history.runs_by_amount():
        if run.charges[-1] is not charge or not _counts_beside(run):
            continue
        *earlier, _ = run.charges
        if len(earlier) >= _needed(run.frequency) or any(id(each) in told for each in earlier):
            new.discard(id(charge))  # it goes on, whatever the walk over all charges takes it for
        elif _begins_late(run, first_day) and id(charge) not in told:
            new.add(id(charge))
    for each in history.purchases:
        if id(each) in new or id(each) in rises:
            yield Event(each.row, each.at, None, None if id(each) in new else rises[id(each)])


def _becomes_new(run: Run, first_day: date) -> bool:
    """Judge, at the last charge of a run, whether the run is new with it; it is so once."""
    at_once = run.frequency == "MONTHLY" and run.is_early
    if run.announced or not (run.is_mature or at_once):
        return False
    run.announced = True
    return _begins_late(run, first_day)


def _begins_late(run: Run, first_day: date) -> bool:
    return 10 * (run.charges[0].day - first_day).days > run.longest_gap_in_tenths


DETECTORS: Mapping[str, Callable[[History, str | None], Iterator[Event]]] = {
    "weekly_total": _weekly_totals,
    "daily_purchases": _daily_purchases,
    "daily_merchants": _daily_merchants,
    "utilization": _utilization,
    "purchase": _purchase,
    "first_purchase": _first_purchase,
    "away_from_home": _away_from_home,
    "recurring_charge": _recurring_charges,
}


def _runs(charges: Sequence[Movement]) -> Iterator[tuple[Run, Movement]]:
    """Yield the run after each charge, of which the first of a day counts."""
    run, day = Run([charges[0]]), charges[0].day
    yield run, charges[0]
    for charge in charges[1:]:
        if charge.day != day:
            run, day = run.after(charge), charge.day
            yield run, charge


def _needed(frequency: str | None) -> int:
    return 2 if frequency == "ANNUALLY" else 3


def _counts_beside(run: Run) -> bool:
    """Judge whether a run of equal amounts is a stream: early ones and other frequencies are none."""
    return run.frequency in {"MONTHLY", "ANNUALLY"} and run.is_mature


def _started(first: Movement, second: Movement) -> Run:
    """Return the run of two charges; where they make none, that of the second alone."""
    gap = (second.day - first.day).days
    frequency = _frequency(gap)
    if frequency is not None and _within(first, second, _factor(frequency)):
        return Run([first, second], frequency, gap)
    return Run([second])


def _frequency(gap: int) -> str | None:
    # SEMI_MONTHLY is what BIWEEKLY leaves of its band.
    for name in ("WEEKLY", "BIWEEKLY", "SEMI_MONTHLY", "MONTHLY", "ANNUALLY"):
        if GAPS[name][0] <= gap <= GAPS[name][1]:
            return name
    return "UNKNOWN" if 9 <= gap <= 190 else None


def _factor(frequency: str | None) -> Fraction:
    return Fraction(5, 4) if frequency in {"MONTHLY", "ANNUALLY"} else Fraction(11, 10)


def _within(one: Movement, other: Movement, factor: Fraction) -> bool:
    low, high = sorted((one.units, other.units))
    return high * factor.denominator <= low * factor.numerator


def _counts(amount: Any) -> bool:
    return amount is not None and math.isfinite(amount) and 0 < abs(amount) <= MAX_AMOUNT


def _kind(row: Row) -> str:
    return "PURCHASE" if row["transaction_type"] is None else str(row["transaction_type"]).upper()


def _order(each: Movement) -> tuple[datetime, bool, str, Any, str]:
    name = each.row["merchant_name"]
    # Some banks write a fee with a minus, others without: what counts is how much it is.
    return each.at, name is not None, name or "", abs(each.row["amount"]), _kind(each.row)


def _place(text: str | None) -> str:
    return (text or "").strip().upper()


def _money(units: int) -> Decimal:
    return Decimal(units).scaleb(-4)


def _exactly(number: Any) -> Decimal:
    """Return a number as it is written: 0.1 is a tenth."""
    return Decimal(str(number))


@cache
def _zone(name: str | None) -> tzinfo:
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, ValueError, OSError):
        return UTC


@lru_cache(maxsize=100_000)
def _key(name: str | None) -> str | None:
    return merchant_key(name)
