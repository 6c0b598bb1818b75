"""Offers and advice → what a customer reads, and the numbers behind every word of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from alertrec.calibration import confidence_level
from alertrec.catalog import AlertType, Parameters
from alertrec.detectors.kinds import COUNTRY
from alertrec.explanation.cohort import MIN_COHORT, similar_share
from alertrec.rules.advice import Advice
from alertrec.rules.policy import Policy
from alertrec.scoring import DEFAULT, NEW_USER
from alertrec.wording import Words

CHANGE = "change"  # the recommendation_type of advice
MAX_NAME = 40  # of a merchant, in a sentence
HIGH, MEDIUM, LOW = LEVELS = ("high", "medium", "low")

Basis = Literal["own_history", "similar_users", "population", "catalogue"]
Json = Mapping[str, Any]

_NUMBER_OF = {"amount": "amount", "count": "number", "percent": "percentage"}
_FORMAT_OF = {"amount": "money", "count": "count", "percent": "percent"}
_HEADS = {
    Advice.TIGHTEN: "Fewer alerts",
    Advice.LOOSEN: "An alert that speaks up",
    Advice.RETIRE: "Switch off",
}
_FROM_OTHERS = {
    "similar_users": "Its {number} is what fits customers like you",
    "population": "Its {number} is what fits most customers",
    "catalogue": "Its {number} is a common one",
}


@dataclass(frozen=True)
class Evidence:
    """What an offer rests on.

    Attributes
    ----------
    probability, low, high : float
        Calibrated, with its 90 % interval.
    kind : str
        The `recommendation_type` of the list.
    cohort_count, cohort_size : int
        How many of the users most similar to this one have the alert.
    n_customers : int
        How many there are in all.
    features : mapping of str to float
        The user's own; empty without purchases.
    """

    probability: float
    low: float
    high: float
    kind: str
    cohort_count: int
    cohort_size: int
    n_customers: int
    features: Mapping[str, float]


@dataclass(frozen=True)
class Fit:
    """How a rule fits its user.

    Attributes
    ----------
    fired : mapping
        What `would_have_fired` returned.
    n_known : int
        How many of these firings the user's other rules, or offers before this one, tell as well.
    basis : str
        Whose history gave the parameters.
    history_days : int
        For how many days the user's own purchases are known.
    """

    parameters: Parameters
    fired: Json
    n_known: int
    basis: Basis
    history_days: int


def rule_texts(entry: AlertType, parameters: Parameters, words: Words) -> dict[str, str]:
    """Return the columns that tell of a rule with these parameters, whoever has it."""
    return {
        "title": words.fill(entry.title_for(parameters), parameters),
        "description": words.fill(entry.description_for(parameters), parameters),
        "natural_language_query": words.fill(entry.query_for(parameters), parameters),
    }


def offer_card(entry: AlertType, evidence: Evidence, fit: Fit, policy: Policy) -> dict[str, Any]:
    """Return the columns of an offer that tell of it."""
    confidence = confidence_level(evidence.probability, evidence.low, policy.threshold)
    return {
        "recommendation_type": evidence.kind,
        "probability": evidence.probability,
        "confidence_level": confidence,
        "priority": _priority(confidence, fit),
        **rule_texts(entry, fit.parameters, policy.words),
        "reasoning": " ".join(_why(entry, evidence, fit, policy.words) + _how_it_fits(entry, fit, policy.words)),
        "reasons": [*_reasons(entry, evidence), _fit_reason(fit, policy)],
    }


def advice_card(
    entry: AlertType, advice: Advice, now: Parameters, fired_now: Json, fit: Fit, policy: Policy
) -> dict[str, Any]:
    """Return the columns of an advice that tell of it.

    Parameters
    ----------
    now, fired_now : mappings
        The parameters that the rule has, and what `would_have_fired` returned for them.
    fit : Fit
        With the parameters that are advised.
    """
    words, n_now = policy.words, fired_now["count"]
    texts = rule_texts(entry, fit.parameters, words)
    return {
        **texts,
        "recommendation_type": CHANGE,
        "probability": None,  # nobody has measured how often advice is taken
        "confidence_level": HIGH,  # it rests on what happened
        "priority": _urgency(advice, n_now, policy),
        "title": f"{_HEADS[advice]}: {texts['title']}",
        "reasoning": f"{_sentence_of_now(entry, now, fired_now, fit, words)} {_remedy(entry, advice, fit, words)}",
        "reasons": [
            {"kind": CHANGE, "advice": str(advice), "n_fired": n_now, "parameters": dict(now)},
            _fit_reason(fit, policy),
        ],
    }


def _priority(confidence: str, fit: Fit) -> str:
    """Return the confidence, one level lower where the rule would have told nothing, or mostly what is told already."""
    is_less = fit.fired["count"] == 0 or 2 * fit.n_known > fit.fired["count"]
    return LEVELS[min(LEVELS.index(confidence) + is_less, 2)]


def _urgency(advice: Advice, n_fired: int, policy: Policy) -> str:
    if advice is Advice.LOOSEN or n_fired == 0:
        return LOW
    return HIGH if n_fired > 2 * policy.budget.of_a_rule() else MEDIUM


def _sentence_of_now(entry: AlertType, now: Parameters, fired: Json, fit: Fit, words: Words) -> str:
    query, n_fired = words.fill(entry.query_for(now), now), fired["count"]
    times = "would never have fired" if n_fired == 0 else f"would have fired {_times(n_fired, words)}"
    return f"Your alert “{query}” {times} {_window(fit, words)}."


def _remedy(entry: AlertType, advice: Advice, fit: Fit, words: Words) -> str:
    dial = entry.dial.name
    if advice is Advice.RETIRE:
        return f"No {_NUMBER_OF[dial]} would make it quiet."
    number = words.fill(f"{{{dial}:{_FORMAT_OF[dial]}}}", fit.parameters)
    subject = f"Above {number} it" if fit.parameters[dial] else "With any amount it"
    return _sentence_of_firings(fit, words, subject=subject)


def _why(entry: AlertType, evidence: Evidence, fit: Fit, words: Words) -> list[str]:
    """Return why, for the customer: their own spending, and what customers like them do."""
    # Of what the user has none, and of another scope than the rule's, there is nothing to say.
    tells = (
        evidence.features and evidence.features[entry.evidence_features[0]] and fit.parameters.get("scope") != COUNTRY
    )
    sentences = [words.fill(entry.evidence, evidence.features)] if tells else []
    cohort = similar_share(evidence.cohort_count, evidence.cohort_size)
    if cohort is not None and evidence.cohort_count:
        sentences.append(f"{cohort.sentence()}.")
    if evidence.kind == DEFAULT:
        sentences.append("It goes together with the alerts that you have.")
    if evidence.kind == NEW_USER and evidence.n_customers >= MIN_COHORT:
        sentences.append(f"{words.share(evidence.probability)} of customers have this alert on.")
    return sentences


def _how_it_fits(entry: AlertType, fit: Fit, words: Words) -> list[str]:
    is_known = fit.history_days or fit.fired["count"]
    sentences = [_sentence_of_firings(fit, words)] if is_known else []
    if fit.n_known:
        also = "that" if fit.fired["count"] == 1 else f"{words.count(fit.n_known)} of these"
        sentences.append(f"Other alerts, yours or in this list, would have told you of {also} as well.")
    if fit.basis in _FROM_OTHERS:
        whose = _FROM_OTHERS[fit.basis].format(number=_NUMBER_OF[entry.dial.name])
        sentences.append(f"{whose}, until more of your own purchases are known.")
    return sentences


def _sentence_of_firings(fit: Fit, words: Words, *, subject: str = "It") -> str:
    n_fired, window = fit.fired["count"], _window(fit, words)
    if not n_fired:
        return f"{subject} would not have fired {window}."
    latest = fit.fired["examples"][0]
    what = ", ".join(filter(None, [plain(latest["merchant"]), words.money(latest["amount"])]))
    on = f"{'on' if n_fired == 1 else 'last on'} {words.date(date.fromisoformat(latest['date']))} ({what})"
    return f"{subject} would have fired {_times(n_fired, words)} {window}, {on}."


def _window(fit: Fit, words: Words) -> str:
    """Return the days that a back-test tells of: those of its window, or as many as are known of the user."""
    days = fit.fired["window_days"]
    if fit.history_days >= days:
        return f"in the last {days} days"
    if fit.history_days < 2:
        return "since your first purchase"
    return f"since your first purchase, {words.count(fit.history_days)} days ago"


def _times(count: int, words: Words) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{words.count(count)} times")


def plain(name: str | None) -> str | None:
    """Return a merchant's name as it may stand in a sentence: on one line, without control characters, not too long.

    Whoever names a merchant writes on the bank's card.
    """
    if name is None:
        return None
    printable = "".join(each if each.isprintable() else " " for each in name)
    one_line = " ".join(printable.split())
    return one_line if len(one_line) <= MAX_NAME else f"{one_line[: MAX_NAME - 1].rstrip()}…"


def _reasons(entry: AlertType, evidence: Evidence) -> list[dict[str, Any]]:
    """Return why, as numbers: each can be recomputed from the stored model and the user's transactions and rules."""
    model = {"probability": evidence.probability, "low": evidence.low, "high": evidence.high}
    found: list[dict[str, Any]] = [
        {"kind": "popularity", **model, "n_customers": evidence.n_customers}
        if evidence.kind == NEW_USER
        else {"kind": "model", **model}
    ]
    if (cohort := similar_share(evidence.cohort_count, evidence.cohort_size)) is not None:
        found.append({"kind": "similar_users", **cohort.to_json()})
    if evidence.features:
        own = {name: evidence.features[name] for name in entry.evidence_features}
        found.append({"kind": "own_spending", **own})
    return found


def _fit_reason(fit: Fit, policy: Policy) -> dict[str, Any]:
    return {
        "kind": "fit",
        "basis": fit.basis,
        "history_days": fit.history_days,
        "n_fired": fit.fired["count"],
        "n_known": fit.n_known,
        "budget_per_rule": policy.budget.per_rule,
        "budget_per_user": policy.budget.per_user,
    }
