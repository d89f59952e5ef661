"""The bytes of a file, plain or gzip, in blocks of bounded size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from mllib.errors import BadInput

BLOCK = 256 * 1024
"""The largest block, in bytes after decompression."""

COMPRESSED_BLOCK = 16 * 1024

_GZIP = b"\x1f\x8b"
OTHER_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"BZh91AY&": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PAR1\x15": "Parquet",
}


class StreamBroken(Exception):  # noqa: N818 - it reads as what happened
    """What comes next in the file cannot or must not be read; what came before is good. The message is the reason."""


def blocks(path: Path, *, max_ratio: float, max_bytes: int) -> Iterator[bytes]:
    """Yield the file's bytes, decompressed if it starts as gzip does; no block is empty or larger than BLOCK.

    Stops a decompression bomb at ``max_bytes`` after decompression, or where what came out is more than ``max_ratio``
    times what went in (looked at from 64 MiB on, for small files may well compress better).
    Raises BadInput if the file cannot be opened or read or is packed otherwise, StreamBroken in the midst of it.
    """
    try:
        if not path.is_file():
            raise BadInput(f"There is no file {path}." if not path.exists() else f"{path} is not a file.")
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(0)
            for magic, name in OTHER_ARCHIVES.items():
                if start.startswith(magic):
                    raise BadInput(f"{path.name} is {name}; only plain text and gzip can be read. Unpack it first.")
            if not start.startswith(_GZIP):
                while block := file.read(BLOCK):
                    yield block
                return
            read = written = 0
            gunzip = _Gunzip()
            while compressed := file.read(COMPRESSED_BLOCK):
                read += len(compressed)
                for block in gunzip.feed(compressed):
                    written += len(block)
                    if written > max_bytes:
                        raise StreamBroken(f"it unpacks to more than {max_bytes:,} bytes; the rest was not read")
                    if written > max(64 * 1024 * 1024, max_ratio * read):
                        raise StreamBroken(
                            f"it unpacks to more than {max_ratio:g} times its size, as a decompression bomb does; "
                            "the rest was not read"
                        )
                    yield block
            gunzip.close()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from error


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
