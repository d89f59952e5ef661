"""Reads log records: how many there are where, and the rows themselves as a stream of frames."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import psycopg
from psycopg import errors, pq, sql
from sqlalchemy import Connection

from mllib.store.database import driver
from mllib.store.queries import queries
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
    """Rows that became visible between two snapshots, but for those that window runs have scored meanwhile.

    ``except_for`` holds these runs, oldest first.
    """

    previous: str
    current: str
    except_for: tuple[RowsInWindow, ...] = ()


Selection = NewRows | RowsInWindow


def current_snapshot(conn: Connection) -> str:
    """The snapshot of this moment as text, for reading the same rows several times."""
    return str(conn.exec_driver_sql("select pg_current_snapshot()::text").scalar_one())


def first_event(conn: Connection) -> datetime | None:
    """The earliest event time there is."""
    first: datetime | None = conn.exec_driver_sql("select min(ts) from millrace.logs").scalar_one()
    return first


def minutes(conn: Connection, selection: Selection) -> list[tuple[datetime, int]]:
    """Selected rows per minute of event time, in order, minutes without any left out."""
    query = sql.SQL(
        "select date_bin('1 minute', ts, 'epoch') as minute, count(*) from millrace.logs where {} group by 1 order by 1"
    ).format(_selected(selection))
    with driver(conn).cursor() as cursor:
        return [(minute, count) for minute, count in cursor.execute(query).fetchall()]


def count(conn: Connection, selection: Selection, ranges: Sequence[Window]) -> int:
    """Selected rows in some ranges of event time that are there now."""
    total = 0
    with driver(conn).cursor() as cursor:
        for window in ranges:
            query = sql.SQL("select count(*) from millrace.logs where ts >= {} and ts < {} and {}").format(
                sql.Literal(window.start), sql.Literal(window.end), _selected(selection)
            )
            row = cursor.execute(query).fetchone()
            total += row[0] if row else 0
    return total


def labelled_of_earlier_traces(conn: Connection, window: Window, *, look_back: timedelta, snapshot: str) -> pl.Series:
    """``log_id`` of the labelled rows of a window whose trace has a row in the ``look_back`` before it."""
    binds = {"since": window.start - look_back, "start": window.start, "end": window.end, "snapshot": snapshot}
    found = conn.execute(queries["logs.labelled_of_earlier_traces"], binds).scalars()
    return pl.Series("log_id", list(found), dtype=pl.Int64)


def stream(
    conn: Connection,
    selection: Selection,
    ranges: Sequence[Window],
    *,
    context: timedelta,
    chunk_rows: int = CHUNK_ROWS,
) -> Generator[pl.DataFrame]:
    """The selected rows of some ranges of event time, in order of (ts, log_id), as frames of about ``chunk_rows`` rows.

    Each range is led by the rows of the ``context`` before it. Those, and the rows in between that are not selected,
    come with ``claimed`` false and without their message. All are seen through the selection's snapshot, so that what
    commits later changes nothing. Columns: log_id, ts (UTC, microseconds), level, service, message, response_time_ms,
    status_code, claimed. Flat memory. Ranges must be in order and further apart than ``context``.
    """
    lines: list[bytes] = []
    for window in ranges:
        statement = sql.SQL(
            "copy (select log_id, (extract(epoch from ts) * 1000000)::bigint, level, service,"
            " case when claimed then message end, response_time_ms, status_code, claimed::int"
            " from (select *, ({selected} and ts >= {start}) as claimed from millrace.logs) as l"
            " where ts >= {first} and ts < {end} and pg_visible_in_snapshot(ingest_xid, {current})"
            " order by ts, log_id) to stdout (format csv)"
        ).format(
            selected=_selected(_narrowed(selection, window)),
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
    """The rows as lines. What has arrived is taken past the cursor, whose bookkeeping costs more than the row."""
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        while True:
            size, row = conn.pgconn.get_copy_data(1)
            if size < 0:
                break
            line = bytes(row) if size else bytes(copy.read())
            if not line:
                return
            yield line
        while (result := conn.pgconn.get_result()) is not None:
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)


def _frame(lines: list[bytes]) -> pl.DataFrame:
    frame = pl.read_csv(io.BytesIO(b"".join(lines)), has_header=False, schema=_SCHEMA)
    return frame.with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        pl.col("claimed").cast(pl.Boolean),
        # An empty message is a message; CSV cannot tell the reader so.
        pl.when(pl.col("claimed") == 1).then(pl.col("message").fill_null("")).alias("message"),
    )


def _narrowed(selection: Selection, window: Window) -> Selection:
    """The same selection for rows of ``window``, without what says nothing of them."""
    if isinstance(selection, RowsInWindow):
        return selection
    overlapping = [
        run for run in selection.except_for if run.window.start < window.end and run.window.end > window.start
    ]
    return replace(selection, except_for=tuple(overlapping))


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
    ]
    if selection.except_for:
        conditions.append(sql.SQL("not {}").format(_scored(selection.except_for)))
    return sql.SQL("({})").format(sql.SQL(" and ").join(conditions))


def _scored(runs: Sequence[RowsInWindow]) -> sql.Composable:
    """The condition that one of these runs, oldest first, has scored a row.

    As a binary search over the ends of their windows: a backfill may be thousands of hours, too many to ask one by one
    of each row. Where windows overlap the last one answers, for a later snapshot sees all that an earlier one saw.
    """
    borders = sorted({border for run in runs for border in (run.window.start, run.window.end)})
    place = {border: number for number, border in enumerate(borders)}
    answers: list[sql.Composable] = [sql.SQL("false")] * (
        len(borders) + 1
    )  # the first and last are for what is outside
    for run in runs:
        first, end = place[run.window.start] + 1, place[run.window.end] + 1
        visible = sql.SQL("pg_visible_in_snapshot(ingest_xid, {})").format(_snapshot(run.current))
        answers[first:end] = [visible] * (end - first)

    def search(first: int, last: int) -> sql.Composable:
        if first == last:
            return answers[first]
        middle = (first + last) // 2
        return sql.SQL("case when ts < {} then {} else {} end").format(
            sql.Literal(borders[middle]), search(first, middle), search(middle + 1, last)
        )

    return sql.SQL("({})").format(search(0, len(borders)))


def _snapshot(text: str) -> sql.Composable:
    return sql.SQL("{}::pg_snapshot").format(sql.Literal(text))
