"""Reads log records: how many there are where, and the rows themselves as a stream of frames."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import polars as pl
import psycopg
from psycopg import sql
from sqlalchemy import Connection

from mllib.store.database import driver
from mllib.types import Window

CHUNK_ROWS = 50_000
_SCHEMA = {
    "log_id": pl.Int64,
    "ts": pl.Int64,
    "level": pl.String,
    "service": pl.String,
    "message": pl.String,
    "response_time_ms": pl.Float64,
    "status_code": pl.Int32,
    "claimed": pl.Int8,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RowsInWindow:
    """Rows with an event time in ``window`` that the snapshot ``current`` saw."""

    window: Window
    current: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRows:
    """Rows that became visible between two snapshots, but for those that window runs have scored meanwhile."""

    previous: str
    current: str
    except_for: tuple[RowsInWindow, ...] = ()


Selection = NewRows | RowsInWindow


def current_snapshot(conn: Connection) -> str:
    """The snapshot of this moment as text, for reading the same rows several times."""
    return str(conn.exec_driver_sql("select pg_current_snapshot()::text").scalar_one())


def minutes(conn: Connection, selection: Selection) -> list[tuple[datetime, int]]:
    """Selected rows per minute of event time, in order, minutes without any left out."""
    query = sql.SQL(
        "select date_bin('1 minute', ts, 'epoch') as minute, count(*) from millrace.logs where {} group by 1 order by 1"
    ).format(_selected(selection))
    with driver(conn).cursor() as cursor:
        return [(minute, count) for minute, count in cursor.execute(query).fetchall()]


def stream(
    conn: Connection,
    selection: Selection,
    ranges: Sequence[Window],
    *,
    context: timedelta,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[pl.DataFrame]:
    """The selected rows of some ranges of event time, in order of (ts, log_id), as frames of about ``chunk_rows`` rows.

    Each range is led by the rows of the ``context`` before it. Those, and the rows in between that are not selected,
    come with ``claimed`` false and without their message. All are seen through the selection's snapshot, so that what
    commits later changes nothing. Columns: log_id, ts (UTC, microseconds), level, service, message, response_time_ms,
    status_code, claimed. Flat memory. Ranges must be in order and further apart than ``context``.
    """
    lines: list[bytes] = []
    for window in ranges:
        statement = sql.SQL(
            "copy (select log_id, (date_part('epoch', ts) * 1000000)::bigint, level, service,"
            " case when claimed then message end, response_time_ms, status_code, claimed::int"
            " from (select *, ({selected} and ts >= {start}) as claimed from millrace.logs) as l"
            " where ts >= {first} and ts < {end} and pg_visible_in_snapshot(ingest_xid, {current})"
            " order by ts, log_id) to stdout (format csv)"
        ).format(
            selected=_selected(selection),
            start=sql.Literal(window.start),
            first=sql.Literal(window.start - context),
            end=sql.Literal(window.end),
            current=_snapshot(selection.current),
        )
        for line in _copy_out(driver(conn), statement):
            lines.append(line)
            if len(lines) >= chunk_rows:
                yield _frame(lines)
                lines = []
    if lines:
        yield _frame(lines)


def _copy_out(conn: psycopg.Connection[Any], statement: sql.Composed) -> Iterator[bytes]:
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        yield from cast("Iterable[bytes]", copy)


def _frame(lines: list[bytes]) -> pl.DataFrame:
    frame = pl.read_csv(io.BytesIO(b"".join(lines)), has_header=False, schema=_SCHEMA)
    return frame.with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        pl.col("claimed").cast(pl.Boolean),
        # An empty message is a message; CSV cannot tell the reader so.
        pl.when(pl.col("claimed") == 1).then(pl.col("message").fill_null("")).alias("message"),
    )


def _selected(selection: Selection) -> sql.Composable:
    """The condition that a row is selected. In literals: COPY takes no binds, and the planner sees the range."""
    current = _snapshot(selection.current)
    if isinstance(selection, RowsInWindow):
        return sql.SQL("(ts >= {} and ts < {} and pg_visible_in_snapshot(ingest_xid, {}))").format(
            sql.Literal(selection.window.start), sql.Literal(selection.window.end), current
        )
    previous = _snapshot(selection.previous)
    conditions = [
        sql.SQL("ingest_xid >= pg_snapshot_xmin({})").format(previous),
        sql.SQL("ingest_xid < pg_snapshot_xmax({})").format(current),
        sql.SQL("not pg_visible_in_snapshot(ingest_xid, {})").format(previous),
        sql.SQL("pg_visible_in_snapshot(ingest_xid, {})").format(current),
        *(sql.SQL("not {}").format(_selected(scored)) for scored in selection.except_for),
    ]
    return sql.SQL("({})").format(sql.SQL(" and ").join(conditions))


def _snapshot(text: str) -> sql.Composable:
    return sql.SQL("{}::pg_snapshot").format(sql.Literal(text))
