"""Rows of binary COPY become columns with every value as it was sent, and nothing is read that is not theirs."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllib.store import binary_rows
from mllib.store.binary_rows import Schema
from tests.guarded_memory import at_the_end_of_memory

SCHEMA: Schema = {
    "log_id": pl.Int64,
    "ts": pl.Datetime("us", "UTC"),
    "message": pl.String,
    "response_time_ms": pl.Float64,
    "status_code": pl.Int32,
    "claimed": pl.Boolean,
}
Y2000 = datetime(2000, 1, 1, tzinfo=UTC)

value = {
    "log_id": st.integers(-(2**63), 2**63 - 1),
    "ts": st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001
    "message": st.text(max_size=40),
    "response_time_ms": st.floats(allow_nan=False),
    "status_code": st.integers(-(2**31), 2**31 - 1),
    "claimed": st.booleans(),
}
tables = st.lists(st.tuples(*(st.none() | value[name] for name in SCHEMA)), max_size=40)


def sent(name: str, given: Any) -> bytes:
    """A value as PostgreSQL sends it."""
    match name:
        case "message":
            data: bytes = given if isinstance(given, bytes) else given.encode()
        case "ts":
            data = struct.pack(">q", (given - Y2000) // timedelta(microseconds=1))
        case _:
            data = struct.pack(
                {"log_id": ">q", "response_time_ms": ">d", "status_code": ">i", "claimed": ">?"}[name], given
            )
    return struct.pack(">i", len(data)) + data


def copied(rows: Sequence[tuple[Any, ...]]) -> bytes:
    nothing = struct.pack(">i", -1)
    return b"".join(
        struct.pack(">h", len(SCHEMA))
        + b"".join(nothing if item is None else sent(name, item) for name, item in zip(SCHEMA, row, strict=True))
        for row in rows
    )


Read = Callable[[bytes, int], pl.DataFrame]


@pytest.fixture(params=["compiled", "in Python"], scope="module")
def read(request: pytest.FixtureRequest) -> Read:
    compiled = request.param == "compiled" and any(map(shutil.which, ("cc", "gcc", "clang")))

    def read(data: bytes, count: int) -> pl.DataFrame:
        with pytest.MonkeyPatch.context() as patch:
            if not compiled:
                patch.setattr(binary_rows, "compiled_columns", lambda *_: None)
            else:
                assert binary_rows.compiled_columns(memoryview(b""), 0, SCHEMA) is not None
            return binary_rows.frame(at_the_end_of_memory(np.frombuffer(data, dtype=np.uint8)).data, count, SCHEMA)

    return read


@given(rows=tables)
@settings(deadline=None)
def test_every_value_is_as_it_was_sent(read: Read, rows: list[tuple[Any, ...]]) -> None:
    frame = read(copied(rows), len(rows))
    assert dict(frame.schema) == SCHEMA
    assert frame.rows() == rows


def test_many_rows_and_long_texts(read: Read) -> None:
    rows = [(n, Y2000, "ü" * (n % 997), None if n % 3 else n / 7, None, n % 2 == 0) for n in range(3_000)]
    assert read(copied(rows), len(rows)).rows() == rows


ROW = (1, Y2000, "message", 1.5, 200, True)


@pytest.mark.parametrize("cut", [1, 2, 5, 30, len(copied([ROW])) - 1])
def test_rows_that_are_cut_off_are_an_error(read: Read, cut: int) -> None:
    whole = copied([ROW, ROW])
    with pytest.raises(ValueError, match="other types"):
        read(whole[:-cut], 2)
    with pytest.raises(ValueError, match="other types"):
        read(whole + whole[:cut], 2)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (struct.pack(">id", 8, 1.5), struct.pack(">if", 4, 1.5)),
        (struct.pack(">h", 6), struct.pack(">h", 5)),
        (struct.pack(">i", 7) + b"message", struct.pack(">i", -7) + b"message"),
        (struct.pack(">i", 7) + b"message", struct.pack(">i", 2**31 - 1) + b"message"),
    ],
    ids=["a real for a double", "five columns for six", "a size below none", "a size beyond the end"],
)
def test_rows_of_other_types_are_an_error(read: Read, asked: bytes, given: bytes) -> None:
    whole = copied([ROW])
    assert whole.count(asked) == 1
    with pytest.raises(ValueError, match="other types"):
        read(whole.replace(asked, given), 1)


def test_a_text_that_is_not_utf8_is_an_error(read: Read) -> None:
    with pytest.raises(pl.exceptions.ComputeError, match="utf"):
        read(copied([(*ROW[:2], b"caf\xe9", *ROW[3:])]), 1)
