"""Both models' F1 in each segment of the holdout: one service, one level.

A gain on the whole can hide that a service is served worse. A segment speaks against a candidate only when it holds
enough anomalies, loses more than a margin, and the loss is more than chance after all segments have been looked at.
Segments are parts by what a row says; the slices by time are in `mllib.slices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mllib.evaluation import bootstrap_counts
from mllib.paired_counts import Array, Ints, PairedCounts, binary, count_groups, f1_difference, f1_scores, integers
from mllib.significance import holm, permutation_test

MAX_VALUES = 20
"""Values of a dimension that get a segment of their own; the others share one."""

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
    p_values: dict[int, float] = {}
    for dimension, values in dimensions.items():
        if values.codes.shape != truth.shape or of_cluster.shape != truth.shape:
            raise ValueError(f"one cluster and one {dimension} per row is needed, for {truth.size} rows")
        group_of, names = _grouped(values)
        rows = np.bincount(group_of, minlength=len(names))
        counted = count_groups(truth, new, old, of_cluster, group_of, groups=len(names))
        for name, size, counts in zip(names, rows.tolist(), counted, strict=True):
            segment = _segment(dimension, name, size, counts, min_positives, resamples, seed)
            if segment.known:
                p_values[len(found)] = permutation_test(counts, fall=True, flips=resamples, seed=seed)
            found.append(segment)
    for at, p_fall in zip(p_values, holm(list(p_values.values())), strict=True):
        found[at] = replace(found[at], p_fall=p_fall)
    return tuple(found)


def fallen(segments: tuple[Segment, ...], *, margin: float = 0.05, alpha: float = 0.05) -> tuple[Segment, ...]:
    """The segments that speak against the candidate: known, F1 lower by more than ``margin``, and not by chance."""
    return tuple(s for s in segments if s.p_fall is not None and s.difference < -margin and s.p_fall <= alpha)


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
    dimension: str, value: str, rows: int, counts: PairedCounts, min_positives: int, resamples: int, seed: int
) -> Segment:
    totals = counts.totals
    new_f1, old_f1 = f1_scores(totals)
    positives = int(totals[-1])
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
