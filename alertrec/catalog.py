"""The alert types, one entry each.

Adding an alert type is adding one entry to `ALERT_TYPES`, and nothing else: columns, labels, classification of
texts, parameters, back-tests, wording and lists follow from it. Only a type that watches something new needs a
detector of its own, see `alertrec.detectors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from string import Formatter
from types import MappingProxyType

Parameters = Mapping[str, float | int | str]

# Numbers as people say them. A rule is fitted by choosing among these.
_OF_A_DECADE = (1, 1.5, 2, 2.5, 3, 4, 5, 7.5)
AMOUNTS = (
    *(20.0, 25.0, 30.0, 40.0, 50.0, 75.0),
    *(float(step * 10**decade) for decade in range(2, 6) for step in _OF_A_DECADE),
    1_000_000.0,
)
ANY_AMOUNTS = (0.0, *AMOUNTS)  # from 0 on: any amount
COUNTS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 75.0, 100.0)
UTILIZATIONS = (50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)
RISES = (5.0, 10.0, 15.0, 20.0, 25.0, 50.0, 100.0)


@dataclass(frozen=True)
class Dial:
    """The one number of a rule that is turned until it fits a user; the rule fires above it, not at it.

    Attributes
    ----------
    name : str
        Its key among the rule's parameters: "amount" (money), "count" (a whole number) or "percent".
    steps : tuple of float
        The values that are offered, ascending.
    is_optional : bool
        Whether a rule whose text states no number means something: the catalogue's.
    """

    name: str
    steps: tuple[float, ...]
    is_optional: bool = False


@dataclass(frozen=True)
class HeuristicLabel:
    """Who would want the alert, as long as nobody has switched any on.

    A user is labelled when `feature` reaches `at_least`, or, where that is None, the 75th percentile of all users.
    """

    feature: str
    at_least: float | None = None


@dataclass(frozen=True)
class AlertType:
    """One kind of alert that a customer can switch on.

    Attributes
    ----------
    key : str
        Stable name; the column of labels and probabilities, and `alert_type` in the tables.
    category : str
        One of `CATEGORIES`.
    title, description, query : str
        The offer, and the rule in a customer's words. Parameters stand in braces with a format of
        `alertrec.wording.Words`, such as `{amount:money}`.
    title_of_any, description_of_any, query_of_any : str, optional
        What takes their place where the amount is 0, which means any.
    evidence : str
        A sentence about the customer's own spending, with names of features in braces, formatted likewise.
    keywords : tuple of str
        Regular expressions; the entry with the longest match in a text is that text's type.
    detector : str
        What it watches: a name of `alertrec.detectors.DETECTORS`.
    dial : Dial
        The number that is fitted to the user.
    parameters : mapping
        Parameters of the rule where nothing better is known.
    heuristic : HeuristicLabel or None
        None: nobody is assumed to want it before somebody has it.
    """

    key: str
    title: str
    description: str
    category: str
    query: str
    evidence: str
    keywords: tuple[str, ...]
    detector: str
    dial: Dial
    parameters: Parameters = field(default_factory=lambda: MappingProxyType({}))
    heuristic: HeuristicLabel | None = None
    title_of_any: str | None = None
    description_of_any: str | None = None
    query_of_any: str | None = None

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """The compiled keywords."""
        return tuple(re.compile(keyword) for keyword in self.keywords)

    @cached_property
    def evidence_features(self) -> tuple[str, ...]:
        """The features that `evidence` names, in its order."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.evidence) if name)

    def turned(self, parameters: Parameters, value: float) -> Parameters:
        """Return the parameters with the dial at a value."""
        return {**parameters, self.dial.name: int(value) if self.dial.name == "count" else value}

    def title_for(self, parameters: Parameters) -> str:
        """Return the template of the title for such parameters."""
        return self.title_of_any if self.title_of_any and not parameters[self.dial.name] else self.title

    def description_for(self, parameters: Parameters) -> str:
        """Return the template of the description for such parameters."""
        return (
            self.description_of_any if self.description_of_any and not parameters[self.dial.name] else self.description
        )

    def query_for(self, parameters: Parameters) -> str:
        """Return the template of the rule in a customer's words for such parameters."""
        return self.query_of_any if self.query_of_any and not parameters[self.dial.name] else self.query


FRAUD_PROTECTION = "fraud_protection"
SPENDING_THRESHOLD = "spending_threshold"
LOCATION_BASED = "location_based"
SUBSCRIPTION_MONITORING = "subscription_monitoring"
MERCHANT_MONITORING = "merchant_monitoring"
CATEGORIES = (
    FRAUD_PROTECTION,
    SPENDING_THRESHOLD,
    LOCATION_BASED,
    SUBSCRIPTION_MONITORING,
    MERCHANT_MONITORING,
)

_PURCHASE = r"(?:purchase|transaction|charge|payment)"
_SHOP = r"(?:merchant|shop|store|place|vendor|retailer)"
_PLACE = r"(?:state|country|city|area|region|town|home)"

ALERT_TYPES: tuple[AlertType, ...] = (
    AlertType(
        key="alert_high_spender",
        title="Weekly spending over {amount:money}",
        description="Tells you when your total spending of a week, Monday to Sunday, exceeds {amount:money}.",
        category=SPENDING_THRESHOLD,
        query="Notify me when my total spending exceeds {amount:money} in a week",
        evidence=(
            "Your weeks with purchases average {weekly_spending_mean:money}; "
            "the highest came to {weekly_spending_max:money}."
        ),
        keywords=(
            r"total spend\w*",
            r"\bspend(?:ing)?\b",
            r"\bspent\b",
            r"\bspend(?:ing)? (?:over|more than|above|exceeds)",
            r"(?:weekly|monthly|daily) (?:spend\w*|total|budget)",
            r"\bbudget\b",
        ),
        detector="weekly_total",
        dial=Dial("amount", AMOUNTS),
        parameters=MappingProxyType({"amount": 500.0, "period": "week"}),
        heuristic=HeuristicLabel("amount_sum"),
    ),
    AlertType(
        key="alert_high_tx_volume",
        title="More than {count:count} purchases in a day",
        description="Tells you when your card is used more than {count:count} times in one day.",
        category=FRAUD_PROTECTION,
        query="Alert me if I make more than {count:count} transactions in a day",
        evidence="The most purchases that you made in a day: {daily_purchases_max:count}.",
        keywords=(
            rf"more than \d+ {_PURCHASE}s",
            rf"over \d+ {_PURCHASE}s",
            rf"\d+ (?:or more )?{_PURCHASE}s (?:in|per|a|within)\b",
            r"transaction count",
            rf"number of {_PURCHASE}s",
            rf"(?:too )?many {_PURCHASE}s",
            rf"(?:frequent|frequently|multiple) {_PURCHASE}s?",
            r"transaction volume",
            r"\bfrequent\b",
        ),
        detector="daily_purchases",
        dial=Dial("count", COUNTS),
        parameters=MappingProxyType({"count": 10, "period": "day"}),
        heuristic=HeuristicLabel("amount_count"),
    ),
    AlertType(
        key="alert_high_merchant_diversity",
        title="More than {count:count} different shops in a day",
        description="Tells you when your card is used at more than {count:count} different merchants in one day.",
        category=MERCHANT_MONITORING,
        query="Alert me if I shop at over {count:count} different merchants in one day",
        evidence="The most different merchants that you bought at in a day: {daily_merchants_max:count}.",
        keywords=(
            rf"(?:more than|over) \d+ (?:different |distinct )?{_SHOP}s(?: \w+){{0,3}}",
            rf"different {_SHOP}s",
            r"distinct merchants",
            r"many (?:merchants|shops|stores|places)",
            r"merchant (?:variety|diversity)",
            r"\bvariety\b",
            r"\bdivers\w+\b",
        ),
        detector="daily_merchants",
        dial=Dial("count", COUNTS),
        parameters=MappingProxyType({"count": 5, "period": "day"}),
        heuristic=HeuristicLabel("merchant_name_nunique"),
    ),
    AlertType(
        key="alert_near_credit_limit",
        title="More than {percent:percent} of your credit limit",
        description="Warns you when your balance passes {percent:percent} of your credit limit.",
        category=SPENDING_THRESHOLD,
        query="Notify me when my credit utilization exceeds {percent:percent}",
        evidence="You are using {credit_utilization:share} of your credit limit of {credit_limit:money}.",
        keywords=(
            r"credit limit",
            r"credit utili[sz]ation",
            r"utili[sz]ation",
            r"of my (?:credit )?limit",
            r"\bmaxed? out\b",
            r"(?:credit |card )?balance (?:exceeds|is over|is above|goes above|reaches|is near)",
            r"\bavailable credit\b",
        ),
        detector="utilization",
        dial=Dial("percent", UTILIZATIONS),
        parameters=MappingProxyType({"percent": 70.0}),
        heuristic=HeuristicLabel("credit_utilization", at_least=0.7),
    ),
    AlertType(
        key="alert_large_transaction",
        title="Purchases over {amount:money}",
        description="Tells you about any single purchase of more than {amount:money}.",
        category=FRAUD_PROTECTION,
        query="Alert me about any purchase over {amount:money}",
        evidence=(
            "Your largest purchase was {amount_max:money}; the average of your purchases is {amount_mean:money}."
        ),
        keywords=(
            rf"(?:any|single|one|individual) (?:single )?(?:\w+ )?{_PURCHASE} (?:\w+ ){{0,3}}\$?\d+",
            rf"(?:any|single|one|individual) {_PURCHASE}",
            rf"{_PURCHASE}s? (?:is |are |of )?(?:over|above|exceed\w*|more than|greater than|larger than)",
            rf"(?:large|big|huge|high[- ]value|expensive|unusually large) {_PURCHASE}s?",
            r"amount (?:is )?(?:over|above|exceeds|greater than)",
            r"\blarge\b",
            r"more than \$\s?\d+",
            r"over \$\s?\d+",
        ),
        detector="purchase",
        dial=Dial("amount", AMOUNTS),
        parameters=MappingProxyType({"amount": 500.0}),
        heuristic=HeuristicLabel("amount_max"),
    ),
    AlertType(
        key="alert_new_merchant",
        title="First purchase at a merchant, over {amount:money}",
        title_of_any="First purchase at a merchant",
        description="Tells you about your first purchase at a merchant, if it is over {amount:money}.",
        description_of_any="Tells you when your card is used at a merchant where it was not used before.",
        category=MERCHANT_MONITORING,
        query="Notify me when I make a purchase from a new merchant for more than {amount:money}",
        query_of_any="Notify me when I make a purchase from a new merchant",
        evidence="Of the merchants that you used in the last 30 days, {new_merchant_share_30d:share} were new to you.",
        keywords=(
            rf"(?:new|unknown|unfamiliar|unrecogni[sz]ed|first-time) {_SHOP}s?(?: \w+){{0,2}}",
            rf"{_SHOP}s? (?:that )?(?:i have|i've|i had) never (?:used|visited|shopped)(?: \w+){{0,2}}",
            r"never (?:used|visited|shopped|bought) (?:\w+ )?before",
            r"first (?:time|purchase) (?:at|from|with)(?: an?)?(?: \w+)?",
            r"\bfirst time\b",
            r"\bunfamiliar\b",
        ),
        detector="first_purchase",
        dial=Dial("amount", ANY_AMOUNTS, is_optional=True),
        parameters=MappingProxyType({"amount": 0.0}),
    ),
    AlertType(
        key="alert_location_based",
        title="Purchases outside your home {scope} over {amount:money}",
        title_of_any="Purchases outside your home {scope}",
        description="Tells you about purchases of more than {amount:money} made outside your home {scope}.",
        description_of_any="Tells you about purchases made outside your home {scope}.",
        category=LOCATION_BASED,
        query="Alert me if a transaction happens outside my home {scope} for more than {amount:money}",
        query_of_any="Alert me if a transaction happens outside my home {scope}",
        evidence="{out_of_state_share:share} of your purchases with a known place were made outside your home state.",
        keywords=(
            rf"(?:outside|out of|away from) (?:of )?(?:my |your |the )?(?:home )?{_PLACE}",
            r"(?:another|different|foreign|other) (?:state|country|city|region)",
            r"(?:in|from) another (?:state|country|city|region)",
            r"(?:unusual|unexpected|unknown|new|suspicious|different) location",
            r"\blocations?\b",
            r"\babroad\b",
            r"\binternational\w*(?: \w+)?",
            r"\boverseas\b",
            r"\bforeign\b",
            r"\btravel\w*\b",
            r"out[- ]of[- ]state(?: \w+)?",
        ),
        detector="away_from_home",
        dial=Dial("amount", ANY_AMOUNTS, is_optional=True),
        parameters=MappingProxyType({"scope": "state", "amount": 0.0}),
    ),
    AlertType(
        key="alert_subscription_monitoring",
        title="Recurring charges that are new, or rise by more than {percent:percent}",
        description="Tells you when a recurring charge is new, or rises by more than {percent:percent} at once.",
        category=SUBSCRIPTION_MONITORING,
        query="Alert me if a recurring charge is new or increases by more than {percent:percent}",
        evidence=(
            "You have {recurring_charge_count:count} recurring charges, about {recurring_monthly_amount:money} a month."
        ),
        keywords=(
            rf"recurring (?:\w+ ){{0,2}}(?:{_PURCHASE}|subscription|bill)s?(?: increases?(?: by)?(?: more than)?)?",
            r"amount of a recurring charge increases by more than",
            r"(?:new )?(?:recurring )?subscriptions?(?: \w+)?(?: charge)?",
            r"\brecurring\b",
            r"(?:monthly|annual|yearly) (?:charge|fee|bill|payment)",
            r"price (?:increase|rise|hike)",
            r"free trial",
            r"auto-?renew\w*",
        ),
        detector="recurring_charge",
        dial=Dial("percent", RISES, is_optional=True),
        parameters=MappingProxyType({"percent": 10.0}),
    ),
)

ALERT_KEYS: tuple[str, ...] = tuple(entry.key for entry in ALERT_TYPES)
BY_KEY: Mapping[str, AlertType] = MappingProxyType({entry.key: entry for entry in ALERT_TYPES})


@lru_cache(maxsize=65_536)
def classify(text: str | None) -> str | None:
    """Return the key of the alert type that a rule's text speaks of.

    The entry with the longest match of one of its keywords wins; of two equally long ones, the earlier entry.
    None, an empty text and a text without any keyword give None.
    """
    if not text:
        return None
    lowered = " ".join(text.lower().split())
    best_key, best_length = None, 0
    for entry in ALERT_TYPES:
        length = max(_longest_match(pattern, lowered) for pattern in entry.patterns)
        if length > best_length:
            best_key, best_length = entry.key, length
    return best_key


def _longest_match(pattern: re.Pattern[str], text: str) -> int:
    return max((len(match.group()) for match in pattern.finditer(text)), default=0)
