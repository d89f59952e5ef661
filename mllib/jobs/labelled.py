"""Scores the labelled rows of a window with one model or several, row by row the same for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import Connection

from mllib.detectors.base import Detector, Model
from mllib.evaluation import BinaryMetrics, binary_metrics
from mllib.features.stream import with_context
from mllib.segments import Dimension
from mllib.store import labels, logs
from mllib.types import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledScores:
    """Labelled rows in order of (ts, log_id), and what each model says of them. All arrays have shape (rows,)."""

    ts_us: npt.NDArray[np.int64]
    log_ids: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    clusters: npt.NDArray[np.int64]
    """Number of the service and hour of the row: log lines come in bursts, so rows are no independent draws."""
    response_time_ms: npt.NDArray[np.float64]
    status_code: npt.NDArray[np.float64]
    dimensions: Mapping[str, Dimension]
    """What the rows are told apart by when the models are compared in parts: service and level."""
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
    verdicts = labels.in_window(conn, window, as_of=as_of, delay=label_delay)
    selection = logs.RowsInWindow(window=window, current=snapshot)
    kept: list[pl.DataFrame] = []
    scores: list[list[npt.NDArray[np.float64]]] = [[] for _ in models]
    excluded = 0
    seen = pl.any_horizontal(
        pl.lit(False), *(pl.col("ts").is_between(w.start, w.end, closed="left") for w in trained_on)
    )
    stream = logs.stream(conn, selection, [window], context=method.context) if not verdicts.is_empty() else iter(())
    for frame in with_context(stream, method.context):
        marked = frame.join(verdicts, on="log_id", how="left", maintain_order="left").with_columns(
            labelled=pl.col("claimed") & pl.col("positive").is_not_null(), seen=seen
        )
        excluded += int((marked["labelled"] & marked["seen"]).sum())
        marked = marked.with_columns(claimed=pl.col("labelled") & ~pl.col("seen"))
        rows = marked.filter("claimed").drop("message")
        if rows.is_empty():
            continue
        kept.append(rows)
        for collected, model in zip(scores, models, strict=True):
            collected.append(model.raw_scores(marked.select(frame.columns)))
    rows = pl.concat(kept) if kept else _NONE
    return LabelledScores(
        ts_us=rows["ts"].to_physical().to_numpy(),
        log_ids=rows["log_id"].to_numpy(),
        positive=rows["positive"].to_numpy().astype(np.bool_),
        clusters=rows.select(pl.struct("service", pl.col("ts").dt.truncate("1h")).rank("dense").cast(pl.Int64))
        .to_series()
        .to_numpy(),
        response_time_ms=rows["response_time_ms"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        status_code=rows["status_code"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        dimensions={name: _dimension(rows[name]) for name in ("service", "level")},
        scores=tuple(np.concatenate(part) if part else np.empty(0) for part in scores),
        excluded=excluded,
    )


def _dimension(values: pl.Series) -> Dimension:
    names = values.drop_nulls().unique().sort()
    codes = values.cast(pl.Enum(names)).to_physical().cast(pl.Int64).fill_null(-1)
    return Dimension(codes=codes.to_numpy(), names=tuple(names))


_NONE = pl.DataFrame(
    schema={
        "ts": pl.Datetime("us", "UTC"),
        "log_id": pl.Int64,
        "service": pl.String,
        "level": pl.String,
        "positive": pl.Boolean,
        "response_time_ms": pl.Float64,
        "status_code": pl.Int32,
    }
)
