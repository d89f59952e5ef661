"""Loads a file of records: rows, rejects and labels in one transaction, so that it is in or it is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

import polars as pl
from sqlalchemy import Connection, Engine, text

from mllib.ingest.batches import Batch, Reject
from mllib.sources import Table
from mllib.store import labels, partitions, text_copy
from mllib.store.database import driver, transaction
from mllib.store.ingest_files import Loaded, LogFile
from mllib.store.queries import queries
from mllib.store.records import writer

MAX_NEW_PARTITIONS = 1000
"""Days that one file may make partitions for; the rest goes to the default partition, and maintenance sorts it out."""

_COPY_REJECTS = "copy millrace.ingest_rejects (file_id, line_number, byte_offset, raw, reason) from stdin"


class Overlap(Exception):  # noqa: N818 - it reads as what is wrong
    """A file whose line ids its source has already. The message says which; ``by_line`` that they are line numbers."""

    def __init__(self, complaint: str, *, by_line: bool) -> None:
        super().__init__(complaint)
        self.by_line = by_line


def load(
    engine: Engine,
    conn: Connection,
    file: LogFile,
    batches: Iterable[Batch],
    *,
    into: Table,
    lines_before: int,
    with_labels: bool,
) -> Loaded:
    """Loads a file, or what was added to it, in the open transaction and flat memory.

    Raises Overlap when an earlier file of the same source has the same line ids: then labels could not tell the lines
    apart. The transaction is to be rolled back then, as after any other error. ``engine`` is for making partitions.
    """
    file_id = int(conn.execute(queries["intake.add_file"], asdict(file)).scalar_one())
    copied = _Copied(engine, conn, file, file_id, into=into, lines_before=lines_before, with_labels=with_labels)
    for batch in batches:
        copied.add(batch)
        copied.check_lines()
    # Another file of the source may have come in meanwhile, or be about to.
    conn.execute(queries["intake.lock_source"], {"source": file.source})
    copied.check_lines()
    if file.continues is None:  # what has been added to a file may repeat its ids, as the file itself may
        copied.check_ids()
    return copied.finish()


class _Copied:
    """The part of a file that is in the open transaction."""

    def __init__(
        self,
        engine: Engine,
        conn: Connection,
        file: LogFile,
        file_id: int,
        *,
        into: Table,
        lines_before: int,
        with_labels: bool,
    ) -> None:
        self.rows = 0
        self.line_ids = False
        self._engine = engine
        self._conn = conn
        self._file = file
        self._file_id = file_id
        self._writer = writer(into)
        self._with_labels = with_labels
        self._rejected = 0
        self._labels = 0
        self._last_line = lines_before
        self._chain = file_id if file.continues is None else file.continues
        self._first_ts: datetime | None = None
        self._last_ts: datetime | None = None
        self._first_id: str | None = None
        self._last_id: str | None = None
        self._days: set[date] = set()
        self._partitioning = True

    def add(self, batch: Batch) -> None:
        if batch.parsed or batch.columns:
            self._add_rows(self._writer.rows(batch))
        if batch.rejects:
            with driver(self._conn).cursor() as cursor, cursor.copy(_COPY_REJECTS) as copy:
                for reject in batch.rejects:
                    copy.write_row(_reject(self._file_id, reject))
        self._rejected += len(batch.rejects)
        self._last_line += batch.lines

    def _add_rows(self, rows: pl.DataFrame) -> None:
        row_ids = self._conn.execute(queries["intake.row_ids"], {"rows": len(rows)}).scalar_one()
        self.line_ids = self.line_ids or rows["source_id"].has_nulls()
        rows = rows.with_columns(
            pl.Series("row_id", row_ids, dtype=pl.Int64),
            source=pl.lit(self._file.source),
            source_id=pl.coalesce("source_id", pl.col("line").cast(pl.String)),
        )
        self._make_partitions(set(rows["ts"].dt.date().unique()))
        with driver(self._conn).cursor() as cursor, cursor.copy(self._writer.copy) as copy:
            copy.write(text_copy.encoded(rows.select("ts", "row_id", "source", "source_id", *self._writer.schema)))
        if self._with_labels:
            verdicts = rows.select("ts", "row_id", "label").drop_nulls()
            self._labels += labels.add_imported(self._conn, self._writer.table, verdicts, labelled_by=self._file.path)
        self.rows += len(rows)
        # Of texts the order is that of their bytes, as it is in ingest_files.
        self._first_ts, self._last_ts = _extent(rows["ts"], self._first_ts, self._last_ts)
        self._first_id, self._last_id = _extent(rows["source_id"], self._first_id, self._last_id)

    def check_lines(self) -> None:
        """Raises Overlap if another file of the source has line numbers for ids as well."""
        if not self.line_ids:
            return
        path = self._conn.execute(
            queries["intake.numbered_by_line"], {"source": self._file.source, "chain": self._chain}
        ).scalar_one_or_none()
        if path is not None:
            raise Overlap(f"its line numbers overlap with those of {path}", by_line=True)

    def check_ids(self) -> None:
        """Raises Overlap if an earlier line of the source has the id of one of this file's."""
        ids = {"source": self._file.source, "first_id": self._first_id, "last_id": self._last_id}
        times = self._conn.execute(queries["intake.overlapping_ids"], ids).one()
        if times.first_ts is None:
            return
        # The planner knows nothing of rows just copied, takes them for a few, and would loop over all the others.
        self._conn.execute(text("set local enable_nestloop = off"))
        repeated = self._conn.execute(
            queries.of(self._writer.table, "intake.repeated_id"), {"source": self._file.source, **times._mapping}
        ).scalar_one_or_none()
        if repeated is not None:
            raise Overlap(f"the id {repeated!r} is there", by_line=False)

    def finish(self) -> Loaded:
        self._conn.execute(
            queries["intake.finish_file"],
            {
                "file_id": self._file_id,
                "own_ids": not self.line_ids,
                "last_line": self._last_line,
                "rows": self.rows,
                "rejected": self._rejected,
                "labels": self._labels,
                "first_ts": self._first_ts,
                "last_ts": self._last_ts,
                "first_id": self._first_id,
                "last_id": self._last_id,
            },
        )
        return Loaded(file_id=self._file_id, rows=self.rows, rejected=self._rejected, labels=self._labels)

    def _make_partitions(self, days: set[date]) -> None:
        missing = days - self._days
        if not missing or not self._partitioning:
            return
        if len(self._days) + len(missing) > MAX_NEW_PARTITIONS:
            self._partitioning = False
            return
        # A row of this transaction in the default partition would make the next call wait for ourselves.
        partitions.ensure(self._engine, self._writer.table.name, missing)
        self._days |= missing
        with transaction(self._engine) as conn:
            self._partitioning = missing <= partitions.existing(conn, self._writer.table.name)


def _extent(values: pl.Series, first: Any, last: Any) -> tuple[Any, Any]:
    """The lowest and the highest, with what they were before."""
    low, high = values.min(), values.max()
    return (low, high) if first is None else (min(first, low), max(last, high))


def _reject(file_id: int, reject: Reject) -> tuple[object, ...]:
    return file_id, reject.line_number, reject.byte_offset, reject.raw, reject.reason
