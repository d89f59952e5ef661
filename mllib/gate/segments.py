"""Both models' F1 in each segment of the holdout: one service, one level, one class.

A gain on the whole can hide that a service is served worse. A segment speaks against a candidate only when it holds
enough anomalies, loses more than a margin, and the loss is more than chance after all segments have been looked at.
Segments are parts by what a row says; the slices by time are in `mllib.gate.slices`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mllib.gate.evaluation import bootstrap_counts
from mllib.gate.paired_counts import (
    Array,
    Ints,
    PairedCounts,
    binary,
    count_classes,
    count_clusters,
    count_groups,
    f1_difference,
    f1_scores,
    integers,
    recall_difference,
)
from mllib.gate.significance import holm, permutation_test

MAX_VALUES = 20
"""Values of a dimension that get a segment of their own; the others share one."""

RESAMPLES = 2000

ANOMALIES = "anomalies"
"""Dimension of the one segment that compares what models that tell classes apart call an anomaly."""

OTHER, NONE = "(other)", "(none)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """What rows are told apart by: ``codes`` of shape (rows,) point into ``names``; -1 is a row without a value."""

    codes: Ints
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Both models on the rows with one value, such as those of one service.

    ``known`` says that there are enough positives for the figures to count. ``lower`` and ``upper`` are the 90 %
    interval of the difference, None for too few clusters. ``p_fall`` is how often chance alone makes the candidate
    look so much worse, corrected for the number of known segments; None for an unknown one.
    """

    dimension: str
    value: str
    rows: int
    positives: int
    candidate_f1: float
    champion_f1: float
    difference: float
    lower: float | None
    upper: float | None
    p_fall: float | None
    known: bool
    candidate_recall: float | None = None
    champion_recall: float | None = None
    p_recall_fall: float | None = None
    """As ``p_fall``, for recall. Told of classes only: a class that is hardly found any more can keep its F1."""

    def falls(self, *, margin: float, alpha: float) -> bool:
        """Whether it speaks against the candidate: F1 or recall lower by more than ``margin``, and not by chance."""
        recalls = (self.candidate_recall or 0.0) - (self.champion_recall or 0.0)
        return any(
            p is not None and difference < -margin and p <= alpha
            for p, difference in ((self.p_fall, self.difference), (self.p_recall_fall, recalls))
        )


def compare_segments(
    labels: Array,
    candidate: Array,
    champion: Array,
    clusters: Array,
    dimensions: Mapping[str, Dimension],
    *,
    min_positives: int = 30,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Segment, ...]:
    """Compares two models in every segment, by dimension, the most frequent value first.

    Labels and flags are 0/1, ``clusters`` integer codes, all of shape (rows,), as the codes of the dimensions are.
    Raises ValueError for different lengths and other values.
    """
    truth = binary(labels, "labels")
    new, old = binary(candidate, "candidate", truth.size), binary(champion, "champion", truth.size)
    of_cluster = integers(clusters, "clusters")
    found: list[Segment] = []
    for dimension, values in dimensions.items():
        if values.codes.shape != truth.shape or of_cluster.shape != truth.shape:
            raise ValueError(f"one cluster and one {dimension} per row is needed, for {truth.size} rows")
        group_of, names = _grouped(values)
        rows = np.bincount(group_of, minlength=len(names))
        counted = count_groups(truth, new, old, of_cluster, group_of, groups=len(names))
        for name, size, counts in zip(names, rows.tolist(), counted, strict=True):
            positives = int(counts.totals[-1])
            segment = _segment(dimension, name, size, positives, counts, min_positives, resamples, seed)
            found.append(_tested(segment, counts, resamples, seed))
    return corrected(found)


def compare_classes(counts: PairedCounts, names: Sequence[str], *, min_rows: int = 30) -> tuple[Segment, ...]:
    """Compares two models in every class, against all others, the most frequent first: F1 and recall.

    ``counts`` of `mllib.gate.paired_counts.count_classes`, whose classes have these ``names``; those without a row are
    left out. ``known`` are those with ``min_rows`` rows. The p-values are not corrected yet, see `corrected`.
    """
    found = []
    for number, name in enumerate(names):
        of_class = counts.of_class(number)
        new_hits, _, old_hits, _, rows = of_class.totals.tolist()
        if not rows:
            continue
        segment = _segment("class", name, rows, rows, of_class, min_rows, RESAMPLES, 0)
        segment = replace(segment, candidate_recall=new_hits / rows, champion_recall=old_hits / rows)
        found.append(_tested(segment, of_class, RESAMPLES, 0))
    return tuple(sorted(found, key=lambda segment: (-segment.rows, segment.value)))


def compare_parts(
    truth: Ints,
    candidate: Ints,
    champion: Ints,
    clusters: Ints,
    dimensions: Mapping[str, Dimension],
    *,
    classes: int,
    min_rows: int = 30,
) -> tuple[Segment, ...]:
    """Compares two models that tell classes apart in every segment, by macro-F1 over the classes that occur there.

    Codes of classes and clusters of shape (rows,). The positives of a segment are its rows outside its most frequent
    class. The p-values are not corrected yet, see `corrected`.
    """
    found = []
    for dimension, values in dimensions.items():
        group_of, names = _grouped(values)
        for number, name in enumerate(names):
            at = np.flatnonzero(group_of == number)
            counts = count_classes(truth[at], candidate[at], champion[at], clusters[at], classes=classes)
            telling = at.size - int(np.bincount(truth[at]).max())
            segment = _segment(dimension, name, at.size, telling, counts, min_rows, RESAMPLES, 0)
            found.append(_tested(segment, counts, RESAMPLES, 0))
    return tuple(found)


def compare_anomalies(
    labels: Array, candidate: Array, champion: Array, clusters: Array, *, min_positives: int = 30
) -> Segment:
    """Compares what two models call an anomaly, over all rows given, as one segment.

    Arguments as in `compare_segments`. The p-value is not corrected yet, see `corrected`.
    """
    counts = count_clusters(labels, candidate, champion, clusters)
    positives = int(counts.totals[-1])
    segment = _segment(ANOMALIES, "all", labels.size, positives, counts, min_positives, RESAMPLES, 0)
    return _tested(segment, counts, RESAMPLES, 0)


def corrected(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The same segments with their p-values corrected by Holm's method for how many there are of them."""
    raw = [p for segment in segments for p in (segment.p_fall, segment.p_recall_fall) if p is not None]
    # In the order in which they were taken.
    left = iter(holm(raw))
    return tuple(
        replace(
            segment,
            p_fall=None if segment.p_fall is None else next(left),
            p_recall_fall=None if segment.p_recall_fall is None else next(left),
        )
        for segment in segments
    )


def fallen(segments: tuple[Segment, ...], *, margin: float = 0.05, alpha: float = 0.05) -> tuple[Segment, ...]:
    """The segments that speak against the candidate: known, lower by more than ``margin``, and not by chance."""
    return tuple(segment for segment in segments if segment.falls(margin=margin, alpha=alpha))


def _tested(segment: Segment, counts: PairedCounts, flips: int, seed: int) -> Segment:
    """The segment with its p-values, where it is known."""
    if not segment.known:
        return segment
    p_fall = permutation_test(counts, fall=True, flips=flips, seed=seed)
    if segment.candidate_recall is None:
        return replace(segment, p_fall=p_fall)
    p_recall = permutation_test(counts, fall=True, flips=flips, seed=seed, difference=recall_difference)
    return replace(segment, p_fall=p_fall, p_recall_fall=p_recall)


def _grouped(values: Dimension) -> tuple[Ints, list[str]]:
    """The segment of each row, and the segments' names: the most frequent values, then the others, then none."""
    missing = values.codes < 0
    often = np.bincount(values.codes[~missing], minlength=len(values.names))
    # Of equally frequent values the earlier name first, so that the choice does not depend on the order of the rows.
    ranked = sorted(np.flatnonzero(often).tolist(), key=lambda code: (-often[code], values.names[code]))
    kept, others = ranked[:MAX_VALUES], ranked[MAX_VALUES:]
    names = [values.names[code] for code in kept]
    to_group = np.zeros(len(values.names) + 1, dtype=np.int64)
    to_group[kept] = np.arange(len(kept))
    if others:
        to_group[others] = len(names)
        names.append(OTHER)
    if missing.any():
        # Code -1 is the last entry.
        to_group[-1] = len(names)
        names.append(NONE)
    return to_group[values.codes], names


def _segment(
    dimension: str,
    value: str,
    rows: int,
    positives: int,
    counts: PairedCounts,
    min_positives: int,
    resamples: int,
    seed: int,
) -> Segment:
    totals = counts.totals
    new_f1, old_f1 = f1_scores(totals)
    bootstrap = bootstrap_counts(counts, resamples=resamples, seed=seed) if positives else None
    return Segment(
        dimension=dimension,
        value=value,
        rows=rows,
        positives=positives,
        candidate_f1=float(new_f1),
        champion_f1=float(old_f1),
        difference=float(f1_difference(totals)),
        lower=bootstrap.lower if bootstrap else None,
        upper=bootstrap.upper if bootstrap else None,
        p_fall=None,
        known=positives >= min_positives,
    )
