"""The sample of a log stream that a model is fitted on: spread evenly, drawn by the rows' ids alone, bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._log_features import Measured, measure, stack, subset

SAMPLE_ROWS = 100_000
"""About as many claimed rows are kept of a longer stream; never more than twice as many."""

T = TypeVar("T")


class Sample(Generic[T]):
    """Collects, frame by frame, what is measured on the sampled rows.

    A row is kept when the hash of its id is below the share to keep. When more rows come than were expected, that
    share is halved until the sample fits again, so what is kept in the end does not depend on the frames' borders.

    ``measure`` takes a frame and the positions of rows in it (ascending), ``subset`` what it returned and a mask.
    """

    def __init__(
        self,
        expected_rows: int,
        *,
        measure: Callable[[pl.DataFrame, NDArray[np.int64]], T],
        subset: Callable[[T, NDArray[np.bool_]], T],
    ) -> None:
        self.rows = 0  # claimed rows seen
        self._measure = measure
        self._subset = subset
        self._share = min(1.0, SAMPLE_ROWS / max(expected_rows, 1))
        self._parts: list[tuple[NDArray[np.float64], T]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take a frame that comes with its context (see ``with_context``)."""
        claimed = frame["claimed"].to_numpy()
        self.rows += int(claimed.sum())
        hashes = id_hash(frame["log_id"].to_numpy())
        chosen = np.flatnonzero(claimed & (hashes < self._share))
        if len(chosen):
            self._parts.append((hashes[chosen], self._measure(frame, chosen)))
        while len(self) > 2 * SAMPLE_ROWS:
            self._share /= 2
            self._parts = [
                (hashes[kept], self._subset(measured, kept))
                for hashes, measured in self._parts
                for kept in [hashes < self._share]
                if kept.any()
            ]

    def __len__(self) -> int:
        return sum(len(hashes) for hashes, _ in self._parts)

    @property
    def hashes(self) -> NDArray[np.float64]:
        """Those of the ids of all sampled rows, in the order of the stream."""
        return np.concatenate([np.empty(0), *(hashes for hashes, _ in self._parts)])

    def parts(self) -> Sequence[T]:
        """What was measured on all sampled rows, in the order of the stream."""
        return [measured for _, measured in self._parts]


class LogSample(Sample[Measured]):
    """A sample of what the 78 features are made of; counts the services of all rows."""

    def __init__(self, expected_rows: int) -> None:
        super().__init__(expected_rows, measure=measure, subset=subset)
        self._services: Counter[str] = Counter()

    def add(self, frame: pl.DataFrame) -> None:
        super().add(frame)
        counts = frame.filter(pl.col("claimed"), pl.col("service").is_not_null()).group_by("service").len()
        self._services.update(dict(counts.iter_rows()))

    def collect(self) -> Measured:
        """All sampled rows in the order of the stream; there must be some."""
        return stack(self.parts())

    def most_frequent_services(self, number: int) -> tuple[str, ...]:
        """The services with the most claimed rows, the alphabetically first among equals."""
        ranked = sorted(self._services.items(), key=lambda item: (-item[1], item[0]))
        return tuple(service for service, _ in ranked[:number])


def id_hash(log_id: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number in [0, 1) for each id, evenly spread whatever the ids are (the finaliser of splitmix64).

    It is our own so that the same rows are drawn with any version of any library.
    """
    x = log_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    hashed: NDArray[np.float64] = (x >> np.uint64(11)).astype(np.float64) / 2.0**53
    return hashed
