"""Rows of COPY come out whole and once, in compiled code and in Python, and a failure half way is no end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import polars as pl
import pytest
from psycopg import OperationalError, errors, sql
from sqlalchemy import Engine

from mllib.store import binary_rows, copy_out
from mllib.store.copy_out import Rows
from mllib.store.database import connection, driver


@pytest.fixture(params=["compiled", "in Python"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in Python" or not any(map(shutil.which, ("cc", "gcc", "clang"))):
        monkeypatch.setattr(copy_out, "compiled_take", lambda _: None)


def taken(engine: Engine, query: str, most: int = 100) -> Iterator[Rows]:
    with connection(engine) as conn:
        if copy_out.compiled_take.__name__ == "compiled_take":
            assert copy_out.compiled_take(driver(conn).pgconn) is not None
        yield from copy_out.copy_out(driver(conn), sql.SQL(query), Rows(), most)  # type: ignore[arg-type]
        assert driver(conn).execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(("most", "frames"), [(1, 1_001), (7, 143), (100, 11), (1_000, 2), (5_000, 1)])
def test_rows_come_whole_in_order_and_as_many_as_asked(engine: Engine, most: int, frames: int) -> None:
    query = "select n, repeat('x', case when n % 400 = 0 then 200000 else n % 50 end) from generate_series(1, 1000) n"
    found = list(taken(engine, query, most))
    schema = {"n": pl.Int32, "x": pl.String}
    read = pl.concat(binary_rows.frame(rows.data.getbuffer(), rows.count, schema) for rows in found)
    # The long ones fill the buffer of the compiled version several times.
    texts = ["x" * (200_000 if n % 400 == 0 else n % 50) for n in range(1, 1_001)]
    assert read.to_dict(as_series=False) == {"n": list(range(1, 1_001)), "x": texts}
    assert len(found) == frames
    assert [rows.count for rows in found] == [most] * (frames - 1) + [1_000 - most * (frames - 1)]


def test_no_rows_are_no_rows(engine: Engine) -> None:
    assert [(rows.count, rows.data.getvalue()) for rows in taken(engine, "select 1 where false")] == [(0, b"")]


def test_an_error_half_way_is_raised(engine: Engine) -> None:
    found = taken(engine, "select 1 / (5000 - n) from generate_series(1, 9000) n")
    with pytest.raises(errors.DivisionByZero):
        list(found)


def test_a_connection_that_is_cut_half_way_is_an_error(engine: Engine) -> None:
    query = "select n, n = 90000 and pg_terminate_backend(pg_backend_pid()) from generate_series(1, 100000) n"
    with pytest.raises(OperationalError):
        list(taken(engine, query))
