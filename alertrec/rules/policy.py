"""What a bank decides: how much is offered, how noisy it may be, and how numbers are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from alertrec.rules.backtests import Budget
from alertrec.wording import Words


@dataclass(frozen=True)
class Policy:
    """What becomes a list of what the model says.

    Attributes
    ----------
    threshold : float in [0, 1]
        Alerts are offered from this probability on.
    max_items : int
        The length of a list at most.
    ttl : timedelta
        How long a list is current.
    """

    threshold: float
    max_items: int
    ttl: timedelta
    budget: Budget = field(default_factory=Budget)
    words: Words = field(default_factory=Words)
