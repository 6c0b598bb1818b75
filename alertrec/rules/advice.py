"""Advice on rules that a user has: those that fire too often, and those that never did though another number would."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from alertrec.catalog import BY_KEY, Parameters
from alertrec.ledger import Ints
from alertrec.rules.backtests import BackTests
from alertrec.rules.standing import StandingRule

MAX_CHANGES = 2


class Advice(StrEnum):
    """What to do with a rule."""

    TIGHTEN = "tighten"  # it fires too often: raise its number
    LOOSEN = "loosen"  # it never fired: lower its number
    RETIRE = "retire"  # it fires too often, at any number


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

    @property
    def fired_after(self) -> Ints:
        """Where the rule would have fired once the advice is taken: nowhere if it is switched off."""
        return self.fired[:0] if self.advice is Advice.RETIRE else self.fired


def quieten(
    rules: Sequence[StandingRule], *, of_a_rule: int, of_a_user: int, tests: BackTests, without: Collection[str]
) -> list[Change]:
    """Return what would make one user's rules keep to the budgets, the noisiest first; one advice a type at most.

    A rule is tightened to what it may fire by itself, or, where all of them together fire too often, to what the
    others leave of it, if that is not nothing.

    Parameters
    ----------
    of_a_rule, of_a_user : int
        How often one rule, and all of them, may have fired.
    without : alert types on which nothing is said
    """
    found: dict[str, Change] = {}
    total = sum(len(rule.fired) for rule in rules)
    for rule in sorted(rules, key=lambda rule: -len(rule.fired)):
        n_fired, spoken_of = len(rule.fired), {*found, *without}
        if len(found) == MAX_CHANGES or rule.parameters is None or rule.alert_type in spoken_of:
            continue
        is_noisy = n_fired > of_a_rule
        allowed = of_a_rule if is_noisy else n_fired - max(0, total - of_a_user)
        change = _quieter(rule, allowed, tests) if 0 <= allowed < n_fired else None
        if change is not None and (is_noisy or len(change.fired)):
            found[rule.alert_type] = change
            total -= n_fired - len(change.fired_after)
    return list(found.values())


def loosen(
    rules: Sequence[StandingRule],
    *,
    of_a_rule: int,
    left: int,
    told: Collection[int],
    tests: BackTests,
    without: Collection[str],
) -> list[Change]:
    """Return which of one user's rules never fired though another number would have, and told something new.

    A rule that would not have fired with any number is left alone: it guards against what did not happen.

    Parameters
    ----------
    left : int
        How many more firings the budget of all the user's rules allows.
    told : places in the ledger at which other rules fire
    """
    found: dict[str, Change] = {}
    for rule in rules:
        if rule.parameters is None or len(rule.fired) or rule.alert_type in {*found, *without}:
            continue
        test = tests.of(rule.alert_type, rule.parameters)
        dial = test.fit(rule.user, min(of_a_rule, left)) if test.can_fire[rule.user] else None
        if dial is None or dial >= rule.dial:
            continue
        change = _turned(rule, Advice.LOOSEN, dial, tests)
        if not set(change.fired.tolist()) <= set(told):
            found[rule.alert_type] = change
            left -= len(change.fired)
    return list(found.values())


def _quieter(rule: StandingRule, allowed: int, tests: BackTests) -> Change | None:
    assert rule.parameters is not None
    test = tests.of(rule.alert_type, rule.parameters)
    dial = test.fit(rule.user, allowed, first=bisect_right(test.steps, rule.dial))
    if dial is not None:
        return _turned(rule, Advice.TIGHTEN, dial, tests)
    if len(test.fired(rule.user, np.inf)) <= allowed:
        return None  # a number that is higher than people say would do
    return Change(rule, Advice.RETIRE, rule.parameters, rule.fired)


def _turned(rule: StandingRule, advice: Advice, dial: float, tests: BackTests) -> Change:
    assert rule.parameters is not None
    fired = tests.of(rule.alert_type, rule.parameters).fired(rule.user, dial)
    return Change(rule, advice, BY_KEY[rule.alert_type].turned(rule.parameters, dial), fired)
