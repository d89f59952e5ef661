"""Hours of event time that no run over event times has scored: what a cancelled or stuck backfill leaves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from mllib.store import detectors
from mllib.store.queries import queries
from mllib.types import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class UncoveredHour:
    """An hour of event time, or the part of it that was asked for, that no published run over a window covers."""

    window: Window
    rows: int  # rows in it
    open: bool  # a run that is not finished is at it


def hours_without_run(
    conn: Connection, detector: str, window: Window, *, since: datetime | None = None
) -> list[UncoveredHour]:
    """The hours of a window that no published run over event times covers, or that an unfinished one is at, in order.

    Airflow calls the queued runs of a cancelled backfill failed, and they have claimed nothing: the ledger knows such
    hours by what is not there. ``since`` counts only runs that were claimed from then on, for a backfill over hours
    that were scored before.
    """
    keys = {"detector_id": detectors.identify(conn, detector), "since": since}
    statement = queries.of(detectors.source_of(detector), "ledger.uncovered_hours")
    rows = conn.execute(statement, {**keys, "start": window.start, "end": window.end})
    return [UncoveredHour(window=Window(row.starts, row.ends), rows=row.rows, open=row.open) for row in rows]
