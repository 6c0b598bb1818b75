"""What users do with rules and recommendations, by name."""

from __future__ import annotations

CREATED = "created"
ENABLED = "enabled"
DISABLED = "disabled"
DELETED = "deleted"
SHOWN = "shown"
EXPANDED = "expanded"
ACCEPTED = "accepted"
DISMISSED = "dismissed"
SNOOZED = "snoozed"

RULE_ACTIONS = (CREATED, ENABLED, DISABLED, DELETED)
RECOMMENDATION_ACTIONS = (SHOWN, EXPANDED, ACCEPTED, DISMISSED, SNOOZED)
ACTIONS = RULE_ACTIONS + RECOMMENDATION_ACTIONS
SWITCHED_ON = (CREATED, ENABLED)
LOOKED_AT = (SHOWN, EXPANDED)
REFUSED = (DISMISSED, DISABLED, DELETED)
