"""The level that a log message deserves, whether it is an anomaly, and how severe that is, from its wording alone.

Level words are masked, messages become templates, and two linear models vote on each distinct one. The first, over the
TF-IDF of its words and pairs of words, knows the wording that it was trained on; a template counts as the root of its
rows and a service as the root of its templates, so that one talkative line does not outvote a hundred rare ones. The
second sees only five kinds of words (what crashes, fails, asks for care, goes well, or is a state), and so has an
opinion on wording never seen. The vote of the first weighs the root of the share of the wording that it knows. The
class is the **level**: DEBUG, INFO, WARN, ERROR or FATAL. The line's own level is what is learned and judged by, and
never a feature.

The score is of **anomalies**, between 0 and 1; **higher is more anomalous**. Where the training has 30 rows labelled as
anomalies and 30 labelled as none, it is the probability of an anomaly, both kinds weighing the same, by a second such
pair of models; the threshold is 0.5 until validation has a better one. Otherwise it is the rarity of the wording: the
mean over its words and pairs of words of ``ln((1 + rows) / (1 + rows with it)) / ln(1 + rows)``, 1 for words that no
row trained on had; the threshold is then what one row in ten of the training reaches, until labels or the budget of
alerts say otherwise. The calibrated score puts the threshold at 0.6.

The **severity** is the level's and the anomaly's: ERROR and FATAL are critical as an anomaly and high otherwise, WARN
is high or medium, all else medium or low.

It works when lines come from services it was trained on, whose levels were set with some care. It fails when the
wording is new: on systems never seen it is better than words alone, and still poor, for what one system calls a warning
is information to another. It fails, too, when a level depends on a number in the message, as all numbers look the same
to it, and the kinds of words are English. An empty message, or one of numbers only, has no words: it gets the level
that wording without trouble has, and is as anomalous as labels say, or not at all. Only the first 500 characters count.

>>> from mllib.detectors import detector
>>> model = detector("log_severity").fit(frames, rows=100_000)  # doctest: +SKIP
>>> model.predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._calibrated import CalibratedModel
from mllib.detectors._calibration import ANOMALY, ScoreDistribution
from mllib.detectors._forest import MIN_ROWS, STARTING_RATE, check_header, enough_rows, stored_numbers, unusable
from mllib.detectors._word_votes import Rarity, WordVotes
from mllib.detectors._wording import KINDS, Wording, wordings
from mllib.detectors._wording_counts import WordingCounts, examples, spread
from mllib.detectors._wording_reasons import leading_words, of_rarity, of_votes, without, written
from mllib.detectors.base import FORMAT, MACRO_F1, ClassModel, Detector, ModelState, claimed_rows
from mllib.errors import NothingToTrainOn
from mllib.features.encoders import canonical_level_codes
from mllib.types import Severity

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL")
"""The classes, in the order of ``mllib.features.encoders.LEVELS``."""

MIN_LABELLED = 30
"""Labelled anomalies, and labelled rows that are none, that the score is learned from."""

LABELLED_THRESHOLD = 0.5

_SEVERITIES = np.array(
    [
        [Severity.LOW, Severity.MEDIUM],
        [Severity.LOW, Severity.MEDIUM],
        [Severity.MEDIUM, Severity.HIGH],
        [Severity.HIGH, Severity.CRITICAL],
        [Severity.HIGH, Severity.CRITICAL],
    ],
    dtype=np.int16,
)  # by level and by whether it is an anomaly

_LEVEL_FEATURES = (*(f"words_{level.lower()}" for level in LEVELS), "words_known")
_KIND_FEATURES = tuple(f"mentions_{kind}" for kind in KINDS)
_LABELLED_FEATURES = ("words_normal", "words_anomaly", "words_labelled")
_RARITY_FEATURES = ("rarity",)

_LOOK_AT_LABELLED = "the labelled anomalies in the same words, and the lines around this one: is it the same trouble?"
_LOOK_AT_RARE = "when this wording came first, and what was deployed before it: hardly a line trained on has it"

_LOWEST, _HIGHEST = 1e-6, 1.0 - 1e-6  # of thresholds, where all rows are alike


class LogSeverityModel(CalibratedModel, ClassModel):
    """Both fitted models over the wording of messages, and the threshold of the anomalies."""

    def __init__(
        self,
        *,
        level: WordVotes,
        anomaly: WordVotes | Rarity,
        distribution: ScoreDistribution,
        threshold: float,
        parameters: dict[str, Any],
    ) -> None:
        super().__init__(distribution, threshold, parameters)
        self._level = level
        self._anomaly = anomaly

    @property
    def classes(self) -> tuple[str, ...]:
        return LEVELS

    @property
    def feature_names(self) -> tuple[str, ...]:
        own = _RARITY_FEATURES if isinstance(self._anomaly, Rarity) else _LABELLED_FEATURES
        return (*_LEVEL_FEATURES, *_KIND_FEATURES, *own)

    @property
    def algorithm(self) -> str:
        return "logistic regression over TF-IDF"

    def expected_threshold(self, rate: float) -> float:
        return expected_threshold(self._distribution, rate)

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        text_of, wording = wordings(claimed_rows(frame)["message"])
        return self._measure(wording)[text_of]

    def classify(self, features: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        of_words, of_kinds = self._level.votes(_level_part(features), _kinds_part(features))
        probabilities = of_words + of_kinds
        codes = probabilities.argmax(axis=1)
        sure = np.minimum(probabilities[np.arange(len(codes)), codes], 1.0)
        return codes.astype(np.int64), sure.astype(np.float32)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The raw score of each row of features."""
        return _raw(self._anomaly, features)

    def severities(self, features: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.int16]:
        anomaly = scores.astype(np.float64) >= ANOMALY
        by_table: NDArray[np.int16] = _SEVERITIES[self.classify(features)[0], anomaly.astype(np.int64)]
        return by_table

    def explain(self, lines: pl.DataFrame, features: NDArray[np.float32]) -> list[str]:
        """Which words speak for the anomaly, and which for the level, of each of ``lines``: JSON objects below 1 kB.

        The excess is the raw score; the shares are of it, those of the level of the level's probability.
        """
        text_of, wording = wordings(lines["message"])
        if not len(text_of):
            return []
        own = features[np.unique(text_of, return_index=True)[1]]
        codes, _ = self.classify(own)
        if isinstance(self._anomaly, Rarity):
            parts, look_at = of_rarity(self._anomaly, wording), _LOOK_AT_RARE
        else:
            ones = np.ones(len(own), dtype=np.int64)
            parts, look_at = of_votes(self._anomaly, wording, _own_part(own), ones), _LOOK_AT_LABELLED
        said = list(
            written(
                self.score(own),
                parts,
                [LEVELS[code] for code in codes],
                of_votes(self._level, wording, _level_part(own), codes),
                look_at,
                self._normal_without(wording.texts.to_list(), [leading_words(of_text) for of_text in parts]),
            )
        )
        return [said[text] for text in text_of.tolist()]

    def state(self) -> ModelState:
        header = {"detector": LogSeverity.name, "format": FORMAT, "parameters": self._parameters}
        return ModelState(
            header=header,
            arrays={
                "threshold": np.array([self.threshold], dtype=np.float64),
                **self._level.arrays("level"),
                **self._anomaly.arrays("rarity" if isinstance(self._anomaly, Rarity) else "anomaly"),
                **self._distribution.arrays,
            },
        )

    def _measure(self, wording: Wording) -> NDArray[np.float32]:
        return measured(self._level, self._anomaly, wording)

    def _normal_without(self, texts: list[str], words: list[str | None]) -> list[str | None]:
        """The words without which a text would be normal: it is scored without them before that is said."""
        shorter = [without(text, term or "") for text, term in zip(texts, words, strict=True)]
        normal = self.score(self._measure(Wording(pl.Series(shorter, dtype=pl.String)))) < self.threshold
        return [
            term if below and less != text else None
            for text, less, term, below in zip(texts, shorter, words, normal.tolist(), strict=True)
        ]


class LogSeverity(Detector):
    name = "log_severity"
    title = "Level and severity of log messages"
    source = "logs"
    metric = MACRO_F1
    context = timedelta(0)
    truth = "level"
    summary = "Says which level a log message deserves, whether it is an anomaly, and how severe that is."
    learns_from_labels = True

    def true_classes(self, truth: pl.Series) -> pl.Series:
        """The level by its canonical name, whatever its case or dialect; null for none and for unknown ones."""
        codes = pl.Series(canonical_level_codes(truth), dtype=pl.Int64)
        return pl.Series(LEVELS, dtype=pl.String).gather(codes.set(codes < 0, None)).alias(truth.name)

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> LogSeverityModel:
        """See ``Detector.fit``; at least 100 claimed rows must have a level. Nothing is drawn, so ``seed`` is unused.

        All claimed rows are counted, up to 100,000 combinations of wording, service, level and verdict.
        """
        counts = WordingCounts()
        for frame in frames:
            counts.add(frame)
        enough_rows(self.name, counts.rows, rows=counts.rows, expected=rows)
        groups = counts.collect()
        levelled = groups.filter(pl.col("level") >= 0)
        if levelled["rows"].sum() < MIN_ROWS:
            raise NothingToTrainOn(
                f"{self.name} needs at least {MIN_ROWS} rows with a level to train on and got "
                f"{levelled['rows'].sum()} ({counts.rows} rows read). Ingest logs that have levels."
            )
        level = _fit_votes(levelled, "level", len(LEVELS))
        labelled = groups.filter(pl.col("anomaly").is_not_null())
        verdicts = [int(labelled.filter(pl.col("anomaly") == verdict)["rows"].sum()) for verdict in (0, 1)]
        learned = min(verdicts) >= MIN_LABELLED
        by_text = groups.group_by("text").agg(pl.col("rows").sum()).sort("text")
        text_rows = by_text["rows"].to_numpy()
        anomaly = _fit_votes(labelled, "anomaly", 2) if learned else Rarity.fit(by_text["text"], text_rows)
        raw = _raw(anomaly, measured(level, anomaly, Wording(by_text["text"])))
        distribution = ScoreDistribution.of(spread(raw, text_rows))
        return LogSeverityModel(
            level=level,
            anomaly=anomaly,
            distribution=distribution,
            threshold=LABELLED_THRESHOLD if learned else expected_threshold(distribution, STARTING_RATE),
            parameters={
                "score": "labels" if learned else "rarity",
                "rows": counts.rows,
                "levelled_rows": int(levelled["rows"].sum()),
                "normal_rows": verdicts[0],
                "anomaly_rows": verdicts[1],
                "texts": by_text.height,
                "level_terms": len(level.idf),
            },
        )

    def load(self, state: ModelState) -> LogSeverityModel:
        check_header(state, self.name)
        (threshold,) = stored_numbers(state, self.name, "threshold", 1)
        if not 0 < threshold < 1:
            raise unusable(self.name, "threshold")
        parameters = state.header.get("parameters")
        if not isinstance(parameters, dict) or parameters.get("score") not in ("labels", "rarity"):
            raise unusable(self.name, "parameters")
        learned = parameters["score"] == "labels"
        return LogSeverityModel(
            level=WordVotes.load(state.arrays, "level", len(LEVELS)),
            anomaly=WordVotes.load(state.arrays, "anomaly", 2) if learned else Rarity.load(state.arrays, "rarity"),
            distribution=ScoreDistribution.load(state.arrays),
            threshold=threshold,
            parameters=parameters,
        )


def measured(level: WordVotes, anomaly: WordVotes | Rarity, wording: Wording) -> NDArray[np.float32]:
    """The features of each text: what its words say of each level, its kinds of words, what they say of anomalies."""
    parts = [level.measure(wording), wording.kinds.astype(np.float64), anomaly.measure(wording)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def expected_threshold(distribution: ScoreDistribution, rate: float) -> float:
    """The raw score that the share ``rate`` of the training rows reaches, kept between 0 and 1."""
    return min(max(distribution.exceeded_by(rate), _LOWEST), _HIGHEST)


def _level_part(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features[:, : len(_LEVEL_FEATURES)]


def _kinds_part(features: NDArray[np.float32]) -> NDArray[np.bool_]:
    return features[:, len(_LEVEL_FEATURES) : len(_LEVEL_FEATURES) + len(_KIND_FEATURES)] > 0


def _own_part(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features[:, len(_LEVEL_FEATURES) + len(_KIND_FEATURES) :]


def _raw(anomaly: WordVotes | Rarity, features: NDArray[np.float32]) -> NDArray[np.float64]:
    own = _own_part(features)
    if isinstance(anomaly, Rarity):
        raw: NDArray[np.float64] = own[:, 0].astype(np.float64)
    else:
        of_words, of_kinds = anomaly.votes(own, _kinds_part(features))
        raw = (of_words + of_kinds)[:, 1]
    return np.clip(raw, 0.0, 1.0)


def _fit_votes(groups: pl.DataFrame, column: str, classes: int) -> WordVotes:
    texts = groups["text"].unique().sort()
    told = examples(groups, column, texts, classes)
    return WordVotes.fit(texts, told.places, told.y, told.weight, classes)
