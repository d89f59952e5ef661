"""Records of each source as rows of its table, for COPY."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mllib.ingest.base import FlowRecord, LogRecord, Record, RunRecord
from mllib.sources import LOGS, NETWORK_FLOWS, PIPELINE_FEATURES, PIPELINE_RUNS, Table
from mllib.store import text_copy


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """How the records of a table are written: the COPY statement, and what makes its rows."""

    table: Table
    copy: str
    row: Callable[[int, Any], tuple[object, ...]]
    """The columns after those of all tables. Takes the line number and the record."""
    schema: Mapping[str, type[pl.DataType]]
    """Of these columns."""

    def encoded(self, source: str, row_ids: Sequence[int], records: Sequence[tuple[int, Record]]) -> bytes:
        """Records with their line numbers, for ``copy``."""
        columns = zip(*(self.row(number, record) for number, record in records), strict=True)
        rows = pl.DataFrame(
            [
                text_copy.times(record.ts for _, record in records),
                pl.Series("row_id", row_ids, dtype=pl.Int64),
                *(
                    pl.Series(name, values, dtype=self.schema[name])
                    for name, values in zip(self.schema, columns, strict=True)
                ),
            ]
        )
        return text_copy.encoded(rows.insert_column(2, pl.lit(source).alias("source")))


def _log(line_number: int, record: LogRecord) -> tuple[object, ...]:
    return (
        record.response_time_ms,
        record.status_code,
        record.source_id or str(line_number),
        record.level,
        record.service,
        record.host,
        record.trace_id,
        record.message,
        _json(record.attributes),
    )


def _run(line_number: int, record: RunRecord) -> tuple[object, ...]:
    return (
        record.source_id or str(line_number),
        record.provider,
        record.repository,
        record.branch,
        record.workflow,
        record.language,
        *record.features.numbers(),
        text_copy.array(record.features.hosts),
        _json(record.features.evidence),
        _json(record.attributes),
    )


def _flow(line_number: int, record: FlowRecord) -> tuple[object, ...]:
    return (
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


_NUMBERS = {"response_time_ms": pl.Float64, "status_code": pl.Int64, "dst_port": pl.Int64} | dict.fromkeys(
    PIPELINE_FEATURES, pl.Float64
)


def _writer(table: Table, row: Callable[..., tuple[object, ...]], columns: tuple[str, ...]) -> Writer:
    statement = f"copy millrace.{table.name} (ts, {table.row_id}, source, {', '.join(columns)}) from stdin"
    schema = {name: _NUMBERS.get(name, pl.String) for name in columns}
    return Writer(table=table, copy=statement, row=row, schema=schema)


_WRITERS = {
    writer.table.name: writer
    for writer in (
        _writer(
            LOGS,
            _log,
            (
                *("response_time_ms", "status_code", "source_id", "level", "service", "host", "trace_id"),
                *("message", "attributes"),
            ),
        ),
        _writer(
            PIPELINE_RUNS,
            _run,
            (
                *("source_id", "provider", "repository", "branch", "workflow", "language"),
                *PIPELINE_FEATURES,
                *("hosts", "evidence", "attributes"),
            ),
        ),
        _writer(
            NETWORK_FLOWS,
            _flow,
            ("source_id", "form", "src_ip", "dst_ip", "dst_port", "protocol", "features", "attributes"),
        ),
    )
}


def writer(table: Table) -> Writer:
    """How the records of a table are written."""
    return _WRITERS[table.name]
