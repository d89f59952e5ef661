"""Predictions in PostgreSQL's binary COPY format: the server need not read numbers out of text, which costs it more
than all that we do here.

Every field is its length in bytes and its value, both big-endian. All fields but the explanation have one width, so
that the rows of a frame are one numpy array; what is left are the explanations, which few rows have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

COLUMNS: dict[str, str] = {
    "ts": ">i8",
    "log_id": ">i8",
    "run_id": ">i4",
    "model_version": ">i4",
    "score": ">f4",
    "raw_score": ">f4",
    "detector_id": ">i2",
    "severity": ">i2",
    "is_anomaly": "?",
}
"""Of all detectors, in the order of the statement; ``class`` and ``confidence`` follow, and ``explanation`` is last."""

_EPOCH_US = 946_684_800_000_000  # PostgreSQL counts from 2000
_JSONB = b"\x01"  # its version
_NULL = -1


def encoded(frame: pl.DataFrame, **constants: int) -> Iterator[bytes]:
    """The rows of a frame with COLUMNS, ``explanation`` (JSON or null) and, or not, ``class`` and ``confidence``.

    ``ts`` is in microseconds. A column that is the same in all rows may be one of ``constants`` instead. Rows of one
    class follow each other, else the order is that of the frame.
    """
    if "class" not in frame.columns:
        yield _rows(frame, COLUMNS, constants)
        return
    for (name,), part in frame.group_by("class", maintain_order=True):
        text = str(name).encode()
        columns = {**COLUMNS, "class": f"V{len(text)}", "confidence": ">f4"}
        yield _rows(part, columns, {**constants, "class": np.void(text)})


def _rows(frame: pl.DataFrame, columns: Mapping[str, str], constants: Mapping[str, int | np.void]) -> bytes:
    fields = [("fields", ">i2")]
    for name, kind in columns.items():
        fields += [(f"{name}_bytes", ">i4"), (name, kind)]
    # What all rows have in common is filled in once, and copied.
    alike = np.empty(1, dtype=np.dtype([*fields, ("explanation_bytes", ">i4")]))
    alike["fields"] = len(columns) + 1
    alike["explanation_bytes"] = _NULL
    for name in columns:
        alike[f"{name}_bytes"] = alike.dtype[name].itemsize
    for name, value in constants.items():
        alike[name] = value
    rows = alike.repeat(len(frame))
    for name in columns:
        if name not in constants:
            rows[name] = _values(frame[name])
    return _with_explanations(rows, frame["explanation"])


def _values(column: pl.Series) -> NDArray[np.generic]:
    if isinstance(column.dtype, pl.Datetime):
        return column.cast(pl.Int64).to_numpy() - _EPOCH_US
    return column.to_numpy()


def _with_explanations(rows: NDArray[np.void], explanations: pl.Series) -> bytes:
    given = np.flatnonzero(explanations.is_not_null().to_numpy())
    texts = [_JSONB + text.encode() for text in explanations.drop_nulls()]
    rows["explanation_bytes"][given] = [len(text) for text in texts]
    written, width = rows.tobytes(), rows.dtype.itemsize
    pieces, begin = [], 0
    for row, text in zip(given.tolist(), texts, strict=True):
        end = (row + 1) * width
        pieces += [written[begin:end], text]
        begin = end
    return b"".join([*pieces, written[begin:]])
