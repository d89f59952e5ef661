"""The landing folder: which of its files may be loaded, and which are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.ingest.files import AnyPath, shown, state, text_of
from mllib.store import ingest_files

EVERYTHING = "*"
SETTLED = timedelta(minutes=1)
"""A file that has not been changed for so long is taken to end where it ends."""

_UNFINISHED = (".part", ".tmp", ".swp")


def landed(folder: AnyPath, pattern: str = EVERYTHING) -> list[Any]:
    """The files of a landing folder that are there to be loaded, by name.

    Left out: what is no plain file (a link could point anywhere), what is hidden, and what is still being written, as
    its writer shows by the suffix .part, .tmp or .swp. Raises BadInput when the pattern reaches out of the folder.
    """
    if "/" in pattern or ".." in pattern or "\0" in pattern:
        raise BadInput(f"{pattern!r} reaches out of the landing folder; give a file name or a pattern such as '*.log'.")
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if fnmatchcase(path.name, pattern) and _may_be_loaded(path)]
    return sorted(found, key=lambda path: str(path.name))


def landed_file(folder: AnyPath, name: str) -> Any:
    """The file of that name in a landing folder. Raises BadInput if it is not, or no longer, one that may be loaded."""
    if name and "/" not in name and "\0" not in name and _may_be_loaded(path := folder / name):
        return path
    raise BadInput(f"There is no file {name!r} to be loaded in {shown(folder)}.")


def _may_be_loaded(path: Any) -> bool:
    name = path.name
    passed_over = name.startswith(".") or name.endswith(_UNFINISHED)
    return not passed_over and not path.is_symlink() and bool(path.is_file())


def pending(engine: Engine, folder: AnyPath, pattern: str = EVERYTHING) -> list[Any]:
    """The files of a landing folder that changed since they were loaded or refused, or never were; see `landed`.

    A pattern of one's own, such as a file's name, also brings back what was refused: somebody wants it tried again.
    """
    files = landed(folder, pattern)
    known = ingest_files.known(
        engine,
        [text_of(path) for path in files],
        settled_before=settled_before() if pattern == EVERYTHING else datetime.now(UTC),
        with_refused=pattern == EVERYTHING,
    )
    return [path for path in files if (text_of(path), *state(path)) not in known]


def settled_before() -> datetime:
    """A file that was last changed before this time is taken to end where it ends."""
    return datetime.now(UTC) - SETTLED
