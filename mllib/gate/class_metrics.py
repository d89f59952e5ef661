"""Measures a model that tells classes apart: per class, over all classes, and which it takes for which.

Macro-F1 is the mean of the classes' F1s, each class against all others, over the classes that at least one row is
really of. So both models of a comparison are measured over the same classes: a class that only one of them names, and
no row is of, costs it nothing but the rows that it should have called something else. With the other convention, the
mean over all classes that are named, one stray row would cost a whole class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllib.gate.evaluation import BinaryMetrics
from mllib.gate.paired_counts import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """One class against all others. ``rows`` are those of the class (its support), ``predicted`` those called so.

    ``precision`` and ``recall`` are None where there is nothing to divide by, ``f1`` is 0 then.
    """

    name: str
    rows: int
    predicted: int
    hits: int
    precision: float | None
    recall: float | None
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics:
    """The figures of one model on one set of rows whose class is known.

    ``classes`` are those that a row is of or is called, and ``confusion[i][j]`` counts the rows of class i called class
    j, in that order. ``most_frequent_f1`` is the macro-F1 of calling every row by the most frequent class: the trivial
    baseline that a first champion must beat.

    ``positives`` counts the rows labelled as anomalies, ``alert_rate`` is the share of rows that the model calls one,
    and ``anomalies`` has the figures of that on the rows with such a label, None without any: a class and an anomaly
    may be two things.
    """

    rows: int
    macro_f1: float
    accuracy: float | None
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    most_frequent_f1: float
    positives: int = 0
    alert_rate: float | None = None
    anomalies: BinaryMetrics | None = None

    @property
    def f1(self) -> float:
        """What the gate compares: macro-F1."""
        return self.macro_f1

    @property
    def telling_rows(self) -> int:
        """Rows outside the most frequent class."""
        return self.rows - max((figures.rows for figures in self.classes), default=0)


def class_metrics(truth: Ints, predicted: Ints, names: Sequence[str]) -> ClassMetrics:
    """The figures of ``predicted`` against ``truth``: codes into ``names``, both of shape (rows,), zero rows included.

    Raises ValueError for different lengths and codes out of range.
    """
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"one class per row is needed, got {predicted.shape} for {truth.shape}")
    for codes in (truth, predicted):
        if codes.size and not 0 <= codes.min() <= codes.max() < len(names):
            raise ValueError(f"a class must be a number from 0 to {len(names) - 1}")
    every = np.bincount(truth * len(names) + predicted, minlength=len(names) ** 2).reshape(len(names), len(names))
    there = np.flatnonzero(every.sum(axis=0) + every.sum(axis=1))
    confusion = every[np.ix_(there, there)]
    supports, called, hits = confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist(), np.diag(confusion).tolist()
    classes = tuple(
        ClassFigures(
            name=names[code],
            rows=support,
            predicted=alarms,
            hits=found,
            precision=found / alarms if alarms else None,
            recall=found / support if support else None,
            f1=2 * found / (alarms + support),
        )
        for code, support, alarms, found in zip(there.tolist(), supports, called, hits, strict=True)
    )
    real = [figures for figures in classes if figures.rows]
    largest = max((figures.rows for figures in real), default=0)
    return ClassMetrics(
        rows=truth.size,
        macro_f1=sum(figures.f1 for figures in real) / len(real) if real else 0.0,
        accuracy=sum(hits) / truth.size if truth.size else None,
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        most_frequent_f1=2 * largest / (truth.size + largest) / len(real) if real else 0.0,
    )
