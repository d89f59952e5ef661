"""Records of each source as rows of its table, for COPY."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mllib.ingest.base import FlowRecord, LogRecord, RunRecord
from mllib.sources import LOGS, NETWORK_FLOWS, PIPELINE_FEATURES, PIPELINE_RUNS, Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """How the records of a table are written: the COPY statement, and the row of a record."""

    table: Table
    copy: str
    row: Callable[[str, int, int, Any], tuple[object, ...]]
    """Takes the source, the row's id, the line number and the record."""


def _log(source: str, row_id: int, line_number: int, record: LogRecord) -> tuple[object, ...]:
    return (
        record.ts,
        row_id,
        record.response_time_ms,
        record.status_code,
        source,
        record.source_id or str(line_number),
        record.level,
        record.service,
        record.host,
        record.trace_id,
        record.message,
        _json(record.attributes),
    )


def _run(source: str, row_id: int, line_number: int, record: RunRecord) -> tuple[object, ...]:
    return (
        record.ts,
        row_id,
        source,
        record.source_id or str(line_number),
        record.provider,
        record.repository,
        record.branch,
        record.workflow,
        record.language,
        *record.features.numbers(),
        list(record.features.hosts),
        _json(record.features.evidence),
        _json(record.attributes),
    )


def _flow(source: str, row_id: int, line_number: int, record: FlowRecord) -> tuple[object, ...]:
    return (
        record.ts,
        row_id,
        source,
        record.source_id or str(line_number),
        record.form,
        record.src_ip,
        record.dst_ip,
        record.dst_port,
        record.protocol,
        json.dumps(record.features),
        _json(record.attributes),
    )


def _json(value: Mapping[str, object] | None) -> str | None:
    return json.dumps(value) if value else None


def _writer(table: Table, row: Callable[..., tuple[object, ...]], columns: tuple[str, ...]) -> Writer:
    statement = f"copy millrace.{table.name} (ts, {table.row_id}, {', '.join(columns)}) from stdin"
    return Writer(table=table, copy=statement, row=row)


_WRITERS = {
    writer.table.name: writer
    for writer in (
        _writer(
            LOGS,
            _log,
            (
                "response_time_ms",
                "status_code",
                "source",
                "source_id",
                "level",
                "service",
                "host",
                "trace_id",
                "message",
                "attributes",
            ),
        ),
        _writer(
            PIPELINE_RUNS,
            _run,
            (
                *("source", "source_id", "provider", "repository", "branch", "workflow", "language"),
                *PIPELINE_FEATURES,
                *("hosts", "evidence", "attributes"),
            ),
        ),
        _writer(
            NETWORK_FLOWS,
            _flow,
            ("source", "source_id", "form", "src_ip", "dst_ip", "dst_port", "protocol", "features", "attributes"),
        ),
    )
}


def writer(table: Table) -> Writer:
    """How the records of a table are written."""
    return _WRITERS[table.name]
