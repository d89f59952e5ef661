"""Cutting a claim into shards, and scoring a stream of frames."""

from __future__ import annotations

import threading
from collections.abc import Generator
from datetime import timedelta
from functools import cache
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllib import scoring
from mllib.detectors import detector
from mllib.detectors.base import Model
from mllib.jobs.scoring import packing
from mllib.types import Window
from tests.factories import START, empty_logs, in_chunks, make_logs

CONTEXT = timedelta(minutes=5)
MINUTE = timedelta(minutes=1)

Shards = list[tuple[tuple[Window, ...], int]]


def at(*minutes: int, rows: int = 1) -> list[tuple]:
    return [(START + minute * MINUTE, rows) for minute in minutes]


def spans(shards: Shards) -> list[list[tuple[int, int]]]:
    """The ranges of each shard in minutes since START."""
    return [[((r.start - START) // MINUTE, (r.end - START) // MINUTE) for r in ranges] for ranges, _ in shards]


# Gaps around the length of the context, few rows and many, so that all borders come up.
claims = st.lists(st.tuples(st.sampled_from([1, 2, 4, 5, 6, 7, 30]), st.integers(1, 40)), max_size=300).map(
    lambda steps: [
        (START + sum(gap for gap, _ in steps[: index + 1]) * MINUTE, rows) for index, (_, rows) in enumerate(steps)
    ]
)


@given(minutes=claims, shard_rows=st.integers(1, 500))
@settings(deadline=None)
def test_a_claim_is_cut_without_loss_or_overlap(minutes: list[tuple], shard_rows: int) -> None:
    shards = scoring.pack(minutes, context=CONTEXT, shard_rows=shard_rows)
    ranges = [window for windows, _ in shards for window in windows]
    for moment, _ in minutes:
        assert sum(moment in window and moment + MINUTE <= window.end for window in ranges) == 1
    assert all(left.end <= right.start for left, right in pairwise(ranges))
    assert all(not (end - START) % MINUTE for window in ranges for end in (window.start, window.end))
    counts = dict(minutes)
    for windows, rows in shards:
        held = [moment for moment in counts if any(moment in window for window in windows)]
        assert rows == sum(counts[moment] for moment in held)
        assert rows <= shard_rows or len(held) == 1
        assert 1 <= len(windows) <= scoring.MAX_RANGES
        assert all(right.start - left.end > CONTEXT for left, right in pairwise(windows))
        assert all(window.start in counts and window.end - MINUTE in counts for window in windows)
    for (_, rows), (windows, _) in pairwise(shards):
        assert rows + counts[windows[0].start] > shard_rows


def test_no_rows_no_shards() -> None:
    assert scoring.pack([], context=CONTEXT) == []


@pytest.mark.parametrize(
    ("second", "expected"),
    [(1, [(0, 2)]), (5, [(0, 6)]), (6, [(0, 7)]), (7, [(0, 1), (7, 8)])],
    ids=["next minute", "within the context", "just the context apart", "further apart"],
)
def test_the_gap_between_ranges(second: int, expected: list[tuple[int, int]]) -> None:
    assert spans(scoring.pack(at(0, second), context=CONTEXT)) == [expected]


def test_a_long_range_is_cut_at_a_minute() -> None:
    shards = scoring.pack(at(*range(10), rows=30), context=CONTEXT, shard_rows=100)
    assert spans(shards) == [[(0, 3)], [(3, 6)], [(6, 9)], [(9, 10)]]
    assert [rows for _, rows in shards] == [90, 90, 90, 30]


def test_a_minute_is_never_cut() -> None:
    shards = scoring.pack([*at(0), *at(1, rows=1_000), *at(2)], context=CONTEXT, shard_rows=100)
    assert [rows for _, rows in shards] == [1, 1_000, 1]


def test_a_sparse_claim_is_joined_across_its_smallest_gaps() -> None:
    minutes = at(*range(0, 100 * (scoring.MAX_RANGES + 1), 100))
    closer = 3
    minutes[closer] = (minutes[closer][0] - 50 * MINUTE, 1)
    (ranges, rows) = scoring.pack(minutes, context=CONTEXT)[0]
    assert (len(ranges), rows) == (scoring.MAX_RANGES, len(minutes))
    assert [window.length for window in ranges if window.length > MINUTE] == [51 * MINUTE]
    assert minutes[closer][0] in ranges[2]


@pytest.mark.parametrize(("rows", "expected"), [(100, [[(0, 5)], [(5, 10)]]), (101, [[(2, 3)], [(8, 9)]])])
def test_a_claim_is_counted_by_the_context_or_by_the_minute_where_that_is_too_full(
    rows: int, expected: list[list[tuple[int, int]]]
) -> None:
    minutes = [*at(2, rows=100), *at(8, rows=rows)]

    def count(step: timedelta) -> list[tuple]:
        steps: dict = {}
        for moment, many in minutes:
            start = moment - (moment - START) % step
            steps[start] = steps.get(start, 0) + many
        return sorted(steps.items())

    shards = packing("log_anomaly", shard_rows=100)(count)
    assert spans([(shard.ranges, shard.claimed) for shard in shards]) == expected
    assert [shard.claimed for shard in shards] == [100, rows]


@cache
def model() -> Model:
    frame = make_logs(2_000, seed=3)
    return detector("log_anomaly").fit(iter([frame]), rows=frame.height, seed=1)


def predictions(*frames: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(scoring.score(frames, model(), context=CONTEXT))


def test_how_the_stream_is_cut_changes_nothing() -> None:
    frame = make_logs(3_000, seed=9, span_s=1_800)
    whole = predictions(frame)
    assert whole.height == 3_000
    assert whole.schema == {
        "log_id": pl.Int64,
        "ts": pl.Datetime("us", "UTC"),
        "score": pl.Float32,
        "raw_score": pl.Float32,
        "is_anomaly": pl.Boolean,
        "severity": pl.Int16,
        "explanation": pl.String,
    }
    for sizes in ((1_000,), (1, 2_998, 1), (7, 13, 500)):
        assert predictions(*in_chunks(frame, *sizes)).equals(whole)


def test_rows_that_are_not_claimed_count_as_context_only() -> None:
    frame = make_logs(1_000, seed=9)
    half = frame.with_columns(claimed=pl.int_range(pl.len()) % 2 == 0)
    assert predictions(half).equals(predictions(frame)[::2])


def test_frames_without_a_claimed_row_give_nothing() -> None:
    context = make_logs(100, claimed=False)
    assert list(scoring.score([empty_logs(), context], model(), context=CONTEXT)) == []


def test_what_is_made_ahead_comes_in_order_and_only_one_too_early() -> None:
    made: list[int] = []

    def source() -> Generator[int]:
        for number in range(1, 20):
            made.append(number)
            yield number

    with scoring.ahead(source()) as numbers:
        for number in numbers:
            assert made[number - 1] == number
            assert len(made) <= number + 1
    assert made == list(range(1, 20))


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_leaving_early_closes_the_source(taken: int) -> None:
    closed: list[bool] = []

    def source() -> Generator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    begun = threading.active_count()
    with pytest.raises(KeyError), scoring.ahead(source()) as numbers:  # noqa: PT012  the block is what is tested
        for _ in range(taken):
            next(numbers)
        raise KeyError
    assert closed == [True]
    assert threading.active_count() == begun


def test_scoring_that_is_left_early_leaves_its_source_at_rest() -> None:
    frame, closed = make_logs(2_000, seed=9), []

    def source() -> Generator[pl.DataFrame]:
        try:
            yield from in_chunks(frame, 100)
        finally:
            closed.append(True)

    begun = threading.active_count()
    with (
        scoring.ahead(source()) as frames,
        scoring.ahead(scoring.score(frames, model(), context=CONTEXT)) as scored,
    ):
        assert next(scored).height == 100
    assert closed == [True]
    assert threading.active_count() == begun


def test_an_error_of_the_source_comes_where_its_item_would_have() -> None:
    def source() -> Generator[int]:
        yield 1
        raise ZeroDivisionError

    with scoring.ahead(source()) as outer, scoring.ahead(number for number in outer) as numbers:
        assert next(numbers) == 1
        with pytest.raises(ZeroDivisionError):
            next(numbers)
