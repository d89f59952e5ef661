"""Scores the labelled rows of a window with one model or several, row by row the same for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import Connection

from mllib import sources
from mllib.detectors.base import Detector, Model
from mllib.evaluation import BinaryMetrics, binary_metrics
from mllib.features.stream import with_context
from mllib.segments import Dimension
from mllib.sources import Source
from mllib.store import labels
from mllib.store import rows as row_store
from mllib.types import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledScores:
    """Labelled rows in order of (ts, log_id), and what each model says of them. All arrays have shape (rows,)."""

    ts_us: npt.NDArray[np.int64]
    log_ids: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    clusters: npt.NDArray[np.int64]
    """Number of the hour of the row and of its service, or what its source has in that place: rows come in bursts, so
    they are no independent draws."""
    response_time_ms: npt.NDArray[np.float64]
    status_code: npt.NDArray[np.float64]
    """As ``response_time_ms``, NaN where the row or its source has none."""
    dimensions: Mapping[str, Dimension]
    """What the rows are told apart by when the models are compared in parts: for log lines service and level."""
    scores: tuple[npt.NDArray[np.float64], ...]
    excluded: int
    """Labelled rows that are left out because a model was trained on them."""

    def metrics(self, model: int, threshold: float) -> BinaryMetrics:
        """Figures of one of the models at a threshold."""
        return binary_metrics(self.positive, self.scores[model] >= threshold, self.scores[model])


def score_labelled(
    conn: Connection,
    method: Detector,
    window: Window,
    models: Sequence[Model],
    *,
    as_of: datetime,
    label_delay: timedelta,
    snapshot: str,
    trained_on: Sequence[Window] = (),
) -> LabelledScores:
    """Scores the rows of ``window`` with a verdict that was mature at ``as_of``, each model with its own features.

    Unlabelled rows count as context. Rows within ``trained_on`` are left out and counted.
    """
    source = sources.source(method.source)
    verdicts = labels.in_window(conn, source, window, as_of=as_of, delay=label_delay)
    selection = row_store.RowsInWindow(window=window, current=snapshot)
    kept: list[pl.DataFrame] = []
    scores: list[list[npt.NDArray[np.float64]]] = [[] for _ in models]
    excluded = 0
    seen = pl.any_horizontal(
        pl.lit(False), *(pl.col("ts").is_between(w.start, w.end, closed="left") for w in trained_on)
    )
    carried = _carried(source)
    stream = (
        row_store.stream(conn, source, selection, [window], context=method.context)
        if not verdicts.is_empty()
        else iter(())
    )
    for frame in with_context(stream, method.context):
        marked = frame.join(verdicts, on="log_id", how="left", maintain_order="left").with_columns(
            labelled=pl.col("claimed") & pl.col("positive").is_not_null(), seen=seen
        )
        excluded += int((marked["labelled"] & marked["seen"]).sum())
        marked = marked.with_columns(claimed=pl.col("labelled") & ~pl.col("seen"))
        rows = marked.filter("claimed").select(*carried)
        if rows.is_empty():
            continue
        kept.append(rows)
        for collected, model in zip(scores, models, strict=True):
            collected.append(model.raw_scores(marked.select(frame.columns)))
    rows = pl.concat(kept) if kept else pl.DataFrame(schema=carried)
    bursts = pl.struct(source.segments[0], pl.col("ts").dt.truncate("1h"))
    return LabelledScores(
        ts_us=rows["ts"].to_physical().to_numpy(),
        log_ids=rows["log_id"].to_numpy(),
        positive=rows["positive"].to_numpy().astype(np.bool_),
        clusters=rows.select(bursts.rank("dense").cast(pl.Int64)).to_series().to_numpy(),
        response_time_ms=_numbers(rows, "response_time_ms"),
        status_code=_numbers(rows, "status_code"),
        dimensions={name: _dimension(rows[name]) for name in source.segments},
        scores=tuple(np.concatenate(part) if part else np.empty(0) for part in scores),
        excluded=excluded,
    )


def _dimension(values: pl.Series) -> Dimension:
    names = values.drop_nulls().unique().sort()
    codes = values.cast(pl.Enum(names)).to_physical().cast(pl.Int64).fill_null(-1)
    return Dimension(codes=codes.to_numpy(), names=tuple(names))


def _carried(source: Source) -> dict[str, pl.DataType | type[pl.DataType]]:
    """The columns that are kept of each labelled row, with their types: what is compared, not what is scored."""
    names = ("ts", "log_id", *source.segments, "response_time_ms", "status_code")
    return {**{name: source.schema[name] for name in names if name in source.schema}, "positive": pl.Boolean}


def _numbers(rows: pl.DataFrame, name: str) -> npt.NDArray[np.float64]:
    if name not in rows.columns:
        return np.full(rows.height, np.nan)
    return rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
