"""Writing and reading users' lists."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

from sqlalchemy import Connection, MetaData, Row, RowMapping, Select, bindparam, delete, func, select, text

from alertrec.lists import Lists
from alertrec.storage.frames import copy_frame
from alertrec.storage.tables import recommendation_lists, recommendations

# One temporary table a connection, emptied at each commit: creating one a transaction would bloat the catalogue.
# With the defaults, for columns that a later release adds: a worker of this one may still write then.
_STAGING = text("""
    CREATE TEMPORARY TABLE IF NOT EXISTS new_lists (LIKE alertrec.recommendation_lists INCLUDING DEFAULTS)
        ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE IF NOT EXISTS new_items (LIKE alertrec.recommendations INCLUDING DEFAULTS)
        ON COMMIT DELETE ROWS
""")
# Upserted in the order of users, so that two writers of the same users wait for each other and never deadlock.
_UPSERT_LISTS = text("""
    INSERT INTO alertrec.recommendation_lists AS stored
        (user_id, recommendation_type, model_version, generated_at, expires_at, as_of, n_items)
    SELECT user_id, recommendation_type, model_version, generated_at, expires_at, as_of, n_items
    FROM new_lists ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET
        recommendation_type = excluded.recommendation_type, model_version = excluded.model_version,
        generated_at = excluded.generated_at, expires_at = excluded.expires_at,
        as_of = excluded.as_of, n_items = excluded.n_items
    WHERE stored.generated_at <= excluded.generated_at
    RETURNING user_id
""")
# What was refused above, a newer list being there, is neither deleted nor inserted here.
_DELETE_ITEMS = text("DELETE FROM alertrec.recommendations WHERE user_id = ANY(:user_ids)")
_new_items = recommendations.to_metadata(MetaData(), schema="pg_temp", name="new_items")
_INSERT_ITEMS = recommendations.insert().from_select(
    [column.name for column in recommendations.columns],
    select(_new_items).where(_new_items.c.user_id == func.any(bindparam("user_ids"))),
)
_DELETE_EXPIRED = text("""
    WITH gone AS (
        DELETE FROM alertrec.recommendation_lists
        WHERE expires_at < now() - make_interval(days => :days) RETURNING user_id
    ), items AS (
        DELETE FROM alertrec.recommendations USING gone WHERE recommendations.user_id = gone.user_id
    )
    SELECT count(*) FROM gone
""")


def write_lists(connection: Connection, new: Lists) -> list[str]:
    """Replace the lists of these users, whole; a list that is newer stays as it is. Once a transaction.

    Returns
    -------
    list of str
        Users whose list was written; less than given where a newer one was there.
    """
    connection.execute(_STAGING)
    copy_frame(connection, "new_lists", new.lists)
    copy_frame(connection, "new_items", new.items)
    user_ids = list(connection.execute(_UPSERT_LISTS).scalars())
    connection.execute(_DELETE_ITEMS, {"user_ids": user_ids})
    connection.execute(_INSERT_ITEMS, {"user_ids": user_ids})
    return user_ids


def delete_list(connection: Connection, user_id: str) -> None:
    """Delete the list of a user who is served no longer."""
    for table in (recommendation_lists, recommendations):  # locked in the order in which lists are written
        connection.execute(delete(table).where(table.c.user_id == user_id))


def current_list(user_id: str) -> Select[Any]:
    """Return the query of a user's list, if it is current."""
    table = recommendation_lists
    return select(table).where(table.c.user_id == user_id, table.c.expires_at > func.now())


def items_of(user_id: str) -> Select[Any]:
    """Return the query of a user's recommendations, the best first."""
    return select(recommendations).where(recommendations.c.user_id == user_id).order_by(recommendations.c.rank)


def read_list(connection: Connection, user_id: str) -> RowMapping | None:
    """Return the row of a user's list, current or not; None for a user who is served none."""
    query = select(recommendation_lists).where(recommendation_lists.c.user_id == user_id)
    return connection.execute(query).mappings().first()


def read_items(connection: Connection, user_id: str) -> list[RowMapping]:
    """Return a user's recommendations, the best first."""
    return list(connection.execute(items_of(user_id)).mappings())


def current_items() -> Select[Any]:
    """Return the query of all recommendations of current lists, by user and rank."""
    table = recommendations
    return select(table).where(table.c.expires_at > func.now()).order_by(table.c.user_id, table.c.rank)


def stream_current_items(connection: Connection, n_rows: int = 50_000) -> Generator[list[Row[Any]], None, None]:
    """Yield the recommendations of all current lists, by user and rank, some rows at a time."""
    with connection.execution_options(yield_per=n_rows).execute(current_items()) as result:
        yield from cast("Generator[list[Row[Any]], None, None]", result.partitions())


def delete_expired(connection: Connection, days: int) -> int:
    """Delete lists that expired more than `days` ago, with their items, and return how many."""
    result = connection.execute(_DELETE_EXPIRED, {"days": days})
    return int(result.scalar_one())


def counts(connection: Connection) -> tuple[int, int]:
    """Return how many lists are current and how many have expired."""
    current = recommendation_lists.c.expires_at > func.now()
    row = connection.execute(
        select(func.count().filter(current), func.count().filter(~current)).select_from(recommendation_lists)
    ).one()
    return int(row[0]), int(row[1])
