"""Batches of records and rejects, made of runs of lines."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

import polars as pl

from mllib.ingest import columns as by_column
from mllib.ingest.base import Columns, Parse, Record, Refused
from mllib.ingest.lines import Run

BATCH_BYTES = 32 * 1024 * 1024
"""A batch of long lines ends early, when its lines have this many bytes together."""

MAX_LEVEL = 32
MAX_NAME = 256
LIMITS = {
    "logs": {"level": MAX_LEVEL, **dict.fromkeys(("source_id", "service", "host", "trace_id", "label"), MAX_NAME)},
    "pipeline_runs": dict.fromkeys(
        ("source_id", "provider", "repository", "branch", "workflow", "language", "label"), MAX_NAME
    ),
    "network_flows": dict.fromkeys(("source_id", "src_ip", "dst_ip", "protocol", "label"), MAX_NAME),
}
"""The most characters of each field, by table. A longer one refuses the line."""


class Reject(NamedTuple):
    """A line, or the rest of a file, that could not become a record."""

    line_number: int  # counts every physical line from 1
    byte_offset: int  # of its first byte in the file, after decompression
    raw: bytes  # without its line end; of an over-long line the first max_line_bytes
    reason: str


@dataclass(slots=True)
class Batch:
    """What came of a run of lines. A line is a record, a reject, a blank, or a header that the format passed over."""

    parsed: list[tuple[int, Record]] = field(default_factory=list)  # line by line, with line numbers
    columns: list[pl.DataFrame] = field(default_factory=list)  # the others: ``line`` and ``columns.SCHEMA``
    rejects: list[Reject] = field(default_factory=list)
    blanks: int = 0
    lines: int = 0

    @property
    def records(self) -> list[tuple[int, Record]]:
        """All records, in the order of their lines."""
        others = [record for rows in self.columns for record in by_column.records(rows)]
        return sorted([*self.parsed, *others], key=itemgetter(0)) if others else self.parsed


class Reading:
    """The batch in the making, and the number of the last line."""

    def __init__(
        self,
        parse: Parse,
        columns: Columns | None,
        limits: Mapping[str, int],
        earliest: datetime,
        before: datetime,
        batch_rows: int,
        lines_before: int = 0,
    ) -> None:
        self.batch = Batch()
        self._parse = parse
        self._lines = by_column.Splitter(columns, limits, earliest, before)
        self._limits = limits
        self._earliest = earliest
        self._before = before
        self._batch_rows = batch_rows
        self._number = lines_before
        self._end = 0  # of the last run
        self._bytes = 0

    def take_reject(self, offset: int, raw: bytes, reason: str) -> Iterator[Batch]:
        self._number += 1
        self.batch.lines += 1
        self.batch.rejects.append(Reject(self._number, offset, raw, reason))
        yield from self._if_full(len(raw))

    def take_rest_of_line(self, run: Run) -> Run | None:
        """Set the end of a line aside whose beginning was loaded; return what follows it in the run, if anything."""
        end, newline, others = run.data.partition(b"\n")
        if end.strip(b"\r") or run.refused is not None:
            reason = "the rest of a line whose beginning was loaded before, when the file ended there"
            self.batch.rejects.append(Reject(self._number, run.offset, end, reason))
        if run.refused is not None or not newline:
            return None
        return Run(run.offset + len(end) + 1, others)

    def finish(self) -> None:
        """Take what the format held back."""
        finish = getattr(self._parse, "finish", None)
        for record in finish() if finish is not None else ():
            try:
                self._keep(self._number, [record])
            except Refused as why:
                self.batch.rejects.append(Reject(self._number, self._end, self._whole() or b"", str(why)))

    def take_lines(self, run: Run) -> Iterator[Batch]:
        """Read the lines of a run; yield the batches that it fills."""
        lines = self._lines.split(run.data)
        self._end = run.offset + len(run.data)
        start, count = 0, len(lines.rows) + len(lines.places)
        while start < count:
            stop = min(start + self._batch_rows - self.batch.lines, count)
            first = self._number + 1 - start  # the number of the run's first line
            others = slice(bisect_left(lines.places, start), bisect_left(lines.places, stop))
            rows = slice(start - others.start, stop - others.stop)
            if rows.stop > rows.start:
                line = (lines.row_places[rows] + first).alias("line")
                self.batch.columns.append(lines.rows[rows].insert_column(0, line))
            refused = self._parse_lines(lines.places[others], lines.texts[others], first, lines.reasons)
            if refused:
                raws = run.data.split(b"\n")
                offsets = list(accumulate((len(raw) + 1 for raw in raws), initial=run.offset))
                for place, reason, whole in refused:
                    raw = whole or raws[place].removesuffix(b"\r")
                    self.batch.rejects.append(Reject(first + place, offsets[place], raw, reason))
            self._number += stop - start
            self.batch.lines += stop - start
            start = stop
            yield from self._if_full(len(run.data) if start == count else 0)

    def _whole(self) -> bytes | None:
        """All of what the last record was made of, where a format joins lines; None if that was its line."""
        whole: str | None = getattr(self._parse, "whole", None)
        return None if whole is None else whole.encode()

    def _parse_lines(
        self, places: Sequence[int], texts: Sequence[str], first: int, reasons: Mapping[int, str]
    ) -> list[tuple[int, str, bytes | None]]:
        """Put the records into the batch; return the others' places in the run, with the reason and parts of each."""
        parse, earliest, before, records = self._parse, self._earliest, self._before, self.batch.parsed
        limits = self._limits
        short = min(limits.values())
        refused: list[tuple[int, str, bytes | None]] = []
        for place, text in zip(places, texts, strict=True):
            if not text or text.isspace():
                if place in reasons:
                    refused.append((place, reasons[place], None))
                else:
                    self.batch.blanks += 1
                continue
            try:
                record = parse(text)
                if record is None:
                    continue
                if isinstance(record, list):
                    self._keep(first + place, record)
                    continue
                if not earliest <= record[0] < before:
                    raise _out_of_bounds(record[0], earliest, before)
                # No field is longer than its line, so that short lines need no look at most of them. The third is the
                # level of a log line, which has the narrowest limit.
                if len(text) > MAX_NAME or (record[2] is not None and len(record[2]) > short):
                    _check_lengths(record, limits)
            except Refused as why:
                refused.append((place, str(why), self._whole()))
            else:
                records.append((first + place, record))
        return refused

    def _keep(self, line_number: int, found: Sequence[Record | Refused]) -> None:
        """Put the records of one line into the batch, each with an id of its own.

        Raises Refused, when they are in, if others could not be read.
        """
        complaint = None
        refused = 0
        for place, record in enumerate(found, start=1):
            try:
                if isinstance(record, Refused):
                    raise record
                if not self._earliest <= record.ts < self._before:
                    raise _out_of_bounds(record.ts, self._earliest, self._before)
                _check_lengths(record, self._limits)
            except Refused as why:
                refused += 1
                complaint = complaint or f"the first is number {place}: {why}"
            else:
                if record.source_id is None and len(found) > 1:
                    record = record._replace(source_id=f"{line_number}.{place}")
                self.batch.parsed.append((line_number, record))
        if complaint:
            raise Refused(f"{refused:,} of the line's {len(found):,} records were refused, {complaint}")

    def _if_full(self, more_bytes: int) -> Iterator[Batch]:
        self._bytes += more_bytes
        rows = max(self.batch.lines, len(self.batch.parsed))
        if rows >= self._batch_rows or self._bytes >= BATCH_BYTES:
            yield self.batch
            self.batch, self._bytes = Batch(), 0


def _out_of_bounds(ts: datetime, earliest: datetime, before: datetime) -> Refused:
    side = f"before {earliest:%Y-%m-%d %H:%M}" if ts < earliest else f"not before {before:%Y-%m-%d %H:%M}"
    return Refused(f"the time stamp {ts:%Y-%m-%d %H:%M:%S} is out of bounds: {side}")


def _check_lengths(record: Record, limits: Mapping[str, int]) -> None:
    """Raises Refused for a name that is too long: cut off, it would pass for another's."""
    for name, limit in limits.items():
        value = getattr(record, name)
        if value is not None and len(value) > limit:
            raise Refused(f"the {name} has {len(value):,} characters; at most {limit} are stored")
