"""The figures of a model on the rows of a test, with their doubt, as plain data; and their medians over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from mllib.detectors.base import Model
from mllib.errors import BadInput
from mllib.gate.class_metrics import ClassMetrics
from mllib.gate.evaluation import BinaryMetrics, bootstrap_counts
from mllib.gate.labelled_scores import LabelledScores
from mllib.gate.paired_counts import PairedCounts, count_classes, count_clusters
from mllib.gate.segments import Segment, compare_classes, compare_parts, compare_segments
from mllib.jobs.evidence import measure

KNOWN_ROWS = 30
"""Of a class with fewer rows than this the F1 is too uncertain to be part of ``macro_f1_of_known``."""

_SEGMENT = ("rows", "positives", "lower", "upper", "known")


def figures(rows: LabelledScores, model: Model) -> dict[str, Any]:
    """All figures of one model on the rows that it scored. ``figure`` is the one that the gate decides by.

    ``figure`` is None where all rows are of one class. Raises BadInput when the model gives a row no score.
    """
    evidence = measure(rows, [model], first=True)
    if evidence.defects or evidence.candidate is None:
        raise BadInput(f"The model cannot be measured: {'; '.join(evidence.defects)}.")
    measured = evidence.candidate
    counts, by_segment = _against_nothing(rows, model)
    doubt = bootstrap_counts(counts)
    return {
        "figure": measured.f1 if _telling(measured) else None,
        "lower": _within(doubt.lower),
        "upper": _within(doubt.upper),
        "clusters": doubt.clusters,
        "effective_clusters": doubt.effective_clusters,
        "trivial_f1": evidence.rival_f1,
        "rule_f1": dict(evidence.rule_f1),
        "metrics": asdict(measured),
        **({"macro_f1_of_known": _of_known(measured)} if isinstance(measured, ClassMetrics) else {}),
        "segments": [_plain(segment) for segment in by_segment],
    }


def medians(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The medians over seeds of `figures`, and the lowest and highest ``figure``."""
    told = [seed["figure"] for seed in found if seed["figure"] is not None]
    metrics = [seed["metrics"] for seed in found]
    result = {
        "figure": _median(told),
        "lowest": min(told, default=None),
        "highest": max(told, default=None),
        **{name: _median([of[name] for of in metrics]) for name, value in metrics[0].items() if _number(value)},
    }
    if "classes" not in metrics[0]:
        return result
    anomalies = [of["anomalies"] for of in metrics if of["anomalies"] is not None]
    by_class = {name: [_f1_of(of, name) for of in metrics] for name in _true_classes(metrics[0])}
    return {
        **result,
        "macro_f1_of_known": _median([seed["macro_f1_of_known"] for seed in found]),
        "classes": {name: _median(values) for name, values in by_class.items()},
        "anomalies": {name: _median([of[name] for of in anomalies]) for name in anomalies[0]} if anomalies else None,
    }


def _telling(measured: BinaryMetrics | ClassMetrics) -> bool:
    if isinstance(measured, ClassMetrics):
        return measured.telling_rows > 0
    return 0 < measured.positives < measured.rows


def _against_nothing(rows: LabelledScores, model: Model) -> tuple[PairedCounts, tuple[Segment, ...]]:
    """Counts and segments as for a comparison with a model whose F1 is 0: what is left is the model's own F1."""
    if rows.classed is None:
        flags = rows.scores[0] >= model.threshold
        silent = np.zeros_like(flags)
        counts = count_clusters(rows.positive, flags, silent, rows.clusters)
        return counts, compare_segments(rows.positive, flags, silent, rows.clusters, rows.dimensions)
    truth, said, names = rows.classed.truth, rows.classed.predicted[0], rows.classed.names
    never, classes = np.full_like(truth, len(names)), len(names) + 1  # a class that no row is of
    counts = count_classes(truth, said, never, rows.clusters, classes=classes)
    parts = compare_parts(truth, said, never, rows.clusters, rows.dimensions, classes=classes)
    return counts, (*compare_classes(counts, [*names, ""]), *parts)


def _plain(segment: Segment) -> dict[str, Any]:
    told = {name: getattr(segment, name) for name in _SEGMENT}
    recall = {} if segment.candidate_recall is None else {"recall": segment.candidate_recall}
    return {
        "dimension": segment.dimension,
        "value": segment.value,
        "f1": segment.candidate_f1,
        **recall,
        **told,
        "lower": _within(segment.lower),
        "upper": _within(segment.upper),
    }


def _of_known(measured: ClassMetrics) -> float | None:
    known = [of.f1 for of in measured.classes if of.rows >= KNOWN_ROWS]
    return sum(known) / len(known) if known else None


def _true_classes(metrics: Mapping[str, Any]) -> list[str]:
    return [of["name"] for of in metrics["classes"] if of["rows"]]


def _f1_of(metrics: Mapping[str, Any], name: str) -> float:
    return next((float(of["f1"]) for of in metrics["classes"] if of["name"] == name), 0.0)


def _within(bound: float | None) -> float | None:
    return None if bound is None else min(1.0, max(0.0, bound))


def _number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
