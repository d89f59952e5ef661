"""Cuts rows in memory into training, validation and test, and scores a slice of them as the gate scores its holdout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Self

import polars as pl

from mllib import sources
from mllib.detectors.base import LABELS, MACRO_F1, Detector, Model
from mllib.errors import BadInput
from mllib.gate import borders
from mllib.gate.labelled_scores import LabelledScores
from mllib.ingest.files import AnyPath
from mllib.ingest.reader import source_name
from mllib.jobs.labelled import Before, edge_lines, score_rows
from mllib.jobs.labelling import verdicts_of
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


def labelled_by(rows: pl.DataFrame, labels: Path, paths: Sequence[AnyPath]) -> pl.DataFrame:
    """The rows with the verdicts of a CSV file, which has the columns [source,]id,label[,note], and counts first.

    ``paths`` are the files of the rows. Raises BadInput for verdicts that name no row, or not one alone.
    """
    names = [source_name(path) for path in paths]
    if len(set(names)) < len(names):
        raise BadInput("Two files have the same name without suffixes, so that labels cannot tell their rows apart.")
    told = pl.DataFrame(
        [(one.source, one.source_id, one.label) for one in verdicts_of(labels, names[0] if len(names) == 1 else None)],
        schema={"file": pl.String, "source_id": pl.String, "told": pl.String},
        orient="row",
    ).unique(["file", "source_id"], keep="last", maintain_order=True)
    on = ["file", "source_id"]
    stray = told.join(rows, on=on, how="anti")
    if stray.height:
        raise BadInput(
            f"{stray.height:,} of {told.height:,} labels in {labels.name} name no row, such as "
            f"{stray['file'][0]}/{stray['source_id'][0]}."
        )
    twice = rows.filter(pl.struct(on).is_duplicated()).join(told, on=on, how="semi")
    if twice.height:
        raise BadInput(
            f"Labels in {labels.name} name more than one row, such as {twice['file'][0]}/{twice['source_id'][0]}. "
            "An id has to be unique within its file."
        )
    joined = rows.join(told, on=on, how="left", maintain_order="left")
    return joined.with_columns(label=pl.coalesce("told", "label")).drop("told")


def masked(rows: pl.DataFrame, source: Source, names: Sequence[str]) -> pl.DataFrame:
    """The rows without what these columns say."""
    full = {column.name for column in source.columns if column.never_null}
    return rows.with_columns(
        pl.lit("" if name in full else None, dtype=rows.schema[name]).alias(name) for name in names
    )


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


def score_slice(method: Detector, part: Slice, models: Sequence[Model]) -> LabelledScores:
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
        models,
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
