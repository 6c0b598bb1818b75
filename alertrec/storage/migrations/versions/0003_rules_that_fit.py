"""Offers say of what type they are; advice on a rule that the user has is one of them, and has no probability."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_FILL_TYPES = """
    UPDATE alertrec.recommendations AS items SET recommendation_type = lists.recommendation_type
    FROM alertrec.recommendation_lists AS lists WHERE lists.user_id = items.user_id
"""
# In the order in which lists are written, so that a worker in the middle of one and we wait for no one in a circle.
_LOCK = "LOCK TABLE alertrec.recommendation_lists, alertrec.recommendations IN ACCESS EXCLUSIVE MODE"
_DELETE_CHANGES = "DELETE FROM alertrec.recommendations WHERE recommendation_type = 'change'"
_CLOSE_RANKS = """
    UPDATE alertrec.recommendations AS items SET rank = ranked.rank
    FROM (
        SELECT recommendation_id, row_number() OVER (PARTITION BY user_id ORDER BY rank) AS rank
        FROM alertrec.recommendations
    ) AS ranked
    WHERE ranked.recommendation_id = items.recommendation_id AND ranked.rank <> items.rank
"""
_COUNT_AGAIN = """
    UPDATE alertrec.recommendation_lists AS lists SET n_items = counted.n
    FROM (
        SELECT lists.user_id, count(items.user_id) AS n
        FROM alertrec.recommendation_lists AS lists LEFT JOIN alertrec.recommendations AS items USING (user_id)
        GROUP BY lists.user_id
    ) AS counted
    WHERE counted.user_id = lists.user_id AND counted.n <> lists.n_items
"""


def upgrade() -> None:
    # The default stays: a worker of the last release, which does not know the column, still writes while workers of
    # this one are started. For the same reason, a check stands in place of NOT NULL (see `tables.recommendations`).
    op.add_column(
        "recommendations",
        sa.Column("recommendation_type", sa.Text(), server_default="default", nullable=True),
        schema="alertrec",
    )
    op.add_column(
        "recommendations",
        sa.Column("change", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        schema="alertrec",
    )
    op.execute(_FILL_TYPES)
    op.alter_column("recommendations", "probability", nullable=True, schema="alertrec")
    op.create_check_constraint(
        "recommendation_type_is_given", "recommendations", "recommendation_type IS NOT NULL", schema="alertrec"
    )
    op.create_check_constraint(
        "only_a_change_has_no_probability",
        "recommendations",
        "probability IS NOT NULL OR recommendation_type = 'change'",
        schema="alertrec",
    )


def downgrade() -> None:
    op.execute(_LOCK)
    op.execute(_DELETE_CHANGES)
    op.execute(_CLOSE_RANKS)
    op.execute(_COUNT_AGAIN)
    op.drop_constraint("only_a_change_has_no_probability", "recommendations", schema="alertrec")
    op.drop_constraint("recommendation_type_is_given", "recommendations", schema="alertrec")
    op.alter_column("recommendations", "probability", nullable=False, schema="alertrec")
    op.drop_column("recommendations", "change", schema="alertrec")
    op.drop_column("recommendations", "recommendation_type", schema="alertrec")
