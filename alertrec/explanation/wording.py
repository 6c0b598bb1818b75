"""Reasons in plain English, made from the numbers of an explanation and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from alertrec.explanation.explaining import Change, Contribution, Evidence, Explanation

# What is smaller would be printed as 0.0, or is not worth a sentence.
_MIN_SPOKEN = 0.1


def sentences(explanation: Explanation, titles: Mapping[str, str], *, limit: int = 3) -> list[str]:
    """Return the main reasons, the weightiest first, and last what would change the answer most.

    A contribution is a reason only if the probability, computed anew without it, moves the way that it says: one that
    speaks for all alerts alike is none.

    Parameters
    ----------
    titles : mapping of str
        What the alerts are called, by column; where one is missing, its column.
    limit : int
        Reasons at most.

    Returns
    -------
    list of str
        Such as "Your places of purchase speak for it (+0.8)." and "If your places of purchase were like most
        customers', its chance would be 12% instead of 30%."; empty where there is nothing to say.
    """
    then = {(change.evidence, change.name): change.probability for change in explanation.changes}
    reasons = [
        _reason(each, titles)
        for each in explanation.contributions
        if abs(each.value) >= _MIN_SPOKEN
        and (explanation.probability - then.get((each.evidence, each.name), explanation.probability)) * each.value > 0
    ]
    return reasons[:limit] + [_what_if(change, explanation.probability, titles) for change in _telling(explanation)]


def _telling(explanation: Explanation) -> tuple[Change, ...]:
    """Return the change that matters most, if it shows in what is printed."""
    first = explanation.changes[:1]
    return tuple(each for each in first if f"{each.probability:.0%}" != f"{explanation.probability:.0%}")


def _reason(contribution: Contribution, titles: Mapping[str, str]) -> str:
    side = "for" if contribution.value > 0 else "against"
    if contribution.evidence is Evidence.BEHAVIOUR:
        return f"Your {contribution.name} speak {side} it ({contribution.value:+.1f})."
    title = titles.get(contribution.name, contribution.name)
    return f"Having “{title}” on speaks {side} it ({contribution.value:+.1f})."


def _what_if(change: Change, now: float, titles: Mapping[str, str]) -> str:
    chance = f"its chance would be {change.probability:.0%} instead of {now:.0%}."
    if change.evidence is Evidence.BEHAVIOUR:
        return f"If your {change.name} were like most customers', {chance}"
    return f"Without “{titles.get(change.name, change.name)}” on, {chance}"
