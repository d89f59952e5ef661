"""A detector as small as one can be that still needs the rows before: one column, and how many rows came lately."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib import sources
from mllib.detectors.base import FORMAT, Detector, Model, ModelState
from mllib.errors import NothingToTrainOn

CONTEXT = timedelta(minutes=5)


class TinyModel(Model):
    """Scores a row by one column, a little higher the more rows the last five minutes have."""

    def __init__(self, name: str, column: str, threshold: float, *, classes: bool) -> None:
        self._name, self._column, self._threshold, self._classes = name, column, threshold, classes

    @property
    def feature_names(self) -> tuple[str, ...]:
        return (self._column, "rows_in_5_minutes")

    @property
    def algorithm(self) -> str:
        return "one column"

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    @property
    def threshold(self) -> float:
        return self._threshold

    def with_threshold(self, threshold: float) -> Self:
        return type(self)(self._name, self._column, threshold, classes=self._classes)

    def expected_threshold(self, rate: float) -> float:
        return 1 - rate

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        ts = frame["ts"].to_physical().to_numpy()
        last = np.searchsorted(ts, ts - int(CONTEXT.total_seconds() * 1e6), side="right")
        lately = np.arange(1, len(ts) + 1) - last
        values = frame[self._column].cast(pl.Float64).fill_null(0).to_numpy()
        return np.column_stack([values, lately]).astype(np.float32)[frame["claimed"].to_numpy()]

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        values, lately = features.astype(np.float64).T
        return 0.95 * values / (values + 10) + 0.05 * lately / (lately + 100)

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32]) -> list[str]:
        return [json.dumps({"features": [{"name": self._column, "value": float(value)}]}) for value in features[:, 0]]

    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        above = 0.6 + 0.4 * (raw - self._threshold) / (1 - self._threshold)
        return np.where(raw < self._threshold, 0.6 * raw / self._threshold, above).astype(np.float32)

    def state(self) -> ModelState:
        return ModelState(
            header={"detector": self._name, "format": FORMAT}, arrays={"threshold": np.array([self._threshold])}
        )

    def judged(self, frame: pl.DataFrame, features: NDArray[np.float32]) -> pl.DataFrame:
        found = super().judged(frame, features)
        if not self._classes:
            return found
        attack = pl.when("is_anomaly").then(pl.lit("DoS Hulk")).otherwise(pl.lit("BENIGN"))
        return found.with_columns(attack.alias("class"), pl.col("score").alias("confidence"))


class TinyDetector(Detector):
    """Fits nothing; counts the rows it is shown, and holds them against the schema of its source."""

    title = "Tiny"
    metric = "f1"
    context = CONTEXT
    summary = "One column and how many rows came lately."
    column: ClassVar[str]
    classes: ClassVar[bool] = False

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> Model:
        seen = 0
        for frame in frames:
            assert dict(frame.schema) == sources.source(self.source).schema
            seen += int(frame["claimed"].sum())
        if not seen:
            raise NothingToTrainOn("There is nothing to train on.")
        assert seen == rows
        return TinyModel(self.name, self.column, 0.5, classes=self.classes)

    def load(self, state: ModelState) -> Model:
        return TinyModel(self.name, self.column, float(state.arrays["threshold"][0]), classes=self.classes)
