"""What has to hold of the rules that a refreshed bank offers a user, by the slow oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from alertrec.rules.texts import parameters_of
from tests.rule_oracle import WINDOW_DAYS, History

DAYS_PER_MONTH = 30

Row = Mapping[str, Any]


def check_user(
    user: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    rules: Sequence[Row],
    items: Sequence[Row],
    as_of: datetime,
    budgets: tuple[float, float] = (2, 6),
) -> None:
    """Assert that each item says what its rule would have done, and that the offers keep to the budgets.

    Parameters
    ----------
    user, rows : as `History` takes them
    rules : rows of the rules that the user has switched on
        `rule_id`, `alert_type`, `natural_language_query`, `parameters`.
    items : rows of the table of recommendations
        `alert_type`, `recommendation_type`, `parameters`, `would_have_fired`, `change`.
    budgets : pair of float
        Firings a month: of one offer, and of all rules and offers of the user together.
    """
    moment = as_of if as_of.tzinfo is None else as_of.astimezone(UTC).replace(tzinfo=None)
    history = History(user, rows, moment)
    for item in items:
        wanted = history.would_have_fired(item["alert_type"], item["parameters"])
        assert item["would_have_fired"] == wanted, _about(user, item, item["would_have_fired"], "instead of", wanted)

    # A newcomer's budget is that of the days that are known, at least that of a month.
    first = min((each.at for each in history.purchases), default=moment)
    days = min(max((moment - first).days, DAYS_PER_MONTH), WINDOW_DAYS)
    a_rule, together = (int(budget * days / DAYS_PER_MONTH + 1e-9) for budget in budgets)
    offers = [item for item in items if item["recommendation_type"] != "change"]
    counts = [history.count_in_window(item["alert_type"], item["parameters"]) for item in offers]
    for item, count in zip(offers, counts, strict=True):
        assert count <= a_rule, _about(user, item, "fires", count, "times, allowed are", a_rule)
    # What the list says, taken as a whole: rules on which it gives advice count as they would then.
    advised = {item["change"]["alert_rule_id"]: item for item in items if item["recommendation_type"] == "change"}
    existing = 0
    for rule in rules:
        item = advised.get(rule["rule_id"])
        if item is None or item["change"]["advice"] == "retire":
            existing += firings_of(rule, history) if item is None else 0
        else:
            existing += history.count_in_window(item["alert_type"], item["parameters"])
    # Rules that a user has already are not ours to take away: what they leave, possibly nothing, is for offers.
    left = max(0, together - existing)
    assert sum(counts) <= left, f"user {user['id']}: offers fire {counts} times, rules {existing} of {together}"


def firings_of(rule: Row, history: History) -> int:
    """Return how often a rule that the user has fires in the window; 0 where its parameters are not known."""
    parameters = parameters_of(rule["alert_type"], rule["parameters"], rule["natural_language_query"])
    return 0 if parameters is None else history.count_in_window(rule["alert_type"], parameters)


def _about(user: Row, item: Row, *words: object) -> str:
    return " ".join(map(str, (f"user {user['id']}, {item['alert_type']} {item['parameters']}:", *words)))
