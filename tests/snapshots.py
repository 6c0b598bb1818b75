"""The texts of a recommendation, written once more from what is stored beside them and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import pytest

from alertrec.catalog import BY_KEY
from alertrec.wording import Words

Row = Mapping[str, Any]

_FIELD = re.compile(r"\{(\w+)(?::(\w+))?\}")
_NUMBER = re.compile(r"\d(?:[\d.,'’\u00a0\u202f]*\d)?")
_NUMBER_OF = {"amount": "amount", "count": "number", "percent": "percentage"}
_FORMAT_OF = {"amount": "money", "count": "count", "percent": "percent"}


def check_texts(item: Row, words: Words) -> None:
    """Assert that an item says what its snapshot tells, and nothing that is not in it.

    Parameters
    ----------
    item : mapping
        A row of the recommendations, its JSON columns decoded.
    words : Words
        Those of the bank that the list was made for.
    """
    who = f"{item.get('user_id')}, {item['alert_type']}"
    _check_reasons(item)
    for name, text in texts_of(item, words).items():
        assert item[name] == text, f"{who}: the {name} is {item[name]!r} instead of {text!r}"
    spoken = " | ".join(item[name] for name in ("title", "description", "natural_language_query", "reasoning"))
    for example in _examples(item):
        spoken = spoken.replace(f"({_purchase(example, words)})", "")
    strange = re.findall(r"\(.*?\)", spoken)
    assert not strange, f"{who}: {strange} is no purchase of the user's own examples"
    known = {number for each in _said(item, words) for number in _NUMBER.findall(each)}
    unknown = [number for number in _NUMBER.findall(spoken) if number not in known]
    assert not unknown, f"{who}: {unknown} is not in the snapshot: {spoken}"


def texts_of(item: Row, words: Words) -> dict[str, str]:
    """Return title, description, rule in words, and reasoning."""
    title, description, query = _rule_in_words(item, item["parameters"], words)
    is_change = item["recommendation_type"] == "change"
    heads = {"tighten": "Fewer alerts: ", "loosen": "An alert that speaks up: ", "retire": "Switch off: "}
    sentences = _of_change(item, words) if is_change else _of_offer(item, words)
    return {
        "title": (heads[item["change"]["advice"]] if is_change else "") + title,
        "description": description,
        "natural_language_query": query,
        "reasoning": " ".join(sentences),
    }


def reason(item: Row, kind: str) -> Row | None:
    """Return the reason of a kind, None where there is none."""
    found = [each for each in item["reasons"] if each["kind"] == kind]
    assert len(found) < 2, f"two reasons are of kind {kind}"
    return found[0] if found else None


def _of_offer(item: Row, words: Words) -> Iterator[str]:
    own, scope = reason(item, "own_spending"), item["parameters"].get("scope")
    if own and list(own.values())[1] and scope != "country":  # of nothing, and of the state where the country counts
        yield _filled(BY_KEY[item["alert_type"]].evidence, own, words)
    similar = reason(item, "similar_users")
    if similar and similar["n_with_alert"]:
        n, of = similar["n_with_alert"], similar["n_customers"]
        count, verb = "All" if n == of else n, "has" if n == 1 else "have"
        yield f"{count} of the {of} customers most like you {verb} this alert on."
    if item["recommendation_type"] == "ml_default":
        yield "It goes together with the alerts that you have."
    popularity = reason(item, "popularity")
    if item["recommendation_type"] == "new_user" and popularity and popularity["n_customers"] >= 20:
        yield f"{words.share(item['probability'])} of customers have this alert on."
    fit, fired = _fit(item), item["would_have_fired"]
    if fit["history_days"] or fired["count"]:
        yield _would_have_fired("It", item, words)
    if fit["n_known"]:
        also = "that" if fired["count"] == 1 else f"{words.count(fit['n_known'])} of these"
        yield f"Other alerts, yours or in this list, would have told you of {also} as well."
    whose = {
        "similar_users": "what fits customers like you",
        "population": "what fits most customers",
        "catalogue": "a common one",
    }
    if fit["basis"] != "own_history":
        yield f"Its {_NUMBER_OF[_dial(item)]} is {whose[fit['basis']]}, until more of your own purchases are known."


def _of_change(item: Row, words: Words) -> Iterator[str]:
    change, dial = item["change"], _dial(item)
    n = change["fired"]["count"]
    how_often = f"would have fired {_times(n, words)}" if n else "would never have fired"
    query = _rule_in_words(item, change["parameters"], words)[2]
    yield f"Your alert “{query}” {how_often} {_window(item, words)}."
    number = item["parameters"][dial]
    if change["advice"] == "retire":
        yield f"No {_NUMBER_OF[dial]} would make it quiet."
    elif number:
        yield _would_have_fired(f"Above {getattr(words, _FORMAT_OF[dial])(number)} it", item, words)
    else:
        yield _would_have_fired("With any amount it", item, words)


def _would_have_fired(subject: str, item: Row, words: Words) -> str:
    fired, window = item["would_have_fired"], _window(item, words)
    if fired["count"] == 0:
        return f"{subject} would not have fired {window}."
    last = fired["examples"][0]
    on = f"on {words.date(date.fromisoformat(last['date']))} ({_purchase(last, words)})"
    if fired["count"] == 1:
        return f"{subject} would have fired once {window}, {on}."
    return f"{subject} would have fired {_times(fired['count'], words)} {window}, last {on}."


def _times(n: int, words: Words) -> str:
    return "once" if n == 1 else "twice" if n == 2 else f"{words.count(n)} times"


def _window(item: Row, words: Words) -> str:
    known, days = _fit(item)["history_days"], item["would_have_fired"]["window_days"]
    if known >= days:
        return f"in the last {days} days"
    return "since your first purchase" + (f", {words.count(known)} days ago" if known > 1 else "")


def _check_reasons(item: Row) -> None:
    fired, fit = item["would_have_fired"], _fit(item)
    assert fit["n_fired"] == fired["count"]
    assert 0 <= fit["n_known"] <= fired["count"]
    assert len(fired["examples"]) == min(fired["count"], 3)
    if item["recommendation_type"] == "change":
        told, change = reason(item, "change"), item["change"]
        assert told is not None
        assert told["advice"] == change["advice"]
        assert told["parameters"] == change["parameters"]
        assert told["n_fired"] == change["fired"]["count"]
        assert item["probability"] is None
        return
    assert item["change"] is None
    model = reason(item, "popularity" if item["recommendation_type"] == "new_user" else "model")
    assert model is not None
    assert model["low"] <= item["probability"] <= model["high"]
    # A double goes through the table's JSON and number columns unharmed, but two ways of reading may differ in kind.
    assert model["probability"] == pytest.approx(item["probability"], abs=1e-9)
    if own := reason(item, "own_spending"):
        fields = [name for name, _ in _FIELD.findall(BY_KEY[item["alert_type"]].evidence)]
        assert sorted(own) == sorted(["kind", *fields])
    if similar := reason(item, "similar_users"):
        assert similar["share"] == pytest.approx(similar["n_with_alert"] / similar["n_customers"])
        assert similar["n_customers"] >= 20


def _fit(item: Row) -> Row:
    found = reason(item, "fit")
    assert found is not None, f"{item['alert_type']}: nothing tells how it fits"
    return found


def _said(item: Row, words: Words) -> Iterator[str]:
    """Yield every number of the snapshot as it may be said."""
    dial = _dial(item)
    say = getattr(words, _FORMAT_OF[dial])
    tests = [item["would_have_fired"]]
    yield say(item["parameters"][dial])
    if change := item["change"]:
        yield say(change["parameters"][dial])
        tests.append(change["fired"])
    for fired in tests:
        yield from (words.count(fired["count"]), str(fired["window_days"]))
    for example in _examples(item):
        yield from (words.date(date.fromisoformat(example["date"])), words.money(example["amount"]))
    yield from (words.count(_fit(item)[name]) for name in ("n_known", "history_days"))
    if similar := reason(item, "similar_users"):
        yield from (str(similar["n_with_alert"]), str(similar["n_customers"]))
    if popularity := reason(item, "popularity"):
        yield words.share(popularity["probability"])
    if own := reason(item, "own_spending"):
        for name, form in _FIELD.findall(BY_KEY[item["alert_type"]].evidence):
            yield getattr(words, form)(own[name])
            yield from re.findall(r"_(\d+)d\b", name)  # of which days it is


def _examples(item: Row) -> list[Row]:
    return [
        *item["would_have_fired"]["examples"],
        *(item["change"] or {"fired": {"examples": []}})["fired"]["examples"],
    ]


def _purchase(example: Row, words: Words) -> str:
    amount = words.money(example["amount"])
    name = " ".join("".join(each if each.isprintable() else " " for each in example["merchant"] or "").split())
    name = name if len(name) <= 40 else f"{name[:39].rstrip()}…"
    return f"{name}, {amount}" if name else amount


def _rule_in_words(item: Row, parameters: Row, words: Words) -> tuple[str, str, str]:
    """Return title, description and rule for some parameters."""
    entry = BY_KEY[item["alert_type"]]
    is_any = parameters[_dial(item)] == 0
    title = entry.title_of_any if is_any and entry.title_of_any else entry.title
    query = entry.query_of_any if is_any and entry.query_of_any else entry.query
    description = entry.description_of_any if is_any and entry.description_of_any else entry.description
    return (
        _filled(title, parameters, words),
        _filled(description, parameters, words),
        _filled(query, parameters, words),
    )


def _dial(item: Row) -> str:
    (dial,) = set(item["parameters"]) & set(_FORMAT_OF)
    return dial


def _filled(template: str, values: Row, words: Words) -> str:
    return _FIELD.sub(
        lambda field: getattr(words, field[2])(values[field[1]]) if field[2] else str(values[field[1]]), template
    )
