"""What a report is about: the verdict, the holdout rows with both models' scores, the versions, the example rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from mllib.gate.promotion import Decision, Evidence
from mllib.gate.segments import Dimension


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """Of which class each row is, and what each model says: codes into ``names``, of shape (rows,)."""

    names: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    predicted: tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The labelled rows of the holdout, and which of them each model flags. All arrays have shape (rows,)."""

    ts_us: npt.NDArray[np.int64]
    """Microseconds since 1970."""
    log_ids: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    clusters: npt.NDArray[np.int64]
    """Number of the service and hour of each row."""
    dimensions: Mapping[str, Dimension]
    scores: tuple[npt.NDArray[np.float64], ...]
    """Raw scores of the candidate and, where there is one, of the champion."""
    thresholds: tuple[float, ...]
    """From which raw score on each of them flags a row."""

    classes: Classes | None = None
    """For a detector that tells classes apart; then right or wrong is a matter of the class."""

    def right(self, model: int) -> npt.NDArray[np.bool_]:
        """Of which rows a model says what is true."""
        if self.classes is not None:
            return np.asarray(self.classes.predicted[model] == self.classes.truth, dtype=np.bool_)
        return np.asarray(self.flags(model) == self.positive, dtype=np.bool_)

    def flags(self, model: int) -> npt.NDArray[np.bool_]:
        """Which rows a model flags: 0 is the candidate, 1 the champion."""
        return self.scores[model] >= self.thresholds[model]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """The verdict on one candidate and what it rests on."""

    detector: str
    version: int
    champion_version: int | None
    evidence: Evidence
    decision: Decision
    reason: str
    """The decision's reason as it is recorded, with the way out where there is one."""
    as_of: datetime
    decided_by: str
    holdout_looks: int
    """How many verdicts rest on exactly these rows, this one included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A model version in its role here, and what it was made from."""

    role: str
    version: int
    facts: Mapping[str, str]
    """Name and value, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row of the holdout. Everything in it that comes from a log is untrusted."""

    ts: datetime
    parts: Mapping[str, str | None]
    """What it is part of, by dimension: of a log line its service and level."""
    message: str
    scores: tuple[float, ...]
    """On the scale on which 0.6 and above is an alarm, the candidate's first."""
    positive: bool
    truth: str | None = None
    """Its class, where the detector tells classes apart, as untrusted as the rest."""
    said: tuple[str, ...] = ()
    """The classes that the models call it, the candidate's first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleGroup:
    """Rows that the two models treat differently in one way: up to ten of ``total``."""

    title: str
    meaning: str
    total: int
    examples: tuple[Example, ...]
