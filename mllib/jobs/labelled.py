"""Scores the labelled rows of a window with one model or several, row by row the same for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlalchemy import Connection

from mllib import sources
from mllib.detectors.base import LABELS, MACRO_F1, ClassModel, Detector, Model
from mllib.features.stream import with_context
from mllib.gate import borders
from mllib.gate.labelled_scores import ClassedRows, LabelledScores
from mllib.gate.segments import Dimension
from mllib.sources import Source
from mllib.store import labels
from mllib.store import rows as row_store
from mllib.types import Window

_NO_CLASSES = pl.Series(dtype=pl.String)


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What lies at the start of a window, by which its rows are told that belong to rows before it."""

    lines: pl.DataFrame
    """All rows of `borders.edge`: ``log_id``, ``ts``, the first segment of the source and, for logs, ``template``."""
    anomalies: pl.DataFrame
    """Those of them before the window that are labelled as anomalies: ``ts`` and the segment."""
    traced: pl.Series
    """``log_id`` of the labelled rows of the window whose trace began before it."""


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

    Where a column of the rows holds their true class, the rows that have one are scored, and no model is shown it.
    Unlabelled rows count as context. Rows within ``trained_on`` are left out and counted, and so are those that belong
    to a trace, an incident or a burst of lines from before the window: a model may know it from there. Verdicts filed
    after ``recorded_until`` do not count, whatever they are about.
    """
    source = sources.source(method.source)
    verdicts_in = partial(labels.in_window, conn, source, as_of=as_of, delay=label_delay, recorded_until=recorded_until)
    verdicts = verdicts_in(window)
    selection = row_store.RowsInWindow(window=window, current=snapshot)
    frames = (
        row_store.stream(conn, source, selection, [window], context=method.context)
        if _Truth(method).in_rows or not verdicts.is_empty()
        else iter(())
    )
    return score_rows(
        method,
        window,
        models,
        frames=frames,
        verdicts=verdicts,
        before=partial(_before, conn, source, window, verdicts_in, snapshot=snapshot),
        trained_on=trained_on,
    )


def score_rows(
    method: Detector,
    window: Window,
    models: Sequence[Model],
    *,
    frames: Iterable[pl.DataFrame],
    verdicts: pl.DataFrame,
    before: Callable[[], Before] | None,
    trained_on: Sequence[Window] = (),
) -> LabelledScores:
    """What `score_labelled` says of rows, wherever they are from.

    ``frames`` are of the detector's source, the rows of the window claimed and its context before them; ``verdicts``
    has ``log_id``, ``label`` and ``positive``. ``before`` is asked once where there is a row to judge; without it no
    row counts as belonging to rows before the window.
    """
    source = sources.source(method.source)
    group = source.segments[0]
    kept: list[pl.DataFrame] = []
    anomalies: list[pl.DataFrame] = []
    scores: list[list[npt.NDArray[np.float64]]] = [[] for _ in models]
    predicted: list[list[pl.Series]] = [[] for _ in models]
    seconds = [0.0 for _ in models]
    excluded = 0
    seen = pl.any_horizontal(
        pl.lit(False), *(pl.col("ts").is_between(w.start, w.end, closed="left") for w in trained_on)
    )
    carried, truth = _carried(source, pl.String if method.metric == MACRO_F1 else pl.Boolean), _Truth(method)
    for frame in with_context(frames, method.context):
        joined = frame.join(verdicts, on="log_id", how="left", maintain_order="left")
        marked = truth.marked(joined).with_columns(
            labelled=pl.col("claimed") & pl.col("judged_by").is_not_null(), seen=seen
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
            shown = truth.hidden(marked.select(frame.columns))
            features = model.features(shown)
            scores[number].append(model.score(features))
            if truth.classes:
                predicted[number].append(_classes(model, features))
            seconds[number] += time.process_time() - started
    rows = pl.concat(kept) if kept else pl.DataFrame(schema=carried)
    tied = _tied(source, window, rows, anomalies, before() if before and not rows.is_empty() else None)
    free = ~np.logical_or.reduce(list(tied.values()))
    rows = rows.filter(pl.Series(free))
    positive = rows["positive"].fill_null(value=False).to_numpy().astype(np.bool_)
    dimensions = {name: _dimension(rows[name]) for name in source.segments}
    if truth.in_rows:
        # Parts by the truth itself are the classes, which are compared as such.
        compared = {name: values for name, values in dimensions.items() if name != method.truth}
    else:
        compared = dimensions
    ts_us = rows["ts"].to_physical().to_numpy()
    return LabelledScores(
        ts_us=ts_us,
        log_ids=rows["log_id"].to_numpy(),
        positive=positive,
        clusters=borders.clusters(ts_us, dimensions[group].codes, positive, borders.incident_limit(window)),
        response_time_ms=_numbers(rows, "response_time_ms"),
        status_code=_numbers(rows, "status_code"),
        dimensions=compared,
        scores=tuple(np.concatenate(part)[free] if part else np.empty(0) for part in scores),
        seconds=tuple(seconds),
        excluded=excluded,
        tied={kind: int(mask.sum()) for kind, mask in tied.items()},
        classed=_classed(rows, predicted, free) if truth.classes else None,
    )


class _Truth:
    """What rows are judged by: whether they are anomalies, or their class, out of the labels or of a column."""

    def __init__(self, method: Detector) -> None:
        self._method = method
        self.classes = method.metric == MACRO_F1
        self.in_rows = self.classes and method.truth != LABELS

    def marked(self, joined: pl.DataFrame) -> pl.DataFrame:
        """The rows with a column ``judged_by``, null where the truth is not known."""
        if not self.classes:
            return joined.with_columns(judged_by=pl.col("positive"))
        values = joined[self._method.truth if self.in_rows else "label"]
        return joined.with_columns(self._method.true_classes(values).cast(pl.String).alias("judged_by"))

    def hidden(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows as a model may see them: it must not read off what it is asked."""
        if not self.in_rows:
            return frame
        return frame.with_columns(pl.lit(None, dtype=frame.schema[self._method.truth]).alias(self._method.truth))


def _classes(model: Model, features: npt.NDArray[np.float32]) -> pl.Series:
    if not isinstance(model, ClassModel):
        raise TypeError(f"{type(model).__name__} tells no classes apart, but its detector is judged by macro_f1")
    return pl.Series(model.classes, dtype=pl.String).gather(pl.Series(model.classify(features)[0], dtype=pl.UInt32))


def _classed(rows: pl.DataFrame, predicted: Sequence[Sequence[pl.Series]], free: npt.NDArray[np.bool_]) -> ClassedRows:
    said = [pl.concat([_NO_CLASSES, *part]).filter(pl.Series(free)) for part in predicted]
    names = pl.concat([rows["judged_by"].cast(pl.String), *said]).unique().sort()
    codes = [
        values.cast(pl.Enum(names)).to_physical().cast(pl.Int64).to_numpy()
        for values in (rows["judged_by"].cast(pl.String), *said)
    ]
    return ClassedRows(
        names=tuple(names),
        truth=codes[0],
        predicted=tuple(codes[1:]),
        labelled=rows["positive"].is_not_null().to_numpy(),
    )


def _before(
    conn: Connection,
    source: Source,
    window: Window,
    verdicts_in: Callable[[Window], pl.DataFrame],
    *,
    snapshot: str,
) -> Before:
    edge = borders.edge(window)
    selection = row_store.RowsInWindow(window=edge, current=snapshot)
    lines = edge_lines(source, row_store.stream(conn, source, selection, [edge], context=timedelta(0)))
    verdicts = verdicts_in(Window(edge.start, window.start))
    return Before(
        lines=lines,
        anomalies=lines.join(verdicts.filter("positive"), on="log_id", how="semi").select("ts", source.segments[0]),
        traced=row_store.labelled_of_earlier_traces(conn, window, look_back=borders.TRACE_LOOK_BACK, snapshot=snapshot)
        if source.name == "logs"
        else pl.Series("log_id", dtype=pl.Int64),
    )


def edge_lines(source: Source, frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Rows as `Before` has them. Bursts of equal lines are of logs only, so only these have a template."""
    is_log = source.name == "logs"
    known = {name: source.schema[name] for name in ("log_id", "ts", source.segments[0])}
    none = pl.DataFrame(schema={**known, "template": pl.String} if is_log else known)
    return pl.concat([none, *(borders.templates(frame) if is_log else frame.select(*known) for frame in frames)])


def _tied(
    source: Source, window: Window, rows: pl.DataFrame, anomalies: Sequence[pl.DataFrame], before: Before | None
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of ``rows`` belong to what lies before the window, by kind; no row is of two kinds.

    Traces and bursts of equal lines are of logs only; incidents there are in every source.
    ``anomalies`` are all labelled ones of the window, also those that are left out for another reason: they are links
    of the chain that an incident is.
    """
    masks = {kind: np.zeros(rows.height, dtype=np.bool_) for kind in borders.KINDS}
    if before is None:
        return masks
    group, lines = source.segments[0], before.lines
    incidents = borders.under_way(
        pl.concat([before.anomalies, *anomalies]),
        window.start,
        by=(group,),
        gap=borders.INCIDENT_GAP,
        limit=borders.incident_limit(window),
    )
    masks[borders.INCIDENT] = borders.tied(rows, incidents)
    if source.name == "logs":
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
        masks[borders.TRACE] = rows["log_id"].is_in(before.traced.implode()).to_numpy()
    taken = np.zeros(rows.height, dtype=np.bool_)
    for kind in borders.KINDS:
        masks[kind] = masks[kind] & ~taken
        taken |= masks[kind]
    return masks


def _dimension(values: pl.Series) -> Dimension:
    names = values.drop_nulls().unique().sort()
    codes = values.cast(pl.Enum(names)).to_physical().cast(pl.Int64).fill_null(-1)
    return Dimension(codes=codes.to_numpy(), names=tuple(names))


def _carried(source: Source, judged_by: type[pl.DataType]) -> dict[str, pl.DataType | type[pl.DataType]]:
    """The columns that are kept of each labelled row, with their types: what is compared, not what is scored."""
    names = ("ts", "log_id", *source.segments, "response_time_ms", "status_code")
    known = {name: source.schema[name] for name in names if name in source.schema}
    return {**known, "positive": pl.Boolean, "judged_by": judged_by}


def _numbers(rows: pl.DataFrame, name: str) -> npt.NDArray[np.float64]:
    if name not in rows.columns:
        return np.full(rows.height, np.nan)
    return rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
