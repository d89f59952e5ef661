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

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._explanation import Group
from mllib.detectors._forest import (
    Forest,
    ForestModel,
    check_header,
    enough_rows,
    fit_forest,
    load_forest,
    stored_numbers,
    stored_words,
)
from mllib.detectors._log_features import SERVICES, assemble, feature_names, measure
from mllib.detectors._log_groups import groups
from mllib.detectors._sample import LogSample
from mllib.detectors.base import Detector, ModelState
from mllib.features.stream import with_context
from mllib.features.text import WIDTH, TemplateVectorizer, fit_vectorizer
from mllib.features.windows import WINDOW

ESTIMATORS = 100


class LogAnomalyModel(ForestModel):
    """A fitted forest with what turns a log frame into its features."""

    def __init__(
        self, forest: Forest, *, fills: tuple[float, ...], services: tuple[str, ...], vectorizer: TemplateVectorizer
    ) -> None:
        super().__init__(forest)
        self._fills = fills
        self._services = services
        self._vectorizer = vectorizer

    @property
    def feature_names(self) -> tuple[str, ...]:
        return feature_names(self._services, self._vectorizer.vocabulary)

    @property
    def groups(self) -> tuple[Group, ...]:
        return groups(self._services, self._vectorizer.vocabulary)

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        return assemble(
            measure(frame, np.flatnonzero(frame["claimed"].to_numpy())),
            fills=self._fills,
            services=self._services,
            vectorizer=self._vectorizer,
        )

    def state(self) -> ModelState:
        return self._state(
            LogAnomaly.name,
            {"services": list(self._services), "vocabulary": list(self._vectorizer.vocabulary)},
            {
                "fills": np.array(self._fills, dtype=np.float64),
                "idf": np.array(self._vectorizer.idf, dtype=np.float64),
            },
        )


class LogAnomaly(Detector):
    name = "log_anomaly"
    title = "Log anomalies"
    source = "logs"
    metric = "f1"
    context = WINDOW
    summary = "Scores each log line by how unlike the others it is, given the five minutes before it."

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> LogAnomalyModel:
        """See ``Detector.fit``; at least 100 claimed rows. About 100,000 of them are kept and looked at."""
        sample = LogSample(rows)
        for frame in with_context(frames, self.context):
            sample.add(frame)
        enough_rows(self.name, len(sample), rows=sample.rows, expected=rows)
        measured = sample.collect()
        fills = tuple(_median(measured.numbers[:, column]) for column in range(2))
        services = sample.most_frequent_services(SERVICES)
        vectorizer = fit_vectorizer(measured.templates, np.bincount(measured.template_of))
        forest = fit_forest(
            assemble(measured, fills=fills, services=services, vectorizer=vectorizer),
            groups(services, vectorizer.vocabulary),
            n_estimators=ESTIMATORS,
            seed=seed,
            rows=sample.rows,
        )
        return LogAnomalyModel(forest, fills=fills, services=services, vectorizer=vectorizer)

    def load(self, state: ModelState) -> LogAnomalyModel:
        check_header(state, self.name)
        services = stored_words(state, self.name, "services", SERVICES)
        vocabulary = stored_words(state, self.name, "vocabulary", WIDTH)
        return LogAnomalyModel(
            load_forest(
                state,
                self.name,
                groups(services, vocabulary),
                n_features=len(feature_names(services, vocabulary)),
            ),
            fills=stored_numbers(state, self.name, "fills", 2),
            services=services,
            vectorizer=TemplateVectorizer(
                vocabulary=vocabulary, idf=stored_numbers(state, self.name, "idf", len(vocabulary))
            ),
        )


def _median(values: NDArray[np.float32]) -> float:
    """The median of the values that are there, 0 without any."""
    there = values[~np.isnan(values)]
    return float(np.median(there)) if len(there) else 0.0
