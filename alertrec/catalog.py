"""The alert types, one entry each.

Adding an alert type is adding one entry to `ALERT_TYPES`, and nothing else: columns, labels, classification of
texts, wording and lists follow from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from string import Formatter
from types import MappingProxyType

Parameters = Mapping[str, float | int | str]


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
    query : str
        The rule in a customer's words, with the parameters' names in braces.
    evidence : str
        A sentence about the customer's own spending, with names of features in braces.
    keywords : tuple of str
        Regular expressions; the entry with the longest match in a text is that text's type.
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
    parameters: Parameters = field(default_factory=lambda: MappingProxyType({}))
    heuristic: HeuristicLabel | None = None

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """The compiled keywords."""
        return tuple(re.compile(keyword) for keyword in self.keywords)

    @cached_property
    def evidence_features(self) -> tuple[str, ...]:
        """The features that `evidence` names, in its order."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.evidence) if name)

    def natural_language_query(self) -> str:
        """Return the rule in a customer's words, with its parameters."""
        return self.query.format(**self.parameters)


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
        title="Weekly spending",
        description="Tells you when a week's spending passes an amount that you choose.",
        category=SPENDING_THRESHOLD,
        query="Notify me when my total spending exceeds ${amount:,.0f} in a week",
        evidence=(
            "Your weeks with purchases average ${weekly_spending_mean:,.2f}; "
            "the highest came to ${weekly_spending_max:,.2f}."
        ),
        keywords=(
            r"total spend\w*",
            r"\bspend(?:ing)?\b",
            r"\bspent\b",
            r"\bspend(?:ing)? (?:over|more than|above|exceeds)",
            r"(?:weekly|monthly|daily) (?:spend\w*|total|budget)",
            r"\bbudget\b",
        ),
        parameters=MappingProxyType({"amount": 500.0, "period": "week"}),
        heuristic=HeuristicLabel("amount_sum"),
    ),
    AlertType(
        key="alert_high_tx_volume",
        title="Many purchases in a day",
        description="Tells you when your card is used unusually often in one day.",
        category=FRAUD_PROTECTION,
        query="Alert me if I make more than {count} transactions in a day",
        evidence="Your busiest day had {daily_purchases_max:.0f} purchases.",
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
        parameters=MappingProxyType({"count": 10, "period": "day"}),
        heuristic=HeuristicLabel("amount_count"),
    ),
    AlertType(
        key="alert_high_merchant_diversity",
        title="Many different shops in a day",
        description="Tells you when your card is used at unusually many different merchants in one day.",
        category=MERCHANT_MONITORING,
        query="Alert me if I shop at over {count} different merchants in one day",
        evidence="On your busiest day you bought at {daily_merchants_max:.0f} different merchants.",
        keywords=(
            rf"(?:more than|over) \d+ (?:different |distinct )?{_SHOP}s(?: \w+){{0,3}}",
            rf"different {_SHOP}s",
            r"distinct merchants",
            r"many (?:merchants|shops|stores|places)",
            r"merchant (?:variety|diversity)",
            r"\bvariety\b",
            r"\bdivers\w+\b",
        ),
        parameters=MappingProxyType({"count": 5, "period": "day"}),
        heuristic=HeuristicLabel("merchant_name_nunique"),
    ),
    AlertType(
        key="alert_near_credit_limit",
        title="Close to your credit limit",
        description="Warns you before your balance reaches your credit limit.",
        category=SPENDING_THRESHOLD,
        query="Notify me when my credit utilization exceeds {percent:.0f}%",
        evidence="You are using {credit_utilization:.0%} of your credit limit of ${credit_limit:,.2f}.",
        keywords=(
            r"credit limit",
            r"credit utili[sz]ation",
            r"utili[sz]ation",
            r"of my (?:credit )?limit",
            r"\bmaxed? out\b",
            r"(?:credit |card )?balance (?:exceeds|is over|is above|goes above|reaches|is near)",
            r"\bavailable credit\b",
        ),
        parameters=MappingProxyType({"percent": 70.0}),
        heuristic=HeuristicLabel("credit_utilization", at_least=0.7),
    ),
    AlertType(
        key="alert_large_transaction",
        title="Large purchases",
        description="Tells you about any single purchase above an amount that you choose.",
        category=FRAUD_PROTECTION,
        query="Alert me about any purchase over ${amount:,.0f}",
        evidence=(
            "Your largest purchase was ${amount_max:,.2f}; the average of your purchases is ${amount_mean:,.2f}."
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
        parameters=MappingProxyType({"amount": 500.0}),
        heuristic=HeuristicLabel("amount_max"),
    ),
    AlertType(
        key="alert_new_merchant",
        title="First purchase at a merchant",
        description="Tells you when your card is used somewhere it has never been used before.",
        category=MERCHANT_MONITORING,
        query="Notify me when I make a purchase from a new merchant",
        evidence="Of the merchants that you used in the last 30 days, {new_merchant_share_30d:.0%} were new to you.",
        keywords=(
            rf"(?:new|unknown|unfamiliar|unrecogni[sz]ed|first-time) {_SHOP}s?(?: \w+){{0,2}}",
            rf"{_SHOP}s? (?:that )?(?:i have|i've|i had) never (?:used|visited|shopped)(?: \w+){{0,2}}",
            r"never (?:used|visited|shopped|bought) (?:\w+ )?before",
            r"first (?:time|purchase) (?:at|from|with)(?: an?)?(?: \w+)?",
            r"\bfirst time\b",
            r"\bunfamiliar\b",
        ),
        parameters=MappingProxyType({"amount": 0.0}),
    ),
    AlertType(
        key="alert_location_based",
        title="Purchases away from home",
        description="Tells you about purchases made outside your home state or country.",
        category=LOCATION_BASED,
        query="Alert me if a transaction happens outside my home {scope}",
        evidence="{out_of_state_share:.0%} of your purchases with a known place were made outside your home state.",
        keywords=(
            rf"(?:outside|out of|away from) (?:of )?(?:my |the )?(?:home )?{_PLACE}",
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
        parameters=MappingProxyType({"scope": "state", "amount": 0.0}),
    ),
    AlertType(
        key="alert_subscription_monitoring",
        title="New or dearer subscriptions",
        description="Tells you when a recurring charge is new or costs more than before.",
        category=SUBSCRIPTION_MONITORING,
        query="Alert me if the amount of a recurring charge increases by more than {percent:.0f}%",
        evidence=(
            "You have {recurring_charge_count:.0f} recurring charges, about ${recurring_monthly_amount:,.2f} a month."
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
