"""What all our models share: a threshold of raw scores, and the scale that the training sample gives it."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._calibration import Calibration, ScoreDistribution
from mllib.detectors.base import Model


class CalibratedModel(Model):
    """A model with the raw scores of its training sample, a threshold, and what it was fitted with."""

    def __init__(self, distribution: ScoreDistribution, threshold: float, parameters: dict[str, Any]) -> None:
        self._distribution = distribution
        self._calibration = Calibration(distribution, threshold)
        self._parameters = parameters

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self._parameters)

    @property
    def threshold(self) -> float:
        return self._calibration.threshold

    def with_threshold(self, threshold: float) -> Self:
        moved = copy.copy(self)
        moved._calibration = Calibration(self._distribution, threshold)
        return moved

    def expected_threshold(self, rate: float) -> float:
        return self._distribution.exceeded_by(rate)

    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        return self._calibration.scores(raw)
