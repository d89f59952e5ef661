"""Reads the rows of a source: how many there are where, and the rows themselves as a stream of frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl
from psycopg import sql
from sqlalchemy import Connection

from mllib.sources import Column, Source
from mllib.store import binary_rows
from mllib.store.copy_out import Rows, copy_out
from mllib.store.database import driver
from mllib.store.queries import queries
from mllib.types import Window

CHUNK_ROWS = 32_000


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


def first_event(conn: Connection, source: Source) -> datetime | None:
    """The earliest event time there is in a source."""
    query = sql.SQL("select min(ts) from {} where {}").format(_table(source), _of_form(source))
    with driver(conn).cursor() as cursor:
        row = cursor.execute(query).fetchone()
    return row[0] if row else None


def counts(conn: Connection, source: Source, selection: Selection, step: timedelta) -> list[tuple[datetime, int]]:
    """Selected rows per step of event time, as (start of the step, rows), in order, steps without any left out."""
    # Put in order here: the planner, who takes every row for a step of its own, would sort the rows to do so.
    query = sql.SQL("select date_bin({}, ts, 'epoch'), count(*) from {} where {} and {} group by 1").format(
        sql.Literal(step), _table(source), _of_form(source), _selected(selection)
    )
    with driver(conn).cursor() as cursor:
        return sorted((start, rows) for start, rows in cursor.execute(query).fetchall())


def count(conn: Connection, source: Source, selection: Selection, ranges: Sequence[Window]) -> int:
    """Selected rows in some ranges of event time that are there now."""
    total = 0
    with driver(conn).cursor() as cursor:
        for window in ranges:
            query = sql.SQL("select count(*) from {} where ts >= {} and ts < {} and {} and {}").format(
                _table(source),
                sql.Literal(window.start),
                sql.Literal(window.end),
                _of_form(source),
                _selected(selection),
            )
            row = cursor.execute(query).fetchone()
            total += row[0] if row else 0
    return total


def labelled_of_earlier_traces(conn: Connection, window: Window, *, look_back: timedelta, snapshot: str) -> pl.Series:
    """``log_id`` of the labelled rows of a window whose trace has a row in the ``look_back`` before it."""
    binds = {"since": window.start - look_back, "start": window.start, "end": window.end, "snapshot": snapshot}
    found = conn.execute(queries["rows.labelled_of_earlier_traces"], binds).scalars()
    return pl.Series("log_id", list(found), dtype=pl.Int64)


def stream(
    conn: Connection,
    source: Source,
    selection: Selection,
    ranges: Sequence[Window],
    *,
    context: timedelta,
    chunk_rows: int = CHUNK_ROWS,
) -> Generator[pl.DataFrame]:
    """The selected rows of some ranges of event time, in order of (ts, log_id), as frames of about ``chunk_rows`` rows.

    Each range is led by the rows of the ``context`` before it. Those, and the rows in between that are not selected,
    come with ``claimed`` false and without the columns that are for claimed rows only. All are
    seen through the selection's snapshot, so that what commits later changes nothing. Columns: the source's ``schema``.
    Flat memory. Ranges must be in order and further apart than ``context``.
    """
    frame = _framer(source)
    _walk_the_key(conn)
    left = Rows()
    for window in ranges:
        for rows in copy_out(driver(conn), _query(source, selection, window, context), left, chunk_rows):
            left = rows
            if rows.count >= chunk_rows:
                yield frame(rows)
    driver(conn).execute("set local enable_sort to default; set local enable_bitmapscan to default")
    if left.count:
        yield frame(left)


def plan(conn: Connection, source: Source, selection: Selection, window: Window, *, context: timedelta) -> str:
    """How PostgreSQL reads the rows of one range in ``stream``, as EXPLAIN says it."""
    _walk_the_key(conn)
    explain = sql.SQL("explain ") + _query(source, selection, window, context)
    return "\n".join(line for (line,) in driver(conn).execute(explain).fetchall())


def _walk_the_key(conn: Connection) -> None:
    """In this transaction, rows come out of the key in its order from now on, and the first one at once.

    The planner would sort instead wherever it knows nothing of the rows yet, as just after an ingest, or takes a page
    at random for dear, as a server with its default settings does.
    """
    driver(conn).execute("set local enable_sort = off; set local enable_bitmapscan = off")


def _query(source: Source, selection: Selection, window: Window, context: timedelta) -> sql.Composed:
    return sql.SQL(
        "select {id}, ts, {columns}, claimed"
        " from (select *, ({selected} and ts >= {start}) as claimed from {table}) as l"
        " where ts >= {first} and ts < {end} and {seen} and {of_form}"
        " order by ts, {id}"
    ).format(
        id=sql.Identifier(source.table.row_id),
        columns=sql.SQL(", ").join(map(_expression, _stored(source))),
        table=_table(source),
        of_form=_of_form(source),
        selected=_selected_of_seen(_narrowed(selection, window)),
        start=sql.Literal(window.start),
        first=sql.Literal(window.start - context),
        end=sql.Literal(window.end),
        seen=_seen(selection.current),
    )


_FEATURES = Column("features", "json")


def _stored(source: Source) -> tuple[Column, ...]:
    """The columns of the table that make a frame."""
    return (*source.columns, _FEATURES) if source.features else source.columns


_CASTS = {"number": "::float8", "integer": "::int4", "text": "::text"}


def _expression(column: Column) -> sql.Composable:
    name = sql.Identifier(column.name)
    if column.kind in ("json", "texts"):
        value = sql.SQL("to_jsonb({})::text").format(name)
    else:
        value = name + sql.SQL(_CASTS[column.kind])
    return sql.SQL("case when claimed then {} end").format(value) if column.claimed_only else value


def _framer(source: Source) -> Callable[[Rows], pl.DataFrame]:
    """Makes the function that turns rows into a frame of the source."""
    schema = source.schema
    features = pl.Struct({column.name: schema[column.name] for column in source.features})
    stored = {
        column.name: pl.String if column.kind in ("json", "texts") else schema[column.name]
        for column in _stored(source)
    }
    sent = {"log_id": schema["log_id"], "ts": schema["ts"], **stored, "claimed": schema["claimed"]}
    lists = [
        pl.col(column.name).str.json_decode(schema[column.name]) for column in _stored(source) if column.kind == "texts"
    ]

    def frame(rows: Rows) -> pl.DataFrame:
        read = binary_rows.frame(rows.data.getbuffer(), rows.count, sent).with_columns(lists)
        if not source.features:
            return read
        return read.with_columns(_decoded(read["features"], features)).unnest("features").select(*schema)

    return frame


def _decoded(texts: pl.Series, features: pl.Struct) -> pl.Series:
    """JSON objects as structs. A value that is not of its column's type is missing; so is one that no column has.

    Any program may insert flows: one that writes nonsense must not keep all others from being read.
    """
    try:
        return texts.str.json_decode(features)
    except pl.exceptions.ComputeError:
        numbers = {field.name for field in features.fields if field.dtype.is_numeric()}
        names = [field.name for field in features.fields]
        decoded = []
        for text in texts:
            # parse_int: whole numbers of any length.
            told = {} if text is None else json.loads(text, parse_int=float)
            fits = {name: isinstance(told.get(name), float if name in numbers else str) for name in names}
            decoded.append({name: told[name] if fits[name] else None for name in names})
        return pl.Series(texts.name, decoded, dtype=features)


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
    conditions = [_seen(selection.current), _selected_of_seen(selection)]
    if isinstance(selection, NewRows):
        # Follows from the others; said for the index.
        conditions += [
            sql.SQL("ingest_xid >= pg_snapshot_xmin({})").format(_snapshot(selection.previous)),
            sql.SQL("ingest_xid < pg_snapshot_xmax({})").format(_snapshot(selection.current)),
        ]
    return sql.SQL("({})").format(sql.SQL(" and ").join(conditions))


def _selected_of_seen(selection: Selection) -> sql.Composable:
    """The same of a row that the selection's snapshot saw."""
    if isinstance(selection, RowsInWindow):
        return sql.SQL("(ts >= {} and ts < {})").format(
            sql.Literal(selection.window.start), sql.Literal(selection.window.end)
        )
    new = sql.SQL("not {}").format(_seen(selection.previous))
    if not selection.except_for:
        return new
    return sql.SQL("({} and not {})").format(new, _scored(selection.except_for))


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
        answers[first:end] = [_seen(run.current)] * (end - first)

    def search(first: int, last: int) -> sql.Composable:
        if first == last:
            return answers[first]
        middle = (first + last) // 2
        return sql.SQL("case when ts < {} then {} else {} end").format(
            sql.Literal(borders[middle]), search(first, middle), search(middle + 1, last)
        )

    return sql.SQL("({})").format(search(0, len(borders)))


def _table(source: Source) -> sql.Composable:
    return sql.Identifier("millrace", source.table.name)


def _of_form(source: Source) -> sql.Composable:
    """The condition that a row of the table is one of the source."""
    return sql.SQL("true") if source.form is None else sql.SQL("form = {}").format(sql.Literal(source.form))


def _seen(snapshot: str) -> sql.Composable:
    return sql.SQL("pg_visible_in_snapshot(ingest_xid, {})").format(_snapshot(snapshot))


def _snapshot(text: str) -> sql.Composable:
    return sql.SQL("{}::pg_snapshot").format(sql.Literal(text))
