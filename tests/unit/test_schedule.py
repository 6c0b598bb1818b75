from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone

import pytest

from alertrec.schedule import CLEANUP, REFRESH, SCHEDULE, SUNDAY, TRAINING, Due

DAILY = Due("daily", at=time(4))
WEEKLY = Due("weekly", at=time(3), weekday=SUNDAY)
# 2026-03-15 is a Sunday.


@pytest.mark.parametrize(
    ("due", "now", "latest"),
    [
        (DAILY, datetime(2026, 3, 15, 4), datetime(2026, 3, 15, 4)),
        (DAILY, datetime(2026, 3, 15, 3, 59, 59), datetime(2026, 3, 14, 4)),
        (DAILY, datetime(2026, 3, 15, 23, 59), datetime(2026, 3, 15, 4)),
        (DAILY, datetime(2026, 1, 1, 0), datetime(2025, 12, 31, 4)),
        (WEEKLY, datetime(2026, 3, 15, 3), datetime(2026, 3, 15, 3)),
        (WEEKLY, datetime(2026, 3, 15, 2, 59), datetime(2026, 3, 8, 3)),
        (WEEKLY, datetime(2026, 3, 14, 23), datetime(2026, 3, 8, 3)),
        (WEEKLY, datetime(2026, 3, 16, 0), datetime(2026, 3, 15, 3)),
    ],
)
def test_latest_is_the_last_moment_that_has_come(due: Due, now: datetime, latest: datetime):
    assert due.latest(now.replace(tzinfo=UTC)) == latest.replace(tzinfo=UTC)


def test_the_zone_of_the_clock_does_not_matter():
    tokyo = timezone(timedelta(hours=9))
    now = datetime(2026, 3, 15, 12, 30, tzinfo=tokyo)  # 3:30 in UTC, half an hour before it falls due
    assert DAILY.latest(now) == datetime(2026, 3, 14, 4, tzinfo=UTC)
    assert DAILY.period(now) == DAILY.period(now.astimezone(UTC)) == "2026-03-14T04:00:00+00:00"


@pytest.mark.parametrize(("due", "days"), [(DAILY, 1), (WEEKLY, 7)])
def test_a_job_falls_due_once_a_period_whatever_the_minute(due: Due, days: int):
    start = datetime(2026, 3, 1, tzinfo=UTC)
    minutes = [start + timedelta(minutes=17 * n) for n in range(28 * 24 * 60 // 17)]
    for now in minutes:
        assert due.latest(now) <= now < due.latest(now) + timedelta(days=days)
    assert len({due.period(now) for now in minutes}) == 28 // days + 1


def test_the_schedule_is_the_promised_one():
    assert set(SCHEDULE) == {TRAINING, REFRESH, CLEANUP}
    assert all(due.job == job for job, due in SCHEDULE.items())
    assert [job for job, due in SCHEDULE.items() if due.weekday is not None] == [TRAINING]
    # On the day of the training, lists are renewed after it.
    assert SCHEDULE[TRAINING].at < SCHEDULE[REFRESH].at
