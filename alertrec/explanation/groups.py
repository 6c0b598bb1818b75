"""Features that a customer would speak of as one thing, by a name that fits in "your …"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

FEATURE_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "spending amounts": (
            "amount_mean",
            "amount_std",
            "amount_max",
            "amount_sum",
            "amount_median",
            "amount_p95",
            "weekly_spending_mean",
            "weekly_spending_max",
        ),
        "numbers of purchases": ("amount_count", "active_days", "daily_purchases_max"),
        "merchants": (
            "merchant_name_nunique",
            "merchant_category_nunique",
            "daily_merchants_max",
            "new_merchant_share_30d",
        ),
        "credit limit and balance": ("credit_limit", "credit_balance", "credit_utilization"),
        "times of day and week": ("night_share", "weekend_share"),
        "places of purchase": ("out_of_state_share", "out_of_country_share"),
        "latest changes in spending": ("days_since_purchase", "spending_trend_30d"),
        "recurring charges": (
            "recurring_charge_count",
            "recurring_weekly_count",
            "recurring_monthly_count",
            "recurring_monthly_amount",
            "recurring_price_rise",
        ),
    }
)


def feature_groups(columns: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of the features of each group; a feature that is in none is a group by its own name.

    Parameters
    ----------
    columns : sequence of str
        Names of the features, in the order that the model was trained on. Groups that have none of them are left out.
    """
    group_of = {feature: group for group, features in FEATURE_GROUPS.items() for feature in features}
    found: dict[str, list[int]] = {}
    for place, column in enumerate(columns):
        found.setdefault(group_of.get(column, column), []).append(place)
    return found
