"""Lines by the column, for formats whose usual line a pattern describes: a third of the time, or less.

Only lines that are certain to come out as the format's parser reads them are read so. All others are left to the
parser, which alone decides what is refused, and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import polars as pl

from mllib.ingest.base import Columns, LogRecord
from mllib.ingest.lines import texts_of

SCHEMA = {
    **dict.fromkeys(LogRecord._fields, pl.String()),
    "ts": pl.Datetime("us", "UTC"),
    "response_time_ms": pl.Float64(),
    "status_code": pl.Int64(),
}
"""The fields of a log record as columns; ``attributes`` is JSON."""
IN_VAIN = 0.75
"""Where a larger share of a run's lines needs the parser all the same, trying costs more than it saves."""
MAX_REST = 63
"""The most runs until it is tried again, for files whose lines change."""
_NONE = pl.DataFrame(schema=SCHEMA)
_NOWHERE = pl.Series(dtype=pl.Int64)


class Split(NamedTuple):
    """The lines of a run: those that were read by the column, and the others, each with its place in the run."""

    rows: pl.DataFrame  # SCHEMA
    row_places: pl.Series  # of whole numbers
    places: Sequence[int]  # of the others
    texts: Sequence[str]
    reasons: Mapping[int, str]  # why a text is empty that was not, by place


def by_pattern(pattern: str, **fields: pl.Expr) -> Columns:
    """Reads lines that match ``pattern``; ``fields`` are made of its named groups, which are null for other lines."""
    others = {name: pl.lit(None, dtype=kind) for name, kind in SCHEMA.items() if name not in fields}
    wanted = [{**others, **fields}[name].alias(name) for name in SCHEMA]
    return lambda lines: lines.str.extract_groups(pattern).struct.unnest().select(wanted)


def none_of(lines: pl.Series) -> pl.DataFrame:
    """The result of reading none of the lines."""
    return pl.DataFrame(schema=SCHEMA).clear(len(lines))


class Splitter:
    """Splits runs of lines, and reads them by the column as far as may be: in time, and with no name too long."""

    def __init__(
        self, columns: Columns | None, limits: Mapping[str, int], earliest: datetime, before: datetime
    ) -> None:
        self._columns = columns
        self._resting = self._rest = 0  # runs that are not tried by the column: still, and after the last try in vain
        in_time = pl.col("ts").is_between(earliest, before, closed="left").fill_null(value=False)
        short = (pl.col(name).str.len_bytes().fill_null(0) <= limit for name, limit in limits.items())
        self._certain = pl.all_horizontal(in_time, *short).alias("certain")

    def split(self, data: bytes) -> Split:
        text = None if self._columns is None or self._resting else _plain(data)
        self._resting = max(0, self._resting - 1)
        if self._columns is None or text is None:
            texts, reasons = texts_of(data)
            return Split(_NONE, _NOWHERE, range(len(texts)), texts, reasons)
        lines = pl.Series((text,)).str.split("\n").explode()
        if "\r" in text:
            lines = lines.str.strip_suffix("\r")
        rows = self._columns(lines)
        certain = rows.select(self._certain).to_series()
        others = (~certain).arg_true().to_list()
        self._rest = min(2 * self._rest + 1, MAX_REST) if len(others) > IN_VAIN * len(lines) else 0
        self._resting = self._rest
        texts = []
        if others:
            rows, texts = rows.filter(certain), lines.gather(others).to_list()
        return Split(rows, certain.arg_true().cast(pl.Int64), others, texts, {})


def records(rows: pl.DataFrame) -> Iterable[tuple[int, LogRecord]]:
    """Rows with ``line`` and SCHEMA as records with line numbers."""
    for line, *values in rows.select("line", *SCHEMA).iter_rows():
        record = LogRecord(*values)
        yield (
            line,
            record._replace(
                ts=record.ts.replace(tzinfo=UTC),
                attributes=None if record.attributes is None else json.loads(str(record.attributes)),
            ),
        )


def _plain(data: bytes) -> str | None:
    """The text of lines none of which is refused for its bytes."""
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None
