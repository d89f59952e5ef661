"""Anomalies in log lines, by an ensemble over 78 features of each line and the five minutes before it, and its wording.

Four members judge a line, each with an excess over an ordinary line, on one scale and weighted:

- an isolation forest, which grows trees that split at random features and values until each row of a small subsample
  stands alone; a row unlike the others is alone after few splits;
- an autoencoder, which cannot reproduce what it was not shown;
- rarity: how surprising the line's template is, at all and in its service, and how rare its words are;
- sequence: how surprising the template is after the one before it in its service, within the five minutes.

Where at least 30 anomalies and 30 normal lines of the training are labelled, a further variant has a fifth member, the
companion: small class trees that learned from the verdicts (docs/decisions/0015-the-supervised-companion.md).

The raw score is ``0.5 + 0.5 e / (1 + |e|)``, where e is the weighted sum: between 0 and 1, **higher is more
anomalous**. The calibrated score puts the model's threshold at 0.6; from there a row is an anomaly, and low, medium,
high or critical below 0.7, 0.8, 0.9 and 1. Artifacts from before the ensemble are a forest alone and stay as they were.

The features: response time, status code, hour and day of the week as sine and cosine, time since the service's last
line, lines in five minutes; the level; the ten most frequent services; mean, deviation and median of the service's
response times, its error rate and volume over five minutes; and TF-IDF of the message's template, in which numbers,
addresses and anything like a secret are masked; then the four surprises in bits, by counts of the training sample. A
missing response time or status code (or a response time that is negative or infinite) takes the median of the training
sample, 0 when that has none; response times are clipped at an hour. An unknown level or
service has zeros in all columns of its group, and so has a message without a known term.

It works when anomalies are few and differ in these figures or in their wording: slow or failing requests, bursts,
silences, rare levels, new and rare messages. No labels are needed; where there are some, they choose the variant and
the threshold. It fails when anomalies are common or look like ordinary lines; and where a system starts to write new
messages that are harmless, it gives many more alarms than it was asked for until it is trained again. It cannot tell
harmful from merely unusual; the companion can, as far as verdicts told it, and learns wrong ones as well.

Liu, Ting, Zhou: Isolation Forest. ICDM 2008.

>>> from mllib.detectors import detector
>>> model = detector("log_anomaly").fit(frames, rows=1_000_000)  # doctest: +SKIP
>>> model.predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._calibration import ScoreDistribution
from mllib.detectors._companion import MAX_ANOMALIES, MAX_NORMAL, MIN_LABELLED, TREES, Companion, fit_companion
from mllib.detectors._ensemble import AUTOENCODER_EPOCHS, AUTOENCODER_ROWS, Ensemble, Weights, fit_ensembles, squashed
from mllib.detectors._explanation import Group, Judge, Usual
from mllib.detectors._forest import (
    STARTING_RATE,
    Forest,
    ForestModel,
    check_header,
    enough_rows,
    load_forest,
    stored_numbers,
    stored_words,
)
from mllib.detectors._isolation import IsolationTrees
from mllib.detectors._labelled_sample import LabelledSample
from mllib.detectors._log_features import SERVICES, Measured, assemble, feature_names, measure, stack, take
from mllib.detectors._log_groups import groups, surprise_groups
from mllib.detectors._sample import LogSample
from mllib.detectors._surprise import BLOCKS, SURPRISES, Surprises
from mllib.detectors.base import COMPANION_FORMAT, ENSEMBLE_FORMAT, FORMAT, Detector, ModelState
from mllib.features.stream import with_context
from mllib.features.text import WIDTH, TemplateVectorizer, fit_vectorizer
from mllib.features.windows import WINDOW

ESTIMATORS = 100

OF_FIGURES = Weights(forest=0.6, autoencoder=0.2, rarity=0.1, sequence=0.1, beyond=False)
OF_TEXT = Weights(forest=0.25, autoencoder=0.25, rarity=0.4, sequence=0.1, beyond=True)
"""The defaults, for lines most of which have a response time or a status code and for lines of text alone. Neither
was chosen by labels of the system at hand (docs/decisions/0014-the-ensemble.md)."""

OTHERS = (
    Weights(forest=0.5, autoencoder=0.3, rarity=0.0, sequence=0.2, beyond=False),
    Weights(forest=0.0, autoencoder=0.0, rarity=0.8, sequence=0.2, beyond=False),
    Weights(forest=1.0, autoencoder=0.0, rarity=0.0, sequence=0.0, beyond=False),
)
"""What validation may choose as well, where it has labels of both kinds."""


class LogAnomalyModel(ForestModel):
    """A fitted ensemble with what turns a log frame into its features; in artifacts before it a forest alone."""

    def __init__(
        self,
        forest: Forest,
        *,
        fills: tuple[float, ...],
        services: tuple[str, ...],
        vectorizer: TemplateVectorizer,
        surprises: Surprises | None,
        others: Sequence[Forest] = (),
    ) -> None:
        super().__init__(forest)
        self._fills = fills
        self._services = services
        self._vectorizer = vectorizer
        self._surprises = surprises
        self._others = others

    @property
    def algorithm(self) -> str:
        if self._surprises is None:
            return "isolation forest"
        return "ensemble" if self._format == ENSEMBLE_FORMAT else "ensemble and companion"

    @property
    def feature_names(self) -> tuple[str, ...]:
        names = feature_names(self._services, self._vectorizer.vocabulary)
        return names if self._surprises is None else (*names, *SURPRISES)

    @property
    def groups(self) -> tuple[Group, ...]:
        return _groups(self._services, self._vectorizer.vocabulary, self._surprises)

    @property
    def _format(self) -> int:
        if self._surprises is None:
            return FORMAT
        return COMPANION_FORMAT if isinstance(self._forest.judge, Companion) else ENSEMBLE_FORMAT

    def variants(self) -> tuple[LogAnomalyModel, ...]:
        return (self, *(self._with(other) for other in self._others))

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        measured = measure(frame, np.flatnonzero(frame["claimed"].to_numpy()))
        return assemble(
            measured,
            fills=self._fills,
            services=self._services,
            vectorizer=self._vectorizer,
            more=None if self._surprises is None else self._surprises.bits(measured),
        )

    def state(self) -> ModelState:
        return self._state(
            LogAnomaly.name,
            {
                "services": list(self._services),
                "vocabulary": list(self._vectorizer.vocabulary),
                "format": self._format,
            },
            {
                "fills": np.array(self._fills, dtype=np.float64),
                "idf": np.array(self._vectorizer.idf, dtype=np.float64),
                **({} if self._surprises is None else self._surprises.arrays),
            },
        )

    def _with(self, forest: Forest) -> LogAnomalyModel:
        return LogAnomalyModel(
            forest,
            fills=self._fills,
            services=self._services,
            vectorizer=self._vectorizer,
            surprises=self._surprises,
        )


class LogAnomaly(Detector):
    name = "log_anomaly"
    title = "Log anomalies"
    source = "logs"
    metric = "f1"
    context = WINDOW
    summary = "Scores each log line by how unlike the others it is, given the five minutes before it."
    learns_from_labels = True

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> LogAnomalyModel:
        """See ``Detector.fit``; at least 100 claimed rows. About 100,000 of them are kept and looked at.

        Without labels of both kinds, or without the column ``label``, there is no companion among the variants.
        """
        sample = LogSample(rows)
        labelled = LabelledSample[Measured](
            measure=measure,
            take=take,
            stack=stack,
            max_normal=MAX_NORMAL,
            max_per_kind=MAX_ANOMALIES,
            max_attacks=MAX_ANOMALIES,
        )
        for frame in with_context(frames, self.context):
            sample.add(frame)
            if "label" in frame.columns:
                labelled.add(frame)
        enough_rows(self.name, len(sample), rows=sample.rows, expected=rows)
        measured = sample.collect()
        fills = tuple(_median(measured.numbers[:, column]) for column in range(2))
        services = sample.most_frequent_services(SERVICES)
        vectorizer = fit_vectorizer(
            measured.templates, np.bincount(measured.template_of, minlength=len(measured.templates))
        )
        surprises, held_out = Surprises.of(measured)
        features = assemble(measured, fills=fills, services=services, vectorizer=vectorizer)
        has_figures = float((~np.isnan(measured.numbers[:, :2])).any(axis=1).mean()) > 0.5
        weights = (OF_FIGURES, OF_TEXT, *OTHERS) if has_figures else (OF_TEXT, OF_FIGURES, *OTHERS)
        fitted = fit_ensembles(features, held_out, weights, n_estimators=ESTIMATORS, seed=seed)
        seen = np.concatenate([features, held_out.astype(np.float32)], axis=1)
        usual = Usual.of(_groups(services, vectorizer.vocabulary, surprises), seen)
        parameters = {
            "n_estimators": ESTIMATORS,
            "max_samples": "auto",
            "autoencoder_rows": min(AUTOENCODER_ROWS, len(features)),
            "autoencoder_epochs": AUTOENCODER_EPOCHS,
            "blocks": BLOCKS,
            "seed": seed,
            "rows": sample.rows,
            "sample_rows": len(features),
        }
        first, *others = (
            _judged(ensemble, excess, usual, {**parameters, "weights": asdict(ensemble.weights)})
            for ensemble, excess in fitted
        )
        if labelled.labelled:
            known, kinds = labelled.collect()
            anomaly = kinds != ""
            if min(anomaly.sum(), (~anomaly).sum()) >= MIN_LABELLED:
                ensemble, excess = fitted[0]
                companion, unseen = fit_companion(
                    ensemble,
                    assemble(known, fills=fills, services=services, vectorizer=vectorizer),
                    anomaly,
                    columns=seen.shape[1],
                    seed=seed,
                )
                votes = companion.votes(seen)
                _, here, there = np.intersect1d(sample.hashes, labelled.hashes, return_indices=True)
                votes[here] = unseen[there]  # trees know the lines that they learned from too well
                learned = {
                    **first.parameters,
                    "companion_trees": TREES,
                    "companion_gain": companion.gain,
                    "anomaly_rows": int(anomaly.sum()),
                    "normal_rows": int((~anomaly).sum()),
                }
                others.append(_judged(companion, excess + companion.heard(votes), usual, learned))
        return LogAnomalyModel(
            first, fills=fills, services=services, vectorizer=vectorizer, surprises=surprises, others=others
        )

    def load(self, state: ModelState) -> LogAnomalyModel:
        check_header(state, self.name, formats=(FORMAT, ENSEMBLE_FORMAT, COMPANION_FORMAT))
        ensemble = state.header["format"] != FORMAT
        services = stored_words(state, self.name, "services", SERVICES)
        vocabulary = stored_words(state, self.name, "vocabulary", WIDTH)
        width = len(feature_names(services, vocabulary))
        surprises = Surprises.load(state.arrays) if ensemble else None
        judge: Judge
        if not ensemble:
            judge = IsolationTrees(state.arrays, n_features=width)
        elif state.header["format"] == COMPANION_FORMAT:
            judge = Companion.load(state.arrays, width=width, columns=width + len(SURPRISES))
        else:
            judge = Ensemble.load(state.arrays, width=width)
        return LogAnomalyModel(
            load_forest(state, self.name, _groups(services, vocabulary, surprises), judge),
            fills=stored_numbers(state, self.name, "fills", 2),
            services=services,
            vectorizer=TemplateVectorizer(
                vocabulary=vocabulary, idf=stored_numbers(state, self.name, "idf", len(vocabulary))
            ),
            surprises=surprises,
        )


def _judged(judge: Judge, excess: NDArray[np.float64], usual: Usual, parameters: dict[str, Any]) -> Forest:
    distribution = ScoreDistribution.of(squashed(excess))
    return Forest(
        judge=judge,
        distribution=distribution,
        threshold=distribution.exceeded_by(STARTING_RATE),
        usual=usual,
        parameters=parameters,
    )


def _groups(services: tuple[str, ...], vocabulary: tuple[str, ...], surprises: Surprises | None) -> tuple[Group, ...]:
    of_features = groups(services, vocabulary)
    return of_features if surprises is None else (*of_features, *surprise_groups(of_features[-1].columns.stop))


def _median(values: NDArray[np.float32]) -> float:
    """The median of the values that are there, 0 without any."""
    there = values[~np.isnan(values)]
    return float(np.median(there)) if len(there) else 0.0
