"""Which attack a flow is: the votes of two random forests that differ in what they see and in how classes weigh.

The first forest sees the figures of the flow and ratios of them, with every class weighing the same: it is better at
tools that come back at another pace. The second sees the plain figures, few at a time, with classes as common as they
are: it is better at the large ones. Together they held up better on later flows than either.

The raw score is the share of the votes that are for any attack, after half a vote more on each side, so that none is 0
or 1: **higher is more anomalous**. From
one half on the flow is an attack, and its class the attack with the most votes; below it is BENIGN. So the class and
what is called an anomaly always agree, also when somebody moves the threshold. The confidence is the share of the
votes for the class. The calibrated score puts the threshold at 0.6; its other borders rest on benign flows of the
training, each asked of trees that did not see it: half of the false alarms lie below 0.7, a twentieth from 0.9 on,
and without false alarms the borders are spread evenly. A severity thus says how sure it is that there is an attack,
not how much harm that attack does.

It reads CICFlowMeter's figures and the protocol, never an address, port, identifier or time. A number that is missing
or infinite counts as 0, as does the rate over no time that CICFlowMeter writes as NaN or Infinity; numbers beyond 1e12
count as that; a protocol without a name or number that is known is 0. Columns that are missing or of another type are
refused with their names; further ones are not looked at. Labels are needed: ``0`` for benign flows, the attack's name
for others. The label ``1`` names no attack: nothing is learned from it, and no class is judged by it. Classes that have
a single flow are left out, and so are all but the most frequent MAX_CLASSES.

It works when an attack comes back in much the same form, as those of one tool do. It fails when an attack is of a kind
that it has not seen: it takes that for the nearest one it knows, or for BENIGN; a low confidence and ``network_threat``
are there for that. It fails too when two classes send the same packets, as a scan from outside and the same scan from
within, and when attacks are far rarer than in its training, so that most alarms are false.

Breiman: Random forests. Machine Learning 45, 2001. Engelen, Rimmer, Joosen: Troubleshooting an intrusion detection
dataset: the CICIDS2017 case study. 2021 (labels and figures of such flows). Saabas 2014 (the explanation of trees by
the steps of their nodes' values).

>>> from mllib.detectors import detector
>>> model = detector("network_attack").fit(frames, rows=100_000)  # doctest: +SKIP
>>> model.predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._calibrated import CalibratedModel
from mllib.detectors._calibration import ScoreDistribution
from mllib.detectors._class_trees import ClassTrees, from_sklearn, joined
from mllib.detectors._explanation import NORMAL
from mllib.detectors._flow_features import FEATURES, FIGURES, measure
from mllib.detectors._flow_reasons import Reasons
from mllib.detectors._forest import check_header, stored_numbers, stored_words, unusable
from mllib.detectors._labelled_sample import NORMAL as NORMAL_VERDICTS
from mllib.detectors._labelled_sample import LabelledSample
from mllib.detectors.base import FORMAT, MACRO_F1, ClassModel, Detector, ModelState, claimed_rows
from mllib.errors import NothingToTrainOn

BENIGN = "BENIGN"
NAMELESS = "1"
"""The verdict that a flow is an attack, without a word about which."""

THRESHOLD = 0.5
MIN_BENIGN, MIN_ATTACKS, MIN_PER_CLASS = 100, 30, 2
MAX_CLASSES = 50
MAX_BENIGN, MAX_PER_ATTACK, MAX_ATTACKS = 10_000, 5_000, 50_000
"""Flows of the sample: more of the same add time and size, and hardly anything to learn."""

TREES, DEPTH = 50, 16
_FORESTS: tuple[tuple[int, dict[str, Any]], ...] = (
    (len(FEATURES), {"min_samples_leaf": 2, "max_features": 0.3, "class_weight": "balanced"}),
    (len(FIGURES), {"min_samples_leaf": 1, "max_features": "sqrt", "class_weight": None}),
)
"""Of each forest, how many of the features it sees, from the first on, and how it is grown."""


class NetworkAttackModel(CalibratedModel, ClassModel):
    """The trees of both forests, the classes that their votes stand for, and what benign flows look like."""

    def __init__(
        self,
        *,
        classes: tuple[str, ...],
        trees: ClassTrees,
        ranges: NDArray[np.float64],
        distribution: ScoreDistribution,
        threshold: float,
        parameters: dict[str, Any],
    ) -> None:
        super().__init__(distribution, threshold, parameters)
        self._classes = classes  # BENIGN first
        self._trees = trees
        self._ranges = ranges
        self._reasons = Reasons(ranges, classes)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    @property
    def feature_names(self) -> tuple[str, ...]:
        return FEATURES

    @property
    def algorithm(self) -> str:
        return "two random forests"

    def expected_threshold(self, rate: float) -> float:
        """The raw score that the share ``rate`` of the benign flows reaches: so many false alarms."""
        return super().expected_threshold(rate)

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        return measure(claimed_rows(frame))

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The raw score of each row of features: the share of votes for an attack."""
        return _raw(self._trees.scores(features))

    def classify(self, features: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        votes = self._trees.scores(features)
        codes = self._codes(votes)
        return codes, votes[np.arange(len(codes)), codes].clip(0.0, 1.0).astype(np.float32)

    def _codes(self, votes: NDArray[np.float64]) -> NDArray[np.int64]:
        attack = 1 + votes[:, 1:].argmax(axis=1)
        codes: NDArray[np.int64] = np.where(_raw(votes) >= self.threshold, attack, 0)
        return codes

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32]) -> list[str]:
        """Why each of ``lines``, flows with these ``features``, is the attack it is called: JSON objects below 1 kB.

        The excess is what the trees' questions added to the votes for that attack, divided among what they asked for.
        """
        votes = self._trees.scores(features)
        codes = self._codes(votes)
        return self._reasons.explain(features, self._trees.contributions(features, codes), votes, codes.tolist())

    def state(self) -> ModelState:
        header = {
            "detector": NetworkAttack.name,
            "format": FORMAT,
            "parameters": self._parameters,
            "classes": list(self._classes),
        }
        arrays: dict[str, NDArray[Any]] = {
            "normal_ranges": self._ranges.ravel(),
            "threshold": np.array([self.threshold], dtype=np.float64),
            **self._trees.arrays,
            **self._distribution.arrays,
        }
        return ModelState(header=header, arrays=arrays)


class NetworkAttack(Detector):
    name = "network_attack"
    title = "Network attacks"
    source = "cicflowmeter_flows"
    metric = MACRO_F1
    context = timedelta(0)
    summary = "Says of each flow whether it is benign, and if not, which attack it is."
    learns_from_labels = True
    tunes_threshold = False

    def true_classes(self, truth: pl.Series) -> pl.Series:
        return truth.replace({**dict.fromkeys(NORMAL_VERDICTS, BENIGN), NAMELESS: None})

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> NetworkAttackModel:
        """See ``Detector.fit``; at least MIN_BENIGN flows must be labelled benign, and MIN_ATTACKS as named attacks."""
        sample = LabelledSample[NDArray[np.float32]](
            measure=lambda frame, chosen: measure(frame[chosen]),
            take=lambda features, which: features[which],
            stack=np.concatenate,
            max_normal=MAX_BENIGN,
            max_per_kind=MAX_PER_ATTACK,
            max_attacks=MAX_ATTACKS,
        )
        for frame in frames:
            sample.add(frame)
        if not sample.labelled:
            raise _too_little(0, 0, sample.rows)
        features, kinds = sample.collect()
        classes, codes = _coded(kinds)
        benign, attacks = int((codes == 0).sum()), int((codes > 0).sum())
        if benign < MIN_BENIGN or attacks < MIN_ATTACKS:
            raise _too_little(benign, attacks, sample.rows)
        features, codes = features[codes >= 0], codes[codes >= 0]
        trees, unseen = _fit_trees(features, codes, seed)
        return NetworkAttackModel(
            classes=classes,
            trees=trees,
            ranges=np.quantile(features[codes == 0].astype(np.float64), NORMAL, axis=0),
            distribution=ScoreDistribution.of(unseen),
            threshold=THRESHOLD,
            parameters={
                "trees": TREES,
                "depth": DEPTH,
                "forests": [{"features": width, **grown} for width, grown in _FORESTS],
                "seed": seed,
                "rows": sample.rows,
                "benign_rows": benign,
                "attack_rows": attacks,
            },
        )

    def load(self, state: ModelState) -> NetworkAttackModel:
        check_header(state, self.name)
        classes = stored_words(state, self.name, "classes", MAX_CLASSES + 1)
        (threshold,) = stored_numbers(state, self.name, "threshold", 1)
        ranges = np.array(stored_numbers(state, self.name, "normal_ranges", 2 * len(FEATURES)))
        trees = ClassTrees(state.arrays, n_features=len(FEATURES))
        if len(classes) < 2 or classes[0] != BENIGN or trees.n_outputs != len(classes):
            raise unusable(self.name, "classes")
        if not 0 < threshold < 1:
            raise unusable(self.name, "threshold")
        if not isinstance(state.header.get("parameters"), dict):
            raise unusable(self.name, "parameters")
        return NetworkAttackModel(
            classes=classes,
            trees=trees,
            ranges=ranges.reshape(2, len(FEATURES)),
            distribution=ScoreDistribution.load(state.arrays),
            threshold=threshold,
            parameters=state.header["parameters"],
        )


def _coded(kinds: NDArray[np.object_]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes, BENIGN first, and the place of each flow's among them; -1 for one that is not learned from."""
    counts = Counter(kind for kind in kinds.tolist() if kind not in ("", BENIGN, NAMELESS))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_CLASSES]
    classes = (BENIGN, *sorted(name for name, count in ranked if count >= MIN_PER_CLASS))
    place = {"": 0, **{name: code for code, name in enumerate(classes)}}
    return classes, np.array([place.get(kind, -1) for kind in kinds.tolist()], dtype=np.int64)


def _fit_trees(
    features: NDArray[np.float32], codes: NDArray[np.int64], seed: int
) -> tuple[ClassTrees, NDArray[np.float64]]:
    """Trees whose values are the shares of each class, and the raw scores of benign flows by trees that did not see
    them.
    """
    from sklearn.ensemble import RandomForestClassifier

    classes, benign = int(codes.max()) + 1, np.flatnonzero(codes == 0)
    forests, votes, asked = [], np.zeros((len(benign), classes)), np.zeros((len(benign), 1))
    for number, (width, grown) in enumerate(_FORESTS):
        forest = RandomForestClassifier(
            n_estimators=TREES, max_depth=DEPTH, random_state=2 * seed + number, n_jobs=1, **grown
        ).fit(features[:, :width], codes)
        forests.append(from_sklearn(forest, outputs=list(range(classes)), n_features=len(FEATURES)))
        for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
            unseen = ~np.isin(benign, drawn)
            votes[unseen] += tree.predict_proba(features[benign[unseen], :width])
            asked[unseen] += 1
    ever = asked[:, 0] > 0
    return joined(forests), _raw(votes[ever] / asked[ever])


def _raw(votes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half a vote is added on each side, so that a threshold fits below and above every score."""
    trees = TREES * len(_FORESTS)
    raw: NDArray[np.float64] = ((1.0 - votes[:, 0]).clip(0.0, 1.0) * trees + 0.5) / (trees + 1)
    return raw


def _too_little(benign: int, attacks: int, rows: int) -> NothingToTrainOn:
    return NothingToTrainOn(
        f"network_attack needs at least {MIN_BENIGN} flows labelled benign and {MIN_ATTACKS} labelled with the name of "
        f"an attack, and got {benign} and {attacks} ({rows} rows read). Label more of them, or train on a longer "
        "window."
    )
