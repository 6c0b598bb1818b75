"""What a list looks like on a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from alertrec.cli.work import print_list

OFFER: dict[str, Any] = {
    "rank": 2,
    "alert_type": "alert_large_transaction",
    "recommendation_type": "ml_hybrid",
    "probability": 0.62,
    "confidence_level": "high",
    "title": "Purchases over $400",
    "natural_language_query": "Tell me about any purchase over $400",
    "reasoning": "Your largest purchase came to $612.00.",
    "would_have_fired": None,
}
ADVICE = {**OFFER, "rank": 1, "recommendation_type": "change", "probability": None}


def fired(count: int, *examples: dict[str, Any]) -> dict[str, Any]:
    return {"count": count, "window_days": 90, "until": "2026-10-01T00:00:00+00:00", "examples": list(examples)}


def printed(capsys: pytest.CaptureFixture[str], *items: dict[str, Any]) -> list[str]:
    print_list("u1", "ml_hybrid", items)
    return [line.strip() for line in capsys.readouterr().out.splitlines() if line]


def test_an_offer_tells_its_probability_and_advice_tells_that_it_is_advice(capsys: pytest.CaptureFixture[str]):
    lines = printed(capsys, ADVICE, OFFER)
    assert lines[1] == "1. Purchases over $400  advice"
    assert lines[4] == "2. Purchases over $400  62%, high confidence"
    assert not [line for line in lines if "fired" in line]


def test_several_firings_are_shown_of_one_or_none_the_reasoning_tells(capsys: pytest.CaptureFixture[str]):
    grocer = {"date": "2026-09-12", "merchant": "Grocer [bold]", "amount": 1412.5}
    nameless = {"date": "2026-08-31", "merchant": None, "amount": 500}
    for few in (fired(0), fired(1, grocer)):
        assert printed(capsys, {**OFFER, "would_have_fired": few})[-1] == OFFER["reasoning"]
    several = printed(capsys, {**OFFER, "would_have_fired": fired(3, grocer, nameless)})
    assert several[-1] == "for example: Sep 12 Grocer [bold] 1,412.50, Aug 31 500.00"


def test_a_merchant_that_looks_like_markup_is_printed_as_it_is_and_no_line_is_broken(
    capsys: pytest.CaptureFixture[str],
):
    reasoning = "It would have fired once, on Sep 12, 2026 ([red]Grocer[/], $1,412.50). " * 4
    assert printed(capsys, {**OFFER, "reasoning": reasoning})[-1] == reasoning.strip()
