"""What models say of labelled rows: the figures that every measure of them starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mllib.gate.class_metrics import ClassMetrics, class_metrics
from mllib.gate.evaluation import BinaryMetrics, binary_metrics
from mllib.gate.segments import Dimension


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassedRows:
    """Of which class each row is, and what each model says. All arrays have shape (rows,), codes point to ``names``."""

    names: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    predicted: tuple[npt.NDArray[np.int64], ...]
    labelled: npt.NDArray[np.bool_]
    """Rows of which it is known whether they are anomalies: the class may be known of more."""

    @property
    def true_names(self) -> npt.NDArray[np.generic]:
        """The true class of each row by its name."""
        return np.array(self.names, dtype=np.str_)[self.truth] if self.truth.size else np.empty(0, dtype=np.str_)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledScores:
    """Labelled rows in order of (ts, log_id), and what each model says of them. All arrays have shape (rows,).

    For a detector that tells classes apart they are the rows whose class is known, and ``positive`` is false where
    nobody says whether a row is an anomaly.
    """

    ts_us: npt.NDArray[np.int64]
    log_ids: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    clusters: npt.NDArray[np.int64]
    """Number of the hour of the row and of its service, or what its source has in that place.

    Rows come in bursts, so they are no independent draws. Hours that an incident connects are one, see
    `mllib.gate.borders.clusters`.
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

    See `mllib.gate.borders`. A row counts once, and not here if a model was trained on it.
    """
    classed: ClassedRows | None = None
    """For a detector that tells classes apart."""

    def metrics(self, model: int, threshold: float) -> BinaryMetrics | ClassMetrics:
        """Figures of one of the models at a threshold."""
        flags = self.scores[model] >= threshold
        if self.classed is None:
            return binary_metrics(self.positive, flags, self.scores[model])
        known = self.classed.labelled
        return replace(
            class_metrics(self.classed.truth, self.classed.predicted[model], self.classed.names),
            positives=int(self.positive.sum()),
            alert_rate=float(flags.mean()) if flags.size else None,
            anomalies=binary_metrics(self.positive[known], flags[known], self.scores[model][known])
            if known.any()
            else None,
        )

    @property
    def truth(self) -> npt.NDArray[np.generic]:
        """What the rows are judged against: anomalies, or the names of the classes."""
        return self.positive if self.classed is None else self.classed.true_names
