"""Lines of sessions, and what sessions scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl
from sqlalchemy import Connection

from mllib.features.text import mask
from mllib.sources import SOURCES, Column
from mllib.store import labels
from mllib.store import rows as row_store
from mllib.store.database import driver
from mllib.store.queries import queries
from mllib.types import Window

LOGS = SOURCES["logs"]
_LINES = replace(LOGS, columns=(Column("trace_id"), Column("message")))
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "log_id": pl.Int64,
    "ts": pl.Datetime("us", "UTC"),
    "trace_id": pl.String,
    "template": pl.String,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSession:
    """One session, as the command shows it and the table keeps it."""

    trace_id: str
    started_at: datetime
    ended_at: datetime
    lines: int
    open: bool
    score: float
    is_anomaly: bool
    severity: int
    explanation: str | None


def lines(conn: Connection, window: Window, *, snapshot: str) -> pl.DataFrame:
    """The lines of a window that belong to a session: ``log_id``, ``ts``, ``trace_id``, ``template``, in order."""
    selection = row_store.RowsInWindow(window=window, current=snapshot)
    frames = [pl.DataFrame(schema=_SCHEMA)]
    for frame in row_store.stream(conn, _LINES, selection, [window], context=timedelta(0)):
        named = frame.filter(pl.col("trace_id").is_not_null())
        # Templates at once: messages hardly ever repeat, and a window of them might not fit.
        frames.append(named.select("log_id", "ts", "trace_id", mask(named["message"]).alias("template")))
    return pl.concat(frames)


def traces(conn: Connection, window: Window, *, snapshot: str) -> pl.Series:
    """The sessions that have a line in a window."""
    binds = {"start": window.start, "end": window.end, "snapshot": snapshot}
    return pl.Series("trace_id", list(conn.execute(queries["sessions.traces"], binds).scalars()), dtype=pl.String)


def last_line(conn: Connection, before: datetime) -> datetime | None:
    """The time of the last log line before a moment, None where there is none."""
    found: datetime | None = conn.execute(queries["sessions.last_line"], {"before": before}).scalar_one()
    return found


def verdicts(conn: Connection, window: Window, of: pl.DataFrame) -> dict[str, bool]:
    """Of each session with a label that was known at the end of the window, whether one of its lines is an anomaly.

    ``of`` are the ``lines`` of the window.
    """
    known = labels.in_window(conn, LOGS, window, as_of=window.end, delay=timedelta(0))
    named = of.join(known, on="log_id").group_by("trace_id").agg(pl.col("positive").any())
    return dict(named.select("trace_id", "positive").iter_rows())


def replace_scores(
    conn: Connection,
    window: Window,
    scored: Sequence[ScoredSession],
    *,
    trained_on: Window,
    trained: int,
    mode: str,
    observed_until: datetime,
) -> None:
    """Keeps what the sessions that began in a window scored, in place of what was kept of the window before."""
    conn.execute(queries["sessions.lock"])
    conn.execute(queries["sessions.forget"], {"start": window.start, "end": window.end})
    statement = (
        "copy millrace.session_scores (started_at, trace_id, ended_at, lines, open, score, is_anomaly, severity,"
        " explanation, trained_from, trained_to, trained_sessions, mode, observed_until) from stdin"
    )
    model = (trained_on.start, trained_on.end, trained, mode, observed_until)
    with driver(conn).cursor() as cursor, cursor.copy(statement) as copy:
        for one in scored:
            copy.write_row(
                (
                    one.started_at,
                    one.trace_id,
                    one.ended_at,
                    one.lines,
                    one.open,
                    one.score,
                    one.is_anomaly,
                    one.severity,
                    one.explanation,
                    *model,
                )
            )
