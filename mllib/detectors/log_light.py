"""Anomalies in log lines by six features of the line alone, for services that send little.

The same isolation forest as in log_anomaly, small and shallow: 50 trees, each grown on 64 rows. A row that few random
splits set apart from the others is anomalous: its raw score is ``2^(-E[h(x)] / c(n))``, between 0 and 1, **higher is
more anomalous**. The calibrated score puts the model's threshold at 0.6; from there a row is an anomaly, and low,
medium, high or critical below 0.7, 0.8, 0.9 and 1.

The features: the length of the message in characters, at most 10,000; the level, in order from DEBUG (0) to CRITICAL
(4), where a missing or unknown one counts as INFO; the service, hashed to one of 31 buckets, 0 without one; and
whether the message tells of an exception, a timeout or a failed connection, in the usual English words. These words
only make features: how much they count is learned from how rare they are. The figures of a line need neither the
lines around it nor anything that was learned, so a line is scored in a fraction of a millisecond.

It works when anomalies are seldom and look different at first sight: a rare level, a stack trace, a lost connection,
an odd length. No labels are needed; where there are some, they only choose the threshold. It fails when errors are
everyday business, when messages tell of failure in other words or languages, and wherever time matters: slow requests,
bursts and silences look like any other line. Two services may share a bucket.

Liu, Ting, Zhou: Isolation Forest. ICDM 2008.

>>> from mllib.detectors import detector
>>> model = detector("log_light").fit(frames, rows=1_000)  # doctest: +SKIP
>>> model.predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._explanation import Category, Figure, Group
from mllib.detectors._forest import ForestModel, check_header, enough_rows, fit_forest, load_forest
from mllib.detectors._isolation import IsolationTrees
from mllib.detectors._sample import Sample
from mllib.detectors.base import Detector, ModelState, claimed_rows
from mllib.features.encoders import LEVELS, coded, level_code
from mllib.features.stream import with_context

ESTIMATORS = 50
SUBSAMPLE = 64
"""Trees of at most 127 nodes: with 28 bytes a node, an artifact stays below 200 kB whatever the logs are like."""

MAX_CHARACTERS = 10_000
BUCKETS = 32

_MENTIONS = {
    "has_exception": r"(?i)exception|traceback|stack ?trace|\bpanic\b|\bcaused by\b|segmentation fault|core dumped",
    "has_timeout": r"(?i)time[ds]?[ _-]?out|deadline exceeded|etimedout",
    "has_connection_error": r"(?i)connection (?:was )?(?:refused|reset|closed|aborted|lost|failed|error)"
    r"|econn(?:refused|reset|aborted)|broken pipe|no route to host|(?:host|network) (?:is )?unreachable"
    r"|(?:cannot|could not|unable to|failed to) connect",
}
_SEARCHES = [re.compile(pattern).search for pattern in _MENTIONS.values()]
_FEW = 20
"""Messages up to which Python is faster than a query of polars."""

_FEATURES = ("message_length", "level", "service", *_MENTIONS)
_OF_MESSAGE = [place for place, name in enumerate(_FEATURES) if name not in ("level", "service")]
_ADVICE = {
    "message_length": "the message in full: a dump, a payload, or a text that was cut?",
    "level": "the lines of that level before it: is it the first of its kind?",
    "service": "the service: is it new, renamed, or seldom heard of?",
    "has_exception": "the exception's type and its first frame of our own: what was deployed before?",
    "has_timeout": "the service that did not answer in time: was it slow, down or overloaded?",
    "has_connection_error": "the other end of the connection: did it restart, move or close?",
}


class LogLightModel(ForestModel):
    """A small fitted forest; what makes its features has no state."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        return _FEATURES

    @property
    def groups(self) -> tuple[Group, ...]:
        return _GROUPS

    def features(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        return _measure(claimed_rows(frame))

    def state(self) -> ModelState:
        return self._state(LogLight.name, {}, {})


class LogLight(Detector):
    name = "log_light"
    title = "Log anomalies, light"
    source = "logs"
    metric = "f1"
    context = timedelta(0)
    summary = "Scores each log line by its length, level, service and whether it tells of a failure."

    def fit(self, frames: Iterable[pl.DataFrame], *, rows: int, seed: int = 42) -> LogLightModel:
        """See ``Detector.fit``; at least 100 claimed rows. About 100,000 of them are kept and looked at."""
        sample = Sample(
            rows, measure=lambda frame, chosen: _measure(frame[chosen]), subset=lambda part, kept: part[kept]
        )
        for frame in with_context(frames, self.context):
            sample.add(frame)
        enough_rows(self.name, len(sample), rows=sample.rows, expected=rows)
        forest = fit_forest(
            np.concatenate(sample.parts()),
            _GROUPS,
            n_estimators=ESTIMATORS,
            max_samples=SUBSAMPLE,
            seed=seed,
            rows=sample.rows,
        )
        return LogLightModel(forest)

    def load(self, state: ModelState) -> LogLightModel:
        check_header(state, self.name)
        return LogLightModel(
            load_forest(state, self.name, _GROUPS, IsolationTrees(state.arrays, n_features=len(_FEATURES)))
        )


def _measure(lines: pl.DataFrame) -> NDArray[np.float32]:
    """Shape (n, 6): the features of every row."""
    out = np.empty((len(lines), len(_FEATURES)), dtype=np.float32)
    out[:, _OF_MESSAGE] = _read(lines["message"])
    out[:, 1] = coded(lines["level"], _level)
    out[:, 2] = coded(lines["service"], _bucket)
    return out


def _read(messages: pl.Series) -> NDArray[np.float32]:
    """Shape (n, 4): the length of each message, and what it mentions."""
    if len(messages) <= _FEW:
        texts = [(text or "")[:MAX_CHARACTERS] for text in messages.to_list()]
        # The patterns mean the same to Python and to polars as long as there is nothing but ASCII.
        if all(map(str.isascii, texts)):
            read = [[len(text), *(search(text) is not None for search in _SEARCHES)] for text in texts]
            return np.array(read, dtype=np.float32).reshape(len(texts), len(_OF_MESSAGE))
    message = pl.col("message").fill_null("").str.head(MAX_CHARACTERS)
    # All in one expression: each step of polars costs as much as many lines.
    columns = [
        message.str.len_chars(),
        *(message.str.contains(pattern).alias(name) for name, pattern in _MENTIONS.items()),
    ]
    return messages.to_frame().select(columns).cast(pl.Float32).to_numpy()


def _level(level: str | None) -> int:
    code = level_code(level)
    return LEVELS.index("INFO") if code < 0 else code


def _bucket(service: str | None) -> int:
    """From 1 on, 0 without a service. The same on every machine, unlike hash()."""
    return 0 if service is None else 1 + zlib.crc32(service.encode()) % (BUCKETS - 1)


def _whole(column: NDArray[np.float32]) -> NDArray[np.int64]:
    return column[:, 0].astype(np.int64)


def _category(name: str, size: int, labels: tuple[str, ...] | None) -> Category:
    place = _FEATURES.index(name)
    return Category(
        name=name, columns=range(place, place + 1), codes=_whole, size=size, labels=labels, advice=_ADVICE[name]
    )


_GROUPS: tuple[Group, ...] = (
    Figure(name="message_length", column=0, unit="characters", advice=_ADVICE["message_length"]),
    _category("level", len(LEVELS), LEVELS),
    _category("service", BUCKETS, None),
    *(_category(name, 2, ("no", "yes")) for name in _MENTIONS),
)
