"""Chunks of a stream of rows, each with the rows before it that its windows need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import polars as pl

from mllib.errors import BadInput
from mllib.sources import CLAIMED_ONLY


def with_context(frames: Iterable[pl.DataFrame], context: timedelta) -> Iterator[pl.DataFrame]:
    """Yield each chunk preceded by the rows of the last ``context`` before it, so that it can be scored on its own.

    The chunks are frames of a source that follow one another in the order of (ts, log_id); gaps are allowed. Rows that
    are repeated from earlier chunks come with ``claimed`` False and without what only claimed rows carry. A
    chunk that brings such rows along already does not get them twice, so applying this function twice
    changes nothing. What is kept between chunks is the context alone.

    Raises BadInput when a claimed row comes at or before a row already seen: its windows would be wrong.
    """
    tail: pl.DataFrame | None = None
    for frame in frames:
        if tail is None or tail.is_empty():
            chunk = frame
        else:
            fresh = _unseen(frame, tail)
            if fresh.is_empty():
                yield fresh
                continue
            chunk = pl.concat([_since(tail, fresh["ts"][0] - context), fresh])
        yield chunk
        if not chunk.is_empty():
            # Without a rechunk the tail would hold on to the buffers of the chunk it was cut from.
            tail = _since(chunk, chunk["ts"][-1] - context).with_columns(
                *(pl.lit(None, dtype=chunk.schema[name]).alias(name) for name in chunk.columns if name in CLAIMED_ONLY),
                claimed=pl.lit(False),
            )
            tail = tail.rechunk()


def _since(frame: pl.DataFrame, moment: datetime) -> pl.DataFrame:
    """The rows after ``moment``: a window is (t - context, t], so a row exactly at its start is not in it."""
    return frame.slice(frame["ts"].search_sorted(moment, side="right"))


def _unseen(frame: pl.DataFrame, tail: pl.DataFrame) -> pl.DataFrame:
    """``frame`` without the context rows that the stream has already passed."""
    ts, log_id = tail["ts"][-1], tail["log_id"][-1]
    seen = (pl.col("ts") < ts) | ((pl.col("ts") == ts) & (pl.col("log_id") <= log_id))
    if frame.is_empty() or not frame.head(1).select(seen).item():
        return frame
    late = frame.filter(seen & pl.col("claimed"))
    if not late.is_empty():
        raise BadInput(
            f"Row {late['log_id'][0]} of {late['ts'][0]:%Y-%m-%d %H:%M:%S.%f} comes after row {log_id} of "
            f"{ts:%Y-%m-%d %H:%M:%S.%f} in the stream. Read the rows in the order of ts, log_id."
        )
    return frame.filter(~seen)
