from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from alertrec.catalog import ALERT_KEYS, ALERT_TYPES, BY_KEY, CATEGORIES, AlertType, classify
from alertrec.detectors import DETECTORS
from alertrec.detectors.parameters import checked
from alertrec.feature_engineering import FEATURES
from alertrec.wording import Words

ROOT = Path(__file__).parents[2]
each_type = pytest.mark.parametrize("entry", ALERT_TYPES, ids=lambda entry: entry.key)

PARAPHRASES = {
    "alert_high_spender": [
        "notify me when I spend more than $300 a week",
        "Tell me if my weekly total passes 250 dollars",
        "My spending exceeds my monthly budget",
    ],
    "alert_high_tx_volume": [
        "more than 12 purchases in one day",
        "warn me about too many transactions",
        "Alert me when there are 5 or more charges within an hour",
    ],
    "alert_high_merchant_diversity": [
        "Tell me when I use more than 6 different stores in a day",
        "shopping at many shops on one day",
        "unusual merchant variety",
    ],
    "alert_near_credit_limit": [
        "Warn me when my balance is near my credit limit",
        "credit utilisation above 80%",
        "tell me before I am maxed out",
    ],
    "alert_large_transaction": [
        "Any single purchase above $200",
        "unusually large charges",
        "Notify me of a transaction over $1,000",
    ],
    "alert_new_merchant": [
        "a charge from an unfamiliar store",
        "Alert me on my first purchase at a merchant",
        "when I buy from a merchant I have never used before",
    ],
    "alert_location_based": [
        "purchases in another country",
        "Tell me when my card is used abroad",
        "Alert me about charges outside of my home state",
    ],
    "alert_subscription_monitoring": [
        "a new subscription appears",
        "recurring charges that went up",
        "Remind me when a free trial turns into a monthly charge",
    ],
}


def settings_of(entry: AlertType) -> list[dict[str, float | int | str]]:
    """Return the parameters that may be offered: the catalogue's own, with each step of the dial."""
    return [{**entry.parameters, entry.dial.name: step} for step in entry.dial.steps]


def test_the_eight_types_stand_in_their_order():
    assert tuple(PARAPHRASES) == ALERT_KEYS
    assert list(BY_KEY) == list(ALERT_KEYS)
    assert all(BY_KEY[entry.key] is entry for entry in ALERT_TYPES)


def test_the_five_categories_keep_their_names():
    assert CATEGORIES == (
        "fraud_protection", "spending_threshold", "location_based", "subscription_monitoring", "merchant_monitoring",
    )  # fmt: skip
    assert {entry.category for entry in ALERT_TYPES} == set(CATEGORIES)


@each_type
def test_the_own_text_of_a_type_is_of_that_type(entry: AlertType):
    for parameters in settings_of(entry):
        assert classify(Words().fill(entry.query_for(parameters), parameters)) == entry.key


@each_type
def test_the_title_and_the_description_are_of_no_other_type(entry: AlertType):
    for parameters in settings_of(entry):
        assert classify(Words().fill(entry.title_for(parameters), parameters)) in {entry.key, None}
        assert classify(Words().fill(entry.description, parameters)) in {entry.key, None}


@pytest.mark.parametrize(
    ("key", "text"), [(key, text) for key, texts in PARAPHRASES.items() for text in texts], ids=lambda value: value
)
def test_other_words_are_of_the_same_type(key: str, text: str):
    assert classify(text) == key
    assert classify(f"  {text.upper()}\n") == key


@pytest.mark.parametrize("text", [None, "", " ", "\n\t ", "hello", "42"])
def test_a_text_that_says_nothing_has_no_type(text: str | None):
    assert classify(text) is None


@each_type
def test_evidence_names_features_and_can_be_filled(entry: AlertType):
    assert entry.evidence_features
    assert set(entry.evidence_features) <= set(FEATURES)
    filled = Words().fill(entry.evidence, dict.fromkeys(FEATURES, 1.0))
    assert "{" not in filled
    assert "1.0" not in filled.replace("$1.00", "")  # each number has a format


@each_type
def test_titles_and_texts_name_only_parameters_and_show_the_dial_unless_it_means_any(entry: AlertType):
    say = {"amount": Words().money, "count": Words().count, "percent": Words().percent}[entry.dial.name]
    for parameters in settings_of(entry):
        step = parameters[entry.dial.name]
        for template in (entry.title_for(parameters), entry.query_for(parameters)):
            text = Words().fill(template, parameters)
            assert "{" not in text
            assert (say(step) in text) == (step > 0), text


@each_type
def test_the_steps_of_a_dial_ascend_and_are_parameters(entry: AlertType):
    assert all(low < high for low, high in itertools.pairwise(entry.dial.steps))
    assert all(checked(entry.key, parameters) == parameters for parameters in settings_of(entry))
    assert checked(entry.key, entry.parameters) == entry.parameters


@each_type
def test_only_a_dial_that_begins_at_any_amount_has_words_for_it(entry: AlertType):
    means_any = entry.dial.steps[0] == 0
    assert means_any == (entry.title_of_any is not None) == (entry.query_of_any is not None)
    assert not means_any or entry.dial.name == "amount"


def test_every_type_has_a_detector_of_its_own():
    assert len({entry.detector for entry in ALERT_TYPES}) == len(ALERT_TYPES)
    assert {entry.detector for entry in ALERT_TYPES} <= set(DETECTORS)


@each_type
def test_parameters_are_plain_values_that_nobody_can_change(entry: AlertType):
    assert all(isinstance(value, float | int | str) for value in entry.parameters.values())
    with pytest.raises(TypeError):
        entry.parameters["amount"] = 1.0  # type: ignore[index]  # the refusal is what is tested


@each_type
def test_the_rule_of_thumb_is_about_a_feature(entry: AlertType):
    assert entry.heuristic is None or entry.heuristic.feature in FEATURES


@each_type
def test_keywords_match_in_lower_case_and_never_nothing(entry: AlertType):
    for keyword in entry.keywords:
        assert not re.fullmatch(keyword, ""), keyword
        # Texts are put into lower case first, so a capital letter would never match; \w and the like aside.
        assert not re.search(r"(?<!\\)[A-Z]", keyword), keyword


def test_adding_a_type_needs_no_other_module():
    # The sample bank plays customers of these types: new ones appear there when somebody wants them to.
    others = [
        path
        for folder in ("alertrec", "tasks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "catalog.py" and "sample_bank" not in path.parts
    ]
    assert len(others) > 20
    found = [(path.name, key) for path in others for key in ALERT_KEYS if key in path.read_text(encoding="utf-8")]
    assert found == []
