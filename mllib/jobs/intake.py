"""Ingest: files into the table of logs, and verdicts under the rows that they name."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.ingest import detect, format_named
from mllib.ingest.base import ParseOptions
from mllib.ingest.reader import Batch, digest, read, source_name
from mllib.store import intake, labels
from mllib.store.database import transaction

log = logging.getLogger(__name__)

AUTO = "auto"
EVERYTHING = "*"
_UNFINISHED = (".part", ".tmp", ".swp")


@dataclass(kw_only=True, slots=True)
class IngestReport:
    """What an ingest did, in all. ``skipped`` maps a path to why nothing was done with it."""

    files: int = 0
    rows: int = 0
    rejected: int = 0
    labels: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    main_rejects: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def ingest(
    engine: Engine,
    paths: Sequence[Path],
    *,
    format_name: str = AUTO,
    source: str | None = None,
    with_labels: bool = False,
    options: ParseOptions | None = None,
) -> IngestReport:
    """Loads files; of a folder, the files in it. Each file is one transaction, so a crash leaves whole files only.

    Without ``source`` each file's name without suffixes is its source. Lines that cannot be read go to
    ``ingest_rejects``. Raises BadInput for a path or format that does not exist, before anything is loaded, and for
    files that were refused, after the others were loaded.
    """
    started = time.monotonic()
    if format_name != AUTO:
        format_named(format_name)
    report = IngestReport()
    loaded: list[int] = []
    refusals: list[str] = []
    for path in list(_files(paths)):
        try:
            result = ingest_file(
                engine, path, format_name=format_name, source=source, with_labels=with_labels, options=options
            )
        except BadInput as refusal:
            refusals.append(str(refusal))
            continue
        if result.skipped:
            report.skipped[str(path)] = result.skipped
            continue
        report.files += 1
        report.rows += result.rows
        report.rejected += result.rejected
        report.labels += result.labels
        if result.file_id is not None:
            loaded.append(result.file_id)
    if report.rejected:
        report.main_rejects = [
            f"{path}: {lines:,} lines, first {first:,}: {reason}"
            for path, reason, lines, first in intake.main_reasons(engine, loaded)
        ]
    if refusals:
        others = f" The other {report.files} files were loaded." if report.files else ""
        raise BadInput(" ".join(refusals) + others)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def ingest_file(
    engine: Engine,
    path: Path,
    *,
    format_name: str = AUTO,
    source: str | None = None,
    with_labels: bool = False,
    options: ParseOptions | None = None,
) -> intake.Loaded:
    """Loads one file; see `ingest`. A file that is refused is noted, so that it is not looked at again unasked."""
    size, modified = _state(path)
    file = intake.LogFile(
        path=_text(path),
        source=source or source_name(path),
        format=format_name,
        digest=digest(path),
        bytes=size,
        modified_at=modified,
    )
    try:
        file_format = detect(path) if format_name == AUTO else format_named(format_name)
    except BadInput as refusal:
        intake.refuse(engine, file, str(refusal))
        raise
    file = replace(file, format=file_format.name)
    batches = read(path, file_format, options=options or ParseOptions())
    result = intake.load(engine, file, _while_unchanged(path, (size, modified), batches), with_labels=with_labels)
    if result.skipped:
        log.info("%s: skipped, %s.", path.name, result.skipped)
    else:
        log.info(
            "%s: %s rows, %s rejected, %s labels.",
            path.name,
            f"{result.rows:,}",
            f"{result.rejected:,}",
            f"{result.labels:,}",
        )
    return result


def landed(folder: Path, pattern: str = EVERYTHING) -> list[Path]:
    """The files of a landing folder that are there to be loaded, oldest name first.

    Left out: what is no plain file (a link could point anywhere), what is hidden, and what is still being written, as
    its writer shows by the suffix .part, .tmp or .swp. Raises BadInput when the pattern reaches out of the folder.
    """
    if "/" in pattern or ".." in pattern or "\0" in pattern:
        raise BadInput(f"{pattern!r} reaches out of the landing folder; give a file name or a pattern such as '*.log'.")
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if fnmatchcase(path.name, pattern)
        and path.is_file()
        and not path.is_symlink()
        and not path.name.startswith(".")
        and not path.name.endswith(_UNFINISHED)
    )


def pending(engine: Engine, folder: Path, pattern: str = EVERYTHING) -> list[Path]:
    """The files of a landing folder that changed since they were loaded or refused, or never were; see `landed`.

    A pattern of one's own, such as a file's name, also brings back what was refused: somebody wants it tried again.
    """
    files = landed(folder, pattern)
    known = intake.known(engine, [_text(path) for path in files], with_refused=pattern == EVERYTHING)
    return [path for path in files if (_text(path), *_state(path)) not in known]


def label(engine: Engine, path: Path, *, source: str | None = None, by: str) -> int:
    """Files the verdicts of a CSV file with the columns [source,]id,label[,note]; id is the line's id in its source.

    Returns how many there were. Raises BadInput, and files none, when the columns are others or a row is not found.
    """
    with transaction(engine) as conn:
        staged = labels.stage(conn, _verdicts(path, source))
        missing, ambiguous = labels.misnamed(conn)
        if missing.verdicts:
            raise BadInput(
                f"{missing.verdicts:,} of {staged:,} labels in {path.name} name no row, such as "
                f"{', '.join(missing.examples)}; none was filed. Is the source right (--source NAME), and are the logs "
                "ingested?"
            )
        if ambiguous.verdicts:
            raise BadInput(
                f"{ambiguous.verdicts:,} of {staged:,} labels in {path.name} name more than one row, such as "
                f"{', '.join(ambiguous.examples)}; none was filed. An id has to be unique within its source."
            )
        return labels.apply_staged(conn, origin="import", labelled_by=by)


def _verdicts(path: Path, source: str | None) -> Iterator[labels.StagedLabel]:
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            yield from _read_verdicts(path, csv.DictReader(lines), source)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path.name} is no CSV file in UTF-8 that can be read: {error}.") from None


def _read_verdicts(path: Path, rows: csv.DictReader[str], source: str | None) -> Iterator[labels.StagedLabel]:
    columns = rows.fieldnames or ()
    if not {"id", "label"} <= set(columns) <= {"source", "id", "label", "note"}:
        raise BadInput(
            f"{path.name} has the columns {', '.join(columns) or '(none)'}; a label file has [source,]id,label[,note]."
        )
    for row in rows:
        line = f"{path.name}, line {rows.line_num}"
        if None in row or any(value is not None and "\0" in value for value in row.values()):
            raise BadInput(f"{line}: there are more cells than columns, or a NUL byte.")
        of, label = row.get("source") or source, (row["label"] or "").strip()
        if of is None:
            raise BadInput(f"{line} names no source, so say whose labels they are with --source NAME.")
        if not row["id"] or not label:
            raise BadInput(f"{line}: id or label is empty.")
        yield labels.StagedLabel(source=of, source_id=row["id"], label=label, note=row.get("note") or None)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from landed(path)
        elif path.is_file():
            yield path
        else:
            raise BadInput(f"There is no file or folder {path}.")


def _state(path: Path) -> tuple[int, datetime]:
    """Size and time of the last change: while they stay the same, so does the file."""
    try:
        found = path.stat()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from error
    return found.st_size, datetime.fromtimestamp(found.st_mtime, UTC)


def _while_unchanged(path: Path, before: tuple[int, datetime], batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, if the file is at the end what it was at the start: half a line may say something else."""
    yield from batches
    if _state(path) != before:
        raise BadInput(
            f"{path} was changed while it was read, none of it was loaded. Ingest it again when it is complete; a name "
            "that ends in .part keeps it out until then."
        )


def _text(path: Path) -> str:
    """The full path, fit to be stored: a name on disk may hold bytes that are no text."""
    return os.fsencode(path.resolve()).decode("utf-8", "backslashreplace")
