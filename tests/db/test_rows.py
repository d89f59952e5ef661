"""Rows as frames: each once, in order, with its exact time, however they are cut."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sqlalchemy import Engine, text

from mllib.sources import source
from mllib.store import rows
from mllib.store.database import connection, driver, engine_for, transaction
from mllib.types import Window

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CONTEXT = timedelta(minutes=5)


def insert(engine: Engine, moments: list[datetime]) -> None:
    messages = [f'line {number},\n"quoted"' for number in range(len(moments))]
    statement = """
        insert into millrace.logs (ts, message)
        select * from unnest(cast(:ts as timestamptz[]), cast(:messages as text[]))
    """
    with transaction(engine) as conn:
        conn.execute(text(statement), {"ts": moments, "messages": messages})


def read(engine: Engine, *ranges: Window, chunk_rows: int = 50_000) -> list[pl.DataFrame]:
    with connection(engine) as conn:
        selection = rows.RowsInWindow(
            window=Window(ranges[0].start, ranges[-1].end), current=rows.current_snapshot(conn)
        )
        return list(rows.stream(conn, source("logs"), selection, ranges, context=CONTEXT, chunk_rows=chunk_rows))


def test_times_are_exact_to_the_microsecond_from_the_first_year_to_the_last(engine: Engine) -> None:
    rng = np.random.default_rng(1)
    first, last = ((datetime(year, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) for year in (2, 9999))
    micros = [*rng.integers(first, last, 1_000), *range(-500, 500)]
    moments = [EPOCH + timedelta(microseconds=int(value)) for value in micros]
    insert(engine, moments)
    (frame,) = read(engine, Window(datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)))
    assert frame["ts"].to_list() == sorted(moments)


def test_texts_are_utf8_whatever_the_environment_says(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    other = engine_for.__wrapped__(engine.url.render_as_string(hide_password=False))
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    message = "Grüße, 日誌"
    with transaction(other) as conn, driver(conn).cursor().copy("copy millrace.logs (ts, message) from stdin") as copy:
        copy.write(f"{moment.isoformat()}\t{message}\n".encode())
    (frame,) = read(other, Window(moment, moment + timedelta(hours=1)))
    assert frame["message"].to_list() == [message]
    with transaction(other) as conn:
        assert conn.execute(text("select char_length(message) from millrace.logs")).scalar_one() == len(message)
    other.dispose()


@pytest.mark.parametrize("chunk_rows", [1, 7, 50, 99, 100, 101])
def test_rows_of_several_ranges_fill_frames_of_one_size(engine: Engine, chunk_rows: int) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    insert(engine, [start + timedelta(minutes=minute) for minute in range(200)])
    begins = (10, 70, 150)
    ranges = [
        Window(start + timedelta(minutes=begin), start + timedelta(minutes=begin + 28 + 3 * (begin > 100)))
        for begin in begins
    ]
    frames = read(engine, *ranges, chunk_rows=chunk_rows)
    assert [frame.height for frame in frames[:-1]] == [chunk_rows] * (len(frames) - 1)
    together = pl.concat(frames)
    # Five minutes before each range, without the row that is exactly as old.
    expected = [minute for begin, window in zip(begins, ranges, strict=True) for minute in range(begin - 5, 200)
                if start + timedelta(minutes=minute) < window.end]  # fmt: skip
    assert together["message"].to_list() == [f'line {minute},\n"quoted"' for minute in expected]
    assert together["claimed"].sum() == 28 + 28 + 31


@pytest.mark.parametrize("step", [timedelta(minutes=1), CONTEXT])
def test_counts_are_in_order_and_of_all_selected_rows(engine: Engine, step: timedelta) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    minutes = np.random.default_rng(1).integers(0, 2_000, 3_000).tolist()
    insert(engine, [start + timedelta(minutes=minute, seconds=30) for minute in minutes])
    window = Window(start + 100 * step, start + timedelta(days=1))
    with connection(engine) as conn:
        selection = rows.RowsInWindow(window=window, current=rows.current_snapshot(conn))
        conn.exec_driver_sql("analyze millrace.logs")  # else the planner thinks of one row, and sorts it
        counts = rows.counts(conn, source("logs"), selection, step)
    steps = Counter(timedelta(minutes=minute) // step for minute in minutes)
    expected = {start + place * step: rows for place, rows in sorted(steps.items()) if start + place * step in window}
    assert counts == list(expected.items())


def test_no_rows_are_no_frames(engine: Engine) -> None:
    assert read(engine, Window(EPOCH, EPOCH + timedelta(days=1))) == []
