"""Files to read, wherever they lie: on this machine, or anywhere that a path object of fsspec's kind can reach."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from mllib.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AnyPath(Protocol):
    """What a path has to know: ``pathlib.Path`` does, ``upath.UPath``, and Airflow's ``ObjectStoragePath``."""

    @property
    def name(self) -> str: ...
    def open(self, mode: Literal["rb"]) -> IO[bytes]: ...
    def stat(self) -> Any: ...
    def exists(self) -> bool: ...
    def is_file(self) -> bool: ...
    def is_dir(self) -> bool: ...
    def iterdir(self) -> Iterable[Any]: ...
    def __truediv__(self, name: str) -> Any: ...


class State(NamedTuple):
    """While these stay the same, so does the file."""

    bytes: int
    modified_at: datetime  # 1970 where the store does not say
    etag: str | None  # an object store's own mark


def state(path: AnyPath) -> State:
    """Size and time of the last change. Raises BadInput if the file is not there."""
    with _readable(path):
        found = path.stat()
        info = found if isinstance(found, dict) else getattr(found, "info", None) or {}
        modified: object = found.st_mtime
        if not modified:  # object stores name it as they like
            modified = next((info[key] for key in ("LastModified", "last_modified", "created") if key in info), 0)
        if isinstance(modified, int | float):
            modified = datetime.fromtimestamp(modified, UTC)
        etag = info.get("ETag") or info.get("etag")
        return State(
            int(found.st_size),
            modified.astimezone(UTC) if isinstance(modified, datetime) and modified.tzinfo else EPOCH,
            None if etag is None else str(etag),
        )


@contextmanager
def opened(path: AnyPath) -> Iterator[IO[bytes]]:
    """The file, open for reading bytes. Raises BadInput if it cannot be opened or read or is no plain file."""
    with _readable(path):
        if not path.is_file():
            raise BadInput(f"There is no file {shown(path)}." if not path.exists() else f"{shown(path)} is not a file.")
        with _open(path) as file:
            yield file


def text_of(path: AnyPath) -> str:
    """The full path or URI, fit to be stored: a name on disk may hold bytes that are no text, or a NUL."""
    if isinstance(path, Path):
        return os.fsencode(path.resolve()).decode("utf-8", "backslashreplace")
    return str(path).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def unrotated(path: str) -> str:
    """The path that a log had before it was rotated: ``app.log`` for ``app.log.1`` and ``app.log.2.gz``."""
    return re.sub(r"(?:\.\d{1,8}|-\d{8,14})?(?:\.gz|\.zst)?\Z", "", path, count=1)


def shown(path: AnyPath) -> str:
    """The path for a message, on one line."""
    return "".join(char if char.isprintable() else "?" for char in str(path))


def _open(path: AnyPath) -> IO[bytes]:
    if not isinstance(path, Path):
        return path.open("rb")
    # Should a pipe have taken the file's place, opening it must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadInput(f"{shown(path)} is not a file.")
    return os.fdopen(descriptor, "rb")


@contextmanager
def _readable(path: AnyPath) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"{shown(path)} cannot be read: {error.strerror or error}.") from error
