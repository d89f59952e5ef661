"""Gathers what a verdict rests on: both models' figures on the holdout, their cost, what is unusual about the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine

from mllib import artifacts
from mllib.detectors.base import Model
from mllib.errors import BadArtifact
from mllib.gate import changes, evaluation, significance
from mllib.gate.class_metrics import ClassMetrics
from mllib.gate.evaluation import BinaryMetrics
from mllib.gate.evidence import Evidence, Footprint
from mllib.gate.labelled_scores import LabelledScores
from mllib.gate.paired_counts import Bools, PairedCounts, count_classes, count_clusters
from mllib.gate.segments import (
    Segment,
    compare_anomalies,
    compare_classes,
    compare_parts,
    compare_segments,
    corrected,
)
from mllib.jobs.models import load_model
from mllib.store import registry
from mllib.store.contents import slice_contents
from mllib.store.lineage import lineage_of


def load_rivals(
    engine: Engine, conn: Connection, detector: str, candidate: int, champion: int | None
) -> tuple[list[Model], tuple[str, ...]]:
    """The candidate's model and the champion's, if there is one, and what is wrong with the candidate's.

    No model at all when the candidate's cannot be loaded: then there is nothing to compare. Raises BadArtifact when it
    is the champion's that cannot: production itself is broken then, and no verdict would mend it.
    """
    try:
        model = load_model(engine, detector, candidate)
    except BadArtifact as error:
        return [], (str(error),)
    recorded = lineage_of(conn, detector, candidate)
    defects = []
    if tuple(model.feature_names) != recorded.feature_names:
        defects.append("the features of the stored model are not those on record for it")
    if model.threshold != recorded.threshold:
        defects.append(f"the stored model has the threshold {model.threshold:g}, on record is {recorded.threshold:g}")
    return [model, *([] if champion is None else [load_model(engine, detector, champion)])], tuple(defects)


def gather(
    conn: Connection,
    detector: str,
    candidate: int,
    champion: int | None,
    rows: LabelledScores,
    models: Sequence[Model],
    defects: tuple[str, ...],
) -> Evidence:
    """The evidence of ``rows``, which ``models`` of `load_rivals` have scored, the candidate first."""
    return replace(
        measure(rows, models, first=champion is None, defects=defects),
        candidate_footprint=_footprint(conn, detector, candidate, rows.seconds[0]) if models else None,
        champion_footprint=_footprint(conn, detector, champion, rows.seconds[1]) if models and champion else None,
        **_unusual(conn, detector, candidate),
    )


def measure(
    rows: LabelledScores,
    models: Sequence[Model],
    *,
    first: bool,
    defects: tuple[str, ...] = (),
    volume_ratio: float | None = None,
    anomaly_ratio: float | None = None,
) -> Evidence:
    """The evidence in the scored rows alone. ``models`` are the candidate and, unless ``first``, the champion.

    Without any model there are no figures, and a row without a finite score is a defect of the candidate.
    """
    unscored = int((~np.isfinite(rows.scores[0])).sum()) if models else 0
    if unscored:
        defects = (*defects, f"the model gives {unscored:,} of {rows.positive.size:,} rows no score")
    measured: list[BinaryMetrics | ClassMetrics] = []
    if not unscored:
        measured = [rows.metrics(number, model.threshold) for number, model in enumerate(models)]
    positives = int(rows.positive.sum())
    bootstrap = permutation_p = mcnemar_p = None
    segments: tuple[Segment, ...] = ()
    if measured and rows.positive.size:
        counts = _counts(rows, models, first=first)
        bootstrap = evaluation.bootstrap_counts(counts)
        if not first:
            permutation_p = significance.permutation_test(counts)
            mcnemar_p = _mcnemar(rows, models)
            segments = _segments(rows, models, counts)
    return Evidence(
        first=first,
        candidate=measured[0] if measured else None,
        champion=measured[1] if len(measured) > 1 else None,
        bootstrap=bootstrap,
        holdout_rows=rows.positive.size,
        holdout_positives=positives,
        holdout_hash=evaluation.holdout_hash(rows.ts_us, rows.log_ids, rows.truth),
        excluded_rows=rows.excluded,
        tied_rows=rows.tied,
        flag_everything_f1=evaluation.flag_everything_f1(rows.positive.size, positives),
        rule_f1=_rules(rows) if rows.classed is None else {},
        segments=segments,
        permutation_p=permutation_p,
        mcnemar_p=mcnemar_p,
        defects=defects,
        volume_ratio=volume_ratio,
        anomaly_ratio=anomaly_ratio,
        metric="f1" if rows.classed is None else "macro_f1",
    )


def _flags(rows: LabelledScores, models: Sequence[Model]) -> list[Bools]:
    return [scores >= model.threshold for scores, model in zip(rows.scores, models, strict=True)]


def _counts(rows: LabelledScores, models: Sequence[Model], *, first: bool) -> PairedCounts:
    """Counts of candidate and champion; what a first candidate has to beat is the trivial rival."""
    if rows.classed is None:
        flags = _flags(rows, models)
        return count_clusters(rows.positive, flags[0], np.ones_like(flags[0]) if first else flags[1], rows.clusters)
    truth, said = rows.classed.truth, rows.classed.predicted
    old = np.full_like(truth, np.bincount(truth).argmax()) if first else said[1]
    return count_classes(truth, said[0], old, rows.clusters, classes=len(rows.classed.names))


def _mcnemar(rows: LabelledScores, models: Sequence[Model]) -> float:
    if rows.classed is None:
        return significance.mcnemar(rows.positive, *_flags(rows, models))
    right, was_right = (said == rows.classed.truth for said in rows.classed.predicted)
    return significance.mcnemar_exact(int((right & ~was_right).sum()), int((was_right & ~right).sum()))


def _segments(rows: LabelledScores, models: Sequence[Model], counts: PairedCounts) -> tuple[Segment, ...]:
    if rows.classed is None:
        flags, old_flags = _flags(rows, models)
        return compare_segments(rows.positive, flags, old_flags, rows.clusters, rows.dimensions)
    classed, known = rows.classed, rows.classed.labelled
    new, old = classed.predicted
    found = [
        *compare_classes(counts, classed.names),
        *compare_parts(classed.truth, new, old, rows.clusters, rows.dimensions, classes=len(classed.names)),
    ]
    if known.any():
        flags, old_flags = (of_model[known] for of_model in _flags(rows, models))
        found.append(compare_anomalies(rows.positive[known], flags, old_flags, rows.clusters[known]))
    return corrected(found)


def _footprint(conn: Connection, detector: str, version: int, seconds: float) -> Footprint:
    content, digest = registry.artifact(conn, detector, version)
    if artifacts.digest(content) != digest:
        raise BadArtifact(
            f"The stored bytes of {detector} version {version} changed while it was judged. Judge it again."
        )
    return Footprint(seconds=seconds, artifact_bytes=len(content), artifact_digest=digest)


def _unusual(conn: Connection, detector: str, version: int) -> dict[str, Any]:
    """How the holdout differs from the training window, as fields of the evidence."""
    lineage = lineage_of(conn, detector, version)
    if lineage.validation is None or lineage.holdout is None:
        return {}
    windows = {"train": lineage.train, "validation": lineage.validation, "holdout": lineage.holdout}
    held = slice_contents(conn, detector, version, windows, lineage.label_counts)
    train, holdout = held["train"], held["holdout"]
    return {
        "volume_ratio": changes.volume_ratio(train, holdout),
        "anomaly_ratio": changes.anomaly_ratio(train, holdout),
        "changes": changes.unusual(train, held["validation"], holdout, newest=lineage.holdout.end, as_of=lineage.as_of),
    }


def _rules(rows: LabelledScores) -> dict[str, float]:
    """F1 of rules that look at one value only: what a model must be worth more than."""
    rules = {}
    if np.isfinite(rows.status_code).any():
        rules["status_code >= 500"] = evaluation.binary_metrics(rows.positive, rows.status_code >= 500).f1
    timed = np.isfinite(rows.response_time_ms)
    if timed.any():
        slow = rows.response_time_ms >= np.quantile(rows.response_time_ms[timed], 0.99)
        rules["slowest 1 % of requests"] = evaluation.binary_metrics(rows.positive, slow).f1
    return rules
