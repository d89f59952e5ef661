"""What labelled lines add to the ensemble: a small forest of classes, heard as one more member.

Verdicts know only the trouble that somebody has seen, the ensemble only what is unusual. So the companion does not
replace the ensemble but adds to its excess: the share of the trees' votes for an anomaly, less what it would be before
any question, times a gain. That is a sum over the features as well, so that an explanation divides it without a rest.

The trees see the 78 features and not the surprises: a labelled line was counted itself, so its own surprise is lower
than that of any line to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._class_trees import ClassTrees, from_sklearn
from mllib.detectors._ensemble import Ensemble, squashed, told
from mllib.detectors._explanation import Reasons
from mllib.errors import BadArtifact

MIN_LABELLED = 30
"""Fewer labelled anomalies, or fewer labelled normal lines, than this teach nothing."""

MAX_NORMAL, MAX_ANOMALIES = 20_000, 10_000
"""Labelled lines that are learned from, at most."""

TREES, DEPTH, LEAVES, ROWS_OF_LEAF = 50, 16, 256, 3
GAIN = 2.0
"""What all votes together count for, in units of the ensemble: chosen on generated logs
(docs/decisions/0015-the-supervised-companion.md)."""

_PREFIX = "companion_"

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Companion:
    """An ensemble with trees that learned from verdicts. A `Judge`, see `_explanation`."""

    ensemble: Ensemble
    trees: ClassTrees  # over the columns of the ensemble; one output, the share of votes for an anomaly
    gain: float

    def scores(self, features: NDArray[np.float32]) -> Floats:
        """Shape (n,): above 0 and below 1; higher is more anomalous."""
        return squashed(self.excess(features))

    def excess(self, features: NDArray[np.float32]) -> Floats:
        """Shape (n,): that of the ensemble and what the votes add."""
        return self.ensemble.excess(features) + self.heard(self.votes(features))

    def votes(self, features: NDArray[np.float32]) -> Floats:
        """Shape (n,): the share of the trees' votes that is for an anomaly, 0 to 1."""
        return self.trees.scores(features)[:, 0]

    def heard(self, votes: Floats) -> Floats:
        """Shape (n,): what these shares of the votes add to the excess."""
        return self.gain * (votes - self._before)

    @cached_property
    def _before(self) -> float:  # any question: the mean of the roots
        roots = self.trees.arrays["value"][self.trees.arrays["offsets"][:-1], 0]
        return float(roots.mean(dtype=np.float64))

    def reasons(self, features: NDArray[np.float32]) -> Reasons:
        """Of each row its excess, and what it is made of."""
        members, parts = self.ensemble.taken_apart(features)
        parts += self.gain * self.trees.contributions(features)
        return told({**members, "companion": self.heard(self.votes(features))}, parts)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that ``load`` needs."""
        return {
            **self.ensemble.arrays,
            **{f"{_PREFIX}{name}": values for name, values in self.trees.arrays.items()},
            f"{_PREFIX}gain": np.array([self.gain]),
        }

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], *, width: int, columns: int) -> Companion:
        """What ``arrays`` gave, over ``columns`` of which an ensemble's members of features see the first ``width``.

        Raises BadArtifact when they are none.
        """
        own = {name.removeprefix(_PREFIX): values for name, values in arrays.items() if name.startswith(_PREFIX)}
        gain = own.get("gain", np.empty(0))
        if gain.shape != (1,) or gain.dtype != np.float64 or not 0 < gain[0] < np.inf:
            raise BadArtifact("The stored companion has no usable gain. Roll back to another version, or train again.")
        trees = ClassTrees(own, n_features=columns)
        values = trees.arrays["value"]
        if trees.n_outputs != 1 or values.min() < 0 or values.max() > 1:
            raise BadArtifact("The stored companion has no usable votes. Roll back to another version, or train again.")
        return cls(ensemble=Ensemble.load(arrays, width=width), trees=trees, gain=float(gain[0]))


def fit_companion(
    ensemble: Ensemble, features: NDArray[np.float32], anomaly: NDArray[np.bool_], *, columns: int, seed: int
) -> tuple[Companion, Floats]:
    """The companion of labelled lines, both kinds among them, and their votes by trees that did not see them.

    ``features`` has shape (n, width), ``anomaly`` shape (n,); ``columns`` is the number with the surprises.
    """
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        n_estimators=TREES,
        max_depth=DEPTH,
        max_leaf_nodes=LEAVES,  # a bound on the size of the artifact
        min_samples_leaf=ROWS_OF_LEAF,
        class_weight="balanced_subsample",  # with "balanced", rare lines are in every tree's sample: none are unseen
        oob_score=True,
        random_state=seed,
        n_jobs=1,
    ).fit(features, anomaly)
    trees = from_sklearn(forest, outputs=[1], n_features=columns)
    unseen: Floats = np.asarray(forest.oob_decision_function_[:, 1], dtype=np.float64)
    return Companion(ensemble=ensemble, trees=trees, gain=GAIN), unseen
