"""Cuts rows in memory into training, validation and test, and scores a slice of them as the gate scores its holdout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Self

import polars as pl

from mllib import borders, sources
from mllib.detectors.base import LABELS, MACRO_F1, Detector, Model
from mllib.jobs.labelled import Before, LabelledScores, edge_lines, score_rows
from mllib.sources import CLAIMED_ONLY, Source
from mllib.types import Window

CHUNK_ROWS = 50_000
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Some of the rows of a frame as `mllib.ingest.frames` reads them."""

    rows: pl.DataFrame
    """Sorted by (ts, log_id); those that are not chosen are context."""
    chosen: pl.Series
    follows: bool
    """Whether it begins where the rows end that were learned from, so that an incident may be on both sides."""

    @classmethod
    def whole(cls, rows: pl.DataFrame) -> Self:
        """All rows of a frame, of which none before them was learned from."""
        return cls(rows=rows, chosen=pl.repeat(True, rows.height, eager=True), follows=False)

    @property
    def own(self) -> pl.DataFrame:
        return self.rows.filter(self.chosen)

    @property
    def window(self) -> Window:
        return window_of(self.own)


def window_of(rows: pl.DataFrame) -> Window:
    """The shortest window that holds these rows, of which there is one at least."""
    return Window(rows["ts"][0], rows["ts"][-1] + _MICROSECOND)


def cut(
    rows: pl.DataFrame, share: float, *, by: str | None = None, embargo: timedelta | None
) -> tuple[pl.Series, pl.Series]:
    """Which of the rows, sorted by time, are the first ``share`` of them (0 to 1), and which the others.

    With ``by`` the share is one of the rows of each value of that column. With an ``embargo`` rows of one time stay on
    one side, and those closer to the border than it are on neither.
    """
    group = pl.lit(0) if by is None else pl.col(by).fill_null("")
    marked = rows.select("ts", group=group).with_columns(
        late=pl.int_range(pl.len()).over("group") >= (pl.len().over("group") * share).round()
    )
    if embargo is None:
        return ~marked["late"], marked["late"]
    border = pl.col("ts").filter("late").min().over("group")
    # Without a late row there is no border, and all are early.
    marked = marked.with_columns(
        early=(pl.col("ts") < border - embargo).fill_null(True), late=(pl.col("ts") >= border).fill_null(False)
    )
    return marked["early"], marked["late"]


def true_class(rows: pl.DataFrame, method: Detector) -> pl.Series:
    """What each row is judged by (String), null where nobody says: its label, or its class."""
    if method.metric != MACRO_F1:
        return rows["label"]
    return method.true_classes(rows["label" if method.truth == LABELS else method.truth]).cast(pl.String)


def frames(rows: pl.DataFrame, source: Source) -> Iterator[pl.DataFrame]:
    """The rows as a stream of frames of the source."""
    return rows.select(*source.schema).iter_slices(CHUNK_ROWS)


def verdicts(rows: pl.DataFrame) -> pl.DataFrame:
    """The labels of the rows that have one: ``log_id``, ``label`` and ``positive``."""
    labelled = rows.filter(pl.col("label").is_not_null())
    return labelled.select("log_id", "label", positive=pl.col("label") != "0")


def score_slice(method: Detector, part: Slice, model: Model) -> LabelledScores:
    """Scores the rows of a slice whose truth is known, as `mllib.jobs.labelled` does it in the database."""
    source, window = sources.source(method.source), part.window
    near = part.rows.with_columns(claimed=part.chosen).filter(
        pl.col("ts").is_between(window.start - method.context, window.end, closed="left")
    )
    # Context rows come without what they would not have when they are read from the database.
    bare = [pl.when("claimed").then(pl.col(name)).alias(name) for name in source.schema if name in CLAIMED_ONLY]
    return score_rows(
        method,
        window,
        [model],
        frames=frames(near.with_columns(bare), source),
        verdicts=verdicts(part.own),
        before=partial(_before, source, part) if part.follows else None,
    )


def _before(source: Source, part: Slice) -> Before:
    window, group = part.window, source.segments[0]
    edge = borders.edge(window)
    lines = part.rows.filter(pl.col("ts").is_between(edge.start, edge.end, closed="left"))
    earlier = part.rows.filter(
        pl.col("ts").is_between(window.start - borders.TRACE_LOOK_BACK, window.start, closed="left")
    )
    traces = earlier["trace_id"].drop_nulls().unique()
    return Before(
        lines=edge_lines(source, [lines]),
        anomalies=lines.filter((pl.col("ts") < window.start) & (pl.col("label") != "0")).select("ts", group),
        traced=part.own.filter(pl.col("trace_id").is_in(traces.implode()))["log_id"],
    )
