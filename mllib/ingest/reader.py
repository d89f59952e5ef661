"""Files into batches of records and rejects, in flat memory, whatever the bytes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

from mllib.ingest.base import Format, Parse, ParseOptions, Record, Refused
from mllib.ingest.files import AnyPath
from mllib.ingest.stream import BLOCK, StreamBroken, blocks

BATCH_BYTES = 32 * 1024 * 1024
"""A batch of long lines ends early, when its lines have this many bytes together."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
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

MAX_RATIO = 400.0
MAX_BYTES = 64 * 1024**3


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Which part of a file's content to read: what has been added since it was loaded."""

    start: int = 0  # in bytes after decompression
    stop: int | None = None  # None: to the end
    lines_before: int = 0
    midline: bool = False  # the line before was loaded when it had no end yet


WHOLE = Part()


class Reject(NamedTuple):
    """A line, or the rest of a file, that could not become a record."""

    line_number: int  # counts every physical line from 1
    byte_offset: int  # of its first byte in the file, after decompression
    raw: bytes  # without its line end; of an over-long line the first max_line_bytes
    reason: str


@dataclass(slots=True)
class Batch:
    """What came of a run of lines. A line is a record, a reject, a blank, or a header that the format passed over."""

    records: list[tuple[int, Record]] = field(default_factory=list)  # with line numbers
    rejects: list[Reject] = field(default_factory=list)
    blanks: int = 0
    lines: int = 0


def read(
    path: AnyPath,
    format: Format,
    *,
    options: ParseOptions | None = None,
    part: Part = WHOLE,
    watch: Callable[[bytes], object] | None = None,
    batch_rows: int = 50_000,
    max_line_bytes: int | None = None,
    earliest: datetime = EARLIEST,
    latest: datetime | None = None,
    max_ratio: float = MAX_RATIO,
    max_bytes: int = MAX_BYTES,
) -> Iterator[Batch]:
    """Read a log file, plain or packed by its first bytes, as batches of at most ``batch_rows`` lines.

    Time stamps outside [``earliest``, ``latest``) are rejects; ``latest`` is a day from now unless given. So are lines
    of more than ``max_line_bytes`` bytes (the format's own limit unless given), lines with a NUL byte or that are not
    UTF-8, and names that are too long. A damaged, cut-off or bomb-like packed file (``max_ratio``, ``max_bytes``: see
    ``stream.blocks``) ends in one reject. ``watch`` is shown the content of ``part`` block by block.
    Raises BadInput if the file cannot be opened, FileRefused if it cannot be of the format, as with other columns, and
    nothing else for whatever is in it.
    """
    before = latest or datetime.now(UTC) + timedelta(days=1)
    parse = format.parser(options or ParseOptions())
    longest = max_line_bytes or format.max_line_bytes

    def runs(part: Part, watch: Callable[[bytes], object] | None) -> Iterator[_Run]:
        pieces = blocks(path, max_ratio=max_ratio, max_bytes=max_bytes, start=part.start, stop=part.stop)
        return _runs(_watched(pieces, watch), longest, part.start)

    if part.start and format.stateful:
        _remember(parse, runs(Part(stop=part.start), None))
    reading = _Reading(parse, LIMITS[format.table], earliest, before, batch_rows, part.lines_before)
    midline = part.midline
    for run in runs(part, watch):
        rest: _Run | None = run
        if midline:
            midline = False
            rest = reading.take_rest_of_line(run)
        if rest is None:
            continue
        if rest.refused is None:
            yield from reading.take_lines(rest)
        else:
            yield from reading.take_reject(rest.offset, rest.data, rest.refused)
    reading.finish()
    if reading.batch.lines or reading.batch.records or reading.batch.rejects:
        yield reading.batch


def _watched(pieces: Iterator[bytes], watch: Callable[[bytes], object] | None) -> Iterator[bytes]:
    for piece in pieces:
        if watch is not None:
            watch(piece)
        yield piece


def _remember(parse: Parse, runs: Iterator[_Run]) -> None:
    """Let the format see the lines that were loaded before, for what it keeps in mind of them."""
    for run in runs:
        if run.refused is not None:
            continue
        for text in _texts(run.data)[0]:
            if text and not text.isspace():
                try:
                    parse(text)
                except Refused:
                    continue


def head(path: AnyPath, lines: int = 100) -> list[str]:
    """The first lines of a file that are not blank, at most ``lines`` and those of its first BLOCK bytes, to sniff at.

    What is no UTF-8 is replaced. Raises BadInput if the file cannot be opened.
    """
    try:
        start = next(blocks(path, max_ratio=MAX_RATIO, max_bytes=MAX_BYTES), b"")
    except StreamBroken:
        return []
    texts = start.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").split("\n")
    if len(start) == BLOCK and len(texts) > 1:
        texts.pop()  # it may go on in the next block
    return [text.removesuffix("\r") for text in texts if not text.isspace() and text][:lines]


def source_name(path: AnyPath) -> str:
    """The file's name without any suffix: ``BGL_2k`` for ``BGL_2k.log.gz``. What is no text becomes "?"."""
    name = path.name.encode("utf-8", "replace").decode().replace("\0", "?")
    return name.lstrip(".").partition(".")[0] or name


class _Run(NamedTuple):
    """Whole lines, joined by newlines; or bytes that are refused before they are looked at."""

    offset: int
    data: bytes
    refused: str | None = None


def _runs(pieces: Iterator[bytes], max_line_bytes: int, offset: int = 0) -> Iterator[_Run]:
    """Cut blocks at line ends. An over-long line is counted to its end, but only its beginning is held.

    ``offset`` is where the first block lies, and from then on where what is held lies.
    """
    held = b""  # the beginning of a line whose end has not come yet
    length = 0  # of the over-long line that is being passed over; 0 when there is none
    first = offset == 0
    refused = None
    try:
        for piece in pieces:
            if first and piece.startswith(codecs.BOM_UTF8):
                piece = piece[len(codecs.BOM_UTF8) :]
                offset = len(codecs.BOM_UTF8)
            first = False
            if length:
                end = piece.find(b"\n")
                if end < 0:
                    length += len(piece)
                    continue
                length += end
                yield _Run(offset, held, _too_many(length, max_line_bytes))
                offset += length + 1
                held, length, piece = b"", 0, piece[end + 1 :]
            lines, newline, rest = piece.rpartition(b"\n")
            if newline:
                data = held + lines
                yield from _short_enough(offset, data, max_line_bytes)
                offset += len(data) + 1
                held = rest
            else:
                held += rest
            if len(held) > max_line_bytes:
                length = len(held)
                held = held[:max_line_bytes]
    except StreamBroken as broken:
        refused = str(broken)
    if length:
        yield _Run(offset, held, _too_many(length, max_line_bytes) + (f", and then {refused}" if refused else ""))
    elif refused is not None:
        yield _Run(offset, held, refused)  # a line that was cut off says something else than it should
    elif held:
        yield _Run(offset, held)


def _too_many(length: int, max_line_bytes: int) -> str:
    return f"the line has {length:,} bytes, more than {max_line_bytes:,}; the first {max_line_bytes:,} are kept"


def _short_enough(offset: int, data: bytes, max_line_bytes: int) -> Iterator[_Run]:
    """The lines of ``data`` as one run, or cut around those that are too long."""
    if len(data) <= max_line_bytes or max(map(len, data.split(b"\n"))) <= max_line_bytes:
        yield _Run(offset, data)
        return
    for line in data.split(b"\n"):
        too_long = len(line) > max_line_bytes
        yield _Run(offset, line[:max_line_bytes], _too_many(len(line), max_line_bytes) if too_long else None)
        offset += len(line) + 1


class _Reading:
    """The batch in the making, and the number of the last line."""

    def __init__(
        self,
        parse: Parse,
        limits: dict[str, int],
        earliest: datetime,
        before: datetime,
        batch_rows: int,
        lines_before: int = 0,
    ) -> None:
        self.batch = Batch()
        self._parse = parse
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

    def take_rest_of_line(self, run: _Run) -> _Run | None:
        """Set the end of a line aside whose beginning was loaded; return what follows it in the run, if anything."""
        end, newline, others = run.data.partition(b"\n")
        if end.strip(b"\r") or run.refused is not None:
            reason = "the rest of a line whose beginning was loaded before, when the file ended there"
            self.batch.rejects.append(Reject(self._number, run.offset, end, reason))
        if run.refused is not None or not newline:
            return None
        return _Run(run.offset + len(end) + 1, others)

    def finish(self) -> None:
        """Take what the format held back."""
        finish = getattr(self._parse, "finish", None)
        for record in finish() if finish is not None else ():
            try:
                self._keep(self._number, [record])
            except Refused as why:
                self.batch.rejects.append(Reject(self._number, self._end, self._whole() or b"", str(why)))

    def take_lines(self, run: _Run) -> Iterator[Batch]:
        """Parse the lines of a run; yield the batches that it fills."""
        texts, reasons = _texts(run.data)
        self._end = run.offset + len(run.data)
        start = 0
        while start < len(texts):
            stop = start + self._batch_rows - self.batch.lines
            refused = self._parse_lines(texts[start:stop], self._number + 1, reasons, start)
            if refused:
                raws = run.data.split(b"\n")
                offsets = list(accumulate((len(raw) + 1 for raw in raws), initial=run.offset))
                for index, reason, whole in refused:
                    number = self._number + 1 + index - start
                    raw = whole or raws[index].removesuffix(b"\r")
                    self.batch.rejects.append(Reject(number, offsets[index], raw, reason))
            taken = min(stop, len(texts)) - start
            self._number += taken
            self.batch.lines += taken
            start += taken
            yield from self._if_full(len(run.data) if start == len(texts) else 0)

    def _whole(self) -> bytes | None:
        """All of what the last record was made of, where a format joins lines; None if that was its line."""
        whole: str | None = getattr(self._parse, "whole", None)
        return None if whole is None else whole.encode()

    def _parse_lines(
        self, texts: list[str], number: int, reasons: dict[int, str], shift: int
    ) -> list[tuple[int, str, bytes | None]]:
        """Put the records into the batch; return the others' places in the run, with the reason and parts of each."""
        parse, earliest, before, records = self._parse, self._earliest, self._before, self.batch.records
        limits = self._limits
        short = min(limits.values())
        refused: list[tuple[int, str, bytes | None]] = []
        for line_number, text in enumerate(texts, number):
            if not text or text.isspace():
                place = line_number - number + shift
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
                    self._keep(line_number, record)
                    continue
                if not earliest <= record[0] < before:
                    raise _out_of_bounds(record[0], earliest, before)
                # No field is longer than its line, so that short lines need no look at most of them. The third is the
                # level of a log line, which has the narrowest limit.
                if len(text) > MAX_NAME or (record[2] is not None and len(record[2]) > short):
                    _check_lengths(record, limits)
            except Refused as why:
                refused.append((line_number - number + shift, str(why), self._whole()))
            else:
                records.append((line_number, record))
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
                self.batch.records.append((line_number, record))
        if complaint:
            raise Refused(f"{refused:,} of the line's {len(found):,} records were refused, {complaint}")

    def _if_full(self, more_bytes: int) -> Iterator[Batch]:
        self._bytes += more_bytes
        rows = max(self.batch.lines, len(self.batch.records))
        if rows >= self._batch_rows or self._bytes >= BATCH_BYTES:
            yield self.batch
            self.batch, self._bytes = Batch(), 0


def _texts(data: bytes) -> tuple[list[str], dict[int, str]]:
    """The lines as text, and the reasons of those that are none, by place; these are empty in the list."""
    reasons: dict[int, str] = {}
    try:
        if b"\0" in data:
            raise ValueError
        texts = data.decode().split("\n")
    except ValueError:
        texts = []
        for place, raw in enumerate(data.split(b"\n")):
            text = ""
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                reasons[place] = f"the line is not UTF-8 (byte {error.start + 1})"
            if "\0" in text:
                reasons[place] = f"the line holds a NUL byte (character {text.index(chr(0)) + 1})"
                text = ""
            texts.append(text)
    if b"\r" in data:
        texts = [text.removesuffix("\r") for text in texts]
    return texts, reasons


def _out_of_bounds(ts: datetime, earliest: datetime, before: datetime) -> Refused:
    side = f"before {earliest:%Y-%m-%d %H:%M}" if ts < earliest else f"not before {before:%Y-%m-%d %H:%M}"
    return Refused(f"the time stamp {ts:%Y-%m-%d %H:%M:%S} is out of bounds: {side}")


def _check_lengths(record: Record, limits: dict[str, int]) -> None:
    """Raises Refused for a name that is too long: cut off, it would pass for another's."""
    for name, limit in limits.items():
        value = getattr(record, name)
        if value is not None and len(value) > limit:
            raise Refused(f"the {name} has {len(value):,} characters; at most {limit} are stored")
