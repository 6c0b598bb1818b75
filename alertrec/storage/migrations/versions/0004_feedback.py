"""Actions say until when an alert stays away, and what had been promised of the recommendation that they answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from alertrec.storage.migrations.steps import in_steps, lock

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with in_steps(op.get_bind()) as commit:
        lock(op.get_bind(), "alert_actions")
        # All of them may be NULL and have no default: no row is rewritten, and workers of the last release still log.
        op.execute(
            "ALTER TABLE alertrec.alert_actions ADD COLUMN IF NOT EXISTS due_at timestamptz, "
            "ADD COLUMN IF NOT EXISTS probability double precision, ADD COLUMN IF NOT EXISTS model_version text"
        )
        commit()
        op.create_index(
            "ix_alert_actions_put_off",
            "alert_actions",
            ["occurred_at"],
            schema="alertrec",
            postgresql_where=sa.text("action IN ('snoozed', 'dismissed')"),
        )


def downgrade() -> None:
    with in_steps(op.get_bind()):
        lock(op.get_bind(), "alert_actions")
        op.drop_index("ix_alert_actions_put_off", "alert_actions", schema="alertrec")
        for column in ("model_version", "probability", "due_at"):
            op.drop_column("alert_actions", column, schema="alertrec")
