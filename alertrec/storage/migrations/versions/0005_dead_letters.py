"""Messages that were given up leave a row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.Text()),
        sa.Column("queue", sa.Text()),
        sa.Column("message_id", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("n_runs", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("message_id"),
        schema="alertrec",
    )
    op.create_index("ix_dead_letters_recorded_at", "dead_letters", ["recorded_at"], schema="alertrec")


def downgrade() -> None:
    op.drop_table("dead_letters", schema="alertrec")
