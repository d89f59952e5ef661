"""Ingest: files into the tables of rows, each in one transaction, and on from where they ended when they grow."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import Engine

from mllib import sources
from mllib.errors import BadInput
from mllib.ingest import detect, format_named
from mllib.ingest.base import FileRefused, ParseOptions
from mllib.ingest.files import AnyPath, shown, state, text_of, unrotated
from mllib.ingest.reader import Part, read, source_name, uncollected
from mllib.ingest.survey import Survey, as_surveyed, first_line, raw_digest, survey
from mllib.jobs.landing import landed, settled_before
from mllib.store import ingest_files, intake
from mllib.store.database import transaction

log = logging.getLogger(__name__)

AUTO = "auto"


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
    paths: Sequence[AnyPath],
    *,
    format_name: str = AUTO,
    source: str | None = None,
    with_labels: bool = False,
    options: ParseOptions | None = None,
) -> IngestReport:
    """Loads files; of a folder, the files in it. Each file is one transaction, so a crash leaves whole files only.

    Of a file that was loaded before and has grown, what has been added is loaded.
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
            for path, reason, lines, first in ingest_files.main_reasons(engine, loaded)
        ]
    if refusals:
        others = f" The other {report.files} files were loaded." if report.files else ""
        raise BadInput(" ".join(refusals) + others)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def ingest_file(
    engine: Engine,
    path: AnyPath,
    *,
    format_name: str = AUTO,
    source: str | None = None,
    with_labels: bool = False,
    options: ParseOptions | None = None,
    whole: bool = True,
    rotating: bool = False,
) -> ingest_files.Loaded:
    """Loads one file, or what has been added to it since it was loaded, whatever it was called then; see `ingest`.

    A file that is refused is noted, so that it is not looked at again unasked. Unless ``whole``, a last line without an
    end waits until the file has not been changed for SETTLED. With ``rotating``, a new log that took the place of an
    older one (app.log beside app.log.1) gets a source of its own, such as ``app.2``, if they cannot share one.
    """
    given = options or ParseOptions()
    seen = state(path)
    file = ingest_files.LogFile(
        path=text_of(path),
        source=source or source_name(path),
        format=format_name,
        digest="",  # known once the file has been read
        bytes=seen.bytes,
        modified_at=seen.modified_at,
        etag=seen.etag,
        year=given.year,
    )
    whole = whole or seen.modified_at < settled_before()
    try:
        beginning, has_end = first_line(path)
    except BadInput as refusal:
        ingest_files.refuse(engine, replace(file, digest=raw_digest(path)), str(refusal))
        raise
    file = replace(file, first_line=beginning)
    load = partial(_load, engine, path, options=given, format_name=format_name, with_labels=with_labels, whole=whole)
    try:
        if not seen.bytes or not (has_end or whole):
            result = _passed_over(
                engine, path, file, "it is empty" if not seen.bytes else "its first line has no end yet"
            )
        else:
            result = load(file, source=source)
    except _Refusal as refusal:
        renamed = None
        if refusal.by_line and rotating and source is None and refusal.file.continues is None:
            renamed = _source_of_its_own(engine, file)
        try:
            if renamed is None:
                raise
            result = load(replace(file, source=renamed), source=None)
        except _Refusal as final:
            ingest_files.refuse(engine, final.file, final.reason)
            raise BadInput(str(final)) from None
    if result.skipped:
        log.info("%s: skipped, %s.", shown(path), result.skipped)
    else:
        log.info(
            "%s: %s rows, %s rejected, %s labels.",
            shown(path),
            f"{result.rows:,}",
            f"{result.rejected:,}",
            f"{result.labels:,}",
        )
    return result


class _Refusal(Exception):  # noqa: N818 - it reads as what happened
    """A file that is refused as a whole, as far as it is known by then, and why."""

    def __init__(self, file: ingest_files.LogFile, complaint: str, reason: str, *, by_line: bool = False) -> None:
        super().__init__(complaint)
        self.file = file
        self.reason = reason
        self.by_line = by_line


def _source_of_its_own(engine: Engine, file: ingest_files.LogFile) -> str | None:
    """The source of a new log among the rotated files of an older one; None if it is no such log."""
    with transaction(engine) as conn:
        others = ingest_files.paths_of_source(conn, file.source)
        if unrotated(file.path) not in map(unrotated, others):
            return None
        return ingest_files.free_source(conn, file.source)


def _passed_over(engine: Engine, path: AnyPath, file: ingest_files.LogFile, reason: str) -> ingest_files.Loaded:
    with transaction(engine) as conn:
        return ingest_files.skip(conn, replace(file, digest=raw_digest(path), waiting=bool(file.bytes)), reason)


def _load(
    engine: Engine,
    path: AnyPath,
    file: ingest_files.LogFile,
    *,
    options: ParseOptions,
    format_name: str,
    with_labels: bool,
    whole: bool,
    source: str | None,
) -> ingest_files.Loaded:
    """The transaction that loads a file. Raises _Refusal when another file has its ids, BadInput when it changes."""
    with transaction(engine) as conn:
        # All states of a growing file have the first line in common, so its loads follow one another.
        ingest_files.lock(conn, file.first_line or file.path)
        loads = ingest_files.earlier_loads(conn, file.first_line or "", file.path)
        found = survey(path, file.bytes, lengths={load.loaded_bytes for load in loads}, whole=whole)
        file = replace(
            file,
            digest=found.digest,
            content_digest=found.content_digest,
            loaded_bytes=found.length,
            waiting=found.waiting,
        )
        # The longest earlier load that the file begins with.
        earlier = next((load for load in loads if _begins_with(found, load)), None)
        if earlier is not None and (earlier.loaded_bytes >= found.length and not found.broken):
            name = "" if earlier.path == file.path else f" as {earlier.path}"
            return ingest_files.skip(conn, file, f"{earlier}{name}, source {earlier.source}")
        if source is not None and earlier is not None and source != earlier.source:
            earlier = None  # somebody wants these lines under another name as well
        if earlier is not None:
            file = replace(file, source=earlier.source, continues=earlier.first_load, year=earlier.year or options.year)
            options = replace(options, year=file.year)
            format_name = earlier.format if format_name == AUTO else format_name
        try:
            file_format = detect(path) if format_name == AUTO else format_named(format_name)
        except BadInput as unknown:
            raise _Refusal(file, str(unknown), str(unknown)) from None
        file = replace(file, format=file_format.name)
        seen = ingest_files.seen_before(conn, file)
        if seen is not None:
            return ingest_files.skip(conn, file, seen)
        part, hashed = Part(stop=found.stop), hashlib.sha256()
        if earlier is not None:
            before = found.beginnings[earlier.loaded_bytes]
            hashed = before.hashed.copy()
            part = Part(
                start=earlier.loaded_bytes,
                stop=found.stop,
                lines_before=earlier.last_line,
                midline=before.midline,
            )
        batches = read(path, file_format, options=options, part=part, watch=hashed.update)
        try:
            return intake.load(
                engine,
                conn,
                file,
                as_surveyed(path, uncollected(batches), hashed, found.end_digest),
                into=sources.table(file_format.table),
                # The line in which a damaged file breaks off is a reject, and may be read in full later.
                lines_before=part.lines_before - int(found.broken),
                with_labels=with_labels,
            )
        except FileRefused as unfit:
            complaint = f"{file.path} was refused, none of it was loaded: {unfit}"
            raise _Refusal(file, complaint, str(unfit)) from None
        except intake.Overlap as overlap:
            reason = (
                f"Source {file.source!r} has such lines already: {overlap}. "
                "Give this file a source of its own with --source NAME."
            )
            complaint = f"{file.path} was refused, none of it was loaded. {reason}"
            raise _Refusal(file, complaint, reason, by_line=overlap.by_line) from None


def _begins_with(found: Survey, load: ingest_files.Earlier) -> bool:
    beginning = found.beginnings.get(load.loaded_bytes)
    return beginning is not None and beginning.digest == load.content_digest


def _files(paths: Sequence[AnyPath]) -> Iterator[AnyPath]:
    for path in paths:
        if path.is_dir():
            yield from landed(path)
        elif path.is_file():
            yield path
        else:
            raise BadInput(f"There is no file or folder {shown(path)}.")
