"""Drift and security changes in CI/CD runs, by an isolation forest and by how rare each change is at its repository.

Two questions are asked of a run. *Did something change that matters to security?* For each number that speaks of it,
and for hosts and privileged programs never seen before, the surprise ``-ln P(at least that much)`` under the history of
its repository, else of its language, else of all runs; a short history is drawn towards the longer ones. *Is it like
the others?* An isolation forest over the 17 features of its log (as ``log(1 + x)``), fitted on runs that passed where
labels say which did, and the rarity of what a failure raises: errors, warnings, retries, failed steps and tests.

The raw score lies between 0 and 1, **higher is more anomalous**. Runs whose security changes are among the rarest 10 %
of the training runs have 0.5 and more, ordered by their surprise; the others have less, ordered by how unlike a passed
run they are. So a failure ranks above a run like all others, and below a security change. The calibrated score puts the
threshold at 0.6. Beside it there is a **drift score** from 0 to 100 that does not move with the threshold: 75, 90 and
97 % of the training runs have at most 30, 50 and 70. Up to these the risk is low, medium and high; above, critical.

A missing number, and one that is negative or infinite, takes the median of the training and surprises nobody. Where
the evidence does not say how hosts were met, each counts as a transfer. Without labels all runs count as normal; with
them, "0" is a run that passed. A repository or language without enough runs is compared with the next wider history.

It works when security changes are rare: a script piped to a shell, a new host, a token in the clear. It fails when
they are daily bread, for what leaves no trace in the log, for a host in a domain that some repository already spoke to
(a host is new when its registered domain is), and to tell failures from passed runs where logs of both look alike.

Liu, Ting, Zhou: Isolation Forest. ICDM 2008.

>>> from mllib.detectors import detector
>>> model = detector("pipeline_drift").fit(frames, rows=1_000)  # doctest: +SKIP
>>> model.predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors import _run_reasons as reasons
from mllib.detectors._calibrated import CalibratedModel
from mllib.detectors._calibration import ScoreDistribution
from mllib.detectors._explanation import NORMAL
from mllib.detectors._forest import STARTING_RATE, check_header, enough_rows, stored_numbers, unusable
from mllib.detectors._run_baselines import KINDS, Baselines, training_columns
from mllib.detectors._run_columns import Runs, measure, stack
from mllib.detectors._run_passed import ESTIMATORS, Passed
from mllib.detectors._sample import Sample
from mllib.detectors.base import FORMAT, Detector, ModelState, claimed_rows
from mllib.features.stream import with_context
from mllib.sources import PIPELINE_FEATURES

MIN_PASSED = 50
"""With fewer runs that are known to have passed, all those count that are not known to have failed."""

OTHERS_WEIGHT = 0.1
"""Of the kinds of security change beside the most surprising one."""
SECURITY_SHARE = STARTING_RATE
"""Share of the training runs with a security change: where the upper half of the raw scores begins. Below the share of
alarms, the last of them would be ordered by failures; chosen on a development slice of real runs."""
STEEPNESS = 4.0
"""Nats of surprise by which the distance to the end of its half of the scale shrinks to 1 / e."""

DRIFT = (30.0, 50.0, 70.0)
"""Drift scores up to which the risk is low, medium and high; above, it is critical."""
DRIFT_SHARES = (0.75, 0.9, 0.97)
"""Shares of the training runs whose drift score is at most each of DRIFT."""
RISKS = ("low", "medium", "high", "critical")

_COUNTS = len(PIPELINE_FEATURES)
_LOWEST = 1e-6  # a threshold above 0, where all runs are alike


class PipelineDriftModel(CalibratedModel):
    """The histories, what passed runs looked like, and the border from which a security change decides."""

    def __init__(
        self,
        *,
        baselines: Baselines,
        passed: Passed,
        border: float,
        distribution: ScoreDistribution,
        threshold: float,
        parameters: dict[str, Any],
    ) -> None:
        super().__init__(distribution, threshold, parameters)
        self._baselines = baselines
        self._passed = passed
        self._border = border

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The 17 numbers of a run, and the surprise, with its weight, of each kind of security change."""
        return (*PIPELINE_FEATURES, *(f"{kind}_surprise" for kind in KINDS))

    @property
    def algorithm(self) -> str:
        return "isolation forest and histories"

    @property
    def parameters(self) -> dict[str, Any]:
        """With ``drift_borders``, the raw scores at which the drift score is 30, 50 and 70."""
        return super().parameters

    def expected_threshold(self, rate: float) -> float:
        return max(super().expected_threshold(rate), _LOWEST)

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        runs = measure(claimed_rows(frame))
        found = self._baselines.surprises(runs, self._baselines.columns(runs))
        return _features(runs, self._passed.fills, found.of_kinds)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return _raw(features, self._passed, self._border)

    def drift_score(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw scores on the scale from 0 to 100, in the same order."""
        return np.interp(raw, [0.0, *self._parameters["drift_borders"], 1.0], [0.0, *DRIFT, 100.0])

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32]) -> list[str]:
        """Why each of ``lines``, runs with these ``features``, is an anomaly: JSON objects below 1 kB.

        The excess is the surprise in nats. Of a run whose security changes decide, it is that of each kind of change,
        and ``issues`` say what they are. Of any other it is that of the forest, divided among the numbers by the
        splits that they answered, and that of the number that speaks most of a failure.
        """
        runs = measure(lines)
        found = self._baselines.surprises(runs, self._baselines.columns(runs))
        security, of_kinds = _security(features)
        raw = self.score(features)
        drift = self.drift_score(raw)
        of_counts = self._passed.parts(_counts(features))
        told = []
        for row, score in enumerate(drift.tolist()):
            said: dict[str, Any] = {"drift_score": round(score, 1), "risk_level": risk_level(score)}
            if security[row] > self._border:
                said["excess"] = round(float(security[row]), 3)
                said |= reasons.security(found, row, of_kinds[row].tolist(), NORMAL[1])
                said |= self._normal_with(features[row], int(np.argmax(of_kinds[row])))
            elif of_counts[row].sum() <= 0:
                # Possible only where somebody put the threshold below the score of an ordinary run.
                said |= {"excess": 0, "note": "no run is more ordinary: the threshold is very low"}
            else:
                said["excess"] = round(float(of_counts[row].sum()), 3)
                said |= reasons.ordinary(features[row].tolist(), of_counts[row], self._passed.ranges)
            told.append(reasons.text(said))
        return told

    def _normal_with(self, features: NDArray[np.float32], kind: int) -> dict[str, Any]:
        """Whether the run would be no anomaly without its leading change, tried where one number tells of it."""
        column = reasons.single_column(kind)
        if column is None:
            return {}
        without = features[None].copy()
        without[0, [column, _COUNTS + kind]] = 0.0
        if self.score(without)[0] >= self.threshold:
            return {}
        return {"normal_with": {"name": PIPELINE_FEATURES[column], "value": 0}}

    def state(self) -> ModelState:
        return ModelState(
            header={"detector": PipelineDrift.name, "format": FORMAT, "parameters": self._parameters},
            arrays={
                "threshold": np.array([self.threshold], dtype=np.float64),
                "border": np.array([self._border], dtype=np.float64),
                **self._baselines.arrays,
                **self._passed.arrays,
                **self._distribution.arrays,
            },
        )


class PipelineDrift(Detector):
    name = "pipeline_drift"
    title = "Drift and security changes in CI/CD runs"
    source = "pipeline_runs"
    metric = "f1"
    context = timedelta(0)
    summary = "Scores each CI/CD run by its security changes, and by how unlike a run that passed it is."
    learns_from_labels = True

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> PipelineDriftModel:
        """See ``Detector.fit``; at least 100 claimed runs. Labels are of use, and may be missing."""
        sample = Sample(
            rows,
            measure=lambda frame, chosen: measure(frame[chosen]),
            subset=lambda part, kept: part.subset(kept),
        )
        for frame in with_context(frames, self.context):
            sample.add(frame)
        enough_rows(self.name, len(sample), rows=sample.rows, expected=rows)
        runs = stack(sample.parts())
        normal = _normal(runs)
        fills = np.array([_median(column) for column in runs.values.T])
        passed = Passed.fit(runs.values[normal], fills, seed)
        columns = training_columns(runs)
        baselines = Baselines.fit(runs, columns)
        # The border is that of repositories never seen: their own history would make each run ordinary.
        strangers = baselines.surprises(runs, columns, strangers=True).of_kinds
        border = float(np.quantile(_security(_features(runs, fills, strangers))[0], 1 - SECURITY_SHARE))
        features = _features(runs, fills, baselines.surprises(runs, columns).of_kinds)
        raw = _raw(features, passed, border)
        distribution = ScoreDistribution.of(raw)
        return PipelineDriftModel(
            baselines=baselines,
            passed=passed,
            border=border,
            distribution=distribution,
            threshold=max(distribution.exceeded_by(STARTING_RATE), _LOWEST),
            parameters={
                "n_estimators": ESTIMATORS,
                "seed": seed,
                "rows": sample.rows,
                "sample_rows": len(runs),
                "passed_rows": int((runs.passed > 0).sum()),
                "security_share": SECURITY_SHARE,
                "drift_borders": _drift_borders(raw),
            },
        )

    def load(self, state: ModelState) -> PipelineDriftModel:
        check_header(state, self.name)
        (threshold,) = stored_numbers(state, self.name, "threshold", 1)
        (border,) = stored_numbers(state, self.name, "border", 1)
        if not 0 < threshold < 1:
            raise unusable(self.name, "threshold")
        parameters = state.header.get("parameters")
        if not isinstance(parameters, dict) or not _ascending(parameters.get("drift_borders")):
            raise unusable(self.name, "parameters")
        return PipelineDriftModel(
            baselines=Baselines(state.arrays),
            passed=Passed.load(state, self.name),
            border=border,
            distribution=ScoreDistribution.load(state.arrays),
            threshold=threshold,
            parameters=parameters,
        )


def risk_level(drift_score: float) -> str:
    """One of RISKS."""
    return RISKS[int(np.searchsorted(DRIFT, drift_score, side="left"))]


def _features(runs: Runs, fills: NDArray[np.float64], of_kinds: NDArray[np.float64]) -> NDArray[np.float32]:
    counts = np.where(np.isnan(runs.values), fills, runs.values)
    return np.column_stack([counts, of_kinds]).astype(np.float32)


def _counts(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(features[:, :_COUNTS])


def _security(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The surprise of each run's security changes, shape (n,), and what each kind adds to it, shape (n, 6)."""
    of_kinds = features[:, _COUNTS:].astype(np.float64)
    parts = of_kinds * OTHERS_WEIGHT
    rows = np.arange(len(parts))
    leading = np.argmax(of_kinds, axis=1)
    parts[rows, leading] = of_kinds[rows, leading]
    total = np.zeros(len(parts))
    for kind in range(parts.shape[1]):
        total += parts[:, kind]
    return total, parts


def _raw(features: NDArray[np.float32], passed: Passed, border: float) -> NDArray[np.float64]:
    security, _ = _security(features)
    of_forest, of_failure = passed.rarity(_counts(features))
    above = 1.0 - 0.5 * np.exp(-np.maximum(security - border, 0.0) / STEEPNESS)
    below = 0.5 * (1.0 - np.exp(-(of_forest + of_failure.max(axis=1)) / STEEPNESS))
    return np.where(security > border, above, below)


def _normal(runs: Runs) -> NDArray[np.bool_]:
    """The runs that the others are compared with."""
    for normal in (runs.passed > 0, runs.passed >= 0):
        if normal.sum() >= MIN_PASSED:
            return normal
    return np.ones(len(runs), dtype=bool)


def _median(column: NDArray[np.float32]) -> float:
    known = column[~np.isnan(column)]
    return float(np.median(known)) if len(known) else 0.0


def _drift_borders(raw: NDArray[np.float64]) -> list[float]:
    """Ascending, also where many runs have the same score."""
    borders = np.maximum.accumulate(np.quantile(raw, DRIFT_SHARES)) + np.array([1e-6, 2e-6, 3e-6])
    return [float(border) for border in np.clip(borders, 1e-6, 1 - np.array([3e-6, 2e-6, 1e-6]))]


def _ascending(borders: Any) -> bool:
    if not isinstance(borders, list) or len(borders) != len(DRIFT) or not all(isinstance(b, float) for b in borders):
        return False
    return all(low < high for low, high in zip([0.0, *borders], [*borders, 1.0], strict=True))
