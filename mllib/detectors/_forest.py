"""A model that is a forest or has one: threshold, scale and explanations, whatever its features are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._calibrated import CalibratedModel
from mllib.detectors._calibration import ScoreDistribution
from mllib.detectors._explanation import Explainer, Group, Judge, Usual
from mllib.detectors._isolation import fit_trees
from mllib.detectors.base import FORMAT, ModelState
from mllib.errors import BadArtifact, NothingToTrainOn

MIN_ROWS = 100
"""Fewer claimed rows than this are refused: their quantiles would say nothing."""

STARTING_RATE = 0.1
"""The expected share of anomalies behind the threshold that a freshly fitted model has."""

_EXPLAINS = "explains"  # in the header of artifacts that hold what explanations need; the first ones did not

UNEXPLAINED = '{"note":"no explanation: the model was trained before explanations; train again"}'


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """All that a fitted model holds beside what makes its features."""

    judge: Judge
    distribution: ScoreDistribution
    threshold: float
    usual: Usual | None  # None in artifacts that are older than explanations
    parameters: dict[str, Any]


class ForestModel(CalibratedModel):
    """A fitted judge with a threshold. Subclasses say what the features are, and what they mean to a reader."""

    def __init__(self, forest: Forest) -> None:
        super().__init__(forest.distribution, forest.threshold, forest.parameters)
        self._forest = forest

    @property
    @abstractmethod
    def groups(self) -> tuple[Group, ...]:
        """The features as a reader knows them, covering all columns in order."""

    @property
    def algorithm(self) -> str:
        return "isolation forest"

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return self._forest.judge.scores(features)

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32]) -> list[str]:
        if self._explainer is None:
            return [UNEXPLAINED] * len(features)
        return self._explainer.explain(lines, features, self.threshold)

    @cached_property
    def _explainer(self) -> Explainer | None:
        usual = self._forest.usual
        return None if usual is None else Explainer(self.groups, self._forest.judge, usual)

    def _state(self, detector: str, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ModelState:
        """The whole state, with ``header`` and ``arrays`` for the part that makes the features."""
        usual = self._forest.usual
        return ModelState(
            header={
                "detector": detector,
                "format": FORMAT,
                "parameters": self._forest.parameters,
                **({} if usual is None else {_EXPLAINS: 1}),
                **header,
            },
            arrays={
                "threshold": np.array([self.threshold], dtype=np.float64),
                **self._forest.judge.arrays,
                **self._forest.distribution.arrays,
                **({} if usual is None else usual.arrays),
                **arrays,
            },
        )


def fit_forest(
    features: NDArray[np.float32],
    groups: Sequence[Group],
    *,
    n_estimators: int,
    max_samples: int | Literal["auto"] = "auto",
    seed: int,
    rows: int,
) -> Forest:
    """A forest grown on ``features``, the sample of ``rows`` rows, with the threshold of STARTING_RATE."""
    trees = fit_trees(features, n_estimators=n_estimators, max_samples=max_samples, seed=seed)
    distribution = ScoreDistribution.of(trees.scores(features))
    return Forest(
        judge=trees,
        distribution=distribution,
        threshold=distribution.exceeded_by(STARTING_RATE),
        usual=Usual.of(groups, features),
        parameters={
            "n_estimators": n_estimators,
            "max_samples": max_samples,
            "seed": seed,
            "rows": rows,
            "sample_rows": len(features),
        },
    )


def enough_rows(detector: str, sampled: int, *, rows: int, expected: int) -> None:
    """Raises NothingToTrainOn for fewer than MIN_ROWS sampled rows."""
    if sampled < MIN_ROWS:
        raise NothingToTrainOn(
            f"{detector} needs at least {MIN_ROWS} rows to train on and got {sampled} "
            f"({rows} rows read, {expected} expected). Ingest more logs, or train on a longer window."
        )


def load_forest(state: ModelState, detector: str, groups: Sequence[Group], judge: Judge) -> Forest:
    """The rest of a state whose header was checked and whose judge is loaded. Raises BadArtifact."""
    (threshold,) = stored_numbers(state, detector, "threshold", 1)
    if not 0 < threshold < 1:
        raise unusable(detector, "threshold")
    if not isinstance(state.header.get("parameters"), dict):
        raise unusable(detector, "parameters")
    return Forest(
        judge=judge,
        distribution=ScoreDistribution.load(state.arrays),
        threshold=threshold,
        usual=Usual.load(state.arrays, groups) if _EXPLAINS in state.header else None,
        parameters=state.header["parameters"],
    )


def check_header(state: ModelState, detector: str, *, formats: Sequence[int] = (FORMAT,)) -> None:
    """Raises BadArtifact unless this is a state of the detector, in one of the formats that it can read."""
    header = state.header
    if header.get("detector") != detector or header.get("format") not in formats:
        raise BadArtifact(
            f"This is a model of {header.get('detector')!r} in format {header.get('format')!r}, "
            f"not of {detector!r} in format {' or '.join(map(str, formats))}. Train {detector} again."
        )


def stored_words(state: ModelState, detector: str, name: str, at_most: int) -> tuple[str, ...]:
    """A list of distinct words in the header. Raises BadArtifact."""
    words = state.header.get(name)
    if not isinstance(words, list) or len(words) > at_most or not all(isinstance(word, str) for word in words):
        raise unusable(detector, name)
    if len(set(words)) < len(words):
        raise unusable(detector, name)
    return tuple(words)


def stored_numbers(state: ModelState, detector: str, name: str, size: int) -> tuple[float, ...]:
    """A vector of finite numbers among the arrays. Raises BadArtifact."""
    values = state.arrays.get(name)
    if values is None or values.shape != (size,) or values.dtype != np.float64 or not np.isfinite(values).all():
        raise unusable(detector, name)
    return tuple(values.tolist())


def unusable(detector: str, part: str) -> BadArtifact:
    return BadArtifact(
        f"The stored {detector} model has no usable {part}. Roll back to another version, or train again."
    )
