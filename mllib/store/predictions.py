"""Writes predictions, moves superseded ones to the history, and keeps the hourly counts. Never commits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain

import polars as pl
from sqlalchemy import Connection

from mllib.store import binary_copy
from mllib.store.database import driver
from mllib.store.queries import queries
from mllib.types import Window

_CLASSES = ("class", "confidence")

_HOUR = timedelta(hours=1)


@dataclass(slots=True)
class Written:
    """What was written, in all and by hour of event time (rows, anomalies, highest score)."""

    rows: int = 0
    anomalies: int = 0
    hours: dict[datetime, tuple[int, int, float]] = field(default_factory=dict)

    def add(self, frame: pl.DataFrame) -> None:
        by_hour = frame.group_by(pl.col("ts").dt.truncate("1h").alias("hour")).agg(
            pl.len().alias("rows"), pl.col("is_anomaly").sum().alias("anomalies"), pl.col("score").max().alias("score")
        )
        for hour, rows, anomalies, score in by_hour.iter_rows():
            before = self.hours.get(hour, (0, 0, 0.0))
            self.hours[hour] = (before[0] + rows, before[1] + anomalies, max(before[2], score))
            self.rows += rows
            self.anomalies += anomalies


def supersede(conn: Connection, detector_id: int, run_id: int, ranges: Sequence[Window]) -> None:
    """Moves the detector's predictions in these ranges to the history, as superseded by the run."""
    for window in ranges:
        conn.execute(
            queries["predictions.supersede"],
            {"detector_id": detector_id, "run_id": run_id, "start": window.start, "end": window.end},
        )


def write(
    conn: Connection, frames: Iterable[pl.DataFrame], *, detector_id: int, run_id: int, model_version: int
) -> Written:
    """Copies frames of predictions in, and counts them.

    They have the columns log_id, ts, score, raw_score, is_anomaly, severity, explanation (JSON as text, or null) and,
    where the detector tells classes apart, all of them class and confidence.
    The table's key refuses a second prediction of a row: then nothing of the transaction stays.
    """
    written = Written()
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return written
    columns = (*binary_copy.COLUMNS, *(_CLASSES if "class" in first.columns else ()), "explanation")
    statement = f"copy millrace.predictions ({', '.join(columns)}) from stdin (format binary)"
    with driver(conn).cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(binary_copy.HEADER)
        for frame in chain([first], frames):
            if frame.is_empty():
                continue
            written.add(frame)
            for rows in binary_copy.encoded(frame, run_id=run_id, model_version=model_version, detector_id=detector_id):
                copy.write(rows)
        copy.write(binary_copy.TRAILER)
    return written


def count_hours(conn: Connection, written: Written, *, detector_id: int, run_id: int) -> None:
    """Adds what was written to ``prediction_hours``."""
    counts = [
        {
            "detector_id": detector_id,
            "run_id": run_id,
            "hour": hour,
            "rows": rows,
            "anomalies": anomalies,
            "max_score": score,
        }
        for hour, (rows, anomalies, score) in sorted(written.hours.items())
    ]
    if counts:
        conn.execute(queries["predictions.add_hours"], counts)


def replace_hours(conn: Connection, window: Window, *, detector_id: int, run_id: int) -> None:
    """Takes what a run over a window has replaced out of ``prediction_hours``; call it when the run is published.

    Nothing of the other runs is left in the window, so that only the hours at its ends are counted again.
    """
    first, last = _hour(window.start), _hour(window.end)
    cut = sorted({hour for hour, end in ((first, window.start), (last, window.end)) if hour != end})
    keys = {"detector_id": detector_id}
    whole = {"start": first + _HOUR if first in cut else first, "end": last, "run_id": run_id}
    conn.execute(queries["predictions.forget_hours"], {**keys, **whole})
    for hour in cut:
        for name in ("predictions.forget_hour", "predictions.recount_hour"):
            conn.execute(queries[name], {**keys, "hour": hour})


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
