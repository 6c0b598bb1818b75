"""Import the files of a bank's export: refuse the bad rows, load the rest."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import psycopg
import sqlalchemy

from alertrec.importing.loading import Loader
from alertrec.importing.mapping import Mapping, RelationMapping, check_columns, project
from alertrec.importing.reading import Slice, Source, open_source
from alertrec.importing.rejects import RejectsFile, rejects_file
from alertrec.importing.relations import ALERT_RULES, EXPECTED, ID, MALFORMED_ROW, TRANSACTIONS, USERS
from alertrec.importing.validation import COLUMN, REASON, ROW, validate
from alertrec.storage import tables
from alertrec.storage.schema import add_optional_columns

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RelationReport:
    """What became of the rows of one file; `rejected` counts them by reason."""

    n_read: int
    n_inserted: int
    n_updated: int
    n_unchanged: int
    rejected: dict[str, int]

    @property
    def n_rejected(self) -> int:
        """Rows refused."""
        return sum(self.rejected.values())


@dataclass(frozen=True)
class ImportReport:
    """The reports of the relations that were imported, by name."""

    relations: dict[str, RelationReport]

    @property
    def n_rejected(self) -> int:
        """Rows refused, of all relations."""
        return sum(report.n_rejected for report in self.relations.values())


def _silent(relation: str, rows_done: int, rows_total: int) -> None:
    """Report progress to nobody."""


def import_files(
    connection: sqlalchemy.Connection,
    *,
    schema: str,
    users: Path | None = None,
    transactions: Path | None = None,
    alert_rules: Path | None = None,
    mapping: Mapping | None = None,
    rejects_path: Path,
    progress: Progress = _silent,
) -> ImportReport:
    """Load up to three files; rows known by their id are updated, so that importing again changes nothing.

    Parameters
    ----------
    connection : Connection
        In a transaction that the caller commits: all files are loaded, or none.
    schema : str
        Where the source relations are.
    rejects_path : Path
        Gets the refused rows, if there are any, in place of those of an earlier import.
    progress : callable
        Called with relation, rows done and rows in all; the latter is an estimate until the last call.

    Raises
    ------
    DataError
        If a file is missing, cannot be read or lacks a column.
    """
    started = time.perf_counter()
    paths = {USERS: users, TRANSACTIONS: transactions, ALERT_RULES: alert_rules}
    mapping = mapping or Mapping()
    reports: dict[str, RelationReport] = {}
    with rejects_file(rejects_path) as rejects:
        for relation, path in paths.items():
            if path is not None:
                job = _Job(connection, schema, relation, mapping.of(relation), rejects, progress)
                reports[relation] = job.run(path)
    report = ImportReport(reports)
    logger.info(
        "files imported",
        extra={
            "action": "files_imported",
            "n_read": sum(each.n_read for each in reports.values()),
            "n_rejected": report.n_rejected,
            "seconds": time.perf_counter() - started,
        },
    )
    return report


@dataclass
class _Job:
    """The import of one file."""

    connection: sqlalchemy.Connection
    schema: str
    relation: str
    mapping: RelationMapping
    rejects: RejectsFile
    progress: Progress
    rejected: Counter[str] = field(default_factory=Counter)
    n_read: int = 0
    taken: pl.Series = field(default_factory=lambda: pl.Series(ID, [], dtype=pl.String))

    def run(self, path: Path) -> RelationReport:
        with open_source(path, separator=self.mapping.separator) as source:
            check_columns(source.columns, self.relation, self.mapping, path=path)
            user_ids = pl.Series(ID, [] if self.relation == USERS else self._user_ids(), dtype=pl.String)
            return self._load(source, user_ids)

    def _user_ids(self) -> list[str]:
        # The users of the same export are in the table by now.
        statement = sqlalchemy.select(tables.users.c.id)
        options = {"schema_translate_map": {None: self.schema}}
        return list(self.connection.execute(statement, execution_options=options).scalars())

    def _load(self, source: Source, user_ids: pl.Series) -> RelationReport:
        loader: Loader | None = None
        self.progress(self.relation, 0, source.n_rows)
        with closing(self._driver().cursor()) as cursor:
            for each in source.slices:
                accepted = self._check(each, user_ids)
                loader = loader or self._loader(cursor, accepted.columns)
                loader.copy(accepted)
                self.progress(self.relation, self.n_read, max(source.n_rows, self.n_read))
            n_inserted, n_updated = loader.merge() if loader else (0, 0)
            if loader:
                loader.analyze()
        self.progress(self.relation, self.n_read, self.n_read)
        n_unchanged = self.n_read - self.rejected.total() - n_inserted - n_updated
        return RelationReport(self.n_read, n_inserted, n_updated, n_unchanged, dict(self.rejected))

    def _loader(self, cursor: psycopg.Cursor[tuple[int, int]], columns: list[str]) -> Loader:
        table = tables.source_metadata.tables[self.relation].to_metadata(sqlalchemy.MetaData(), schema=self.schema)
        add_optional_columns(self.connection, table, columns)
        return Loader(cursor, self.relation, schema=self.schema, columns=columns)

    def _driver(self) -> psycopg.Connection[tuple[int, int]]:
        # COPY is the driver's own; the statement lets SQLAlchemy know that a transaction has begun.
        self.connection.exec_driver_sql("SELECT 1").close()
        driver: psycopg.Connection[tuple[int, int]] = self.connection.connection.driver_connection  # type: ignore[assignment]  # typed as any driver's
        return driver

    def _check(self, rows: Slice, user_ids: pl.Series) -> pl.DataFrame:
        """Write down the refused rows of a slice and return the others."""
        self.n_read += rows.frame.height + len(rows.malformed)
        for row, text in rows.malformed:
            self._reject(row, None, MALFORMED_ROW, {"line": text})
        checked = validate(
            project(rows.frame, self.relation, self.mapping),
            self.relation,
            user_ids=user_ids,
            taken_ids=self.taken,
            date_format=self.mapping.date_format,
        )
        self.taken.append(checked.accepted[ID])
        for record in rows.frame.join(checked.rejected, on=ROW, maintain_order="left").iter_rows(named=True):
            original = {name: value for name, value in record.items() if name not in (ROW, REASON, COLUMN)}
            self._reject(record[ROW], record[COLUMN], record[REASON], original)
        return checked.accepted

    def _reject(self, row: int, column: str | None, reason: str, record: dict[str, object]) -> None:
        self.rejected[reason] += 1
        told = {"column": column, "reason": reason, "expected": EXPECTED[reason]}
        self.rejects.write(self.relation, row, told, record=record)
