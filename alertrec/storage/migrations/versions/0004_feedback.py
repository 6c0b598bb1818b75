"""Actions say until when an alert stays away, and what had been promised of the recommendation that they answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # All of them may be NULL and have no default: no row is rewritten, and workers of the last release still log.
    op.add_column("alert_actions", sa.Column("due_at", sa.DateTime(timezone=True)), schema="alertrec")
    op.add_column("alert_actions", sa.Column("probability", sa.Double()), schema="alertrec")
    op.add_column("alert_actions", sa.Column("model_version", sa.Text()), schema="alertrec")
    op.create_index(
        "ix_alert_actions_put_off",
        "alert_actions",
        ["occurred_at"],
        schema="alertrec",
        postgresql_where=sa.text("action IN ('snoozed', 'dismissed')"),
    )


def downgrade() -> None:
    op.drop_index("ix_alert_actions_put_off", "alert_actions", schema="alertrec")
    for column in ("model_version", "probability", "due_at"):
        op.drop_column("alert_actions", column, schema="alertrec")
