from __future__ import annotations

import polars as pl
import pytest

from alertrec.rules.backtests import BackTests
from alertrec.rules.standing import StandingRule, standing_rules
from tests.histories import AWAY, LARGE, LONG_AGO, RECURRING, USER, VOLUME, Row, bought, ledger, rule, rules_frame

TESTS = BackTests(
    ledger(
        LONG_AGO,
        bought(60.0, 3),
        bought(300.0, 2, merchant_state="CA"),
        bought(90.0, 1, merchant_country="MX"),
        bought(500.0, 1, user_id="v"),
        users=[USER, USER | {"id": "v"}],
    )
)


def read(*rules: Row) -> list[StandingRule]:
    return standing_rules(rules_frame(list(rules)), ["u", "v"], TESTS)[0]


def amounts(found: StandingRule) -> list[float]:
    return TESTS.ledger.amount[found.fired].tolist()


def test_a_rule_is_tested_with_the_parameters_that_are_stored():
    (found,) = read(rule(LARGE, {"amount": 75}))
    assert (found.user, found.rule_id, found.alert_type) == (0, "r0", LARGE)
    assert (found.parameters, found.dial) == ({"amount": 75.0}, 75.0)
    assert amounts(found) == [300, 90]


def test_a_rule_without_stored_parameters_is_tested_with_those_of_its_text():
    (found,) = read(rule(LARGE, natural_language_query="Alert me about any purchase over $100"))
    assert found.parameters == {"amount": 100.0}
    assert amounts(found) == [300]


def test_stored_parameters_come_before_the_text():
    (found,) = read(rule(LARGE, {"amount": 75}, natural_language_query="Alert me about any purchase over $100"))
    assert found.parameters == {"amount": 75.0}


@pytest.mark.parametrize("stored", ["{}", "null", "[]", '{"amount": "75"}', '{"sum": 75}', '{"amount": -1}', "{", ""])
def test_stored_parameters_that_say_nothing_leave_it_to_the_text(stored: str):
    text = "Alert me about any purchase over $100"
    (found,) = read(rule(LARGE, natural_language_query=text) | {"parameters": stored})
    assert found.parameters == {"amount": 100.0}


def test_a_rule_without_a_type_has_that_of_its_text():
    (found,) = read(rule(None, natural_language_query="Alert me if I make more than 2 transactions in a day"))
    assert (found.alert_type, found.parameters) == (VOLUME, {"count": 2, "period": "day"})


def test_a_type_comes_before_the_text():
    (found,) = read(rule(LARGE, {"amount": 75}, natural_language_query="Tell me about new subscriptions"))
    assert found.alert_type == LARGE


@pytest.mark.parametrize(("alert_type", "text"), [
    (None, None), (None, "hello"), ("alert_of_former_days", None), ("", ""),
])  # fmt: skip
def test_a_rule_whose_type_nothing_tells_is_left_out(alert_type: str | None, text: str | None):
    assert read(rule(alert_type, {"amount": 75}, natural_language_query=text)) == []


@pytest.mark.parametrize("text", [None, "Tell me about large purchases", "any purchase over $100 or $200"])
def test_a_rule_whose_number_nothing_tells_is_not_tested(text: str | None):
    (found,) = read(rule(LARGE, natural_language_query=text))
    assert (found.alert_type, found.parameters, found.fired.tolist()) == (LARGE, None, [])


def test_a_recurring_rule_means_something_without_a_number():
    (found,) = read(rule(RECURRING, natural_language_query="Tell me about new subscriptions"))
    assert found.parameters == {"percent": 10.0}


@pytest.mark.parametrize(
    ("given", "fired"),
    [
        ({"parameters": '{"scope": "country", "amount": 0}'}, [90]),
        ({"parameters": '{"scope": "state", "amount": 0}'}, [300, 90]),
        ({"parameters": '{"scope": "state", "amount": 100}'}, [300]),
        ({"natural_language_query": "Tell me when my card is used in another country"}, [90]),
        ({"natural_language_query": "Tell me when my card is used in another state"}, [300, 90]),
    ],
)
def test_each_scope_is_tested_as_it_is_meant(given: Row, fired: list[float]):
    (found,) = read(rule(AWAY) | given)
    assert amounts(found) == fired


def test_rules_stand_in_the_order_of_their_ids():
    rules = [rule(LARGE, {"amount": 75 + n}, rule_id=rule_id) for n, rule_id in enumerate(["b", "c", "a"])]
    for given in (rules, rules[::-1]):
        assert [each.rule_id for each in read(*given)] == ["a", "b", "c"]


def test_rules_without_ids_stand_in_one_order_too():
    rules = [rule(LARGE, {"amount": amount}, rule_id=None) for amount in (50, 75)]
    rules += [rule(VOLUME, {"count": 3}, rule_id=None)]
    in_order, turned = ([(each.alert_type, each.dial) for each in read(*given)] for given in (rules, rules[::-1]))
    assert in_order == turned


def test_each_user_has_their_own_rules_and_strangers_none():
    rules = [rule(LARGE, {"amount": 75}, user_id=user_id) for user_id in ("v", "stranger", "u", None)]
    found = standing_rules(rules_frame(rules), ["u", "v"], TESTS)
    assert [[(each.user, amounts(each)) for each in mine] for mine in found] == [[(0, [300, 90])], [(1, [500])]]


def test_two_rules_of_one_type_are_two_rules():
    assert [each.dial for each in read(rule(LARGE, {"amount": 75}), rule(LARGE, {"amount": 100}))] == [75, 100]


def test_a_frame_without_ids_and_parameters_says_what_its_texts_say():
    rules = rules_frame([rule(LARGE, {"amount": 75}, natural_language_query="any purchase over $100")])
    (found,) = standing_rules(rules.select("user_id", "alert_type", "natural_language_query"), ["u"], TESTS)[0]
    assert (found.rule_id, found.parameters) == (None, {"amount": 100.0})


def test_without_rules_every_user_has_none():
    assert standing_rules(rules_frame([]), ["u", "v"], TESTS) == [[], []]
    bare = pl.DataFrame(schema=dict.fromkeys(["user_id", "alert_type", "natural_language_query"], pl.String))
    assert standing_rules(bare, ["u"], TESTS) == [[]]
