"""Counts of two models' hits and alarms per cluster: all that resampling or swapping clusters needs to know.

F1 depends on a set of clusters only through its totals, so clusters with equal counts are interchangeable. A million
rows in a hundred thousand clusters become a few hundred distinct vectors, and a resample becomes one multinomial draw.

With several classes each of them is counted for itself, against all others, and macro-F1 is the mean of their F1s over
the classes that the rows are really of. A detector of anomalies is the case of one class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COLUMNS = 5
"""Of a class in a count vector: the candidate's hits and alarms, the champion's, and positives.

A hit is a true alarm; with several classes an alarm is a row that the model says is of the class, a positive one that
is.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCounts:
    """Distinct count vectors of clusters, and how many clusters have each.

    ``vectors`` has shape (distinct, classes * COLUMNS) and is sorted, so that what is drawn with a seed depends neither
    on the order of the rows nor on the names of the clusters; ``times`` has shape (distinct,). Clusters of zeros count
    too.
    """

    vectors: Ints
    times: Ints

    @property
    def clusters(self) -> int:
        return int(self.times.sum())

    @property
    def totals(self) -> Ints:
        """Sums over all clusters, shape (classes * COLUMNS,)."""
        return np.asarray(self.times @ self.vectors, dtype=np.int64)

    def of_class(self, number: int) -> PairedCounts:
        """One class against all others."""
        columns = self.vectors[:, number * COLUMNS : (number + 1) * COLUMNS]
        return distinct(np.ascontiguousarray(columns), times=self.times)


def count_clusters(labels: Array, candidate: Array, champion: Array, clusters: Array) -> PairedCounts:
    """Counts per cluster. All arrays of shape (rows,): labels and flags 0/1, ``clusters`` integer codes, gaps are fine.

    Raises ValueError for no row, different lengths, and labels or flags other than 0 and 1.
    """
    truth = binary(labels, "labels")
    new, old = binary(candidate, "candidate", truth.size), binary(champion, "champion", truth.size)
    codes = integers(clusters, "clusters")
    if not truth.size or codes.size != truth.size:
        raise ValueError(f"one cluster per row is needed, and at least one row, got {codes.size} for {truth.size} rows")
    return count_groups(truth, new, old, codes, np.zeros(truth.size, dtype=np.int64), groups=1)[0]


def count_groups(
    truth: Bools, new: Bools, old: Bools, clusters: Ints, group_of: Ints, *, groups: int
) -> list[PairedCounts]:
    """Counts per cluster within each of ``groups`` groups of rows; ``group_of`` is the group of each row, from 0.

    A cluster whose rows lie in several groups counts in each of them, with its rows there. A group may be empty.
    """
    lowest = int(clusters.min()) if clusters.size else 0
    span = int(clusters.max()) - lowest + 1 if clusters.size else 1
    if span > clusters.size + 1_000:
        names, clusters = np.unique(clusters, return_inverse=True)
        lowest, span = 0, names.size
    cells = group_of * span + (clusters - lowest)
    present = np.zeros(groups * span, dtype=np.bool_)
    present[cells] = True
    found = present.reshape(groups, span).sum(axis=1)
    # Most rows are normal and flagged by nobody. They add nothing, so only the others are gathered by cluster.
    speaking = truth | new | old
    cells, truth, new, old = cells[speaking], truth[speaking], new[speaking], old[speaking]
    named, of_row = np.unique(cells, return_inverse=True)
    counts = np.stack(
        [np.bincount(of_row[mask], minlength=named.size) for mask in (truth & new, new, truth & old, old, truth)],
        axis=1,
    ).astype(np.int64)
    borders = np.searchsorted(named, np.arange(groups + 1) * span)
    return [
        distinct(counts[borders[group] : borders[group + 1]], silent=int(found[group] - np.diff(borders)[group]))
        for group in range(groups)
    ]


def count_classes(truth: Ints, new: Ints, old: Ints, clusters: Ints, *, classes: int) -> PairedCounts:
    """Counts per cluster and class. All arrays of shape (rows,): codes of classes from 0 to ``classes`` - 1.

    Raises ValueError for no row, different lengths, and codes out of range.
    """
    if not truth.size or not truth.size == new.size == old.size == clusters.size:
        raise ValueError(f"one class and one cluster per row is needed, and at least one row, got {truth.size} rows")
    if min(part.min() for part in (truth, new, old)) < 0 or max(part.max() for part in (truth, new, old)) >= classes:
        raise ValueError(f"a class must be a number from 0 to {classes - 1}")
    of_cluster = _dense(clusters)
    found = int(of_cluster.max()) + 1
    cells = of_cluster * classes
    counts = np.empty((found, classes, COLUMNS), dtype=np.int32)
    hit, matched = new == truth, old == truth
    for column, of_class in enumerate((truth[hit], new, truth[matched], old, truth)):
        at = (cells[hit], cells, cells[matched], cells, cells)[column] + of_class
        counts[:, :, column] = np.bincount(at, minlength=found * classes).reshape(found, classes)
    return distinct(counts.reshape(found, classes * COLUMNS))


def distinct(counts: npt.NDArray[np.integer], *, silent: int = 0, times: Ints | None = None) -> PairedCounts:
    """The distinct rows of ``counts`` of shape (clusters, columns), with ``silent`` further clusters of zeros.

    ``times`` says how many clusters each row stands for, one unless given.
    """
    if silent:
        counts = np.concatenate([counts, np.zeros((1, counts.shape[1]), dtype=counts.dtype)])
    weights = np.ones(counts.shape[0], dtype=np.int64) if times is None else times
    if silent:
        weights[-1] = silent
    vectors, of_cluster = _unique_rows(counts)
    together = np.zeros(vectors.shape[0], dtype=np.int64)
    np.add.at(together, of_cluster, weights)
    return PairedCounts(vectors=vectors, times=together)


def _unique_rows(counts: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
    """The distinct rows in an order that depends on them alone, and which of them each row is."""
    if counts.shape[1] <= 2 * COLUMNS:
        rows, of_row = np.unique(counts, axis=0, return_inverse=True)
        return rows.astype(np.int64), of_row.reshape(-1)
    # numpy compares wide rows number by number. As plain bytes the sorting is ten times as fast.
    wide = np.ascontiguousarray(counts)
    as_bytes = wide.view(np.dtype((np.void, wide.dtype.itemsize * wide.shape[1]))).reshape(-1)
    _, first, of_row = np.unique(as_bytes, return_index=True, return_inverse=True)
    return wide[first].astype(np.int64), of_row.reshape(-1)


def _dense(codes: Ints) -> Ints:
    """The same codes without gaps, from 0."""
    return np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.int64)


def f1_difference(totals: Ints) -> Floats:
    """F1(candidate) - F1(champion) for totals of shape (..., classes * COLUMNS), see `f1_scores`."""
    new, old = f1_scores(totals)
    return np.asarray(new - old, dtype=np.float64)


def recall_difference(totals: Ints) -> Floats:
    """Recall(candidate) - recall(champion) of one class, for totals of shape (..., COLUMNS); 0 without a positive."""
    new_hits, _, old_hits, _, positives = np.moveaxis(totals, -1, 0)
    return np.asarray((new_hits - old_hits) / np.maximum(positives, 1), dtype=np.float64)


def f1_scores(totals: npt.NDArray[np.number]) -> tuple[Floats, Floats]:
    """F1 of candidate and of champion for totals of shape (..., classes * COLUMNS); macro-F1 for several classes.

    An F1 with nothing to divide by is 0. The mean is over the classes with a positive: they are the same for both
    models, and one stray row that is called something which does not occur changes nothing but the F1s of those that
    do. Where no class has any it is 0.
    """
    new, old, positives = class_f1_scores(totals)
    there = positives > 0
    classes = np.maximum(there.sum(axis=-1), 1)
    return np.where(there, new, 0.0).sum(axis=-1) / classes, np.where(there, old, 0.0).sum(axis=-1) / classes


def class_f1_scores(totals: npt.NDArray[np.number]) -> tuple[Floats, Floats, npt.NDArray[np.number]]:
    """F1 by class of candidate and of champion, and the positives by class, each of shape (..., classes)."""
    by_class = totals.reshape(*totals.shape[:-1], -1, COLUMNS)
    new_hits, new_alarms, old_hits, old_alarms, positives = np.moveaxis(by_class, -1, 0)
    # A denominator of 0 means no hits either: 0 / 1 is the 0 that F1 is then.
    new = 2 * new_hits / np.maximum(new_alarms + positives, 1)
    old = 2 * old_hits / np.maximum(old_alarms + positives, 1)
    return new.astype(np.float64), old.astype(np.float64), positives


def binary(values: Array, name: str, size: int | None = None) -> Bools:
    """``values`` as booleans. Raises ValueError unless they are 0 or 1, one value per row (``size`` rows if given)."""
    if values.ndim != 1 or (size is not None and values.size != size):
        raise ValueError(f"{name} must be one value per row ({size} rows), got shape {values.shape}")
    flags = values.astype(np.bool_)
    if values.dtype.kind not in "biuf" or not np.array_equal(flags, values):
        raise ValueError(f"{name} must be 0 or 1")
    return flags


def integers(values: Array, name: str) -> Ints:
    """``values`` as 64-bit integers. Raises ValueError unless they are integers of shape (rows,)."""
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise ValueError(f"{name} must be integers of shape (rows,), got {values.dtype} of shape {values.shape}")
    return values.astype(np.int64)
