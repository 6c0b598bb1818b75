"""What similar customers have, told only of so many that nobody can be made out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from alertrec.errors import DataError

MIN_COHORT = 20


@dataclass(frozen=True)
class Cohort:
    """How many of the most similar customers have an alert.

    Attributes
    ----------
    n_with_alert, n_customers : int
    """

    n_with_alert: int
    n_customers: int

    def __post_init__(self) -> None:
        if not 0 <= self.n_with_alert <= self.n_customers or self.n_customers < MIN_COHORT:
            raise DataError(f"{self!r} is no cohort: of at least {MIN_COHORT} customers, some or all have the alert")

    @property
    def share(self) -> float:
        """The share of them, in [0, 1]."""
        return self.n_with_alert / self.n_customers

    def sentence(self) -> str:
        """Return what an end user may read, such as "34 of the 50 customers most like you have this alert on"."""
        count = {0: "None", self.n_customers: "All"}.get(self.n_with_alert, str(self.n_with_alert))
        verb = "has" if self.n_with_alert == 1 else "have"
        return f"{count} of the {self.n_customers} customers most like you {verb} this alert on"

    def to_json(self) -> dict[str, Any]:
        """Return counts, share and sentence, as JSON can hold them."""
        return {**asdict(self), "share": self.share, "sentence": self.sentence()}


def similar_share(n_with_alert: int, n_customers: int) -> Cohort | None:
    """Return how many similar customers have an alert; None if they are fewer than `MIN_COHORT`.

    Raises
    ------
    DataError
        If more have the alert than there are, or fewer than none.
    """
    if not 0 <= n_with_alert <= n_customers:
        raise DataError(f"{n_with_alert} of {n_customers} customers cannot have an alert; expected 0 to {n_customers}")
    return Cohort(n_with_alert, n_customers) if n_customers >= MIN_COHORT else None
