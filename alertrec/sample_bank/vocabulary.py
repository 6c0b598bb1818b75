"""The words and the numbers that a made-up bank is drawn from. Every name of a merchant is invented."""

from __future__ import annotations

from dataclasses import dataclass

from alertrec.transactions import FEE, PAYMENT, PURCHASE, REFUND


@dataclass(frozen=True)
class Category:
    name: str
    typical: float  # median amount in dollars
    spread: float  # standard deviation of the logarithm
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    share: float
    per_day: float
    scale: float  # of amounts
    loyalty: float  # exponent: the higher, the fewer merchants
    night: float
    weekend: float  # weight of a weekend's day
    trips: float  # a half-year
    subscriptions: float
    limit: float
    utilization: float
    taste: tuple[float, ...]  # of `CATEGORIES`
    alerts: tuple[float, ...]  # log-odds of each of `TEXTS`


CATEGORIES = (
    Category("groceries", 38, 0.6, ("Market", "Grocers", "Pantry", "Farm Shop")),
    Category("restaurants", 26, 0.6, ("Kitchen", "Grill", "Bistro", "Table")),
    Category("coffee", 6.5, 0.3, ("Coffee", "Roasters", "Bakery", "Tea Room")),
    Category("fuel", 42, 0.3, ("Fuel", "Service Station", "Gas & Go", "Truck Stop")),
    Category("clothing", 55, 0.8, ("Outfitters", "Apparel", "Shoes", "Tailors")),
    Category("electronics", 120, 1.0, ("Electronics", "Computers", "Audio", "Camera")),
    Category("entertainment", 24, 0.7, ("Cinema", "Games", "Theatre", "Bowling")),
    Category("health", 32, 0.8, ("Pharmacy", "Dental", "Wellness", "Optics")),
    Category("home", 65, 0.9, ("Hardware", "Furnishings", "Garden", "Interiors")),
    Category("transport", 14, 0.6, ("Taxi", "Transit", "Parking", "Car Rental")),
    Category("travel", 230, 0.8, ("Air", "Hotel", "Lodge", "Railways")),
)
FIRST_NAMES = (
    "Bramblewick", "Copperline", "Tidemark", "Quillfeather", "Larkspur Lane",
    "Old Mill Row", "Pinehollow", "Saltmarsh", "Wrenfield", "Amberly",
)  # fmt: skip
# Name, price, days between two charges.
SUBSCRIPTIONS = (
    ("Streamlark", 12.99, 30.4375),
    ("Tunebarrow", 9.99, 30.4375),
    ("Cloudpantry Storage", 2.99, 30.4375),
    ("Inkwell Daily News", 17.0, 30.4375),
    ("Forge & Flex Gym", 44.0, 30.4375),
    ("Pixelquarry Studio", 31.99, 30.4375),
    ("Meadow Meal Box", 58.0, 7.0),
    ("Pawprint Pet Box", 27.5, 30.4375),
    ("Owlet Language Lessons", 13.5, 30.4375),
    ("Bean Parcel", 16.0, 7.0),
)
HOMES = (
    ("New York", "NY"), ("Los Angeles", "CA"), ("Chicago", "IL"), ("Houston", "TX"), ("Phoenix", "AZ"),
    ("Philadelphia", "PA"), ("San Antonio", "TX"), ("San Diego", "CA"), ("Dallas", "TX"), ("Columbus", "OH"),
    ("Charlotte", "NC"), ("Indianapolis", "IN"), ("Seattle", "WA"), ("Denver", "CO"), ("Boston", "MA"),
    ("Nashville", "TN"), ("Detroit", "MI"), ("Portland", "OR"), ("Memphis", "TN"), ("Louisville", "KY"),
    ("Baltimore", "MD"), ("Milwaukee", "WI"), ("Albuquerque", "NM"), ("Tucson", "AZ"), ("Kansas City", "MO"),
    ("Atlanta", "GA"), ("Omaha", "NE"), ("Raleigh", "NC"), ("Miami", "FL"), ("Minneapolis", "MN"),
)  # fmt: skip
ABROAD = (("Toronto", "CA"), ("London", "GB"), ("Paris", "FR"), ("Lisbon", "PT"), ("Cancun", "MX"), ("Tokyo", "JP"))
CITIES = [city for city, _ in (*HOMES, *ABROAD)]
STATES: list[str | None] = [*(state for _, state in HOMES), *(None for _ in ABROAD)]
COUNTRIES = ["US"] * len(HOMES) + [country for _, country in ABROAD]
NOWHERE = -1  # an online charge has no place

# The order of `alerts` is that of `TEXTS`.
SEGMENTS = (
    # students
    Segment(0.16, 0.70, 0.6, 2.0, 0.22, 1.4, 0.6, 2.0, 1800, 0.55,
             (3, 5, 5, 1, 2, 1, 4, 1, 0.4, 4, 0.2), (1.2, 0.2, -0.8, 0.8, -0.8, -0.6, -1.2, 0.4)),
    # families
    Segment(0.22, 0.80, 1.15, 3.0, 0.03, 1.8, 0.5, 2.5, 9500, 0.40,
             (7, 3, 1, 4, 3, 1, 1.5, 3, 2.5, 0.6, 0.3), (1.3, -0.2, -0.6, 0.0, 0.4, -0.5, -1.0, 0.6)),
    # travellers
    Segment(0.11, 0.62, 1.3, 1.4, 0.12, 1.2, 4.5, 2.0, 14000, 0.30,
             (3, 5, 3, 2, 2, 1, 2, 1, 0.6, 4, 2.5), (-0.6, -0.6, 0.2, -0.8, 0.2, 0.9, 2.4, -0.4)),
    # big spenders
    Segment(0.10, 0.90, 2.6, 1.6, 0.08, 1.3, 1.5, 3.0, 26000, 0.35,
             (3, 4, 2, 2, 4, 3, 2, 1.5, 3, 1.5, 1.2), (0.6, -0.4, 0.3, -0.2, 1.9, 0.0, 0.1, -0.2)),
    # lovers of subscriptions
    Segment(0.13, 0.50, 0.9, 2.6, 0.10, 1.2, 0.4, 7.0, 6500, 0.40,
             (4, 3, 2, 2, 1.5, 2, 3, 1, 1, 1, 0.2), (-0.2, -0.6, -0.8, -0.1, -0.3, -0.1, -1.0, 2.4)),
    # the cautious
    Segment(0.18, 0.40, 0.75, 3.4, 0.01, 1.0, 0.3, 1.0, 7000, 0.12,
             (6, 1.5, 1, 3, 1, 0.4, 0.6, 3, 1.5, 0.5, 0.1), (0.0, 0.6, -0.4, -0.9, 1.1, 1.7, 0.2, 0.0)),
    # explorers of shops, who live near their limit
    Segment(0.10, 1.00, 0.85, 1.0, 0.16, 1.6, 0.8, 2.0, 3000, 0.80,
             (3, 4, 3, 2, 4, 2, 3, 1, 1.5, 2, 0.3), (0.2, 1.0, 1.5, 1.9, -0.4, -0.4, -0.8, -0.2)),
)  # fmt: skip

TEXTS: dict[str, tuple[str, ...]] = {
    "alert_high_spender": (
        "Notify me when my total spending exceeds ${amount:,} in a week",
        "Tell me if I spend more than ${amount:,} in a week",
        "Warn me when my weekly spending goes past ${amount:,}",
        "Let me know once I am over my weekly budget of ${amount:,}",
    ),
    "alert_high_tx_volume": (
        "Alert me if I make more than {count} transactions in a day",
        "Let me know when there are over {count} purchases in one day",
        "Warn me about too many transactions, say {count} in a day",
    ),
    "alert_high_merchant_diversity": (
        "Alert me if I shop at over {count} different merchants in one day",
        "Tell me when I visit more than {count} different stores in a day",
        "Notify me if my card is used at more than {count} distinct shops on a single day",
    ),
    "alert_near_credit_limit": (
        "Notify me when my credit utilization exceeds {percent}%",
        "Warn me when I have used {percent}% of my credit limit",
        "Tell me if my card balance reaches {percent}% of my limit",
    ),
    "alert_large_transaction": (
        "Alert me about any purchase over ${amount:,}",
        "Text me when a single transaction is more than ${amount:,}",
        "Let me know about every large purchase above ${amount:,}",
    ),
    "alert_new_merchant": (
        "Notify me when I make a purchase from a new merchant",
        "Tell me the first time I buy at a store I have never used before",
        "Alert me when an unfamiliar merchant charges my card",
    ),
    "alert_location_based": (
        "Alert me if a transaction happens outside my home {scope}",
        "Tell me when my card is used in another {scope}",
        "Warn me about purchases away from my home {scope}",
    ),
    "alert_subscription_monitoring": (
        "Alert me if the amount of a recurring charge increases by more than {percent}%",
        "Let me know when a new subscription starts",
        "Warn me about a price increase of a subscription by over {percent}%",
    ),
}

KINDS = (PURCHASE, REFUND, PAYMENT, FEE)
PER_CATEGORY = 40
PAYMENT_MERCHANT = PER_CATEGORY * len(CATEGORIES) + len(SUBSCRIPTIONS)
FEE_MERCHANT = PAYMENT_MERCHANT + 1


def merchants() -> tuple[list[str], list[str]]:
    """Return the names and the categories of all merchants."""
    names = [f"{first} {kind}" for each in CATEGORIES for kind in each.kinds for first in FIRST_NAMES]
    categories = [each.name for each in CATEGORIES for _ in range(PER_CATEGORY)]
    names += [name for name, _, _ in SUBSCRIPTIONS] + ["Card payment", "Late fee"]
    return names, categories + ["subscription"] * len(SUBSCRIPTIONS) + ["payment", "fee"]
