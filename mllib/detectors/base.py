"""What a detector is: something that fits a model on a stream of frames, and can bring a stored one back.

A frame has the columns of its source, see ``mllib.sources.Source.schema``, sorted by (ts, log_id). A log frame has
``log_id`` (Int64), ``ts`` (Datetime in microseconds, UTC), ``level``, ``service``, ``message`` (String),
``response_time_ms`` (Float64), ``status_code`` (Int32) and ``claimed`` (Boolean). Rows that are not claimed are
context: they feed the windows of others and are never scored.

What a row scores depends on the row, the model and the rows within the detector's context before it, never on how
the stream was cut into frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._calibration import severities

FORMAT = 1
"""The form of a ModelState's header and arrays. A change that old code could not read takes the next number."""

ENSEMBLE_FORMAT = 2
"""The form of a `log_anomaly` that is an ensemble. Old code would take it for its forest alone."""

COMPANION_FORMAT = 3
"""The form of a `log_anomaly` whose ensemble has a companion. Old code would take it for the ensemble alone."""

FORMATS = (FORMAT, ENSEMBLE_FORMAT, COMPANION_FORMAT)
"""The forms that this version reads. A detector refuses those that are not its own."""

_NONE = pl.Series("explanation", [None], dtype=pl.String)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelState:
    """A fitted model as data: all that is needed to score with it again, and nothing that could run."""

    header: Mapping[str, Any]
    """JSON-able; holds at least ``detector`` (its name) and ``format`` (see FORMAT)."""

    arrays: Mapping[str, NDArray[Any]]
    """Numeric arrays by name."""


class Model(ABC):
    """A fitted model with a threshold. There is no unfitted one: ``Detector.fit`` and ``Detector.load`` make models."""

    @property
    @abstractmethod
    def feature_names(self) -> tuple[str, ...]:
        """The columns of ``features``, in order."""

    @property
    @abstractmethod
    def algorithm(self) -> str:
        """The estimator, in a word or two."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters it was fitted with, JSON-able."""

    @property
    @abstractmethod
    def threshold(self) -> float:
        """A row is an anomaly when its raw score is at or above this."""

    @abstractmethod
    def with_threshold(self, threshold: float) -> Self:
        """The same model with another threshold, its scale recalibrated. Raises ValueError outside (0, 1)."""

    @abstractmethod
    def expected_threshold(self, rate: float) -> float:
        """The raw score that the share ``rate`` (between 0 and 1) of the training sample exceeds."""

    def variants(self) -> tuple[Model, ...]:
        """Models of the same training that validation may choose from, this one, the default, first.

        Only a freshly fitted model knows others: an artifact holds the one that was chosen.
        """
        return (self,)

    @abstractmethod
    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        """Shape (claimed rows, len(feature_names)), float32, without NaN."""

    @abstractmethod
    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The raw score of each row of features; higher is more anomalous."""

    @abstractmethod
    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        """Raw scores on the scale from 0 to 1 on which the threshold is 0.6, in the same order."""

    def severities(self, features: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.int16]:
        """The Severity of each row with these features and calibrated scores: as a rule that of its score alone.

        That of an anomaly is above normal, and never below what the same row would have if it were none.
        """
        return severities(scores)

    @abstractmethod
    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32]) -> list[str]:
        """Why each of ``lines`` is an anomaly: JSON objects below 1 kB, as text, in the same order.

        ``lines`` are rows of a log frame that were scored as anomalies, ``features`` theirs. An explanation depends
        on its row and the model alone. Its form is in docs/analysts.md.
        """

    @abstractmethod
    def state(self) -> ModelState:
        """What ``Detector.load`` makes an equal model of."""

    def raw_scores(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """One score per claimed row, in the frame's order; higher is more anomalous."""
        return self.score(self.features(frame))

    def predict(self, frame: pl.DataFrame) -> pl.DataFrame:
        """One row per claimed row, in the frame's order.

        Columns: ``log_id``, ``ts``, ``score`` (calibrated, Float32), ``raw_score`` (Float32), ``is_anomaly``
        (Boolean: the score is at least 0.6), ``severity`` (Int16, a ``mllib.types.Severity``) and ``explanation``
        (String: JSON for anomalies, see ``explain``; null for the others). A `ClassModel` adds ``class`` (String) and
        ``confidence`` (Float32, 0 to 1), always both.
        """
        return self.judged(frame, self.features(frame))

    def judged(self, frame: pl.DataFrame, features: NDArray[np.float32]) -> pl.DataFrame:
        """``predict`` for a frame whose ``features`` are known."""
        raw = self.score(features)
        score = self.calibrated(raw)
        lines = claimed_rows(frame)
        flagged = raw >= self.threshold
        anomalies = np.flatnonzero(flagged)
        if len(anomalies) == len(raw) > 0:
            # Picking rows out of many columns takes longer than scoring a few of them.
            explanation = pl.Series("explanation", self.explain(lines, features), dtype=pl.String)
        else:
            explanation = _NONE.new_from_index(0, len(raw))
            if len(anomalies):
                explanation.scatter(anomalies, self.explain(lines[anomalies], features[anomalies]))
        return pl.DataFrame(
            [
                lines["log_id"],
                lines["ts"],
                pl.Series("score", score),
                pl.Series("raw_score", raw.astype(np.float32)),
                pl.Series("is_anomaly", flagged),
                pl.Series("severity", self.severities(features, score)),
                explanation,
            ]
        )


class ClassModel(Model):
    """A fitted model that also says of which class a row is. What an anomaly is, the score says all the same."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that it can tell apart."""

    @abstractmethod
    def classify(self, features: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Of each row of features its class (a place in ``classes``), and how sure that is, from 0 to 1.

        The features must not depend on the column that holds the true class (``Detector.truth``): it is null in the
        rows that the gate measures a model on.
        """

    def judged(self, frame: pl.DataFrame, features: NDArray[np.float32]) -> pl.DataFrame:
        codes, confidence = self.classify(features)
        names = pl.Series("class", self.classes, dtype=pl.String)
        return (
            super()
            .judged(frame, features)
            .hstack(
                [
                    names[pl.Series(codes, dtype=pl.UInt32)],
                    pl.Series("confidence", confidence, dtype=pl.Float32),
                ]
            )
        )


def claimed_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of a frame to score; a part of the frame itself where they follow one another, which is free."""
    rows = np.flatnonzero(frame["claimed"].to_numpy())
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return frame.slice(int(rows[0]), len(rows))
    return frame.filter(frame["claimed"])


MACRO_F1 = "macro_f1"
"""The metric of a detector that tells classes apart."""

LABELS = "labels"
"""The truth of a detector whose classes the labels say."""


class Detector(ABC):
    """A kind of model: what it reads, how it is fitted, what it is judged by.

    One with ``metric`` "macro_f1" tells classes apart: its models are a `ClassModel`, and it is judged on every row
    whose true class is known.
    """

    name: ClassVar[str]  # that of its module
    title: ClassVar[str]  # for people
    source: ClassVar[str]  # what it reads, one of mllib.sources: "logs"
    metric: ClassVar[str]  # what the gate compares: "f1" of anomalies, or "macro_f1" of classes
    context: ClassVar[timedelta]  # how far before a row its features look
    summary: ClassVar[str]  # one sentence
    truth: ClassVar[str] = LABELS  # for classes, what holds the true one: the labels, or a column of the rows
    learns_from_labels: ClassVar[bool] = False
    """Whether ``fit`` learns from verdicts: its frames then have a column ``label``, see there."""
    tunes_threshold: ClassVar[bool] = True
    """Whether validation chooses the threshold. Otherwise a model keeps the one that ``fit`` gave it: where anomalies
    are to be found that no label knows yet, the best threshold for known ones misses those."""

    def true_classes(self, truth: pl.Series) -> pl.Series:
        """The class (String) that each value of the truth means, null for one that means none.

        Of labels, "0" is a row that is no anomaly: a detector that goes by them says which class that is. A class that
        training never saw is one all the same.
        """
        return truth

    @abstractmethod
    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> Model:
        """Fit on a stream of frames, read once, with the context between them taken care of.

        ``rows`` is the expected number of claimed rows: a sample is kept that is spread evenly over them. Context
        rows before the first claimed one make its windows warm. Raises NothingToTrainOn for too few rows.

        With ``learns_from_labels`` the frames have one more column, ``label`` (String): the verdict on a claimed row
        that was known at the time of the training, "0" or the name of what it is; null where there was none.
        """

    @abstractmethod
    def load(self, state: ModelState) -> Model:
        """The model that gave this state. Raises BadArtifact when the state is not one of this detector's."""
