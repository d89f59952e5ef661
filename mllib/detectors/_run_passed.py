"""How unlike the runs that passed a CI/CD run is: by an isolation forest, and by what a failure raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._explanation import NORMAL
from mllib.detectors._forest import stored_numbers, unusable
from mllib.detectors._isolation import IsolationTrees, fit_trees
from mllib.detectors._run_baselines import AT, RAREST
from mllib.detectors.base import ModelState
from mllib.sources import PIPELINE_FEATURES

ESTIMATORS = 100
FAILURE = tuple(
    AT[name] for name in ("failed_step_count", "error_lines", "warning_lines", "retry_count", "test_failures")
)
FOREST_WEIGHT = 0.5

_LEVELS = np.linspace(0.0, 1.0, 1001)
_COUNTS = len(PIPELINE_FEATURES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Passed:
    """What passed runs looked like."""

    fills: NDArray[np.float64]
    """Shape (17,): what stands in for a missing number."""
    values: NDArray[np.float32]
    """Shape (1001, 17): the quantiles of each number."""
    scores: NDArray[np.float64]
    """Shape (1001,): those of the forest's scores."""
    trees: IsolationTrees

    @classmethod
    def fit(cls, values: NDArray[np.float32], fills: NDArray[np.float64], seed: int) -> Passed:
        """On the numbers of passed runs, NaN where one is missing."""
        filled = np.where(np.isnan(values), fills, values).astype(np.float32)
        trees = fit_trees(np.log1p(filled), n_estimators=ESTIMATORS, seed=seed)
        return cls(
            fills=fills,
            values=np.quantile(filled, _LEVELS, axis=0, method="inverted_cdf").astype(np.float32),
            scores=np.quantile(trees.scores(np.log1p(filled)), _LEVELS, method="inverted_cdf"),
            trees=trees,
        )

    @classmethod
    def load(cls, state: ModelState, detector: str) -> Passed:
        """Raises BadArtifact when the state's arrays are not those of ``arrays``."""
        arrays: Mapping[str, NDArray[Any]] = state.arrays
        for name, shape, dtype in (
            ("passed_values", (len(_LEVELS), _COUNTS), np.float32),
            ("passed_scores", (len(_LEVELS),), np.float64),
        ):
            values = arrays.get(name, np.empty(0))
            fits = values.shape == shape and values.dtype == dtype and np.isfinite(values).all()
            if not fits or (np.diff(values, axis=0) < 0).any():
                raise unusable(detector, name)
        return cls(
            fills=np.array(stored_numbers(state, detector, "fills", _COUNTS)),
            values=arrays["passed_values"],
            scores=arrays["passed_scores"],
            trees=IsolationTrees(arrays, n_features=_COUNTS),
        )

    def rarity(self, counts: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How unlike a passed run, by the forest, shape (n,), and by each number of FAILURE, shape (n, 5)."""
        of_forest = FOREST_WEIGHT * _surprise(self.scores, self.trees.scores(np.log1p(counts)))
        of_failure = [
            np.where(counts[:, column] > 0, _surprise(self.values[:, column], counts[:, column], RAREST), 0.0)
            for column in FAILURE
        ]
        return of_forest, np.stack(of_failure, axis=1)

    def parts(self, counts: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (n, 17): what each number adds to a run's being unlike a passed one.

        The forest's part is divided by the splits that each number answered; of FAILURE, the rarest number counts.
        """
        of_forest, of_failure = self.rarity(counts)
        shortened = np.maximum(self.trees.attributions(np.log1p(counts)), 0.0)
        total = np.zeros(len(counts))
        for column in range(_COUNTS):  # one by one: another order for another number of rows would be possible
            total += shortened[:, column]
        parts = shortened * (of_forest / np.where(total > 0, total, 1.0))[:, None]
        rows, worst = np.arange(len(counts)), np.argmax(of_failure, axis=1)
        parts[rows, np.array(FAILURE)[worst]] += of_failure[rows, worst]
        return parts

    @property
    def ranges(self) -> NDArray[np.float64]:
        """Shape (2, 17): the quantiles NORMAL."""
        return np.quantile(self.values.astype(np.float64), NORMAL, axis=0)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"fills": self.fills, "passed_values": self.values, "passed_scores": self.scores, **self.trees.arrays}


def _surprise(ascending: NDArray[Any], values: NDArray[Any], rarest: float = 0.0) -> NDArray[np.float64]:
    at_least = len(ascending) - np.searchsorted(ascending, values, side="left")
    surprise: NDArray[np.float64] = -np.log(np.maximum((at_least + 0.5) / (len(ascending) + 1), rarest))
    return surprise
