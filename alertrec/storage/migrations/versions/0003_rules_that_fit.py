"""Offers say of what type they are; advice on a rule that the user has is one of them, and has no probability."""

from __future__ import annotations

from collections.abc import Iterator

from alembic import op
from sqlalchemy import Connection, TextClause, text

from alertrec.storage.migrations.steps import in_steps, lock

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_N_USERS = 2_000

# Locked before their items and in the order of users, as who writes lists does: nobody waits for us in a circle.
_NEXT_LISTS = text("""
    SELECT user_id FROM alertrec.recommendation_lists
    WHERE user_id > :after ORDER BY user_id LIMIT :n_users FOR UPDATE
""")
_LISTS_OF = text("""
    SELECT user_id FROM alertrec.recommendation_lists WHERE user_id = ANY(:user_ids) ORDER BY user_id FOR UPDATE
""")
_FILL_TYPES = text("""
    UPDATE alertrec.recommendations AS items SET recommendation_type = lists.recommendation_type
    FROM alertrec.recommendation_lists AS lists
    WHERE lists.user_id = items.user_id AND items.user_id = ANY(:user_ids) AND items.recommendation_type = 'default'
""")
_NEXT_WITH_CHANGES = text("""
    SELECT DISTINCT user_id FROM alertrec.recommendations
    WHERE user_id > :after AND recommendation_type = 'change' ORDER BY user_id LIMIT :n_users
""")
_DELETE_CHANGES = text("""
    DELETE FROM alertrec.recommendations WHERE user_id = ANY(:user_ids) AND recommendation_type = 'change'
""")
_CLOSE_RANKS = text("""
    UPDATE alertrec.recommendations AS items SET rank = ranked.rank
    FROM (
        SELECT recommendation_id, row_number() OVER (PARTITION BY user_id ORDER BY rank) AS rank
        FROM alertrec.recommendations WHERE user_id = ANY(:user_ids)
    ) AS ranked
    WHERE ranked.recommendation_id = items.recommendation_id AND ranked.rank <> items.rank
""")
_COUNT_AGAIN = text("""
    UPDATE alertrec.recommendation_lists AS lists
    SET n_items = (SELECT count(*) FROM alertrec.recommendations AS items WHERE items.user_id = lists.user_id)
    WHERE user_id = ANY(:user_ids)
""")

# NOT VALID: each row that is written from now on is checked. Those that are there are when the constraint is validated;
# they may be read and written meanwhile.
_CHECK_TYPES = """
    ALTER TABLE alertrec.recommendations
        DROP CONSTRAINT IF EXISTS recommendation_type_is_given,
        DROP CONSTRAINT IF EXISTS only_a_change_has_no_probability,
        ADD CONSTRAINT recommendation_type_is_given CHECK (recommendation_type IS NOT NULL) NOT VALID,
        ADD CONSTRAINT only_a_change_has_no_probability
            CHECK (probability IS NOT NULL OR recommendation_type = 'change') NOT VALID
"""
_VALIDATE_TYPES = """
    ALTER TABLE alertrec.recommendations
        VALIDATE CONSTRAINT recommendation_type_is_given,
        VALIDATE CONSTRAINT only_a_change_has_no_probability
"""
_CHECK_PROBABILITY = """
    ALTER TABLE alertrec.recommendations
        DROP CONSTRAINT IF EXISTS probability_is_given,
        ADD CONSTRAINT probability_is_given CHECK (probability IS NOT NULL) NOT VALID
"""


def upgrade() -> None:
    connection = op.get_bind()
    with in_steps(connection) as commit:
        lock(connection, "recommendations")
        # The default stays: a worker of the last release, which does not know the column, still writes while workers
        # of this one are started. For the same reason, a check stands in place of NOT NULL (see
        # `tables.recommendations`).
        op.execute(
            "ALTER TABLE alertrec.recommendations ADD COLUMN IF NOT EXISTS recommendation_type text DEFAULT 'default', "
            "ADD COLUMN IF NOT EXISTS change jsonb, ALTER COLUMN probability DROP NOT NULL"
        )
        op.execute(_CHECK_TYPES)
        commit()
        for user_ids in _batches(connection, _NEXT_LISTS):
            connection.execute(_FILL_TYPES, {"user_ids": user_ids})
            commit()
        op.execute(_VALIDATE_TYPES)


def downgrade() -> None:
    connection = op.get_bind()
    with in_steps(connection) as commit:
        lock(connection, "recommendations")
        op.execute(_CHECK_PROBABILITY)  # no more advice from here on
        commit()
        for user_ids in _batches(connection, _NEXT_WITH_CHANGES):
            for statement in (_LISTS_OF, _DELETE_CHANGES, _CLOSE_RANKS, _COUNT_AGAIN):
                connection.execute(statement, {"user_ids": user_ids})
            commit()
        op.execute("ALTER TABLE alertrec.recommendations VALIDATE CONSTRAINT probability_is_given")
        commit()
        # In the order in which lists are written, so that a worker in the middle of one and we wait for no one in a
        # circle. Nothing is looked through any more: the check has said that each has a probability.
        lock(connection, "recommendation_lists", "recommendations")
        op.execute(
            "ALTER TABLE alertrec.recommendations ALTER COLUMN probability SET NOT NULL, "
            "DROP CONSTRAINT recommendation_type_is_given, DROP CONSTRAINT only_a_change_has_no_probability, "
            "DROP COLUMN change, DROP COLUMN recommendation_type"
        )
        op.execute("ALTER TABLE alertrec.recommendations DROP CONSTRAINT probability_is_given")


def _batches(connection: Connection, query: TextClause) -> Iterator[list[str]]:
    """Yield the users that a query finds, some at a time."""
    after = ""
    while user_ids := list(connection.scalars(query, {"after": after, "n_users": _N_USERS})):
        yield user_ids
        after = user_ids[-1]
