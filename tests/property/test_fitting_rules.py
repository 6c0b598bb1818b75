"""The laws of rules that fit: what a budget allows, what it gives, and what a list does not hang on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alertrec.catalog import ALERT_KEYS, ALERT_TYPES, BY_KEY
from alertrec.labels import resolve_alert_type
from alertrec.ledger import Ledger
from alertrec.lists import Edition, Lists, build_lists
from alertrec.rules.backtests import BackTests, Budget, fit_steps
from alertrec.rules.policy import Policy
from alertrec.rules.texts import parameters_of
from alertrec.wording import Words
from tests.histories import AWAY, LARGE, LIMIT, NEW, decoded, rules_frame, said_no, small_model
from tests.property.test_detectors import frames, rule_banks
from tests.rule_oracle import History
from tests.snapshots import check_texts
from tests.strategies import AS_OF, USER_IDS, Bank, Row, laws

N_STEPS = 5
NAIVE_AS_OF = AS_OF.replace(tzinfo=None)
# What fits others: of each type a step of its own.
SIMILAR, EVERYBODY = ({entry.key: entry.dial.steps[place] for entry in ALERT_TYPES} for place in (3, 2))
MODEL = small_model(dials=SIMILAR, population=EVERYBODY)
POLICY = Policy(threshold=0.3, max_items=8, ttl=timedelta(hours=1))
MONTHS = 3  # of thirty days, in the window

Counts = NDArray[np.int64]
Case = tuple[Bank, list[Row], pl.DataFrame]

_budgets = st.sampled_from([0.0, 1 / 3, 0.5, 1.0, 2.0, 6.0, 20.0])
_allowances = st.integers(0, 9)
_first_steps = st.integers(0, N_STEPS)


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    """Draw how often the steps of a dial would have fired for some users, in no order."""
    row = st.lists(st.integers(0, 9), min_size=N_STEPS, max_size=N_STEPS)
    return np.array(draw(st.lists(row, min_size=1, max_size=4)), dtype=np.int64)


@st.composite
def rules(draw: st.DrawFn, users: list[Row]) -> list[Row]:
    """Draw rules that these users, or others, have on: with stored parameters, with a text, or with neither.

    Many are of the same types, and many stand at the lowest or the highest step, so that there is advice to give.
    """
    found = []
    for number in range(draw(st.integers(0, 8))):
        entry = BY_KEY[draw(st.sampled_from([*ALERT_KEYS, LARGE, NEW, AWAY]))]
        ends = st.sampled_from([entry.dial.steps[0], entry.dial.steps[-1]])
        parameters = entry.turned(entry.parameters, draw(ends | st.sampled_from(entry.dial.steps)))
        if "scope" in parameters:
            parameters = {**parameters, "scope": draw(st.sampled_from(["state", "country"]))}
        text = Words().fill(entry.query_for(parameters), parameters)
        stored = {"alert_type": entry.key, "parameters": json.dumps(dict(parameters))}
        worded, unknown = {"alert_type": None, "natural_language_query": text}, {"alert_type": entry.key}
        told = draw(st.sampled_from([stored, stored, worded, unknown]))
        whose = draw(st.sampled_from([users[0]["id"], *(user["id"] for user in users), "stranger"]))
        found.append({"user_id": whose, "rule_id": f"r{number}"} | told)
    return found


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a bank, rules, and what was said no to; some users buy so much that the budgets matter."""
    bank = draw(rule_banks())
    rows = list(bank.transactions)
    for user in bank.users:
        rows += [busy(user["id"], number) for number in range(draw(st.sampled_from([0, 0, 8, 20])))]
    gone = draw(st.lists(st.tuples(st.sampled_from(USER_IDS), st.sampled_from(ALERT_KEYS)), max_size=4))
    return bank.with_transactions(rows), draw(rules(bank.users)), said_no(*gone)


def busy(user_id: str, number: int) -> Row:
    """Return a purchase at a shop that is new, every four days."""
    return {
        "id": f"{user_id}-{number}",
        "user_id": user_id,
        "amount": 40.0 + 35 * (number % 9),
        "merchant_name": f"Busy {'abcdefghijklmnopqrst'[number]}",
        "merchant_category": None,
        "merchant_state": "CA" if number % 2 else "NY",
        "merchant_country": "US",
        "transaction_date": NAIVE_AS_OF - timedelta(days=4 * number, hours=1),
        "transaction_type": "PURCHASE",
        "status": "SETTLED",
    }


def built(case: Case, policy: Policy = POLICY) -> Lists:
    bank, its_rules, away = case
    edition = Edition("v1", as_of=AS_OF, generated_at=AS_OF, policy=policy)
    return build_lists(*frames(bank), rules_frame(its_rules), away, model=MODEL, edition=edition)


def fitted_slowly(row: list[int], allowed: int, first: int = 0) -> int:
    """Return the step of the definition, by trying one after the other; -1 where there is none."""
    quiet = [step for step in range(first, len(row)) if all(n <= allowed for n in row[step:])]
    firing = [step for step in quiet if row[step] >= 1]
    return (firing or quiet or [-1])[0]


@laws
@given(counts(), _allowances, _first_steps)
def test_the_fitted_step_is_that_of_trying_one_after_the_other(of_steps: Counts, allowed: int, first: int):
    expected = [fitted_slowly(row, allowed, first) for row in of_steps.tolist()]
    assert fit_steps(of_steps, allowed, first).tolist() == expected


@laws
@given(counts(), st.data())
def test_each_user_is_fitted_as_if_alone(of_steps: Counts, data: st.DataObject):
    n = len(of_steps)
    allowed, first = (data.draw(st.lists(each, min_size=n, max_size=n)) for each in (_allowances, _first_steps))
    expected = [fitted_slowly(*each) for each in zip(of_steps.tolist(), allowed, first, strict=True)]
    assert fit_steps(of_steps, np.array(allowed), np.array(first)).tolist() == expected


@settings(laws, max_examples=75)
@given(counts(), _allowances, _allowances, _first_steps)
def test_a_larger_budget_never_gives_a_higher_threshold(of_steps: Counts, one: int, other: int, first: int):
    before, after = (fit_steps(of_steps, allowed, first) for allowed in sorted((one, other)))
    fitted = before >= 0
    assert (after[fitted] >= 0).all()
    assert (after[fitted] <= before[fitted]).all()


@settings(laws, max_examples=75)
@given(counts(), _allowances, _first_steps)
def test_the_fitted_step_and_each_above_it_keep_the_budget_and_it_fires_where_one_can(
    of_steps: Counts, allowed: int, first: int
):
    for row, step in zip(of_steps.tolist(), fit_steps(of_steps, allowed, first).tolist(), strict=True):
        assert step == -1 or (step >= first and max(row[step:]) <= allowed)
        can_fire = any(row[each] and max(row[each:]) <= allowed for each in range(first, N_STEPS))
        assert (step >= 0 and row[step] > 0) == can_fire


@laws
@given(rule_banks(), st.sampled_from(ALERT_KEYS), _budgets, _budgets)
def test_of_drawn_banks_a_larger_budget_never_gives_a_higher_threshold(
    bank: Bank, alert_type: str, one: float, other: float
):
    test = BackTests(Ledger.of(*frames(bank), AS_OF)).of(alert_type)
    smaller, larger = (Budget(per_rule=each).of_a_rule() for each in sorted((one, other)))
    for user in range(len(bank.users)):
        before, after = test.fit(user, smaller), test.fit(user, larger)
        assert before is None or (after is not None and after <= before)


@laws
@given(rule_banks(), st.sampled_from(ALERT_KEYS), _budgets)
def test_of_drawn_banks_the_fitted_dial_is_that_of_a_slow_count(bank: Bank, alert_type: str, budget: float):
    entry, allowed = BY_KEY[alert_type], Budget(per_rule=budget).of_a_rule()
    test = BackTests(Ledger.of(*frames(bank), AS_OF)).of(alert_type)
    for row, user in enumerate(bank.users):
        history = History(user, bank.transactions, NAIVE_AS_OF)
        rule_of = (entry.turned(entry.parameters, step) for step in entry.dial.steps)
        fires = [history.count_in_window(alert_type, parameters) for parameters in rule_of]
        assert test.counts[row].tolist() == fires
        step = fitted_slowly(fires, allowed, _first_step(user, alert_type))
        assert test.fit(row, allowed) == (entry.dial.steps[step] if step >= 0 else None)


@laws
@given(cases(), _budgets, _budgets, st.integers(1, 8))
def test_the_budgets_hold_for_every_user(case: Case, per_rule: float, per_user: float, max_items: int):
    bank, its_rules, _ = case
    policy = replace(POLICY, budget=Budget(per_rule, per_user), max_items=max_items)
    items = decoded(built(case, policy).items)
    for user in bank.users:
        history = History(user, bank.transactions, NAIVE_AS_OF)
        mine = [item for item in items if item["user_id"] == user["id"]]
        assert len(mine) <= max_items
        fires = {id(item): history.count_in_window(item["alert_type"], item["parameters"]) for item in mine}
        assert list(fires.values()) == [item["would_have_fired"]["count"] for item in mine]
        first = min((each.at for each in history.purchases), default=NAIVE_AS_OF)
        months = min(max((NAIVE_AS_OF - first).days, 30), 90) / 30
        # What the list says, taken as a whole: rules on which it gives advice count as they would then.
        advised = {item["change"]["alert_rule_id"]: item for item in mine if item["recommendation_type"] == "change"}
        assert len(advised) <= 2
        louder = [fires[id(item)] for item in advised.values() if item["change"]["advice"] == "loosen"]
        quieter = [fires[id(item)] for item in advised.values() if item["change"]["advice"] == "tighten"]
        offers = [fires[id(item)] for item in mine if item["recommendation_type"] != "change"]
        assert max([*offers, *louder, *quieter], default=0) <= round(per_rule * months, 9)
        own = [each for each in rules_frame(its_rules).to_dicts() if each["user_id"] == user["id"]]
        standing = sum(firings_of(each, user["id"], history) for each in own if each["rule_id"] not in advised)
        left = max(0.0, round(per_user * months, 9) - standing - sum(quieter))
        assert sum(offers) + sum(louder) <= left


def _first_step(user: Row, alert_type: str) -> int:
    """Return the place of the least step that can fire as things stand: no utilisation below the present one."""
    limit, balance = (user[name] if user[name] is not None else 0.0 for name in ("credit_limit", "credit_balance"))
    if alert_type != LIMIT or not (math.isfinite(limit) and math.isfinite(balance)) or limit < 0.01:
        return 0
    return sum(100 * balance / limit > step for step in BY_KEY[alert_type].dial.steps)


def firings_of(rule: Mapping[str, Any], user_id: str, history: History) -> int:
    """Return how often a rule of this user fires in the window; 0 where its parameters are not known."""
    text = rule.get("natural_language_query")
    alert_type = resolve_alert_type(rule["alert_type"], text)
    if rule["user_id"] != user_id or alert_type is None:
        return 0
    parameters = parameters_of(alert_type, rule.get("parameters"), text)
    return 0 if parameters is None else history.count_in_window(alert_type, parameters)


@laws
@given(cases(), st.sampled_from([Words(), Words("de_DE", "EUR")]))
def test_every_text_is_told_from_its_snapshot_and_every_firing_from_the_history(case: Case, words: Words):
    bank, *_ = case
    users = {user["id"]: History(user, bank.transactions, NAIVE_AS_OF) for user in bank.users}
    for item in decoded(built(case, replace(POLICY, words=words)).items):
        history, key = users[item["user_id"]], item["alert_type"]
        assert item["would_have_fired"] == history.would_have_fired(key, item["parameters"])
        if change := item["change"]:
            assert change["fired"] == history.would_have_fired(key, change["parameters"])
        if item["reasons"][-1]["history_days"]:
            check_texts(item, words)


@laws
@given(cases())
def test_a_user_without_history_gets_the_parameters_of_the_population(case: Case):
    bank, its_rules, away = case
    nobody = bank.users[0] | {"id": "nobody", "credit_limit": 1000.0, "credit_balance": 0.0, "address_state": "NY"}
    richer = Bank([*bank.users, nobody], bank.transactions)
    items = decoded(built((richer, its_rules, away)).items.filter(user_id="nobody"))
    assert items
    for item in items:
        entry = BY_KEY[item["alert_type"]]
        assert item["parameters"] == entry.turned(item["parameters"], EVERYBODY[entry.key])
        assert item["reasons"][-1]["basis"] == "population"
        assert item["would_have_fired"]["count"] == 0


@laws
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_list(case: Case, random: Any):
    bank, its_rules, away = case
    users, rows, mixed = (random.sample(each, len(each)) for each in (bank.users, bank.transactions, its_rules))
    gone = away.select("user_id", "alert_type").rows()
    random.shuffle(gone)
    shuffled = built((Bank(users, rows), mixed, said_no(*gone)))
    whole = built(case)
    assert shuffled.lists.sort("user_id").equals(whole.lists.sort("user_id"))
    assert shuffled.items.sort("user_id", "rank").equals(whole.items.sort("user_id", "rank"))


@laws
@given(cases())
def test_a_user_alone_gets_the_list_that_they_get_among_others(case: Case):
    bank, *others = case
    together = built(case)
    for user in bank.users:
        own = [row for row in bank.transactions if row["user_id"] == user["id"]]
        for rows in (own, bank.transactions):
            alone = built((Bank([user], rows), *others))
            assert alone.lists.equals(together.lists.filter(user_id=user["id"]))
            assert alone.items.equals(together.items.filter(user_id=user["id"]))


@laws
@given(cases())
def test_a_user_with_a_long_history_gets_what_their_own_history_says(case: Case):
    bank, *_ = case
    for item in decoded(built(case).items):
        user = next(each for each in bank.users if each["id"] == item["user_id"])
        bought = [each.at for each in History(user, bank.transactions, NAIVE_AS_OF).purchases]
        since = NAIVE_AS_OF - timedelta(days=90)
        is_long = bool(bought) and min(bought) <= since < max(bought)
        if item["recommendation_type"] != "change":
            basis = item["reasons"][-1]["basis"]
            assert basis == "own_history" or not is_long
            # Of a short history, only what happened in it moves a number on from where others start.
            assert basis != "own_history" or is_long or bought
        elif not is_long:
            assert item["change"]["advice"] != "loosen"
