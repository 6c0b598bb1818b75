"""When what is due: the schedule, and the period that a moment falls into. No clock in here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

SUNDAY = 6  # as in `datetime.weekday`


@dataclass(frozen=True)
class Due:
    """A job that falls due daily, or weekly where a weekday is given, at a time in UTC."""

    job: str
    at: time
    weekday: int | None = None

    def latest(self, now: datetime) -> datetime:
        """Return the last moment, up to `now`, at which the job fell due."""
        now = now.astimezone(UTC)
        due = datetime.combine(now.date(), self.at, tzinfo=UTC)
        if self.weekday is None:
            return due if due <= now else due - timedelta(days=1)
        due -= timedelta(days=(now.weekday() - self.weekday) % 7)
        return due if due <= now else due - timedelta(days=7)

    def period(self, now: datetime) -> str:
        """Return the name of the period that `now` falls into: the moment it began, in ISO format."""
        return self.latest(now).isoformat()


TRAINING = "training"
REFRESH = "refresh"
CLEANUP = "cleanup"

# In UTC, in the small hours of American and European banks: tidy up, learn from the week, then renew every list.
SCHEDULE = {
    due.job: due
    for due in (
        Due(CLEANUP, at=time(2, 0)),
        Due(TRAINING, at=time(3, 0), weekday=SUNDAY),
        Due(REFRESH, at=time(4, 0)),
    )
}
