"""From raw scores to the scale that users see, where 0.6 is the threshold and severities have fixed borders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.errors import BadArtifact
from mllib.types import Severity

ANOMALY = 0.6
BORDERS = (ANOMALY, 0.7, 0.8, 0.9)
"""Scores from which a row is low, medium, high and critical; below the first it is normal."""

_ALERT_SHARES = (0.5, 0.8, 0.95)  # half of the training alerts are low, the top 5 % critical

# Every 0.2 % up to 0.9, then ever denser up to 0.99999: alert budgets and severities live in the upper tail.
_LEVELS = np.concatenate([np.linspace(0.0, 0.9, 451), 1.0 - np.geomspace(0.1, 1e-5, 550)[1:], [1.0]])


class ScoreDistribution:
    """The raw scores of the training sample as 1001 quantiles: enough for thresholds and calibration, and no rows."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        """Raises BadArtifact unless ``values`` are the quantiles that ``arrays`` gives: ascending, 0 to 1."""
        fits = values.shape == _LEVELS.shape and values.dtype == np.float64 and np.isfinite(values).all()
        if not fits or (np.diff(values) < 0).any() or values[0] < 0 or values[-1] > 1:
            raise BadArtifact(
                "The stored score distribution is not an ascending list of quantiles. "
                "Roll back to another version, or train again."
            )
        self._values = values

    @classmethod
    def of(cls, raw: NDArray[np.float64]) -> ScoreDistribution:
        # Interpolation may round neighbouring quantiles of a plateau out of order.
        return cls(np.maximum.accumulate(np.quantile(raw, _LEVELS)))

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]]) -> ScoreDistribution:
        return cls(arrays.get("quantiles", np.empty(0)))

    @property
    def arrays(self) -> dict[str, NDArray[np.float64]]:
        return {"quantiles": self._values}

    def exceeded_by(self, rate: float) -> float:
        """The raw score that the share ``rate`` of the sample reaches; on a plateau of equal scores, just above it.

        So at most about that share is flagged, also when many rows have the same score. Raises ValueError unless
        0 < rate < 1.
        """
        if not 0 < rate < 1:
            raise ValueError(f"an expected anomaly rate lies between 0 and 1, got {rate}")
        value = float(np.interp(1.0 - rate, _LEVELS, self._values))
        below = self._values[max(int(np.searchsorted(_LEVELS, 1.0 - rate, side="left")) - 1, 0)]
        return float(np.nextafter(value, np.inf)) if below == value else value

    def quantiles_above(self, threshold: float, shares: tuple[float, ...]) -> NDArray[np.float64]:
        """The quantiles at ``shares`` of the scores at or above ``threshold``; empty when there are none."""
        if self._values[-1] <= threshold:
            return np.empty(0)
        place = int(np.searchsorted(self._values, threshold, side="left"))
        if place == 0:
            start = 0.0
        else:
            low, high = self._values[place - 1], self._values[place]
            start = _LEVELS[place - 1] + (threshold - low) / (high - low) * (_LEVELS[place] - _LEVELS[place - 1])
        return np.interp(start + (1.0 - start) * np.array(shares), _LEVELS, self._values)


class Calibration:
    """A strictly monotone, piecewise linear map of raw scores (0 to 1) onto the scale of BORDERS.

    The threshold becomes exactly 0.6; 0.7, 0.8 and 0.9 are the raw scores above which 50 %, 20 % and 5 % of the
    training sample's alerts lie; 0 and 1 stay. Where the sample has no alerts, or ties among them, the borders are
    spread between the threshold and 1. Raises ValueError unless 0 < threshold < 1.
    """

    def __init__(self, distribution: ScoreDistribution, threshold: float) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"a threshold of raw scores lies between 0 and 1, got {threshold}")
        self.threshold = threshold
        room = 1.0 - threshold
        knots = distribution.quantiles_above(threshold, _ALERT_SHARES)
        if not len(knots):
            knots = threshold + room * np.array([0.25, 0.5, 0.75])
        gap = room * 1e-3
        low = threshold
        raised = []
        for knot, left in zip(knots, (3, 2, 1), strict=True):
            low = min(max(float(knot), low + gap), 1.0 - left * gap)
            raised.append(low)
        self._raw = np.array([0.0, threshold, *raised, 1.0])
        self._score = np.array([0.0, *BORDERS, 1.0])

    def scores(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        """Calibrated scores, float32 as they are stored: ``score >= 0.6`` exactly where ``raw >= threshold``."""
        score = np.interp(raw, self._raw, self._score).astype(np.float32)
        # Rounding to 32 bits must not carry a row over the threshold in either direction.
        border = np.float32(ANOMALY)
        below = np.minimum(score, np.nextafter(border, np.float32(0)))
        calibrated: NDArray[np.float32] = np.where(raw >= self.threshold, np.maximum(score, border), below)
        return calibrated


def severities(scores: NDArray[np.float32]) -> NDArray[np.int16]:
    """The Severity of each calibrated score, as the number stored in the predictions."""
    assert len(BORDERS) == Severity.CRITICAL  # noqa: S101
    found = np.zeros(len(scores), dtype=np.int16)
    anomalies = np.flatnonzero(scores >= np.float64(ANOMALY))  # few, as a rule
    if len(anomalies):
        found[anomalies] = np.searchsorted(BORDERS, scores[anomalies].astype(np.float64), side="right")
    return found
