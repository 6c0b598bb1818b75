"""Advice on rules that a user has: those that fire too often, and those that never did though another number would."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from alertrec.catalog import BY_KEY, Parameters
from alertrec.ledger import Ints
from alertrec.rules.backtests import BackTests
from alertrec.rules.policy import Policy
from alertrec.rules.standing import StandingRule

MAX_CHANGES = 2


class Advice(StrEnum):
    """What to do with a rule."""

    TIGHTEN = "tighten"  # it fires too often: raise its number
    LOOSEN = "loosen"  # it never fired: lower its number
    RETIRE = "retire"  # it fires too often at any number, or can never fire


@dataclass(frozen=True)
class Change:
    """Advice on a rule.

    Attributes
    ----------
    parameters : mapping
        Those that would fit; of a rule to retire, those that it has.
    fired : int array
        Places in the ledger at which it would have fired with them in the window.
    """

    rule: StandingRule
    advice: Advice
    parameters: Parameters
    fired: Ints


def advise(
    rules: Sequence[StandingRule], *, knows_window: bool, left: int, tests: BackTests, policy: Policy
) -> list[Change]:
    """Return what to change of one user's rules, the noisiest first; of several of one type, one.

    A rule that never fired, and would not have with any number, is left alone: it guards against what did not happen.

    Parameters
    ----------
    knows_window : bool
        Whether the user's history is as long as the window; if not, that a rule never fired says nothing.
    left : int
        How many more firings the budget of all the user's rules allows.
    """
    found: dict[str, Change] = {}
    for rule in sorted(rules, key=lambda rule: -len(rule.fired)):
        if rule.parameters is None or rule.alert_type in found:
            continue
        change = _change(rule, knows_window=knows_window, left=left, tests=tests, policy=policy)
        if change is not None:
            found[rule.alert_type] = change
            left -= max(0, len(change.fired) - len(rule.fired))
    return list(found.values())


def _change(rule: StandingRule, *, knows_window: bool, left: int, tests: BackTests, policy: Policy) -> Change | None:
    assert rule.parameters is not None
    test, allowed = tests.of(rule.alert_type, rule.parameters), policy.budget.of_a_rule
    if not test.can_fire[rule.user]:
        return Change(rule, Advice.RETIRE, rule.parameters, rule.fired)
    if len(rule.fired) > allowed:
        dial = test.fit(rule.user, allowed, first=bisect_right(test.steps, rule.dial))
        if dial is None:
            return Change(rule, Advice.RETIRE, rule.parameters, rule.fired)
        return _turned(rule, Advice.TIGHTEN, dial, tests)
    if len(rule.fired) == 0 and knows_window:
        dial = test.fit(rule.user, min(allowed, left))
        if dial is not None and dial < rule.dial:
            change = _turned(rule, Advice.LOOSEN, dial, tests)
            return change if len(change.fired) else None
    return None


def _turned(rule: StandingRule, advice: Advice, dial: float, tests: BackTests) -> Change:
    assert rule.parameters is not None
    fired = tests.of(rule.alert_type, rule.parameters).fired(rule.user, dial)
    return Change(rule, advice, BY_KEY[rule.alert_type].turned(rule.parameters, dial), fired)
