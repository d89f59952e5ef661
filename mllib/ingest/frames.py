"""Whole files as one frame of a source, in memory, for use without a database. Values are those that would be stored.

The frame has the columns of the source, sorted by (ts, log_id), all rows claimed, and ``file``, ``source_id``,
``trace_id`` and ``label`` (String) beside them. Ids count the rows in the order of the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from mllib.errors import BadInput
from mllib.ingest import detect, format_named
from mllib.ingest.base import FileRefused, FlowRecord, LogRecord, ParseOptions, Record, RunRecord
from mllib.ingest.files import AnyPath, shown
from mllib.ingest.reader import read, source_name
from mllib.ingest.survey import raw_digest
from mllib.sources import Source

START = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of the first row where a format has no times: always the same, so that figures can be repeated."""

BESIDE = {"file": pl.String, "source_id": pl.String, "trace_id": pl.String, "label": pl.String}


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRead:
    """A file that was read."""

    name: str
    sha256: str
    format: str
    rows: int
    labelled: int
    """Rows with a label inside the file."""
    rejected: int
    reason: str | None
    """Why the first reject is one."""


def read_files(
    paths: Sequence[AnyPath], source: Source, *, format_name: str | None = None, options: ParseOptions | None = None
) -> tuple[pl.DataFrame, list[FileRead]]:
    """The rows of all files, and what was read of each. Lines that cannot be read are left out and counted.

    Without ``format_name`` the format of each file is found by its first lines. The rows of a file without times follow
    those of the file before it. Raises BadInput for a file that is missing, unreadable, in an unknown format, with
    rows of another source, or without any row that could be read.
    """
    frames: list[pl.DataFrame] = []
    files = []
    given, start, first_id = options or ParseOptions(), START, 1
    for path in paths:
        format = detect(path) if format_name is None else format_named(format_name)
        if format.table != source.table.name:
            raise BadInput(
                f"{shown(path)} in the format {format.name} holds rows of {format.table}, "
                f"and what is asked for are rows of {source.table.name}."
            )
        records: list[tuple[int, Record]] = []
        rejected, reason = 0, None
        try:
            for batch in read(path, format, options=replace(given, start=given.start or start)):
                records += batch.records
                rejected += len(batch.rejects)
                reason = reason or next((f"line {r.line_number}: {r.reason}" for r in batch.rejects), None)
        except FileRefused as unfit:
            raise BadInput(f"{shown(path)} is not in the format {format.name}: {unfit}") from None
        if not records:
            raise BadInput(
                f"{shown(path)} holds no row that can be read as {format.name}" + (f" ({reason})." if reason else ".")
            )
        frame = _frame(records, source, name=source_name(path), first_id=first_id, path=path)
        files.append(
            FileRead(
                name=path.name,
                sha256=raw_digest(path),
                format=format.name,
                rows=frame.height,
                labelled=frame.height - frame["label"].null_count(),
                rejected=rejected,
                reason=reason,
            )
        )
        frames.append(frame)
        first_id += frame.height
        start = max(start, records[-1][1].ts + timedelta(seconds=1))
    return pl.concat(frames).sort("ts", "log_id"), files


def _frame(
    records: Sequence[tuple[int, Record]], source: Source, *, name: str, first_id: int, path: AnyPath
) -> pl.DataFrame:
    for line_number, record in records:
        if isinstance(record, FlowRecord) and record.form != source.form:
            raise BadInput(
                f"Line {line_number} of {shown(path)} is a flow of the form {record.form}, not {source.form}."
            )
    told = [_values(record) for _, record in records]
    schema = {key: kind for key, kind in source.schema.items() if key not in ("log_id", "ts", "claimed")}
    columns: dict[str, Any] = {
        "log_id": pl.int_range(first_id, first_id + len(records), dtype=pl.Int64, eager=True),
        "ts": pl.Series([record.ts for _, record in records]).cast(source.schema["ts"]),
        **{key: pl.Series([values.get(key) for values in told], dtype=kind) for key, kind in schema.items()},
        "claimed": True,
        "file": name,
        "source_id": [record.source_id or str(line_number) for line_number, record in records],
        "trace_id": pl.Series([getattr(record, "trace_id", None) for _, record in records], dtype=pl.String),
        "label": pl.Series([record.label for _, record in records], dtype=pl.String),
    }
    frame = pl.DataFrame(columns).select(*source.schema, *BESIDE)
    # As in the database: a text that is empty is missing, and a response time is a four-byte number.
    empty = [column.name for column in source.columns if column.kind == "text" and not column.never_null]
    frame = frame.with_columns(pl.when(pl.col(key) != "").then(pl.col(key)).alias(key) for key in empty)
    if "response_time_ms" in schema:
        short = pl.col("response_time_ms").cast(pl.Float32).cast(pl.Float64)
        frame = frame.with_columns(response_time_ms=short)
    return frame


def _values(record: Record) -> Mapping[str, Any]:
    """The values of a record by the names of a frame's columns, others among them."""
    if isinstance(record, LogRecord):
        return record._asdict()
    if isinstance(record, RunRecord):
        evidence = json.dumps(record.features.evidence) if record.features.evidence else None
        return {
            **record._asdict(),
            **record.features.values,
            "hosts": list(record.features.hosts),
            "evidence": evidence,
        }
    return {**record._asdict(), **record.features}
