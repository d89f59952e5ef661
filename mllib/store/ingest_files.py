"""Which files were loaded, refused or skipped, what a file may continue, and which sources there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from mllib.store.database import transaction
from mllib.store.queries import queries


@dataclass(frozen=True, kw_only=True, slots=True)
class LogFile:
    """A file that is to be loaded, or the part of it that is new. See the comments of the table ingest_files."""

    path: str
    source: str
    format: str
    digest: str
    bytes: int
    modified_at: datetime
    etag: str | None = None
    first_line: str | None = None
    content_digest: str | None = None
    loaded_bytes: int | None = None
    waiting: bool = False
    year: int | None = None
    continues: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """An earlier load, of which a file may be the continuation."""

    first_load: int
    path: str
    source: str
    format: str
    year: int | None
    loaded_bytes: int
    last_line: int
    content_digest: str
    loaded_at: datetime

    def __str__(self) -> str:
        return f"loaded on {self.loaded_at:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What became of a file. ``skipped`` says why nothing was done, in words."""

    file_id: int | None = None
    rows: int = 0
    rejected: int = 0
    labels: int = 0
    skipped: str | None = None


def lock(conn: Connection, key: str) -> None:
    """Waits for other loads of the same file, and keeps them out until this transaction ends."""
    conn.execute(queries["intake.lock"], {"digest": key})


def earlier_loads(conn: Connection, first_line: str, path: str) -> list[Earlier]:
    """Loads of files with the same first line, the furthest first."""
    rows = conn.execute(queries["intake.earlier"], {"first_line": first_line, "path": path})
    return [Earlier(**row._mapping) for row in rows]


def seen_before(conn: Connection, file: LogFile) -> str | None:
    """Says when the same file was loaded, or why it was refused, if it was."""
    loaded = conn.execute(queries["intake.loaded"], {"digest": file.digest}).one_or_none()
    if loaded is not None:
        name = "" if loaded.path == file.path else f" as {loaded.path}"
        return f"loaded on {loaded.loaded_at:%Y-%m-%d %H:%M} UTC{name}, source {loaded.source}"
    refused = conn.execute(
        queries["intake.refused"], {"digest": file.digest, "source": file.source, "format": file.format}
    ).scalar_one_or_none()
    return f"refused before: {refused}" if refused else None


def skip(conn: Connection, file: LogFile, reason: str) -> Loaded:
    """Notes that nothing was done with a file, and why, so that it need not be read again."""
    conn.execute(queries["intake.skip_file"], {**asdict(file), "reason": reason})
    return Loaded(skipped=reason)


def refuse(engine: Engine, file: LogFile, reason: str) -> None:
    """Notes that a file was refused as a whole, and why."""
    with transaction(engine) as conn:
        conn.execute(queries["intake.refuse_file"], {**asdict(file), "reason": reason})


def paths_of_source(conn: Connection, source: str) -> set[str]:
    """Where the loaded files of a source lay."""
    return set(conn.execute(queries["intake.paths_of_source"], {"source": source}).scalars())


def free_source(conn: Connection, source: str) -> str:
    """The first name of the form ``app.2`` that no source has yet."""
    return str(conn.execute(queries["intake.free_source"], {"source": source}).scalar_one())


def known(
    engine: Engine, paths: Iterable[str], *, settled_before: datetime, with_refused: bool
) -> set[tuple[str, int, datetime, str | None]]:
    """Path, size, modification time and etag of the files that were loaded or skipped at these paths, or also refused.

    Left out are those with a last line that waits, once they have not been changed since ``settled_before``.
    """
    keys = {"paths": list(paths), "with_refused": with_refused, "settled_before": settled_before}
    with transaction(engine) as conn:
        rows = conn.execute(queries["intake.known"], keys)
        return {(row.path, row.bytes, row.modified_at, row.etag) for row in rows}


def main_reasons(engine: Engine, file_ids: Sequence[int]) -> list[tuple[str, str, int, int]]:
    """The most frequent reasons for rejects in these files: (path, reason, lines, first line)."""
    with transaction(engine) as conn:
        rows = conn.execute(queries["intake.recent_rejects"], {"files": list(file_ids)})
        return [(row.path, row.reason, row.lines, row.first_line) for row in rows]
