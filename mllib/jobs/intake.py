"""Ingest: files into the table of logs, and verdicts under the rows that they name."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from mllib.errors import BadInput
from mllib.ingest import detect, formats
from mllib.ingest.base import Format, ParseOptions
from mllib.ingest.reader import digest, read, source_name
from mllib.store import intake, labels
from mllib.store.database import transaction

log = logging.getLogger(__name__)

AUTO = "auto"
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
    ``ingest_rejects``. Raises BadInput for a path or format that does not exist, and for a file that was refused.
    """
    started = time.monotonic()
    report = IngestReport()
    loaded: list[int] = []
    for path in _files(paths):
        result = ingest_file(
            engine, path, format_name=format_name, source=source, with_labels=with_labels, options=options
        )
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
    """Loads one file; see `ingest`."""
    file_format = _format(path, format_name)
    file = intake.LogFile(
        path=str(path.resolve()),
        source=source or source_name(path),
        format=file_format.name,
        digest=digest(path),
        bytes=path.stat().st_size,
        modified_at=_modified(path),
    )
    result = intake.load(
        engine, file, read(path, file_format, options=options or ParseOptions()), with_labels=with_labels
    )
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


def landed(folder: Path, pattern: str = "*") -> list[Path]:
    """The files of a landing folder that are there to be loaded, oldest name first.

    Left out: what is no plain file (a link could point anywhere), what is hidden, and what is still being written, as
    its writer shows by the suffix .part, .tmp or .swp. Raises BadInput when the pattern reaches out of the folder.
    """
    if "/" in pattern or ".." in pattern:
        raise BadInput(f"{pattern!r} reaches out of the landing folder; give a file name or a pattern such as '*.log'.")
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.is_file()
        and not path.is_symlink()
        and not path.name.startswith(".")
        and not path.name.endswith(_UNFINISHED)
    )


def pending(engine: Engine, folder: Path, pattern: str = "*") -> list[Path]:
    """The files of a landing folder that changed since they were loaded or refused, or never were; see `landed`."""
    files = landed(folder, pattern)
    known = intake.known(engine, [str(path.resolve()) for path in files])
    return [path for path in files if (str(path.resolve()), path.stat().st_size, _modified(path)) not in known]


def label(engine: Engine, path: Path, *, source: str | None = None, by: str) -> int:
    """Files the verdicts of a CSV file with the columns [source,]id,label[,note]; id is the line's id in its source.

    Returns how many there were. Raises BadInput, and files none, when the columns are others or a row is not found.
    """
    with transaction(engine) as conn:
        staged = labels.stage(conn, _verdicts(path, source))
        missing, examples = labels.unmatched(conn)
        if missing:
            raise BadInput(
                f"{missing:,} of {staged:,} labels in {path.name} name no row, such as {', '.join(examples)}; none was "
                "filed. Is the source right (--source NAME), and are the logs ingested?"
            )
        return labels.apply_staged(conn, origin="import", labelled_by=by)


def _verdicts(path: Path, source: str | None) -> Iterator[labels.StagedLabel]:
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        columns = set(rows.fieldnames or ())
        if not {"id", "label"} <= columns or not columns <= {"source", "id", "label", "note"}:
            raise BadInput(
                f"{path.name} has the columns {', '.join(rows.fieldnames or ()) or '(none)'}; "
                "a label file has [source,]id,label[,note]."
            )
        for number, row in enumerate(rows, start=2):
            of = row.get("source") or source
            if of is None:
                raise BadInput(f"{path.name} has no column source, so say whose labels they are with --source NAME.")
            if not row["id"] or not row["label"]:
                raise BadInput(f"{path.name}, line {number}: id or label is empty.")
            yield labels.StagedLabel(source=of, source_id=row["id"], label=row["label"], note=row.get("note") or None)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from landed(path)
        elif path.is_file():
            yield path
        else:
            raise BadInput(f"There is no file or folder {path}.")


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _format(path: Path, name: str) -> Format:
    if name == AUTO:
        return detect(path)
    known = formats()
    if name not in known:
        raise BadInput(f"There is no format {name!r}. Known: {', '.join(sorted(known))}, or {AUTO}.")
    return known[name]
