"""Anomalies in log lines, by an isolation forest over 78 features of each line and the five minutes before it.

An isolation forest grows trees that split at random features and random values until each row of a small subsample
stands alone. A row unlike the others is alone after few splits. Its raw score is ``2^(-E[h(x)] / c(n))``, where h is
the number of splits and c(n) what it would be for an ordinary row: between 0 and 1, **higher is more anomalous**. The
calibrated score puts the model's threshold at 0.6; from there a row is an anomaly, and low, medium, high or critical
below 0.7, 0.8, 0.9 and 1.

The features: response time, status code, hour and day of the week as sine and cosine, time since the service's last
line, lines in five minutes; the level; the ten most frequent services; mean, deviation and median of the service's
response times, its error rate and volume over five minutes; and TF-IDF of the message's template, in which numbers,
addresses and anything like a secret are masked. A missing response time or status code (or a response time that is
negative or infinite) takes the median of the training sample, 0 when that has none; response times are clipped at an
hour. An unknown level or service has zeros in all columns of its group, and so has a message without a known term.

It works when anomalies are few and differ in these figures: slow or failing requests, bursts, silences, rare levels,
unusual wording. No labels are needed; where there are some, they only choose the threshold. It fails when anomalies
are common or come in large uniform clusters, when only the order of ordinary lines is wrong, and when what sets them
apart is one term among fifty: a forest asks few questions, at random. It cannot tell harmful from merely unusual.

Liu, Ting, Zhou: Isolation Forest. ICDM 2008.

>>> from mllib.detectors import detector
>>> model = detector("log_anomaly").fit(frames, rows=1_000_000)  # doctest: +SKIP
>>> model.predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._calibration import Calibration, ScoreDistribution
from mllib.detectors._isolation import IsolationTrees, fit_trees
from mllib.detectors._log_features import SERVICES, assemble, feature_names, measure
from mllib.detectors._sample import LogSample
from mllib.detectors.base import FORMAT, Detector, Model, ModelState
from mllib.errors import BadArtifact, NothingToTrainOn
from mllib.features.stream import with_context
from mllib.features.text import WIDTH, TemplateVectorizer, fit_vectorizer
from mllib.features.windows import WINDOW

MIN_ROWS = 100
"""Fewer claimed rows than this are refused: their quantiles would say nothing."""

ESTIMATORS = 100

STARTING_RATE = 0.1
"""The expected share of anomalies behind the threshold that a freshly fitted model has."""


class LogAnomalyModel(Model):
    """A fitted forest with what turns a log frame into its features."""

    def __init__(
        self,
        *,
        fills: tuple[float, ...],
        services: tuple[str, ...],
        vectorizer: TemplateVectorizer,
        trees: IsolationTrees,
        distribution: ScoreDistribution,
        threshold: float,
        parameters: dict[str, Any],
    ) -> None:
        self._fills = fills
        self._services = services
        self._vectorizer = vectorizer
        self._trees = trees
        self._distribution = distribution
        self._calibration = Calibration(distribution, threshold)
        self._parameters = parameters

    @property
    def feature_names(self) -> tuple[str, ...]:
        return feature_names(self._services, self._vectorizer.vocabulary)

    @property
    def algorithm(self) -> str:
        return "isolation forest"

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self._parameters)

    @property
    def threshold(self) -> float:
        return self._calibration.threshold

    def with_threshold(self, threshold: float) -> LogAnomalyModel:
        return LogAnomalyModel(
            fills=self._fills,
            services=self._services,
            vectorizer=self._vectorizer,
            trees=self._trees,
            distribution=self._distribution,
            threshold=threshold,
            parameters=self._parameters,
        )

    def expected_threshold(self, rate: float) -> float:
        return self._distribution.exceeded_by(rate)

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        return assemble(
            measure(frame, np.flatnonzero(frame["claimed"].to_numpy())),
            fills=self._fills,
            services=self._services,
            vectorizer=self._vectorizer,
        )

    def raw_scores(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        return self._trees.scores(self.features(frame))

    def calibrated(self, raw: NDArray[np.float64]) -> NDArray[np.float32]:
        return self._calibration.scores(raw)

    def state(self) -> ModelState:
        header = {
            "detector": LogAnomaly.name,
            "format": FORMAT,
            "services": list(self._services),
            "vocabulary": list(self._vectorizer.vocabulary),
            "parameters": self._parameters,
        }
        arrays = {
            "fills": np.array(self._fills, dtype=np.float64),
            "idf": np.array(self._vectorizer.idf, dtype=np.float64),
            "threshold": np.array([self.threshold], dtype=np.float64),
            **self._trees.arrays,
            **self._distribution.arrays,
        }
        return ModelState(header=header, arrays=arrays)


class LogAnomaly(Detector):
    name = "log_anomaly"
    title = "Log anomalies"
    source = "logs"
    metric = "f1"
    context = WINDOW
    summary = "Scores each log line by how unlike the others it is, given the five minutes before it."

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> LogAnomalyModel:
        """See ``Detector.fit``; at least MIN_ROWS claimed rows. About 100,000 of them are kept and looked at."""
        sample = LogSample(rows)
        for frame in with_context(frames, self.context):
            sample.add(frame)
        if len(sample) < MIN_ROWS:
            raise NothingToTrainOn(
                f"{self.name} needs at least {MIN_ROWS} rows to train on and got {len(sample)} "
                f"({sample.rows} rows read, {rows} expected). Ingest more logs, or train on a longer window."
            )
        measured = sample.collect()
        fills = tuple(_median(measured.numbers[:, column]) for column in range(2))
        services = sample.most_frequent_services(SERVICES)
        vectorizer = fit_vectorizer(measured.templates, np.bincount(measured.template_of))
        features = assemble(measured, fills=fills, services=services, vectorizer=vectorizer)
        trees = fit_trees(features, n_estimators=ESTIMATORS, seed=seed)
        distribution = ScoreDistribution.of(trees.scores(features))
        return LogAnomalyModel(
            fills=fills,
            services=services,
            vectorizer=vectorizer,
            trees=trees,
            distribution=distribution,
            threshold=distribution.exceeded_by(STARTING_RATE),
            parameters={
                "n_estimators": ESTIMATORS,
                "max_samples": "auto",
                "seed": seed,
                "rows": sample.rows,
                "sample_rows": len(features),
            },
        )

    def load(self, state: ModelState) -> LogAnomalyModel:
        header, arrays = state.header, state.arrays
        if header.get("detector") != self.name or header.get("format") != FORMAT:
            raise BadArtifact(
                f"This is a model of {header.get('detector')!r} in format {header.get('format')!r}, "
                f"not of {self.name!r} in format {FORMAT}. Train {self.name} again."
            )
        services, vocabulary = _words(header, "services", SERVICES), _words(header, "vocabulary", WIDTH)
        fills, idf = _numbers(arrays, "fills", 2), _numbers(arrays, "idf", len(vocabulary))
        (threshold,) = _numbers(arrays, "threshold", 1)
        if not 0 < threshold < 1:
            raise _unusable("threshold")
        if not isinstance(header.get("parameters"), dict):
            raise _unusable("parameters")
        return LogAnomalyModel(
            fills=fills,
            services=services,
            vectorizer=TemplateVectorizer(vocabulary=vocabulary, idf=idf),
            trees=IsolationTrees(arrays, n_features=len(feature_names(services, vocabulary))),
            distribution=ScoreDistribution.load(arrays),
            threshold=threshold,
            parameters=header["parameters"],
        )


def _median(values: NDArray[np.float32]) -> float:
    """The median of the values that are there, 0 without any."""
    there = values[~np.isnan(values)]
    return float(np.median(there)) if len(there) else 0.0


def _words(header: Mapping[str, Any], name: str, at_most: int) -> tuple[str, ...]:
    words = header.get(name)
    if not isinstance(words, list) or len(words) > at_most or not all(isinstance(word, str) for word in words):
        raise _unusable(name)
    if len(set(words)) < len(words):
        raise _unusable(name)
    return tuple(words)


def _numbers(arrays: Mapping[str, NDArray[Any]], name: str, size: int) -> tuple[float, ...]:
    values = arrays.get(name)
    if values is None or values.shape != (size,) or values.dtype != np.float64 or not np.isfinite(values).all():
        raise _unusable(name)
    return tuple(values.tolist())


def _unusable(part: str) -> BadArtifact:
    return BadArtifact(
        f"The stored log_anomaly model has no usable {part}. Roll back to another version, or train again."
    )
