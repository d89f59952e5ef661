"""The hash of training rows: the same however the stream is cut, another for any change."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from mllib.fingerprint import Fingerprint, RowHashes
from tests.factories import in_chunks, make_logs


def hashes(*frames: pl.DataFrame) -> RowHashes:
    taken = Fingerprint()
    for frame in frames:
        taken.add(frame)
    return taken.hashes()


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_how_the_stream_is_cut_makes_no_difference(size: int) -> None:
    logs = make_logs(300)
    assert hashes(*in_chunks(logs, size)) == hashes(logs)
    assert hashes(logs).rows == int(logs["claimed"].sum())


def test_an_empty_stream_has_a_hash_of_its_own() -> None:
    logs = make_logs(3)
    assert hashes() == hashes(logs.clear())
    assert hashes().rows == 0
    assert hashes() != hashes(logs)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("message", "another"), ("message", ""), ("message", None), ("level", None), ("level", ""), ("service", "x"),
        ("response_time_ms", None), ("response_time_ms", 0.0), ("status_code", None), ("status_code", 0),
    ],
)  # fmt: skip
def test_any_value_that_changes_gives_another_hash_of_the_content(column: str, value: Any) -> None:
    logs = make_logs(20).with_columns(
        message=pl.lit("a"), level=pl.lit("INFO"), service=pl.lit("s"), response_time_ms=1.5, status_code=200
    )
    dtype = {"response_time_ms": pl.Float64, "status_code": pl.Int32}.get(column, pl.String)
    logs = logs.with_columns(pl.col("status_code").cast(pl.Int32))
    seventh = pl.int_range(pl.len()) == 7
    changed = logs.with_columns(
        pl.when(seventh).then(pl.lit(value, dtype=dtype)).otherwise(pl.col(column)).alias(column)
    )
    assert hashes(changed).ids == hashes(logs).ids
    assert hashes(changed).content != hashes(logs).content


def test_texts_that_only_join_to_the_same_differ() -> None:
    logs = make_logs(2)
    one, other = (logs.with_columns(message=pl.Series(pair)) for pair in (["ab", "c"], ["a", "bc"]))
    assert hashes(one).content != hashes(other).content


def test_a_row_that_is_gone_or_moved_changes_both() -> None:
    logs = make_logs(20)
    moved = logs.with_columns(ts=pl.col("ts") + timedelta(microseconds=1))
    for changed in (logs.head(19), moved):
        assert hashes(changed).ids != hashes(logs).ids
        assert hashes(changed).content != hashes(logs).content


def test_context_rows_are_in_the_content_only() -> None:
    """They are in the windows of the others, but the model is not fitted on them."""
    logs = make_logs(20)
    led = logs.with_columns(claimed=pl.int_range(pl.len()) >= 5)
    assert hashes(led).ids == hashes(logs.tail(15)).ids
    assert hashes(led).content != hashes(logs.tail(15)).content


def test_a_column_more_changes_nothing() -> None:
    logs = make_logs(20)
    assert hashes(logs.with_columns(trace_id=pl.lit("t"))) == hashes(logs)
