"""Whether a connection is a threat: how rare it would be among normal ones, in the eyes of two models.

Models of known attacks take unknown ones for normal; models of normal traffic see any oddity, but know no attack. So
two are asked. A random forest tells normal connections from known attacks and from **perturbed normal** ones, some of
whose figures come from another normal connection: its borders enclose what is normal, instead of only cutting off what
is known. An autoencoder is shown normal connections only, and scores what it cannot reproduce.

The output of each is compared with that of normal connections that it was not fitted on: the share of them that reach
it is its p-value. The raw score is 1 less the geometric mean of the p-values: between 0 and 1, **higher is more
anomalous**. The threshold is the score that one in twenty of those normal connections reaches. It rests on what is
normal and not on the attacks of the training: a threshold that is best for those lets unknown ones pass. The calibrated
score puts it at 0.6; half of the false alarms lie below 0.7, a twentieth, one normal connection in 400, from 0.9 on.

It reads 35 columns of NSL-KDD's form. A missing number, and one that is negative or infinite, takes the median of the
normal connections. A protocol or flag that it does not know has zeros in its columns; a service that no normal
connection went to counts as rarer than any. Columns that are missing or of another type are refused with their names.
Labels are needed: ``0`` for normal, the attack's name for others. Each attack weighs as the square root of its rows,
otherwise one flood would be all that is learned.

It works when an attack's counts, flags or sizes differ from normal traffic, as those of floods, scans and intrusions
do, be its kind known or not. It fails when an attack looks like an ordinary connection one by one, as a leak over FTP
or guesses over SNMP do, when attacks are far rarer than one in twenty, so that most alarms are false, and when normal
traffic itself changes: then there are more false alarms, until it is trained again.

Tavallaee, Bagheri, Lu, Ghorbani: A detailed analysis of the KDD CUP 99 data set. CISDA 2009 (NSL-KDD, and why known
attacks are the easy part). Saabas 2014 (the explanation of trees by the steps of their nodes' values).

>>> from mllib.detectors import detector
>>> model = detector("network_threat").fit(frames, rows=100_000)  # doctest: +SKIP
>>> model.predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._autoencoder import Autoencoder, fit_autoencoder
from mllib.detectors._calibrated import CalibratedModel
from mllib.detectors._calibration import ScoreDistribution
from mllib.detectors._class_trees import ClassTrees, from_sklearn
from mllib.detectors._connection_features import FEATURES, MAX_NAME, MAX_SERVICES, NUMBERS, Encoder, measure
from mllib.detectors._connection_reasons import Normal, Reasons
from mllib.detectors._connection_sample import ConnectionSample
from mllib.detectors._forest import check_header, stored_numbers, unusable
from mllib.detectors.base import FORMAT, Detector, ModelState, claimed_rows
from mllib.errors import NothingToTrainOn

FALSE_ALARMS = 0.05
"""The share of normal connections above the threshold; chosen on attacks whose whole family was left out."""

MIN_NORMAL, MIN_ATTACKS = 500, 30
TREES, DEPTH, SHARE_OF_FEATURES = 60, 12, 0.3
CALIBRATION_SHARE = 0.25
"""The share of the normal connections that no member is fitted on, and scores are compared with."""

PERTURBED = 0.5
"""Perturbed connections for each normal one. Each counts as half a row."""

_LOWEST = 1e-6  # a threshold above 0, where all normal connections are alike


class NetworkThreatModel(CalibratedModel):
    """The two fitted members, the scores of normal connections that they are compared with, and the threshold."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        coder: Autoencoder,
        trees: ClassTrees,
        unseen: NDArray[np.float32],
        normal: Normal,
        distribution: ScoreDistribution,
        threshold: float,
        parameters: dict[str, Any],
    ) -> None:
        super().__init__(distribution, threshold, parameters)
        self._encoder = encoder
        self._coder = coder
        self._trees = trees
        self._unseen = unseen  # (2, n): each member's scores of normal connections it was not fitted on, ascending
        self._reasons = Reasons(normal)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return FEATURES

    @property
    def algorithm(self) -> str:
        return "random forest and autoencoder"

    def expected_threshold(self, rate: float) -> float:
        """The raw score that the share ``rate`` of the normal connections reaches: so many false alarms."""
        return max(super().expected_threshold(rate), _LOWEST)

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        return self._encoder.features(measure(claimed_rows(frame)))

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The raw score of each row of features."""
        return _combined(_surprises(self._unseen, _members(features, self._coder, self._trees)))

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32]) -> list[str]:
        """Why each of ``lines``, connections with these ``features``, is a threat: JSON objects below 1 kB.

        The excess is the surprise, in powers of ten: of how many normal connections one is as odd. Each member's
        surprise is divided among the features as its own score is: the error of each reproduced figure, and the steps
        towards attack in the trees.
        """
        errors = self._coder.errors(features)
        steps = self._trees.contributions(features)
        surprises = _surprises(self._unseen, [errors.sum(axis=1), self._trees.scores(features)[:, 0]])
        parts = np.zeros(features.shape)
        for surprise, of_member in zip(surprises, (errors.astype(np.float64), np.maximum(steps, 0.0)), strict=True):
            total = of_member.sum(axis=1, keepdims=True)
            parts += surprise[:, None] / len(surprises) * of_member / np.where(total > 0, total, 1.0)
        return self._reasons.explain(lines, features, parts)

    def state(self) -> ModelState:
        header = {
            "detector": NetworkThreat.name,
            "format": FORMAT,
            "parameters": self._parameters,
            "services": self._encoder.services,
            "other_service": self._encoder.other_service,
        }
        arrays: dict[str, NDArray[Any]] = {
            "fills": self._encoder.fills,
            "unseen": self._unseen,
            "threshold": np.array([self.threshold], dtype=np.float64),
            **self._coder.arrays,
            **self._trees.arrays,
            **self._reasons.normal.arrays,
            **self._distribution.arrays,
        }
        return ModelState(header=header, arrays=arrays)


class NetworkThreat(Detector):
    name = "network_threat"
    title = "Network threats"
    source = "nsl_kdd_flows"
    metric = "f1"
    context = timedelta(0)
    summary = "Scores each connection by how rare it would be among normal ones, known attack or not."
    learns_from_labels = True
    tunes_threshold = False

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> NetworkThreatModel:
        """See ``Detector.fit``; at least MIN_NORMAL rows must be labelled as normal, and MIN_ATTACKS as attacks."""
        sample = ConnectionSample()
        for frame in frames:
            sample.add(frame)
        if not sample.labelled:
            raise _too_little(0, 0, sample.rows)
        measured, kinds = sample.collect()
        attack = kinds != ""
        if (~attack).sum() < MIN_NORMAL or attack.sum() < MIN_ATTACKS:
            raise _too_little(int((~attack).sum()), int(attack.sum()), sample.rows)
        draw = np.random.default_rng(seed)
        normal = draw.permutation(np.flatnonzero(~attack))
        kept_back, fitted = np.split(normal, [int(len(normal) * CALIBRATION_SHARE)])
        encoder = Encoder.of(measured.take(fitted))
        features = encoder.features(measured)
        ordinary = features[fitted]
        coder = fit_autoencoder(ordinary, seed=seed)
        attacks = np.flatnonzero(attack)
        trees = _fit_trees(ordinary, features[attacks], kinds[attacks], draw, seed)

        members = _members(features[kept_back], coder, trees)
        unseen = np.sort(np.stack(members).astype(np.float32), axis=1)
        distribution = ScoreDistribution.of(_combined(_surprises(unseen, members)))
        return NetworkThreatModel(
            encoder=encoder,
            coder=coder,
            trees=trees,
            unseen=unseen,
            normal=Normal.of(ordinary),
            distribution=distribution,
            threshold=max(distribution.exceeded_by(FALSE_ALARMS), _LOWEST),
            parameters={
                "trees": TREES,
                "depth": DEPTH,
                "features_a_split": SHARE_OF_FEATURES,
                "perturbed": PERTURBED,
                "false_alarms": FALSE_ALARMS,
                "seed": seed,
                "rows": sample.rows,
                "normal_rows": len(fitted),
                "attack_rows": len(attacks),
                "calibration_rows": len(kept_back),
            },
        )

    def load(self, state: ModelState) -> NetworkThreatModel:
        check_header(state, self.name)
        header, arrays = state.header, state.arrays
        (threshold,) = stored_numbers(state, self.name, "threshold", 1)
        if not 0 < threshold < 1:
            raise unusable(self.name, "threshold")
        if not isinstance(header.get("parameters"), dict):
            raise unusable(self.name, "parameters")
        return NetworkThreatModel(
            encoder=Encoder(
                fills=np.array(stored_numbers(state, self.name, "fills", len(NUMBERS))),
                services=_services(header),
                other_service=_share(header.get("other_service"), "other_service"),
            ),
            coder=Autoencoder(arrays, n_features=len(FEATURES)),
            trees=ClassTrees(arrays, n_features=len(FEATURES)),
            unseen=_ascending(arrays),
            normal=Normal.load(arrays),
            distribution=ScoreDistribution.load(arrays),
            threshold=threshold,
            parameters=header["parameters"],
        )


def _fit_trees(
    ordinary: NDArray[np.float32],
    attacks: NDArray[np.float32],
    kinds: NDArray[np.object_],
    draw: np.random.Generator,
    seed: int,
) -> ClassTrees:
    """Trees whose value is the share of attacks and of perturbed normal connections."""
    from sklearn.ensemble import RandomForestClassifier

    perturbed = _perturbed(ordinary, int(PERTURBED * len(ordinary)), draw)
    _, inverse, counts = np.unique(kinds.astype(str), return_inverse=True, return_counts=True)
    weight = counts[inverse] ** -0.5
    weight *= len(ordinary) / weight.sum()  # all attacks together count as much as all normal rows
    forest = RandomForestClassifier(
        n_estimators=TREES, max_depth=DEPTH, max_features=SHARE_OF_FEATURES, random_state=seed, n_jobs=1
    ).fit(
        np.concatenate([ordinary, attacks, perturbed]),
        np.repeat([0, 1, 1], [len(ordinary), len(attacks), len(perturbed)]),
        np.concatenate([np.ones(len(ordinary)), weight, np.full(len(perturbed), 0.5)]),
    )
    return from_sklearn(forest, outputs=[1], n_features=ordinary.shape[1])


def _perturbed(ordinary: NDArray[np.float32], rows: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Normal connections of whose features 5 to 50 % come from another normal connection."""
    result = ordinary[draw.integers(0, len(ordinary), rows)].copy()
    donor = ordinary[draw.integers(0, len(ordinary), rows)]
    swap = draw.random(result.shape) < draw.uniform(0.05, 0.5, (rows, 1))
    result[swap] = donor[swap]
    return result


def _members(features: NDArray[np.float32], coder: Autoencoder, trees: ClassTrees) -> list[NDArray[Any]]:
    """What each member says of each row; higher is more of a threat."""
    return [coder.errors(features).sum(axis=1), trees.scores(features)[:, 0]]


def _surprises(unseen: NDArray[np.float32], members: list[NDArray[Any]]) -> NDArray[np.float64]:
    """Shape (members, rows): -log10 of the share of unseen normal connections that score at least as high."""
    surprises = []
    for ascending, scores in zip(unseen, members, strict=True):
        at_least = len(ascending) - np.searchsorted(ascending, scores.astype(np.float32), side="left")
        surprises.append(-np.log10((1.0 + at_least) / (len(ascending) + 1.0)))
    return np.stack(surprises)


def _combined(surprises: NDArray[np.float64]) -> NDArray[np.float64]:
    # Added by hand: a mean along an axis might add in another order for another number of rows.
    raw: NDArray[np.float64] = 1.0 - 10.0 ** (-(surprises[0] + surprises[1]) / 2)
    return raw


def _too_little(normal: int, attacks: int, rows: int) -> NothingToTrainOn:
    return NothingToTrainOn(
        f"network_threat needs at least {MIN_NORMAL} rows labelled normal and {MIN_ATTACKS} labelled as attacks, "
        f"and got {normal} and {attacks} ({rows} rows read). Label more of them, or train on a longer window."
    )


def _ascending(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    unseen = arrays.get("unseen", np.empty(0))
    fits = unseen.ndim == 2 and len(unseen) == 2 and unseen.shape[1] > 0 and unseen.dtype == np.float32
    if not fits or not np.isfinite(unseen).all() or (np.diff(unseen, axis=1) < 0).any():
        raise unusable(NetworkThreat.name, "unseen")
    return unseen


def _services(header: Mapping[str, Any]) -> dict[str, float]:
    services = header.get("services")
    if not isinstance(services, dict) or len(services) > MAX_SERVICES or any(len(name) > MAX_NAME for name in services):
        raise unusable(NetworkThreat.name, "services")
    return {name: _share(share, "services") for name, share in services.items()}


def _share(value: Any, name: str) -> float:
    if not isinstance(value, float) or not -100 < value < 1:
        raise unusable(NetworkThreat.name, name)
    return value
