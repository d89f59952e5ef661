"""What a model of the wording of log lines is fitted on: how many rows have which text, service, level and verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.detectors._sample import id_hash
from mllib.detectors._wording import digest, wordings
from mllib.features.encoders import canonical_level_codes

MAX_GROUPS = 100_000
"""Combinations of text, service, level and verdict that are counted. Ordinary logs have a few thousand."""

SCORES = 100_000
"""Of the training rows, spread evenly over them, kept for the calibration."""

_KEY = ("text", "service", "level", "anomaly")


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Distinct pairs of a text and a class, and how much each counts."""

    places: NDArray[np.int64]
    """Of each pair its text among those of the counts."""
    y: NDArray[np.int64]
    weight: NDArray[np.float64]


class WordingCounts:
    """Counts claimed rows frame by frame. Memory is bounded, and every row counts until there are too many texts.

    Then the texts whose hashes are lowest are kept, with all of their rows, so that what is kept in the end depends
    neither on the order of the rows nor on the frames' borders.
    """

    def __init__(self) -> None:
        self.rows = 0  # claimed rows seen
        self._share = 1.0
        self._groups: list[pl.DataFrame] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Takes a log frame, with or without the column ``label``."""
        rows = frame.filter("claimed")
        if rows.is_empty():
            return
        self.rows += rows.height
        text_of, wording = wordings(rows["message"])
        verdict = pl.col("label") != "0" if "label" in rows.columns else pl.lit(None, dtype=pl.Boolean)
        counted = (
            rows.select(
                text=pl.Series(text_of),
                service=pl.col("service").fill_null(""),
                level=pl.Series(canonical_level_codes(rows["level"])).cast(pl.Int64),
                anomaly=verdict.cast(pl.Int64),
            )
            .group_by(*_KEY)
            .len("rows")
        )
        self._groups.append(
            counted.with_columns(text=wording.texts.gather(counted["text"]), rows=pl.col("rows").cast(pl.Int64))
        )
        if sum(map(len, self._groups)) > 2 * MAX_GROUPS:
            self._gather()

    def collect(self) -> pl.DataFrame:
        """Columns text, service, level (its code, -1 for none), anomaly (0, 1 or null) and rows, in a fixed order.

        There must be some.
        """
        self._gather()
        return self._groups[0]

    def _gather(self) -> None:
        if not self._groups:
            return
        groups = pl.concat(self._groups).group_by(*_KEY).agg(pl.col("rows").sum()).sort(*_KEY)
        self._groups = [groups]
        if self._share == 1 and len(groups) <= MAX_GROUPS:
            return
        hashes = id_hash(np.array([digest(text) for text in groups["text"].to_list()], dtype=np.uint64).view(np.int64))
        while (hashes < self._share).sum() > MAX_GROUPS:
            self._share /= 2
        self._groups = [groups.filter(hashes < self._share)]


def examples(counts: pl.DataFrame, column: str, texts: pl.Series, classes: int) -> Examples:
    """The rows whose class ``column`` says, as pairs of text and class. ``texts`` holds those of all of them.

    A text counts as the root of its rows, a service as the root of that, so that one talkative line does not outvote a
    hundred rare ones; then all classes are made equal.
    """
    groups = counts.group_by("service", "text", column).agg(pl.col("rows").sum()).sort("service", "text", column)
    service = groups["service"].rle_id().to_numpy()
    place = texts.search_sorted(groups["text"]).to_numpy().astype(np.int64)
    y = groups[column].to_numpy().astype(np.int64)
    root = np.sqrt(groups["rows"].to_numpy())
    root = root / np.sqrt(np.bincount(service, root)[service])
    pairs, pair_of = np.unique(place * classes + y, return_inverse=True)
    weight: NDArray[np.float64] = np.bincount(pair_of, root).astype(np.float64)
    weight /= np.bincount(pairs % classes, weight, minlength=classes)[pairs % classes]
    return Examples(
        places=pairs // classes,
        y=pairs % classes,
        weight=weight * (len(np.unique(place)) / weight.sum()),
    )


def spread(raw: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The scores of the rows, given those of distinct texts and the rows of each: all, or SCORES spread over them."""
    order = np.argsort(raw, kind="stable")
    until = np.cumsum(rows[order])
    size = min(int(until[-1]), SCORES)
    chosen = np.searchsorted(until, (np.arange(size) + 0.5) / size * until[-1], side="right")
    scores: NDArray[np.float64] = raw[order][chosen]
    return scores
