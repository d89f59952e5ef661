"""Measures a model on labelled rows: threshold, figures, hash of the rows, and the doubt about a difference in F1.

One convention throughout: a higher raw score is more anomalous, and a row is flagged when ``score >= threshold``.
Everything here is numpy in, plain data out, so that the gate, the reports and the offline evaluation cannot disagree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mllib.gate.paired_counts import (
    COLUMNS,
    Array,
    Bools,
    Floats,
    Ints,
    PairedCounts,
    binary,
    class_f1_scores,
    count_clusters,
    f1_difference,
    integers,
)

MIN_CLUSTERS = 5
"""Below this no interval is given: even when every one of 4 clusters agrees, chance alone does that 1 time in 16."""

FEW_VECTORS = 5_000
MANY_DRAWS = 20
"""A category of a multinomial draw costs as much as drawing so many clusters one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryMetrics:
    """The figures of one detector on one set of labelled rows. What is undefined on these rows is None.

    ``f1`` is ``2 TP / (alarms + positives)``, and 0 when that has nothing to divide by.
    """

    rows: int
    positives: int
    alarms: int
    true_positives: int
    precision: float | None
    recall: float | None
    f1: float
    accuracy: float | None
    roc_auc: float | None
    average_precision: float | None
    alert_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapDifference:
    """F1(candidate) - F1(champion), and how far it could have come out otherwise.

    ``lower`` is the one-sided 95 % lower bound, and with ``upper`` the two-sided 90 % interval; both are None, as is
    ``standard_error``, with fewer than `MIN_CLUSTERS` clusters. ``effective_clusters`` says on how many clusters of
    equal weight the difference rests: a hundred thousand that both models treat alike say nothing about it.
    """

    difference: float
    lower: float | None
    upper: float | None
    standard_error: float | None
    resamples: int
    clusters: int
    effective_clusters: float | None = None


def binary_metrics(labels: Array, flags: Array, scores: Array | None = None) -> BinaryMetrics:
    """The figures of ``flags`` (0/1) and of the ranking by ``scores`` (high is anomalous) against ``labels`` (0/1).

    All of shape (rows,), zero rows included; without ``scores`` the two ranking figures are None. Raises ValueError for
    different lengths, labels or flags other than 0 and 1, and NaN scores.
    """
    truth, alarm = binary(labels, "labels"), binary(flags, "flags", labels.size)
    rows, positives, alarms = truth.size, int(truth.sum()), int(alarm.sum())
    hits = int((truth & alarm).sum())
    roc_auc = average_precision = None
    if scores is not None:
        _, true_positives, flagged = _cut_points(scores, truth)
        roc_auc = _roc_auc(true_positives, flagged)
        average_precision = _average_precision(true_positives, flagged)
    return BinaryMetrics(
        rows=rows,
        positives=positives,
        alarms=alarms,
        true_positives=hits,
        precision=hits / alarms if alarms else None,
        recall=hits / positives if positives else None,
        f1=2 * hits / (alarms + positives) if alarms + positives else 0.0,
        accuracy=(rows - alarms - positives + 2 * hits) / rows if rows else None,
        roc_auc=roc_auc,
        average_precision=average_precision,
        alert_rate=alarms / rows if rows else None,
    )


def flag_everything_f1(rows: int, positives: int) -> float:
    """The F1 of calling every row an anomaly: the trivial baseline that a first champion must beat."""
    return 2 * positives / (rows + positives) if rows + positives else 0.0


def average_precision(raw_scores: Array, labels: Array) -> float | None:
    """The mean precision over the anomalies, each at its own score. Both of shape (rows,).

    None without an anomaly. Raises ValueError like `binary_metrics`.
    """
    _, true_positives, flagged = _cut_points(raw_scores, binary(labels, "labels"))
    return _average_precision(true_positives, flagged)


def best_threshold(raw_scores: Array, labels: Array) -> float | None:
    """The cut point with the highest F1 when rows with ``raw_scores >= threshold`` are flagged; of equals the highest.

    Both of shape (rows,). Every distinct score is tried. None when the labels hold one class only (or no row), for then
    F1 says nothing about where to cut. Raises ValueError like `binary_metrics`.
    """
    truth = binary(labels, "labels")
    thresholds, true_positives, flagged = _cut_points(raw_scores, truth)
    positives = int(truth.sum())
    if positives in (0, truth.size):
        return None
    # Both sides of the quotient are whole numbers, so equal F1s are equal floats, and argmax takes the first: the
    # highest.
    return float(thresholds[np.argmax(2 * true_positives / (flagged + positives))])


def holdout_hash(ts_us: Array, log_ids: Array, labels: Array) -> str:
    """SHA-256 (hex) of the labelled rows, whatever order they come in.

    ``ts_us`` (microseconds since 1970) and ``log_ids`` are integers, ``labels`` booleans, integers or strings; all of
    shape (rows,). Any row or label that is added, removed or changed gives another hash. Raises ValueError when a row
    (ts, log_id) comes twice, for it would be counted twice in every figure.
    """
    if not ts_us.size == log_ids.size == labels.size:
        raise ValueError(f"one label per row is needed, got {ts_us.size}, {log_ids.size} and {labels.size} values")
    ts, ids = integers(ts_us, "ts_us"), integers(log_ids, "log_ids")
    order = np.lexsort((ids, ts))
    ts, ids, labels = ts[order], ids[order], labels[order]
    if np.any((ts[1:] == ts[:-1]) & (ids[1:] == ids[:-1])):
        raise ValueError("a row of the holdout comes twice: give each (ts, log_id) once")
    digest = hashlib.sha256(f"holdout {ts.size}\n".encode())
    digest.update(ts.astype("<i8").tobytes())
    digest.update(ids.astype("<i8").tobytes())
    if labels.dtype.kind in "biu":
        digest.update(labels.astype("<i8").tobytes())
    else:
        # Names and their lengths, so that ("ab", "c") and ("a", "bc") differ.
        names = [str(label).encode() for label in labels.tolist()]
        digest.update(np.array([len(name) for name in names], dtype="<i8").tobytes())
        digest.update(b"".join(names))
    return digest.hexdigest()


def paired_cluster_bootstrap(
    labels: Array, candidate: Array, champion: Array, clusters: Array, *, resamples: int = 2000, seed: int = 0
) -> BootstrapDifference:
    """How sure the difference in F1 of two models on the same rows is, when rows of one cluster stand or fall together.

    All arrays of shape (rows,): ``labels`` and the flags of both models 0/1, ``clusters`` an integer code per row
    (incident, trace, service-hour or template; gaps are fine). Log lines come in bursts, so a bootstrap over rows would
    be far too sure.

    Raises ValueError for no row, different lengths, or labels and flags other than 0 and 1.
    """
    return bootstrap_counts(count_clusters(labels, candidate, champion, clusters), resamples=resamples, seed=seed)


def bootstrap_counts(counts: PairedCounts, *, resamples: int = 2000, seed: int = 0) -> BootstrapDifference:
    """The same from counts per cluster.

    Exact, not an approximation: F1 depends on a resample of clusters only through its totals. Clusters with equal
    counts are therefore interchangeable, and drawing the clusters is drawing a multinomial over the distinct count
    vectors, clusters without any alarm or positive included. The vectors are sorted, so a seed gives one interval
    whatever the order of the rows or the names of the clusters.

    The same holds for macro-F1, whose vectors count every class.

    The interval is that of the percentiles, its distances from the difference widened by `widening`: the plain one is
    too short where few clusters tell the models apart.
    """
    n = counts.clusters
    difference = float(f1_difference(counts.totals))
    if n < MIN_CLUSTERS:
        return BootstrapDifference(
            difference=difference, lower=None, upper=None, standard_error=None, resamples=0, clusters=n
        )
    drawn = np.concatenate([f1_difference(totals) for totals in _resampled(counts, resamples, seed)])
    lower, upper = np.quantile(drawn, [0.05, 0.95])
    effective = _effective_clusters(counts)
    wider = widening(effective)
    return BootstrapDifference(
        difference=difference,
        lower=max(-1.0, difference - wider * (difference - float(lower))),
        upper=min(1.0, difference + wider * (float(upper) - difference)),
        standard_error=float(drawn.std(ddof=1)),
        resamples=resamples,
        clusters=n,
        effective_clusters=effective,
    )


def widening(effective_clusters: float) -> float:
    """How much wider Student's t makes a 95 % bound that rests on so few clusters: its quantile over the normal one.

    The quantile is integrated, to four digits, because importing scipy for one number would cost a second.
    """
    # At least 2 degrees of freedom: that is wide enough to refuse 3 clusters that agree (chance: 1 time in 8), and with
    # fewer a single large burst would hide even a gain of many standard errors. Above 1,000 nothing changes any more.
    freedom = min(max(effective_clusters - 1, 2.0), 1000.0)
    # With x = sqrt(freedom) * tan(angle) the density is a power of the cosine, on a bounded range.
    angles = np.linspace(0, math.pi / 2, 4001)
    density = np.cos(angles) ** (freedom - 1)
    area = np.append(0.0, np.cumsum(density[1:] + density[:-1]))
    return math.sqrt(freedom) * math.tan(float(np.interp(0.9, area / area[-1], angles))) / 1.6448536


def smallest_detectable_difference(bootstrap: BootstrapDifference) -> float | None:
    """The true difference in F1 whose lower bound would have been above 0 in 4 of 5 cases.

    That is (1.645 w + 0.84) standard errors: 1.645 is the normal quantile of the one-sided 95 % bound, w the `widening`
    that the gate's bound has too, 0.84 the quantile of 80 % power, and the standard error is the spread of the
    bootstrap. None without an interval, and when the two models never differ: then there is no spread to go by.
    """
    if not bootstrap.standard_error or bootstrap.effective_clusters is None:
        return None
    return (1.645 * widening(bootstrap.effective_clusters) + 0.84) * bootstrap.standard_error


def _resampled(counts: PairedCounts, resamples: int, seed: int) -> Iterator[Ints]:
    """Totals of ``resamples`` draws of as many clusters as there are, in blocks of shape (some draws, columns)."""
    vectors, times, n = counts.vectors, counts.times, counts.clusters
    generator = np.random.default_rng(seed)
    # In blocks, so that many distinct vectors do not need resamples * vectors integers at once; the draws are the same.
    if times.size < FEW_VECTORS or times.size * MANY_DRAWS <= n:
        block = max(1, 2_000_000 // times.size)
        for start in range(0, resamples, block):
            size = min(block, resamples - start)
            yield generator.multinomial(n, times / n, size=size) @ vectors
        return
    # With many classes hardly two clusters are alike. Drawing the clusters themselves is the same, and quicker. So is a
    # product of floats, exact for whole numbers up to their precision, which no sum may pass.
    of_cluster = np.repeat(np.arange(times.size), times)
    exact = np.float32 if n * int(vectors.max(initial=0)) < 2**24 else np.float64
    numbers = vectors.astype(exact)
    block = max(1, 10_000_000 // times.size)
    for start in range(0, resamples, block):
        weights = np.empty((min(block, resamples - start), times.size), dtype=exact)
        for row in weights:
            row[:] = np.bincount(of_cluster[generator.integers(0, n, size=n)], minlength=times.size)
        yield (weights @ numbers).astype(np.int64)


def _effective_clusters(counts: PairedCounts) -> float:
    """The number of clusters of equal weight that would leave the difference in F1 as uncertain as these; 0 for none.

    ``(sum of u^2)^2 / (sum of u^4)``, with u the linear influence of a cluster on the difference: for several classes
    the mean of those on their F1s.
    """
    totals = counts.totals
    new_f1, old_f1, _ = class_f1_scores(totals)
    new_hits, new_alarms, old_hits, old_alarms, positives = np.moveaxis(_by_class(counts.vectors), -1, 0)
    _, all_new, _, all_old, all_positives = np.moveaxis(_by_class(totals), -1, 0)
    there = all_positives > 0
    influence = (2 * new_hits - new_f1 * (new_alarms + positives)) / np.maximum(all_new + all_positives, 1)
    influence = influence - (2 * old_hits - old_f1 * (old_alarms + positives)) / np.maximum(all_old + all_positives, 1)
    of_cluster = influence[:, there].sum(axis=1) / max(int(there.sum()), 1)
    squares = of_cluster**2
    fourth = float(counts.times @ squares**2)
    return float(counts.times @ squares) ** 2 / fourth if fourth else 0.0


def _by_class(columns: Ints) -> Ints:
    return columns.reshape(*columns.shape[:-1], -1, COLUMNS)


def _cut_points(scores: Array, truth: Bools) -> tuple[Floats, Ints, Ints]:
    """The distinct scores from the highest down; true positives and alarms when flagging from each of them upwards."""
    if scores.shape != truth.shape:
        raise ValueError(f"one score per label is needed, got {scores.shape} for {truth.shape}")
    values = scores.astype(np.float64)
    if np.isnan(values).any():
        raise ValueError("a score is NaN: a row without a score cannot be ranked")
    order = np.argsort(-values, kind="stable")
    values = values[order]
    last_of_ties = np.flatnonzero(np.append(values[1:] != values[:-1], True)) if values.size else np.empty(0, np.int64)
    return values[last_of_ties], truth[order].cumsum(dtype=np.int64)[last_of_ties], last_of_ties + 1


def _roc_auc(true_positives: Ints, flagged: Ints) -> float | None:
    """The chance that an anomaly scores above a normal row, ties counting half; None with one class."""
    if not flagged.size or true_positives[-1] in (0, flagged[-1]):
        return None
    false_positives = flagged - true_positives
    heights = true_positives + np.append(0, true_positives[:-1])
    # Whole numbers to the end: twice the area under the steps, exactly.
    doubled_area = int((np.diff(false_positives, prepend=0) * heights).sum())
    return doubled_area / 2 / (int(true_positives[-1]) * int(false_positives[-1]))


def _average_precision(true_positives: Ints, flagged: Ints) -> float | None:
    """The mean precision over the anomalies, each at its own score; None without an anomaly."""
    if not flagged.size or not true_positives[-1]:
        return None
    gains = np.diff(true_positives, prepend=0)
    return float((gains * (true_positives / flagged)).sum() / true_positives[-1])
