"""Files into batches of records and rejects, in flat memory, whatever the bytes."""

from __future__ import annotations

import codecs
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mllib.ingest.base import Format, Parse, ParseOptions, Refused
from mllib.ingest.batches import LIMITS, Batch, Reading, Reject
from mllib.ingest.files import AnyPath
from mllib.ingest.lines import Run, joined, runs, texts_of
from mllib.ingest.stream import BLOCK, StreamBroken, blocks

__all__ = ["LIMITS", "Batch", "Part", "Reject", "head", "read", "source_name", "uncollected"]

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
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
    given = options or ParseOptions()
    parse = format.parser(given)
    columns = None if format.columns is None else format.columns(given)
    longest = max_line_bytes or format.max_line_bytes

    def runs_of(part: Part, watch: Callable[[bytes], object] | None) -> Iterator[Run]:
        pieces = blocks(path, max_ratio=max_ratio, max_bytes=max_bytes, start=part.start, stop=part.stop)
        return runs(joined(_watched(pieces, watch)), longest, part.start)

    if part.start and format.stateful:
        _remember(parse, runs_of(Part(stop=part.start), None))
    reading = Reading(parse, columns, LIMITS[format.table], earliest, before, batch_rows, part.lines_before)
    midline = part.midline
    for run in runs_of(part, watch):
        rest: Run | None = run
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
    if reading.batch.lines or reading.batch.parsed or reading.batch.rejects:
        yield reading.batch


def uncollected(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, without the collector of cycles: it looks through a million new records, none of them in a cycle,
    for a third of the time that they take. It runs between batches, when few are left."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        while (batch := next(batches, None)) is not None:
            yield batch
            del batch
            gc.collect(1)
    finally:
        if enabled:
            gc.enable()


def _watched(pieces: Iterator[bytes], watch: Callable[[bytes], object] | None) -> Iterator[bytes]:
    for piece in pieces:
        if watch is not None:
            watch(piece)
        yield piece


def _remember(parse: Parse, runs: Iterator[Run]) -> None:
    """Let the format see the lines that were loaded before, for what it keeps in mind of them."""
    for run in runs:
        if run.refused is not None:
            continue
        for text in texts_of(run.data)[0]:
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
