"""Verdicts on log lines: reads the mature ones, and files new ones under the rows that they name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
from sqlalchemy import Connection

from mllib.slices import LabelHour
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


def extent(conn: Connection, *, as_of: datetime, delay: timedelta) -> Extent:
    """How far rows and labels reach that were known at ``as_of``; labels ripen for ``delay``."""
    row = conn.execute(queries["labels.extent"], {"as_of": as_of, "delay": delay}).one()
    return Extent(**row._mapping)


def hours(
    conn: Connection, *, until: datetime, as_of: datetime, delay: timedelta, grain: timedelta, snapshot: str
) -> list[LabelHour]:
    """Counts of rows, mature labels and positives per ``grain`` of event time, in order, up to ``until``."""
    binds = {"until": until, "as_of": as_of, "delay": delay, "grain": grain, "snapshot": snapshot}
    return [
        LabelHour(start=row.start, rows=row.rows, labelled=min(row.labelled, row.rows), positives=row.positives)
        for row in conn.execute(queries["labels.hours"], binds)
    ]


def in_window(conn: Connection, window: Window, *, as_of: datetime, delay: timedelta) -> pl.DataFrame:
    """Mature verdicts on rows of a window: columns ``log_id`` and ``positive`` (any verdict but 0)."""
    binds = {"start": window.start, "end": window.end, "as_of": as_of, "delay": delay}
    rows = conn.execute(queries["labels.in_window"], binds).all()
    return pl.DataFrame(
        {"log_id": [row.log_id for row in rows], "positive": [row.label != "0" for row in rows]},
        schema={"log_id": pl.Int64, "positive": pl.Boolean},
    )


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
    return conn.execute(queries["labels.apply_staged"], {"origin": origin, "labelled_by": labelled_by}).rowcount


def apply_staged_to_new_rows(conn: Connection, *, labelled_by: str) -> int:
    """The same, for verdicts on rows that this transaction inserted. Returns how many rows that were."""
    return conn.execute(queries["labels.apply_staged_new"], {"labelled_by": labelled_by}).rowcount


def unmatched(conn: Connection) -> tuple[int, list[str]]:
    """How many staged verdicts name no row, and up to three of them as ``source/id``."""
    rows = conn.execute(queries["labels.unmatched"]).all()
    return (rows[0].missing if rows else 0), [f"{row.source}/{row.source_id}" for row in rows]
