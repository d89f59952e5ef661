"""The bytes of a file, plain or unpacked, in blocks of bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol

import zstandard

from mllib.errors import BadInput
from mllib.ingest.files import AnyPath, opened, shown

BLOCK = 1024 * 1024
"""The largest block, in bytes after decompression."""

COMPRESSED_BLOCK = 16 * 1024
ZSTD_BLOCK = 1024
"""Small, because Zstandard unpacks all that it is given: four bytes can become 128 KiB."""
ZSTD_WINDOW = 128 * 1024 * 1024
"""The largest window, what ``zstd --long`` and ``--ultra -22`` use; a frame that asks for more memory is refused."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED = tuple(bytes((number,)) + b"\x2a\x4d\x18" for number in range(0x50, 0x60))
OTHER_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"BZh91AY&": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PAR1\x15": "Parquet",
}
PACKED = (_GZIP, _ZSTD, *_ZSTD_SKIPPED)


class StreamBroken(Exception):  # noqa: N818 - it reads as what happened
    """What comes next in the file cannot or must not be read; what came before is good. The message is the reason."""


class _Unpack(Protocol):
    def feed(self, compressed: bytes) -> Iterator[bytes]: ...
    def close(self) -> None: ...


def blocks(
    path: AnyPath,
    *,
    max_ratio: float,
    max_bytes: int,
    start: int = 0,
    stop: int | None = None,
    watch: Callable[[bytes], object] | None = None,
) -> Iterator[bytes]:
    """Yield the file's bytes, unpacked if it starts as gzip or Zstandard does; no block is empty or larger than BLOCK.

    ``start`` and ``stop`` count bytes of the content, after decompression. ``watch`` is shown every block as it lies in
    the file, from ``start`` on where it is plain.
    Stops a decompression bomb at ``max_bytes`` after decompression, or where what came out is more than ``max_ratio``
    times what went in (looked at from 64 MiB on, for small files may well compress better).
    Raises BadInput if the file cannot be opened or read or is packed otherwise, StreamBroken in the midst of it.
    """
    with opened(path) as file:
        magic = file.read(8)
        for other, name in OTHER_ARCHIVES.items():
            if magic.startswith(other):
                raise BadInput(
                    f"{shown(path)} is {name}; only plain text, gzip and Zstandard can be read. Unpack it first."
                )
        if magic.startswith(PACKED):
            file.seek(0)
            yield from _between(_unpacked(file, magic, max_ratio, max_bytes, watch), start, stop)
            return
        file.seek(start)
        left = None if stop is None else stop - start
        while block := file.read(BLOCK if left is None else min(BLOCK, left)):
            if left is not None:
                left -= len(block)
            if watch is not None:
                watch(block)
            yield block


def _unpacked(
    file: IO[bytes], magic: bytes, max_ratio: float, max_bytes: int, watch: Callable[[bytes], object] | None
) -> Iterator[bytes]:
    gzip = magic.startswith(_GZIP)
    unpack: _Unpack = _Gunzip() if gzip else _Unzstd()
    read = written = 0
    while compressed := file.read(COMPRESSED_BLOCK if gzip else ZSTD_BLOCK):
        read += len(compressed)
        if watch is not None:
            watch(compressed)
        for block in unpack.feed(compressed):
            written += len(block)
            if written > max_bytes:
                raise StreamBroken(f"it unpacks to more than {max_bytes:,} bytes; the rest was not read")
            if written > max(64 * 1024 * 1024, max_ratio * read):
                raise StreamBroken(
                    f"it unpacks to more than {max_ratio:g} times its size, as a decompression bomb does; "
                    "the rest was not read"
                )
            yield block
    unpack.close()


def _between(pieces: Iterator[bytes], start: int, stop: int | None) -> Iterator[bytes]:
    at = 0
    for piece in pieces:
        part = piece[max(0, start - at) : None if stop is None else max(0, stop - at)]
        at += len(piece)
        if part:
            yield part
        if stop is not None and at >= stop:
            return


class _Gunzip:
    """Decompression that gives out every good byte before it raises StreamBroken."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._members_done = 0

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        while compressed:
            if self._member.eof:
                compressed = compressed.lstrip(b"\0") if self._members_done else compressed  # padding after a member
                if not compressed:
                    return
                self._member = zlib.decompressobj(wbits=31)
            before = self._member.copy()
            try:
                out = self._member.decompress(compressed, BLOCK)
            except zlib.error:
                yield from self._until_it_breaks(before, compressed)
                return
            if out:
                yield out
            if self._member.eof:
                self._members_done += 1
                compressed = self._member.unused_data
            else:
                compressed = self._member.unconsumed_tail
                if not compressed and not out:
                    return

    def _until_it_breaks(self, member: zlib._Decompress, compressed: bytes) -> Iterator[bytes]:
        """zlib keeps back what it unpacked in the call that fails: go byte by byte up to there."""
        out = bytearray()
        try:
            for value in compressed:
                out += member.decompress(bytes((value,)))
                if len(out) >= BLOCK // 2:
                    yield bytes(out)
                    out.clear()
        except zlib.error as error:
            if out:
                yield bytes(out)
            reason = "other bytes follow" if self._members_done and not out else "the gzip data are damaged"
            raise StreamBroken(f"{reason} ({error}); the rest was not read") from None

    def close(self) -> None:
        """Raises StreamBroken if the last member has no end."""
        if not self._member.eof:
            raise StreamBroken("the gzip data end too early; the file was cut off or is still being written")


class _Unzstd:
    """The same for the frames of Zstandard. Of the piece in which the damage lies, nothing is given out."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame = self._decompressor.decompressobj()
        self._frames_done = 0

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        while compressed:
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            try:
                out = self._frame.decompress(compressed)
            except zstandard.ZstdError as error:
                reason = "other bytes follow" if self._frames_done else "the Zstandard data are damaged"
                raise StreamBroken(f"{reason} ({error}); the rest was not read") from None
            for at in range(0, len(out), BLOCK):
                yield out[at : at + BLOCK]
            if not self._frame.eof:
                return
            self._frames_done += 1
            compressed = self._frame.unused_data

    def close(self) -> None:
        """Raises StreamBroken if the last frame has no end."""
        if not self._frame.eof:
            raise StreamBroken("the Zstandard data end too early; the file was cut off or is still being written")
