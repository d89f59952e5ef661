"""Scores the labelled rows of a window with one model or several, row by row the same for each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import Connection

from mllib import borders, sources
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
    """Number of the hour of the row and of its service, or what its source has in that place.

    Rows come in bursts, so they are no independent draws. Hours that an incident connects are one, see
    `mllib.borders.clusters`.
    """
    response_time_ms: npt.NDArray[np.float64]
    status_code: npt.NDArray[np.float64]
    """As ``response_time_ms``, NaN where the row or its source has none."""
    dimensions: Mapping[str, Dimension]
    """What the rows are told apart by when the models are compared in parts: for log lines service and level."""
    scores: tuple[npt.NDArray[np.float64], ...]
    seconds: tuple[float, ...]
    """Processor time that each model took for the rows of the window, with their context."""
    excluded: int
    """Labelled rows that are left out because a model was trained on them."""
    tied: Mapping[str, int]
    """Labelled rows that are left out because they belong to rows before the window, by kind of group.

    See `mllib.borders`. A row counts once, and not here if a model was trained on it.
    """

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
    recorded_until: datetime | None = None,
) -> LabelledScores:
    """Scores the rows of ``window`` with a verdict that was mature at ``as_of``, each model with its own features.

    Unlabelled rows count as context. Rows within ``trained_on`` are left out and counted, and so are those that belong
    to a trace, an incident or a burst of lines from before the window: a model may know it from there. Verdicts filed
    after ``recorded_until`` do not count, whatever they are about.
    """
    source = sources.source(method.source)
    group = source.segments[0]
    verdicts = labels.in_window(conn, source, window, as_of=as_of, delay=label_delay, recorded_until=recorded_until)
    selection = row_store.RowsInWindow(window=window, current=snapshot)
    kept: list[pl.DataFrame] = []
    anomalies: list[pl.DataFrame] = []
    scores: list[list[npt.NDArray[np.float64]]] = [[] for _ in models]
    seconds = [0.0 for _ in models]
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
        anomalies.append(marked.filter("labelled", "positive").select("ts", group))
        marked = marked.with_columns(claimed=pl.col("labelled") & ~pl.col("seen"))
        rows = marked.filter("claimed").select(*carried)
        if rows.is_empty():
            continue
        kept.append(rows)
        for number, model in enumerate(models):
            started = time.process_time()
            scores[number].append(model.raw_scores(marked.select(frame.columns)))
            seconds[number] += time.process_time() - started
    rows = pl.concat(kept) if kept else pl.DataFrame(schema=carried)
    tied = _tied(
        conn,
        source,
        window,
        rows,
        anomalies,
        as_of=as_of,
        label_delay=label_delay,
        snapshot=snapshot,
        recorded_until=recorded_until,
    )
    free = ~np.logical_or.reduce(list(tied.values()))
    rows = rows.filter(pl.Series(free))
    positive = rows["positive"].to_numpy().astype(np.bool_)
    dimensions = {name: _dimension(rows[name]) for name in source.segments}
    ts_us = rows["ts"].to_physical().to_numpy()
    return LabelledScores(
        ts_us=ts_us,
        log_ids=rows["log_id"].to_numpy(),
        positive=positive,
        clusters=borders.clusters(ts_us, dimensions[group].codes, positive, borders.incident_limit(window)),
        response_time_ms=_numbers(rows, "response_time_ms"),
        status_code=_numbers(rows, "status_code"),
        dimensions=dimensions,
        scores=tuple(np.concatenate(part)[free] if part else np.empty(0) for part in scores),
        seconds=tuple(seconds),
        excluded=excluded,
        tied={kind: int(mask.sum()) for kind, mask in tied.items()},
    )


def _tied(
    conn: Connection,
    source: Source,
    window: Window,
    rows: pl.DataFrame,
    anomalies: Sequence[pl.DataFrame],
    *,
    as_of: datetime,
    label_delay: timedelta,
    snapshot: str,
    recorded_until: datetime | None,
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of ``rows`` belong to what lies before the window, by kind; no row is of two kinds.

    Traces and bursts of equal lines are of logs only; incidents there are in every source.
    ``anomalies`` are all labelled ones of the window, also those that are left out for another reason: they are links
    of the chain that an incident is.
    """
    if rows.is_empty():
        return {kind: np.zeros(0, dtype=np.bool_) for kind in borders.KINDS}
    edge = borders.edge(window)
    group, is_log = source.segments[0], source.name == "logs"
    selection = row_store.RowsInWindow(window=edge, current=snapshot)
    frames = row_store.stream(conn, source, selection, [edge], context=timedelta(0))
    known = {name: source.schema[name] for name in ("log_id", "ts", group)}
    none = pl.DataFrame(schema={**known, "template": pl.String} if is_log else known)
    lines = pl.concat([none, *(borders.templates(frame) if is_log else frame.select(*known) for frame in frames)])
    verdicts = labels.in_window(
        conn, source, Window(edge.start, window.start), as_of=as_of, delay=label_delay, recorded_until=recorded_until
    )
    before = lines.join(verdicts.filter("positive"), on="log_id", how="semi").select("ts", group)
    incidents = borders.under_way(
        pl.concat([before, *anomalies]),
        window.start,
        by=(group,),
        gap=borders.INCIDENT_GAP,
        limit=borders.incident_limit(window),
    )
    masks = {kind: np.zeros(rows.height, dtype=np.bool_) for kind in borders.KINDS}
    masks[borders.INCIDENT] = borders.tied(rows, incidents)
    if is_log:
        bursts = borders.under_way(
            lines,
            window.start,
            by=(group, "template"),
            gap=borders.BURST_GAP,
            limit=borders.burst_limit(window),
        )
        after = lines.filter(pl.col("ts") >= window.start)
        burst = after["log_id"].filter(borders.tied(after, bursts))
        masks[borders.BURST] = rows["log_id"].is_in(burst.implode()).to_numpy()
        traced = row_store.labelled_of_earlier_traces(
            conn, window, look_back=borders.TRACE_LOOK_BACK, snapshot=snapshot
        )
        masks[borders.TRACE] = rows["log_id"].is_in(traced.implode()).to_numpy()
    taken = np.zeros(rows.height, dtype=np.bool_)
    for kind in borders.KINDS:
        masks[kind] = masks[kind] & ~taken
        taken |= masks[kind]
    return masks


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
