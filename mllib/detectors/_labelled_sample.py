"""The labelled rows that a model is fitted on: all of the rare kinds, a bounded part of the common ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._sample import id_hash

NORMAL = frozenset(("0", "normal"))
"""Verdicts that say a row is none of the attacks."""

T = TypeVar("T")


class LabelledSample(Generic[T]):
    """Collects labelled claimed rows frame by frame. Memory is bounded, whatever the number of rows and of names.

    ``measure`` takes a frame and the positions of rows in it (ascending), the others being their context; ``take`` what
    it returned and positions in it; ``stack`` several of what it returned.
    Of normal rows ``max_normal`` are kept, of each other kind ``max_per_kind`` and of all these ``max_attacks``.

    Kept of each kind are the rows whose ids have the lowest hashes, so what is kept in the end depends neither on the
    order of the rows nor on the frames' borders. Where the kinds are too many for ``max_attacks``, each may keep less.
    """

    def __init__(
        self,
        *,
        measure: Callable[[pl.DataFrame, NDArray[np.int64]], T],
        take: Callable[[T, NDArray[np.intp]], T],
        stack: Callable[[Sequence[T]], T],
        max_normal: int,
        max_per_kind: int,
        max_attacks: int,
    ) -> None:
        self.rows = 0  # claimed rows seen
        self.labelled = 0  # those of them with a verdict
        self._measure, self._take, self._stack = measure, take, stack
        self._max_normal, self._max_attacks = max_normal, max_attacks
        self._per_kind = max_per_kind
        self._highest_normal = 1.0  # hash of a normal row that may still be among those kept
        self._hashes: NDArray[np.float64] = np.empty(0)
        self._kinds: NDArray[np.object_] = np.empty(0, dtype=object)
        self._parts: list[T] = []
        self._fresh: list[tuple[NDArray[np.float64], NDArray[np.object_]]] = []
        self._waiting = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Takes a frame with the column ``label``."""
        self.rows += int(frame["claimed"].sum())
        chosen = np.flatnonzero((frame["claimed"] & frame["label"].is_not_null()).to_numpy())
        self.labelled += len(chosen)
        labels = frame["label"].gather(chosen)
        normal = labels.is_in(sorted(NORMAL)).to_numpy()
        hashes = id_hash(frame["log_id"].to_numpy()[chosen])
        # Nothing is measured that would be thrown away.
        open_to = ~normal | (hashes <= min(self._highest_normal, _lowest(hashes[normal], self._max_normal)))
        if not open_to.any():
            return
        kinds = np.where(normal, "", labels.to_numpy())
        self._fresh.append((hashes[open_to], kinds[open_to]))
        self._parts.append(self._measure(frame, chosen[open_to]))
        self._waiting += int(open_to.sum())
        if self._waiting > self._max_normal:
            self._prune()

    @property
    def hashes(self) -> NDArray[np.float64]:
        """Those of the ids of the rows that ``collect`` returned, in its order."""
        return self._hashes

    def collect(self) -> tuple[T, NDArray[np.object_]]:
        """The sampled rows in an order that their ids give, and the name of each one's attack, "" for normal ones.

        There must be some.
        """
        self._prune()
        return self._parts[0], self._kinds

    def _prune(self) -> None:
        if not self._fresh:
            return
        hashes = np.concatenate([self._hashes, *(part for part, _ in self._fresh)])
        kinds = np.concatenate([self._kinds, *(part for _, part in self._fresh)])
        order = np.argsort(hashes, kind="stable")
        # Numbers in place of names: how many of its kind come before a row is counted by sorting.
        _, codes, counts = np.unique(kinds[order].astype(str), return_inverse=True, return_counts=True)
        by_kind = np.argsort(codes, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[by_kind] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        normal = kinds[order] == ""
        while True:
            kept = place < np.where(normal, self._max_normal, self._per_kind)
            if (kept & ~normal).sum() <= self._max_attacks or self._per_kind == 1:
                break
            self._per_kind //= 2
        kept_attacks = np.cumsum(kept & ~normal)
        kept &= normal | (kept_attacks <= self._max_attacks)
        chosen = order[kept]
        self._parts = [self._take(self._stack(self._parts), chosen)]
        self._hashes, self._kinds = hashes[chosen], kinds[chosen]
        if (self._kinds == "").sum() == self._max_normal:
            self._highest_normal = float(self._hashes[self._kinds == ""].max())
        self._fresh, self._waiting = [], 0


def _lowest(values: NDArray[np.float64], most: int) -> float:
    """What ``most`` of the values do not exceed, infinite where there are no more."""
    return float(np.partition(values, most - 1)[most - 1]) if len(values) > most else np.inf
