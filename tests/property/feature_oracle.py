"""The features once more, slowly: one user after the other, one row after the other, in plain Python."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from datetime import datetime, timedelta

from alertrec.feature_engineering import FEATURES, HISTORY_DAYS
from alertrec.merchants import merchant_key
from tests.property.stream_oracle import EPOCH, Charge
from tests.property.stream_oracle import oracle as stream_oracle
from tests.strategies import Bank, Row

Numbers = dict[str, float]


def oracle(bank: Bank, as_of: datetime) -> dict[str, Numbers]:
    """Return the features of each user; `as_of` is UTC without a zone, every transaction has a date."""
    return {
        user["id"]: _user(user, [row for row in bank.transactions if _counts(row, user, as_of)], as_of)
        for user in bank.users
    }


def _counts(row: Row, user: Row, as_of: datetime) -> bool:
    return (
        row["user_id"] == user["id"]
        and row["amount"] is not None
        and math.isfinite(row["amount"])
        and row["amount"] > 0
        and (row["transaction_type"] is None or row["transaction_type"].upper() == "PURCHASE")
        and (row["status"] is None or row["status"].upper() in {"PENDING", "APPROVED", "SETTLED"})
        and row["transaction_date"] <= as_of
    )


def _user(user: Row, rows: list[Row], as_of: datetime) -> Numbers:
    found = dict.fromkeys(FEATURES, 0.0) | {"days_since_purchase": float(HISTORY_DAYS)} | _account(user)
    if rows:
        rows = sorted(
            rows, key=lambda row: (row["transaction_date"], row["merchant_name"] is not None,
                                   row["merchant_name"] or "", row["amount"])
        )  # fmt: skip
        found |= _amounts(rows) | _places(user, rows) | _rhythm(rows, as_of) | _days_and_weeks(rows)
        found |= _merchants(rows, as_of)
    return found


def _account(user: Row) -> Numbers:
    limit, balance = (
        value if value is not None and math.isfinite(value) else 0.0
        for value in (user["credit_limit"], user["credit_balance"])
    )
    used = max(balance, 0.0) / limit if limit > 0 else 0.0
    return {"credit_limit": limit, "credit_balance": balance, "credit_utilization": used}


def _amounts(rows: list[Row]) -> Numbers:
    amounts = sorted(row["amount"] for row in rows)
    place = 0.95 * (len(amounts) - 1)
    below, above = amounts[math.floor(place)], amounts[math.ceil(place)]
    return {
        "amount_mean": statistics.fmean(amounts),
        "amount_std": statistics.stdev(amounts) if len(amounts) > 1 else 0.0,
        "amount_max": amounts[-1],
        "amount_sum": math.fsum(amounts),
        "amount_count": len(amounts),
        "merchant_name_nunique": len({row["merchant_name"] for row in rows} - {None}),
        "merchant_category_nunique": len({row["merchant_category"] for row in rows} - {None}),
        "amount_median": statistics.median(amounts),
        "amount_p95": below + (above - below) * (place - math.floor(place)),
    }


def _places(user: Row, rows: list[Row]) -> Numbers:
    state, country = user["address_state"], user["address_country"]
    abroad = [
        None if row["merchant_country"] is None or country is None else row["merchant_country"] != country
        for row in rows
    ]
    away = [
        None if state is None else True if is_abroad else None
        if row["merchant_state"] is None else row["merchant_state"] != state
        for row, is_abroad in zip(rows, abroad, strict=True)
    ]  # fmt: skip
    return {
        "out_of_state_share": _share(each for each in away if each is not None),
        "out_of_country_share": _share(each for each in abroad if each is not None),
    }


def _rhythm(rows: list[Row], as_of: datetime) -> Numbers:
    recent = sum(row["amount"] for row in rows if _age(row, as_of) < 30)
    before = sum(row["amount"] for row in rows if 30 <= _age(row, as_of) < 60)
    return {
        "night_share": _share(row["transaction_date"].hour < 6 for row in rows),
        "weekend_share": _share(row["transaction_date"].weekday() >= 5 for row in rows),
        "days_since_purchase": min(_age(rows[-1], as_of), float(HISTORY_DAYS)),
        "spending_trend_30d": (recent - before) / (recent + before) if recent + before > 0 else 0.0,
    }


def _days_and_weeks(rows: list[Row]) -> Numbers:
    days, weeks = defaultdict(list), defaultdict(float)
    for row in rows:
        day = row["transaction_date"].date()
        days[day].append(merchant_key(row["merchant_name"]))
        weeks[day - timedelta(days=day.weekday())] += row["amount"]
    return {
        "active_days": len(days),
        "daily_purchases_max": max(len(names) for names in days.values()),
        "daily_merchants_max": max(len(set(names) - {None}) for names in days.values()),
        "weekly_spending_mean": statistics.fmean(weeks.values()),
        "weekly_spending_max": max(weeks.values()),
    }


def _merchants(rows: list[Row], as_of: datetime) -> Numbers:
    charges = defaultdict(list)
    for row in rows:
        if merchant_key(row["merchant_name"]) is not None:
            charges[merchant_key(row["merchant_name"])].append(row)
    recent = [each for each in charges.values() if each[-1]["transaction_date"] > as_of - timedelta(days=30)]
    new = [each for each in recent if each[0]["transaction_date"] > as_of - timedelta(days=30)]
    names = list(charges)
    found = stream_oracle(
        [
            Charge(0, names.index(key) if (key := merchant_key(row["merchant_name"])) is not None else -1,
                   _day(row["transaction_date"]), round(row["amount"] * 10_000))
            for row in rows
        ],
        [_day(rows[0]["transaction_date"])],
        [_day(as_of)],
    )  # fmt: skip
    streams = [stream for stream in found.streams if stream.status == "MATURE"]
    a_month = {"WEEKLY": 30.44 / 7, "BIWEEKLY": 30.44 / 14, "SEMI_MONTHLY": 2, "MONTHLY": 1, "ANNUALLY": 1 / 12}
    return {
        "new_merchant_share_30d": len(new) / len(recent) if recent else 0.0,
        "recurring_charge_count": len(streams),
        "recurring_weekly_count": sum(stream.frequency == "WEEKLY" for stream in streams),
        "recurring_monthly_count": sum(stream.frequency == "MONTHLY" for stream in streams),
        "recurring_monthly_amount": sum(
            stream.last_amount / 10_000 * a_month.get(stream.frequency, 30.44 / (stream.next_day - stream.last_day))
            for stream in streams
        ),
        "recurring_price_rise": max([0.0, *(stream.last_amount / stream.first_amount - 1 for stream in streams)]),
    }


def _day(at: datetime) -> int:
    return (at.date() - EPOCH).days


def _age(row: Row, as_of: datetime) -> float:
    return int((as_of - row["transaction_date"]).total_seconds()) / 86_400


def _share(of: object) -> float:
    judged = list(of)  # type: ignore[call-overload]
    return sum(judged) / len(judged) if judged else 0.0
