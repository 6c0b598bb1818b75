"""Actions are found by when they were recorded: what happened since the champion was trained."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_alert_actions_recorded_at", "alert_actions", ["recorded_at"], schema="alertrec")


def downgrade() -> None:
    op.drop_index("ix_alert_actions_recorded_at", "alert_actions", schema="alertrec")
