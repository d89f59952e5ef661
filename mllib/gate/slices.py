"""Plans the four slices by time, train | embargo | validation | embargo | holdout, from counts per hour.

Only counts are needed, so the plan costs one grouped query and no row is loaded before its slice is known. Counts of
labels decide the holdout and validation; counts of all rows decide how far back training reaches, since a model may
learn from rows without a label. Every border lies on the grain of the counts (a whole hour, or a whole minute for short
ranges), so the counts of each slice are exact.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from mllib.errors import NothingToTrainOn
from mllib.types import Window

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
LATEST = timedelta(days=7)
ENOUGH = 30
"""Of fewer labelled anomalies than this no share is known."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)

_Ints = npt.NDArray[np.int64]


class Basis(enum.StrEnum):
    """What the length of holdout and validation was measured over."""

    LABELS = "labels"
    ROWS = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelHour:
    """What one hour (or one minute, see `grain_for`) of the source table holds.

    ``rows`` counts all rows, ``labelled`` those with a mature label, ``positives`` those labelled as an anomaly.
    """

    start: datetime
    rows: int
    labelled: int
    positives: int

    def __post_init__(self) -> None:
        if self.start.tzinfo is None:
            raise ValueError(f"the start of an hour needs a time zone, got {self.start.isoformat()}")
        if not 0 <= self.positives <= self.labelled <= self.rows:
            raise ValueError(f"positives <= labelled <= rows must hold, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    rows: int
    labelled: int
    positives: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Three disjoint windows in order of time, at least ``embargo`` apart, and what each of them holds.

    Any count may be 0 except the rows of ``train``: too few positives is for the gate to say, not for the plan.
    """

    train: Window
    validation: Window
    holdout: Window
    train_counts: Counts
    validation_counts: Counts
    holdout_counts: Counts
    embargo: timedelta
    basis: Basis

    @property
    def volume_ratio(self) -> float | None:
        """How many times as many rows an hour the holdout has as the training slice; None for an empty one."""
        before, now = self.train_counts.rows / self.train.length.total_seconds(), self.holdout_counts.rows
        return now / self.holdout.length.total_seconds() / before if before else None

    @property
    def anomaly_ratio(self) -> float | None:
        """How many times as large the holdout's share of anomalies among labelled rows is; None for too few to know."""
        train, holdout = self.train_counts, self.holdout_counts
        if train.positives < ENOUGH or not holdout.labelled:
            return None
        return holdout.positives / holdout.labelled * train.labelled / train.positives


def grain_for(first: datetime, last: datetime) -> timedelta:
    """The grain to count by: an hour when the labelled rows span 12 hours or more, else a minute."""
    return HOUR if last - first >= 12 * HOUR else MINUTE


def plan_slices(
    hours: Sequence[LabelHour],
    *,
    first_row: datetime,
    last_row: datetime,
    embargo: timedelta,
    grain: timedelta = HOUR,
    min_positives: int = 30,
    train_days: int = 30,
    min_train_rows: int = 1000,
) -> Slices:
    """Cut the labelled range into slices.

    ``hours`` are the non-empty hours in order of time, each starting on a multiple of ``grain``; those before
    ``first_row`` or after ``last_row`` are left out. ``first_row`` is the earliest row that training may use,
    ``last_row`` the last mature labelled row (without any label: the last mature row); the holdout ends one microsecond
    after it, so it is included.

    - Holdout: the latest 7 days of the labelled range, or a quarter of it if that is less. With fewer than
      ``min_positives`` it reaches further back, at most to half of the range, and no further than positives are gained
      by it.
    - Validation: the same rule over what remains of the range once the holdout and its embargo are off.
    - Train: the ``train_days`` before validation and its embargo, further back while it holds fewer than
      ``min_train_rows`` rows (a target, not a condition: the whole history may be smaller).

    The labelled range runs from the first to the last labelled row. Without labels, or with labels too close together
    to be cut, the range of all rows is used in its place (``basis`` says so): a candidate can still be trained, and the
    gate says that there is not enough evidence.

    Raises NothingToTrainOn when the rows are none, or too close together to be cut into slices with the embargo between
    them; ValueError when the arguments contradict each other.
    """
    if embargo < timedelta(0):
        raise ValueError(f"an embargo cannot be negative, got {embargo}")
    grid = _Grid.of(hours, first_row=first_row, last_row=last_row, grain=grain)
    labelled = np.flatnonzero(grid.labelled)
    firsts = [(Basis.LABELS, int(grid.index[labelled[0]]))] if labelled.size else []
    if grid.index.size:
        firsts.append((Basis.ROWS, int(grid.index[0])))
    gap = -(-embargo // grain)
    for basis, first in firsts:
        holdout = grid.cut(first, grid.end, min_positives)
        if holdout is None:
            continue
        validation_end = holdout - gap
        validation = grid.cut(first, grid.instant(validation_end), min_positives)
        if validation is None:
            continue
        train_end = validation - gap
        train = grid.train_start(train_end, train_days, min_train_rows)
        if train is None:
            continue
        return Slices(
            train=Window(grid.instant(train), grid.instant(train_end)),
            validation=Window(grid.instant(validation), grid.instant(validation_end)),
            holdout=Window(grid.instant(holdout), grid.end),
            train_counts=grid.counts(train, train_end),
            validation_counts=grid.counts(validation, validation_end),
            holdout_counts=grid.counts(holdout, None),
            embargo=embargo,
            basis=basis,
        )
    if not firsts:
        raise NothingToTrainOn(
            f"There is no row between {first_row:%Y-%m-%d %H:%M:%S} and {last_row:%Y-%m-%d %H:%M:%S}. "
            "Ingest logs from before that end, or move it with --as-of."
        )
    raise NothingToTrainOn(
        f"The {int(grid.rows.sum()):,} rows from {grid.instant(firsts[-1][1]):%Y-%m-%d %H:%M} "
        f"to {grid.end:%Y-%m-%d %H:%M} lie too close together to be cut into a training, a validation and a holdout "
        f"slice {embargo} apart. Ingest logs that cover a longer time."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """The counts on whole numbers of grains since 1970, so that a border is an integer."""

    grain: timedelta
    end: datetime
    index: _Ints
    rows: _Ints
    labelled: _Ints
    positives: _Ints
    floor: int

    @classmethod
    def of(cls, hours: Sequence[LabelHour], *, first_row: datetime, last_row: datetime, grain: timedelta) -> _Grid:
        if any((hour.start - _EPOCH) % grain for hour in hours):
            raise ValueError(f"every hour must start on a multiple of the grain {grain}")
        index = np.array([(hour.start - _EPOCH) // grain for hour in hours], dtype=np.int64)
        if np.any(np.diff(index) <= 0):
            raise ValueError("the hours must be sorted by their start, each given once")
        counts = np.array([(hour.rows, hour.labelled, hour.positives) for hour in hours], dtype=np.int64).reshape(-1, 3)
        floor = (first_row - _EPOCH) // grain
        kept = (index >= floor) & (index <= (last_row - _EPOCH) // grain) & (counts[:, 0] > 0)
        index, counts = index[kept], counts[kept]
        end = last_row + _INSTANT
        labelled = np.flatnonzero(counts[:, 1])
        if labelled.size:
            # A caller may know only the last row, not the last labelled one: the holdout still ends with the labels.
            end = min(end, _EPOCH + (int(index[labelled[-1]]) + 1) * grain)
        within = index < -(-(end - _EPOCH) // grain)
        rows, labels, positives = counts[within].T
        return cls(
            grain=grain, end=end, index=index[within], rows=rows, labelled=labels, positives=positives, floor=floor
        )

    def instant(self, border: int) -> datetime:
        return _EPOCH + border * self.grain

    def counts(self, start: int, end: int | None) -> Counts:
        low = np.searchsorted(self.index, start)
        high = self.index.size if end is None else np.searchsorted(self.index, end)
        rows, labelled, positives = (int(of[low:high].sum()) for of in (self.rows, self.labelled, self.positives))
        return Counts(rows=rows, labelled=labelled, positives=positives)

    def cut(self, first: int, end: datetime, min_positives: int) -> int | None:
        """Where the latest slice of ``[first, end)`` starts; None when half of it holds no border."""
        span = end - self.instant(first)
        if span <= timedelta(0):
            return None
        after = self._ceil(end)
        earliest = self._ceil(end - span / 2)
        latest = min(self._ceil(end - min(LATEST, span / 4)), after - 1)
        if latest < earliest:
            return None
        wanted = min(min_positives, self.counts(earliest, after).positives)
        if self.counts(latest, after).positives >= wanted:
            return latest
        return self._reach(self.positives, after, wanted)

    def train_start(self, end: int, train_days: int, min_train_rows: int) -> int | None:
        """Where training that ends at ``end`` starts; None when no row lies before that."""
        available = self.counts(self.floor, end).rows
        if not available:
            return None
        start = max(self.floor, self._ceil(self.instant(end) - timedelta(days=train_days)))
        wanted = min(max(min_train_rows, 1), available)
        return start if self.counts(start, end).rows >= wanted else self._reach(self.rows, end, wanted)

    def _reach(self, counts: _Ints, end: int, wanted: int) -> int:
        """The latest start whose rows up to ``end`` count ``wanted``, of which there are at least that many."""
        before = int(np.searchsorted(self.index, end))
        suffix = counts[:before][::-1].cumsum()
        return int(self.index[before - 1 - np.searchsorted(suffix, wanted)])

    def _ceil(self, moment: datetime) -> int:
        return -((_EPOCH - moment) // self.grain)
