"""What was measured of a candidate and of the champion before a verdict: figures only, no judgement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mllib.gate.class_metrics import ClassMetrics
from mllib.gate.evaluation import BinaryMetrics, BootstrapDifference
from mllib.gate.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a model costs. ``seconds`` is processor time for the rows of the holdout with their context, all threads."""

    seconds: float | None
    artifact_bytes: int
    artifact_digest: str
    """SHA-256 (hex) that the stored bytes were found to have before they were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured, on one set of holdout rows.

    ``first`` says that there is no champion to beat. It is separate from ``champion`` on purpose: a champion whose
    figures are missing is still one, and a candidate must not slip past it.
    """

    first: bool
    candidate: BinaryMetrics | ClassMetrics | None
    champion: BinaryMetrics | ClassMetrics | None
    bootstrap: BootstrapDifference | None
    """Of the difference in F1 (with classes: macro-F1) to the champion; for a first candidate, to the trivial rival."""
    holdout_rows: int
    holdout_positives: int
    """Rows labelled as anomalies."""
    holdout_hash: str
    excluded_rows: int
    flag_everything_f1: float
    rule_f1: Mapping[str, float] = field(default_factory=dict)
    """F1 of single-feature rules by name, such as ``status >= 500``: reported beside the verdict, never part of it."""
    segments: tuple[Segment, ...] = ()
    """Both models by service and by level; with classes also by class, and in what they call an anomaly."""
    permutation_p: float | None = None
    """How often chance alone makes two equal models differ so much in F1, clusters swapped as a whole."""
    mcnemar_p: float | None = None
    """The same for the rows they get wrong, rows taken for independent. Both values are reported, neither decides."""
    tied_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows left out because their trace, incident or burst of rows began before the holdout, by kind of group."""
    defects: tuple[str, ...] = ()
    """Why the candidate's stored model cannot be used as it is, each as a clause; empty for a sound one."""
    candidate_footprint: Footprint | None = None
    champion_footprint: Footprint | None = None
    volume_ratio: float | None = None
    """How many times as many rows a day the holdout has as the training window, labelled or not; None if unknown."""
    anomaly_ratio: float | None = None
    """How many times as large the share of anomalies among the labelled rows is as in training; None if unknown."""
    changes: tuple[str, ...] = ()
    """What is unusual in the logs and labels judged on, each as a sentence: told with the verdict, never part of it."""

    metric: str = "f1"
    """Which figure decides, and is called F1 in the names here: ``f1`` of anomalies, or ``macro_f1`` of classes."""

    def __post_init__(self) -> None:
        if self.first and self.champion is not None:
            raise ValueError("there are figures of a champion, so the candidate is not the first")
        for name in ("candidate", "champion"):
            metrics: BinaryMetrics | ClassMetrics | None = getattr(self, name)
            if metrics and (metrics.rows, metrics.positives) != (self.holdout_rows, self.holdout_positives):
                raise ValueError(
                    f"the {name} was measured on {metrics.rows} rows with {metrics.positives} positives, the holdout "
                    f"has {self.holdout_rows} with {self.holdout_positives}: measure both models on the same rows"
                )
        rival = self.rival_f1
        if self.bootstrap and self.candidate and rival is not None:
            gain = self.candidate.f1 - rival
            if math.isfinite(gain) and not math.isclose(gain, self.bootstrap.difference, abs_tol=1e-9):
                raise ValueError(
                    f"the bootstrap is of a difference of {self.bootstrap.difference}, the figures differ by {gain}: "
                    "measure both on the same rows, the candidate first"
                )

    @property
    def rival_f1(self) -> float | None:
        """The F1 to beat: the champion's, for a first candidate that of the trivial rival; None when missing."""
        if self.first and self.classes:
            return self.candidate.most_frequent_f1 if isinstance(self.candidate, ClassMetrics) else None
        if self.first:
            return self.flag_everything_f1
        return self.champion.f1 if self.champion else None

    @property
    def classes(self) -> bool:
        """Whether models are judged by the classes that they tell apart."""
        return self.metric == "macro_f1"

    @property
    def figure(self) -> str:
        """What the deciding figure is called."""
        return "macro-F1" if self.classes else "F1"

    @property
    def trivial_rival(self) -> str:
        """What a first candidate must beat, as a clause."""
        return "calling every row by the most frequent class" if self.classes else "flagging every row"

    @property
    def telling_rows(self) -> int:
        """How many rows there are of what is rare: anomalies, or rows outside the most frequent class."""
        if isinstance(self.candidate, ClassMetrics):
            return self.candidate.telling_rows
        return self.holdout_positives

    @property
    def anomalous_share(self) -> float | None:
        """The share of anomalies among the rows of which that is known; None where nobody says of any."""
        if not self.classes:
            return self.holdout_positives / max(self.holdout_rows, 1)
        known = self.candidate.anomalies if isinstance(self.candidate, ClassMetrics) else None
        return known.positives / known.rows if known else None
