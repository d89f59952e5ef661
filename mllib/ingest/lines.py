"""Blocks of bytes into lines: whole ones, within bounds, as text."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import NamedTuple

from mllib.ingest.stream import BLOCK, StreamBroken


class Run(NamedTuple):
    """Whole lines, joined by newlines; or bytes that are refused before they are looked at."""

    offset: int
    data: bytes
    refused: str | None = None


def runs(pieces: Iterator[bytes], max_line_bytes: int, offset: int = 0) -> Iterator[Run]:
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
                yield Run(offset, held, _too_many(length, max_line_bytes))
                offset += length + 1
                held, length, piece = b"", 0, piece[end + 1 :]
            end = piece.rfind(b"\n")
            if end >= 0:
                data = held + piece[:end]
                yield from _short_enough(offset, data, max_line_bytes)
                offset += len(data) + 1
                held = b""
            held += piece[end + 1 :]
            if len(held) > max_line_bytes:
                length = len(held)
                held = held[:max_line_bytes]
    except StreamBroken as broken:
        refused = str(broken)
    if length:
        yield Run(offset, held, _too_many(length, max_line_bytes) + (f", and then {refused}" if refused else ""))
    elif refused is not None:
        yield Run(offset, held, refused)  # a line that was cut off says something else than it should
    elif held:
        yield Run(offset, held)


def joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, joined to BLOCK bytes or more: out of a packed file come small ones, and each run of lines costs."""
    held: list[bytes] = []
    size, refused = 0, None
    try:
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= BLOCK:
                held = [b"".join(held)]
                yield held.pop()
                size = 0
    except StreamBroken as broken:
        refused = broken
    if held:
        yield b"".join(held)
    if refused is not None:
        raise refused


def _too_many(length: int, max_line_bytes: int) -> str:
    return f"the line has {length:,} bytes, more than {max_line_bytes:,}; the first {max_line_bytes:,} are kept"


def _short_enough(offset: int, data: bytes, max_line_bytes: int) -> Iterator[Run]:
    """The lines of ``data`` as one run, or cut around those that are too long."""
    # A longer line covers a whole piece of half that size: one without a line end.
    half = max(1, max_line_bytes // 2)
    pieces = range(0, len(data) - half + 1, half)
    if len(data) <= max_line_bytes or all(data.find(b"\n", at, at + half) >= 0 for at in pieces):
        yield Run(offset, data)
        return
    begin = at = 0
    for line in data.split(b"\n"):
        if len(line) > max_line_bytes:
            if at > begin:
                yield Run(offset + begin, data[begin : at - 1])
            yield Run(offset + at, line[:max_line_bytes], _too_many(len(line), max_line_bytes))
            begin = at + len(line) + 1
        at += len(line) + 1
    if begin <= len(data):
        yield Run(offset + begin, data[begin:])


def texts_of(data: bytes) -> tuple[list[str], dict[int, str]]:
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
