"""Hashes of the rows that a model is fitted on, by which it is proven later that they are still the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl

from mllib.sources import SOURCES, Source

_LOGS = ("ts", "log_id", "claimed", "level", "service", "message", "response_time_ms", "status_code")
"""What features are made from. A column that a frame gains must not change the hashes that are on record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowHashes:
    """``rows`` claimed rows; SHA-256 (hex) over their times and ids, and over all that the features see of them."""

    rows: int
    ids: str
    content: str
    """Over the context rows as well: they are in the windows of the others."""


class Fingerprint:
    """Takes frames of a source one by one, in order; how they are cut makes no difference."""

    def __init__(self, source: Source = SOURCES["logs"]) -> None:
        self._columns = _LOGS if source.name == "logs" else tuple(source.schema)
        self._rows = 0
        self._ids = hashlib.sha256()
        # One hash for each column, so that the same values give the same hash wherever a frame ends.
        self._parts = {f"{name} {part}": hashlib.sha256() for name in self._columns for part in ("form", "values")}

    def add(self, frame: pl.DataFrame) -> None:
        """Takes the next frame."""
        claimed = frame.filter("claimed")
        self._rows += claimed.height
        self._ids.update(claimed.select(pl.col("ts").to_physical(), "log_id").to_numpy().tobytes())
        for name in self._columns:
            column = frame[name]
            if column.name == "message":
                # Context rows came without theirs when the first hashes were put on record.
                column = column.set(~frame["claimed"], None)
            form, values = _bytes(column)
            self._parts[f"{name} form"].update(form)
            self._parts[f"{name} values"].update(values)

    def hashes(self) -> RowHashes:
        """What has been taken so far."""
        whole = hashlib.sha256()
        for name in sorted(self._parts):
            whole.update(f"{name} {self._parts[name].hexdigest()}\n".encode())
        return RowHashes(rows=self._rows, ids=self._ids.hexdigest(), content=whole.hexdigest())


class VerdictHash:
    """Takes frames with a column ``label`` one by one; how they are cut makes no difference."""

    def __init__(self) -> None:
        self._ids, self._lengths, self._labels = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._taken = False

    def add(self, frame: pl.DataFrame) -> None:
        """Takes the verdicts of the next frame."""
        labelled = frame.filter(pl.col("label").is_not_null())
        self._taken = True
        self._ids.update(labelled["log_id"].to_numpy().tobytes())
        lengths, texts = _bytes(labelled["label"])
        self._lengths.update(lengths)
        self._labels.update(texts)

    def with_those_of(self, other: str) -> str:
        """The hash of these verdicts and of those with the hash ``other``; that one alone where no frame was taken."""
        if not self._taken:
            return other
        parts = (other, *(part.hexdigest() for part in (self._ids, self._lengths, self._labels)))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _bytes(values: pl.Series) -> tuple[bytes, bytes]:
    """Where the values end or are missing, and the values themselves."""
    if values.dtype == pl.String:
        lengths = values.str.len_bytes().cast(pl.Int64).fill_null(-1)  # a missing text is not an empty one
        return lengths.to_numpy().tobytes(), "".join(values.drop_nulls()).encode()
    if isinstance(values.dtype, pl.List):
        form, inner = _bytes(values.explode())
        return values.list.len().cast(pl.Int64).fill_null(-1).to_numpy().tobytes() + form, inner
    plain = values.to_physical()
    plain = plain.cast(pl.Int8) if plain.dtype == pl.Boolean else plain
    return values.is_null().cast(pl.Int8).to_numpy().tobytes(), plain.fill_null(0).to_numpy().tobytes()
