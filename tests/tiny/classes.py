"""A detector of classes as small as one can be: a number of each row, cut into classes at given places."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors.base import FORMAT, ClassModel, Detector, ModelState
from mllib.errors import NothingToTrainOn


class CutModel(ClassModel):
    """Of a class is what lies between two cuts; the first class is what is normal."""

    def __init__(self, detector: CutDetector, cuts: tuple[float, ...], threshold: float = 0.5) -> None:
        self._detector, self._cuts, self._threshold = detector, cuts, threshold

    @property
    def classes(self) -> tuple[str, ...]:
        return self._detector.names

    @property
    def feature_names(self) -> tuple[str, ...]:
        return ("number",)

    @property
    def algorithm(self) -> str:
        return "cuts"

    @property
    def parameters(self) -> dict[str, Any]:
        return {"cuts": list(self._cuts)}

    @property
    def threshold(self) -> float:
        return self._threshold

    def with_threshold(self, threshold: float) -> Self:
        return type(self)(self._detector, self._cuts, threshold)

    def expected_threshold(self, rate: float) -> float:
        return 1 - rate / 2

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        return self._detector.numbers(frame.filter("claimed")).to_numpy().astype(np.float32).reshape(-1, 1)

    def classify(self, features: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        numbers = features[:, 0]
        codes = np.searchsorted(np.array(self._cuts), numbers, side="right")
        return codes, np.full(numbers.size, 0.75, dtype=np.float32)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.where(self.classify(features)[0] > 0, 0.8, 0.2)

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32]) -> list[str]:
        return [json.dumps({"features": [{"name": "number", "value": float(value)}]}) for value in features[:, 0]]

    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        above = 0.6 + 0.4 * (raw - self._threshold) / (1 - self._threshold)
        return np.where(raw < self._threshold, 0.6 * raw / self._threshold, above).astype(np.float32)

    def state(self) -> ModelState:
        return ModelState(
            header={"detector": self._detector.name, "format": FORMAT},
            arrays={"cuts": np.array(self._cuts), "threshold": np.array([self._threshold])},
        )


class CutDetector(Detector):
    """Fits nothing: a test says where to cut."""

    title = "Cuts"
    metric = "macro_f1"
    context = timedelta(minutes=5)
    summary = "A number, cut into classes."
    names: ClassVar[tuple[str, ...]]
    cuts: ClassVar[tuple[float, ...]]

    def numbers(self, rows: pl.DataFrame) -> pl.Series:
        """The number of each row."""
        raise NotImplementedError

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> CutModel:
        if not sum(frame["claimed"].sum() for frame in frames):
            raise NothingToTrainOn("There is nothing to train on.")
        return CutModel(self, self.cuts)

    def load(self, state: ModelState) -> CutModel:
        return CutModel(self, tuple(state.arrays["cuts"].tolist()), float(state.arrays["threshold"][0]))
