"""Accepted rows → a relation, by COPY and one upsert."""

from __future__ import annotations

import polars as pl
from psycopg import Cursor
from psycopg.sql import SQL, Composable, Composed, Identifier

from alertrec.importing.relations import ALERT_RULES, CREATED_AT, ID, UPDATED_AT

_NOT_NULL_TIMES = {ALERT_RULES: (CREATED_AT, UPDATED_AT)}


class Loader:
    """Takes the rows of one relation in slices and merges them at the end; the caller commits.

    Parameters
    ----------
    columns : list of str
        The columns of every slice; the others of a new row take the table's defaults, those of a known row stay.
    """

    def __init__(self, cursor: Cursor[tuple[int, int]], relation: str, *, schema: str, columns: list[str]) -> None:
        self._cursor = cursor
        self._relation = relation
        self._target = Identifier(schema, relation)
        self._staged = Identifier("pg_temp", f"import_{relation}")
        self._columns = columns
        self._names = SQL(", ").join(map(Identifier, columns))
        self._make_staged()

    def _make_staged(self) -> None:
        self._cursor.execute(SQL("DROP TABLE IF EXISTS {}").format(self._staged))
        self._cursor.execute(
            SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                self._staged, self._names, self._target
            )
        )

    def copy(self, frame: pl.DataFrame) -> None:
        """Stage a slice."""
        statement = SQL("COPY {} ({}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')").format(self._staged, self._names)
        # Every text is quoted: an unquoted empty field is NULL, a quoted one the empty text.
        rows = frame.select(self._columns).write_csv(include_header=False, quote_style="non_numeric")
        with self._cursor.copy(statement) as copy:
            copy.write(rows)

    def merge(self) -> tuple[int, int]:
        """Merge what is staged into the relation and return the numbers of rows inserted and updated."""
        # A fresh row has no xmax; the lock that an update takes sets it. PostgreSQL 18 could say RETURNING old.
        self._cursor.execute(
            SQL(
                "WITH merged AS ("
                "INSERT INTO {target} AS t ({names}) SELECT {values} FROM {staged} AS s "
                "ON CONFLICT (id) DO {action} RETURNING (t.xmax = 0) AS is_new) "
                "SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM merged"
            ).format(
                target=self._target,
                names=self._names,
                values=SQL(", ").join(map(self._value, self._columns)),
                staged=self._staged,
                action=self._update(),
            )
        )
        row = self._cursor.fetchone()
        assert row is not None
        self._cursor.execute(SQL("DROP TABLE {}").format(self._staged))
        return row

    def analyze(self) -> None:
        """Let the planner know the new contents."""
        self._cursor.execute(SQL("ANALYZE {}").format(self._target))

    def _value(self, column: str) -> Composable:
        if column not in _NOT_NULL_TIMES.get(self._relation, ()):
            return SQL("s.{}").format(Identifier(column))
        # A rule without a time keeps the one that it was given by an earlier import.
        return SQL("COALESCE(s.{0}, (SELECT o.{0} FROM {1} AS o WHERE o.id = s.id), now())").format(
            Identifier(column), self._target
        )

    def _update(self) -> Composed | SQL:
        changing = [Identifier(column) for column in self._columns if column != ID]
        if not changing:
            return SQL("NOTHING")
        return SQL("UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})").format(
            SQL(", ").join(SQL("{0} = excluded.{0}").format(name) for name in changing),
            SQL(", ").join(SQL("t.{}").format(name) for name in changing),
            SQL(", ").join(SQL("excluded.{}").format(name) for name in changing),
        )
