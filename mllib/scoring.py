"""What a claim is cut into, and what scoring does to a stream of frames. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors.base import Model
from mllib.features.stream import with_context
from mllib.types import Window

T = TypeVar("T")

SHARD_ROWS = 1_000_000
"""Rows of a shard: a few seconds of work, so that a retry is cheap and the start of a worker does not weigh."""

MAX_RANGES = 64
"""Ranges of a shard: each is a query. Sparse claims are joined across their smallest gaps to stay below."""

MINUTE = timedelta(minutes=1)


def pack(
    counts: Sequence[tuple[datetime, int]],
    *,
    context: timedelta,
    step: timedelta = MINUTE,
    shard_rows: int = SHARD_ROWS,
) -> list[tuple[tuple[Window, ...], int]]:
    """Cuts claimed rows, given as (start, rows) of each step of time in order, into shards of ``shard_rows`` rows.

    Steps closer together than ``context`` become one range, because the one needs the other as its context. A shard
    holds several ranges, at most MAX_RANGES, and a long range is cut between steps. Returns (ranges, rows) per shard.
    """
    shards: list[tuple[tuple[Window, ...], int]] = []
    ranges: list[tuple[datetime, datetime]] = []  # no windows yet: making one for each step takes longer than all else
    rows = 0
    for start, count in counts:
        if rows and rows + count > shard_rows:
            shards.append((_joined(ranges), rows))
            ranges, rows = [], 0
        if ranges and start - ranges[-1][1] <= context:
            ranges[-1] = ranges[-1][0], start + step
        else:
            ranges.append((start, start + step))
        rows += count
    if rows:
        shards.append((_joined(ranges), rows))
    return shards


def score(frames: Iterable[pl.DataFrame], model: Model, *, context: timedelta) -> Generator[pl.DataFrame]:
    """Predictions of the claimed rows of a stream, frame by frame.

    Columns: log_id, ts, score (0 to 1), raw_score, is_anomaly, severity, explanation. How the stream is cut into
    frames changes nothing in them. Who leaves before the end closes it before the source of the frames: until then it
    reads ahead.
    """

    def measured() -> Generator[tuple[pl.DataFrame, NDArray[np.float32]]]:
        for frame in with_context(frames, context):
            yield frame, model.features(frame)

    # Features and judging are the two halves of the computing: at once, they keep two processors busy.
    with ahead(measured()) as pairs:
        for frame, features in pairs:
            predictions = model.judged(frame, features)
            if not predictions.is_empty():
                yield predictions


@contextmanager
def ahead(source: Generator[T]) -> Iterator[Iterator[T]]:
    """The items of ``source``, each made in a thread of its own while the one before it is worked on.

    Reading, scoring and writing wait for different things, so they may as well wait at the same time. At most one item
    is ready and one in the making: memory stays flat. The source is never run by two threads at once; when the block
    is left, it is at rest and closed. None ends the items.
    """
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, source, None)

        def items() -> Iterator[T]:
            nonlocal coming
            while (item := coming.result()) is not None:
                coming = pool.submit(next, source, None)
                yield item

        try:
            yield items()
        finally:
            wait([coming])
            source.close()


def _joined(ranges: list[tuple[datetime, datetime]]) -> tuple[Window, ...]:
    """As windows, at most MAX_RANGES: those with the smallest gaps between them are one."""
    by_gap = sorted(range(1, len(ranges)), key=lambda i: ranges[i][0] - ranges[i - 1][1])
    close = set(by_gap[: max(len(ranges) - MAX_RANGES, 0)])
    joined = [ranges[0]]
    for i, (start, end) in enumerate(ranges[1:], start=1):
        if i in close:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return tuple(Window(start, end) for start, end in joined)
