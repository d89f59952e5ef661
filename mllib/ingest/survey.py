"""What a file holds, by digests: how far it can be loaded, and whether it begins with what was loaded before."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mllib.errors import BadInput
from mllib.ingest.files import AnyPath, opened, shown
from mllib.ingest.reader import MAX_BYTES, MAX_RATIO, Batch
from mllib.ingest.stream import BLOCK, PACKED, StreamBroken, blocks

if TYPE_CHECKING:
    from hashlib import _Hash

MAX_FIRST_LINE = 64 * 1024
"""Of a longer first line, this much counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """The content up to an earlier load's end."""

    digest: str
    midline: bool  # whether it ends within a line
    hashed: _Hash


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """A file at one moment. Lengths are bytes of its content, after decompression."""

    digest: str  # SHA-256 of a packed file, of ``length`` bytes of a plain one
    content_digest: str  # SHA-256 of ``length`` bytes of content
    length: int  # how far it can be loaded
    stop: int | None  # where to stop reading; None for a packed file, whose end may be damaged
    end_digest: str  # SHA-256 of what is to be read, from the start
    waiting: bool  # whether a line without an end follows that is left for later
    broken: bool  # whether a packed file is damaged
    beginnings: dict[int, Beginning] = field(default_factory=dict)


def first_line(path: AnyPath) -> tuple[str, bool]:
    """The SHA-256 of a file's first line, which stays the same while the file grows, and whether it has an end.

    A packed file is complete, so its lines all have one. Raises BadInput if the file cannot be read.
    """
    start = b""
    try:
        for block in blocks(path, max_ratio=MAX_RATIO, max_bytes=MAX_BYTES):
            start += block
            if b"\n" in block or len(start) >= MAX_FIRST_LINE:
                break
    except StreamBroken:
        pass
    line, newline, _ = start[:MAX_FIRST_LINE].partition(b"\n")
    has_end = bool(newline) or len(start) >= MAX_FIRST_LINE or _is_packed(path)
    return hashlib.sha256(line.removesuffix(b"\r")).hexdigest(), has_end


def raw_digest(path: AnyPath) -> str:
    """The SHA-256 of the file's bytes as they lie there. Raises BadInput if it cannot be read."""
    hashed = hashlib.sha256()
    with opened(path) as file:
        while block := file.read(BLOCK):
            hashed.update(block)
    return hashed.hexdigest()


def survey(path: AnyPath, size: int, *, lengths: Collection[int] = (), whole: bool) -> Survey:
    """Read a file from end to end, the first ``size`` bytes of a plain one.

    ``lengths`` are the earlier loads to compare with. Unless ``whole``, a last line without an end is left for later.
    Raises BadInput if it cannot be read, or has become shorter.
    """
    packed = _is_packed(path)
    file_hash, content, broken = hashlib.sha256(), hashlib.sha256(), False
    complete = content.copy()  # up to the last line's end
    length = lines_end = 0
    beginnings: dict[int, Beginning] = {}
    asked = sorted(lengths, reverse=True)
    pieces = blocks(
        path,
        max_ratio=MAX_RATIO,
        max_bytes=MAX_BYTES,
        stop=None if packed else size,
        watch=file_hash.update if packed else None,
    )
    try:
        for piece in _cut(pieces, asked):
            end = piece.rfind(b"\n") + 1
            if end:
                content.update(piece[:end])
                complete = content.copy()
                lines_end = length + end
            content.update(piece[end:])
            length += len(piece)
            while asked and asked[-1] == length:
                beginnings[asked.pop()] = Beginning(
                    digest=content.hexdigest(), midline=not piece.endswith(b"\n"), hashed=content.copy()
                )
    except StreamBroken:
        broken = True
    if not packed and length < size:
        raise changed(path)
    waiting = not packed and not whole and lines_end < length
    whole_lines = waiting or broken
    content_digest = (complete if whole_lines else content).hexdigest()
    return Survey(
        digest=file_hash.hexdigest() if packed else content_digest,
        content_digest=content_digest,
        length=lines_end if whole_lines else length,
        stop=None if packed else lines_end if waiting else length,
        end_digest=(complete if waiting else content).hexdigest(),
        waiting=waiting,
        broken=broken,
        beginnings=beginnings,
    )


def _is_packed(path: AnyPath) -> bool:
    with opened(path) as file:
        return file.read(8).startswith(PACKED)


def changed(path: AnyPath) -> BadInput:
    """The refusal of a file that is not what it was a moment ago."""
    return BadInput(
        f"{shown(path)} was changed while it was read, none of it was loaded. Ingest it again when it is complete; a "
        "name that ends in .part keeps it out until then."
    )


def as_surveyed(path: AnyPath, batches: Iterator[Batch], hashed: hashlib._Hash, digest: str) -> Iterator[Batch]:
    """The batches, if what was read is what the survey saw: half a line may say something else. Raises BadInput."""
    yield from batches
    if hashed.hexdigest() != digest:
        raise changed(path)


def _cut(pieces: Iterator[bytes], asked: list[int]) -> Iterator[bytes]:
    """The pieces, cut at the lengths asked for, which are taken off the end of the list meanwhile."""
    at = 0
    for piece in pieces:
        while asked and at < asked[-1] < at + len(piece):
            here = asked[-1] - at
            yield piece[:here]
            piece, at = piece[here:], at + here
        yield piece
        at += len(piece)
