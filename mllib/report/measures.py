"""Measures what the pictures show, on top of the figures that the verdict rests on. numpy in, plain data out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mllib.gate.class_metrics import ClassMetrics
from mllib.gate.evidence import Evidence
from mllib.gate.paired_counts import Bools, Ints
from mllib.gate.segments import Dimension, Segment, compare_segments
from mllib.report.contents import Rows

CURVE_POINTS = 200
MIN_POSITIVES = 30
RESAMPLES = 1000
MAX_CLASSES = 20
"""So many classes are shown against each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Precision at growing recall as the threshold falls, and the point of the one in use, None without alarms."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]
    at_threshold: tuple[float, float] | None
    threshold: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """How often a model was right and wrong, and in which way."""

    hits: int
    misses: int
    false_alarms: int
    quiet: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassConfusion:
    """``counts[i][j]`` are the rows of class i that a model calls class j, in the order of ``names``."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    left_out: int
    """How many rarer classes are not shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """On how many rows the two models are right: both, only one, neither."""

    name: str
    both_right: int
    only_candidate: int
    only_champion: int
    both_wrong: int


@dataclass(frozen=True, kw_only=True, slots=True)
class F1Interval:
    """An F1 with its 90 % interval, which is None where there are too few bursts of rows to give one."""

    f1: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceF1:
    """F1 of both models in one slice of the holdout; ``champion`` is None where there is none.

    ``difference`` is candidate minus champion. ``known`` says that there are enough anomalies to judge by.
    """

    dimension: str
    value: str
    rows: int
    positives: int
    known: bool
    candidate: F1Interval
    champion: F1Interval | None
    difference: F1Interval | None


def precision_recall(positive: Bools, scores: npt.NDArray[np.float64], threshold: float) -> Curve | None:
    """The curve of one model over all its scores, thinned to `CURVE_POINTS` steps of recall; None without a positive.

    All of shape (rows,). Rows of one score are flagged together, so that ties do not flatter.
    """
    positives = int(positive.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = positive[order].cumsum(dtype=np.int64)[ends]
    recall, precision = hits / positives, hits / (ends + 1)
    # The first threshold that reaches each step of recall: of equal recall it has the best precision.
    steps = np.unique(np.searchsorted(recall, np.linspace(0.0, 1.0, CURVE_POINTS + 1)[1:] - 1e-12))
    flags = scores >= threshold
    alarms, found = int(flags.sum()), int((flags & positive).sum())
    return Curve(
        recall=tuple(recall[steps].tolist()),
        precision=tuple(precision[steps].tolist()),
        at_threshold=(found / positives, found / alarms) if alarms else None,
        threshold=threshold,
    )


def confusion(positive: Bools, flags: Bools) -> Confusion:
    """Counts the four outcomes. Both of shape (rows,)."""
    return Confusion(
        hits=int((positive & flags).sum()),
        misses=int((positive & ~flags).sum()),
        false_alarms=int((~positive & flags).sum()),
        quiet=int((~positive & ~flags).sum()),
    )


def agreement(rows: Rows) -> Agreement:
    """Candidate and champion over all rows."""
    return _agreement("all", *_right(rows), np.ones(rows.positive.size, dtype=np.bool_))


def agreement_by(rows: Rows, dimension: str, *, most: int = 12) -> tuple[Agreement, ...]:
    """The same by service or level: the values on which the models disagree most often first, at most ``most``."""
    new, old = _right(rows)
    values: Dimension = rows.dimensions[dimension]
    apart = np.bincount(values.codes[(new != old) & (values.codes >= 0)], minlength=len(values.names))
    ranked = sorted(np.flatnonzero(apart).tolist(), key=lambda code: (-apart[code], values.names[code]))[:most]
    return tuple(_agreement(values.names[code], new, old, values.codes == code) for code in ranked)


def slice_f1(rows: Rows, compared: tuple[Segment, ...]) -> tuple[SliceF1, ...]:
    """F1 and interval of both models by service and level; those without any labelled anomaly are left out.

    ``compared`` are the segments of the verdict, whose differences are taken over, so that page and verdict agree.
    """
    alone = [_f1_alone(rows, model) for model in range(len(rows.scores))]
    differences = {(s.dimension, s.value): F1Interval(f1=s.difference, lower=s.lower, upper=s.upper) for s in compared}
    known = {(s.dimension, s.value): s.known for s in compared}
    found = []
    for number, segment in enumerate(alone[0]):
        if not segment.positives:
            continue
        key = segment.dimension, segment.value
        found.append(
            SliceF1(
                dimension=segment.dimension,
                value=segment.value,
                rows=segment.rows,
                positives=segment.positives,
                known=known.get(key, segment.known),
                candidate=_interval(segment),
                champion=_interval(alone[1][number]) if len(alone) > 1 else None,
                difference=differences.get(key),
            )
        )
    return tuple(found)


def class_f1(evidence: Evidence) -> tuple[SliceF1, ...]:
    """F1 of both models by class, the most frequent first, then macro-F1 by part of the rows, as the verdict has them.

    Classes that no row is of are left out. The difference has its interval, the F1s by themselves have none.
    """
    new, old = evidence.candidate, evidence.champion
    if not isinstance(new, ClassMetrics):
        return ()
    rivals = {figures.name: figures.f1 for figures in old.classes} if isinstance(old, ClassMetrics) else None
    compared = {segment.value: segment for segment in evidence.segments if segment.dimension == "class"}
    found = []
    for figures in sorted(new.classes, key=lambda figures: (-figures.rows, figures.name)):
        if not figures.rows:
            continue
        segment = compared.get(figures.name)
        found.append(
            SliceF1(
                dimension="class",
                value=figures.name,
                rows=new.rows,
                positives=figures.rows,
                known=segment.known if segment else figures.rows >= MIN_POSITIVES,
                candidate=F1Interval(f1=figures.f1, lower=None, upper=None),
                champion=None
                if rivals is None
                else F1Interval(f1=rivals.get(figures.name, 0.0), lower=None, upper=None),
                difference=_difference(segment) if segment else None,
            )
        )
    return (
        *found,
        *(
            SliceF1(
                dimension=segment.dimension,
                value=segment.value,
                rows=segment.rows,
                positives=segment.positives,
                known=segment.known,
                candidate=F1Interval(f1=segment.candidate_f1, lower=None, upper=None),
                champion=F1Interval(f1=segment.champion_f1, lower=None, upper=None),
                difference=_difference(segment),
            )
            for segment in evidence.segments
            if segment.dimension != "class"
        ),
    )


def class_confusion(metrics: ClassMetrics, *, most: int = MAX_CLASSES) -> ClassConfusion:
    """The confusion matrix of one model, the classes with the most rows first; at most ``most`` of them."""
    order = sorted(range(len(metrics.classes)), key=lambda at: (-metrics.classes[at].rows, metrics.classes[at].name))
    kept = order[:most]
    return ClassConfusion(
        names=tuple(metrics.classes[at].name for at in kept),
        counts=tuple(tuple(metrics.confusion[row][column] for column in kept) for row in kept),
        left_out=len(order) - len(kept),
    )


def pick(rows: Rows, among: Bools, *, most: int = 10) -> Ints:
    """Up to ``most`` of the rows in the mask ``among``, as positions in order of time.

    Those that the candidate scores highest, one of each burst (service and hour) before a second one: ten rows of one
    burst would show one thing ten times.
    """
    positions = np.flatnonzero(among)
    ranked = positions[np.argsort(-rows.scores[0][positions], kind="stable")]
    _, firsts = np.unique(rows.clusters[ranked], return_index=True)
    rest = np.ones(ranked.size, dtype=np.bool_)
    rest[firsts] = False
    chosen = np.concatenate([ranked[np.sort(firsts)], ranked[rest]])[:most]
    return np.sort(chosen)


def _right(rows: Rows) -> tuple[Bools, Bools]:
    return rows.right(0), rows.right(1)


def _agreement(name: str, new: Bools, old: Bools, among: Bools) -> Agreement:
    return Agreement(
        name=name,
        both_right=int((new & old & among).sum()),
        only_candidate=int((new & ~old & among).sum()),
        only_champion=int((old & ~new & among).sum()),
        both_wrong=int((~new & ~old & among).sum()),
    )


def _f1_alone(rows: Rows, model: int) -> tuple[Segment, ...]:
    # Against a model that flags nothing, whose F1 is 0, the difference is the F1 itself. So its interval is made in
    # the very same way as that of the difference which the verdict goes by.
    nothing = np.zeros(rows.positive.size, dtype=np.bool_)
    return compare_segments(
        rows.positive,
        rows.flags(model),
        nothing,
        rows.clusters,
        rows.dimensions,
        min_positives=MIN_POSITIVES,
        resamples=RESAMPLES,
    )


def _difference(segment: Segment) -> F1Interval:
    return F1Interval(f1=segment.difference, lower=segment.lower, upper=segment.upper)


def _interval(segment: Segment) -> F1Interval:
    lower = None if segment.lower is None else max(0.0, segment.lower)
    return F1Interval(f1=segment.candidate_f1, lower=lower, upper=segment.upper)
