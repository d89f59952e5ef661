"""Verdicts on rows: reads the mature ones, and files new ones under the rows that they name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from sqlalchemy import Connection, Row

from mllib.gate.slices import LabelHour
from mllib.sources import Source, Table
from mllib.store import text_copy
from mllib.store.database import driver
from mllib.store.queries import queries
from mllib.types import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """First and last row, and first and last mature labelled row, up to a time; None where there is none."""

    first_row: datetime | None
    last_row: datetime | None
    first_labelled: datetime | None
    last_labelled: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedLabel:
    """A verdict on a row that is named by its source and its id there."""

    source: str
    source_id: str
    label: str
    note: str | None = None


def extent(conn: Connection, source: Source, *, as_of: datetime, delay: timedelta) -> Extent:
    """How far rows and labels reach that were known at ``as_of``; labels ripen for ``delay``."""
    row = conn.execute(queries.of(source, "labels.extent"), {"as_of": as_of, "delay": delay}).one()
    return Extent(**row._mapping)


def hours(
    conn: Connection,
    source: Source,
    *,
    until: datetime,
    as_of: datetime,
    delay: timedelta,
    grain: timedelta,
    snapshot: str,
) -> list[LabelHour]:
    """Counts of rows, mature labels and positives per ``grain`` of event time, in order, up to ``until``."""
    binds = {"until": until, "as_of": as_of, "delay": delay, "grain": grain, "snapshot": snapshot}
    # A label may be there whose row the snapshot does not see, or that has been deleted.
    return [
        LabelHour(
            start=row.start,
            rows=row.rows,
            labelled=min(row.labelled, row.rows),
            positives=min(row.positives, row.labelled, row.rows),
        )
        for row in conn.execute(queries.of(source, "labels.hours"), binds)
    ]


def in_window(
    conn: Connection,
    source: Source,
    window: Window,
    *,
    as_of: datetime,
    delay: timedelta,
    recorded_until: datetime | None = None,
) -> pl.DataFrame:
    """Mature verdicts on rows of a window: columns ``log_id``, ``label`` and ``positive`` (any but 0).

    Imported ones count as known at the time of their row, however late they were filed; with ``recorded_until`` those
    that were really filed later are left out.
    """
    binds = {
        "start": window.start,
        "end": window.end,
        "as_of": as_of,
        "delay": delay,
        "recorded_until": recorded_until,
    }
    rows = conn.execute(queries.of(source, "labels.in_window"), binds).all()
    return pl.DataFrame(
        {"log_id": [row.log_id for row in rows], "label": [row.label for row in rows]},
        schema={"log_id": pl.Int64, "label": pl.String},
    ).with_columns(positive=pl.col("label") != "0")


def stage(conn: Connection, labels: Iterable[StagedLabel]) -> int:
    """Copies verdicts into a temporary table that lives until the transaction ends. Returns how many."""
    conn.execute(queries["labels.stage"])
    staged = 0
    statement = "copy staged_labels (source, source_id, label, note) from stdin"
    with driver(conn).cursor() as cursor, cursor.copy(statement) as copy:
        for label in labels:
            copy.write_row((label.source, label.source_id, label.label, label.note))
            staged += 1
    return staged


def apply_staged(conn: Connection, *, origin: str, labelled_by: str) -> int:
    """Files the staged verdicts under the rows that they name. Returns how many rows that were."""
    conn.execute(queries["labels.find_rows"])
    return conn.execute(queries["labels.apply_staged"], {"origin": origin, "labelled_by": labelled_by}).rowcount


@dataclass(frozen=True, kw_only=True, slots=True)
class Misnamed:
    """How many staged verdicts name no row, or more than one, and up to three of them as ``source/id``."""

    verdicts: int
    examples: tuple[str, ...]


def misnamed(conn: Connection) -> tuple[Misnamed, Misnamed]:
    """The staged verdicts that name no row, and those that name several."""
    conn.execute(queries["labels.find_rows"])
    rows = conn.execute(queries["labels.misnamed"]).all()
    none, several = ([row for row in rows if row.several is kind] for kind in (False, True))
    return _misnamed(none), _misnamed(several)


def _misnamed(rows: Sequence[Row[Any]]) -> Misnamed:
    examples = tuple(f"{row.source}/{row.source_id}" for row in rows)
    return Misnamed(verdicts=rows[0].verdicts if rows else 0, examples=examples)


def add_imported(conn: Connection, table: Table, verdicts: pl.DataFrame, *, labelled_by: str) -> int:
    """Files verdicts that came with the rows of a table: ``ts``, ``row_id`` and ``label``. Returns how many."""
    rows = verdicts.with_columns(subject=pl.lit(table.name), origin=pl.lit("import"), labelled_by=pl.lit(labelled_by))
    statement = "copy millrace.labels (ts, row_id, label, subject, origin, labelled_by) from stdin"
    with driver(conn).cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(text_copy.encoded(rows))
    return len(rows)
