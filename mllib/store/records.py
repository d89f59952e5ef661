"""Records of each source as rows of its table, for COPY."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mllib.ingest.base import FlowRecord, LogRecord, Record, RunRecord
from mllib.ingest.batches import Batch
from mllib.sources import LOGS, NETWORK_FLOWS, PIPELINE_FEATURES, PIPELINE_RUNS, Table
from mllib.store import text_copy


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """How the records of a table are written: the COPY statement, and what makes its rows."""

    table: Table
    copy: str
    columns: Callable[[Sequence[Any]], Iterable[Sequence[object]]]
    """What the records hold for each column of ``schema``."""
    schema: Mapping[str, type[pl.DataType]]
    """The columns that not all tables have, in the order of ``copy``."""

    def rows(self, batch: Batch) -> pl.DataFrame:
        """The records of a batch, at least one, in order: ``line``, ts, source_id, those of ``schema``, and label."""
        columns = ["line", "ts", "source_id", *self.schema, "label"]
        parts = [part.select(columns) for part in batch.columns]
        if batch.parsed:
            parts.append(self._parsed(batch.parsed).select(columns))
        rows = pl.concat(parts)
        return rows.sort("line", maintain_order=True) if batch.parsed and batch.columns else rows

    def _parsed(self, records: Sequence[tuple[int, Record]]) -> pl.DataFrame:
        numbers, read = zip(*records, strict=True)
        columns = zip(self.schema.items(), self.columns(read), strict=True)
        return pl.DataFrame(
            [
                pl.Series("line", numbers, dtype=pl.Int64),
                text_copy.times(record.ts for record in read),
                pl.Series("source_id", [record.source_id or None for record in read], dtype=pl.String),
                *(pl.Series(name, values, dtype=kind) for (name, kind), values in columns),
                pl.Series("label", [record.label for record in read], dtype=pl.String),
            ]
        )


def _logs(records: Sequence[LogRecord]) -> Iterable[Sequence[object]]:
    _, _, level, service, host, message, milliseconds, status, trace, attributes, _ = zip(*records, strict=True)
    return milliseconds, status, level, service, host, trace, message, [_json(value) for value in attributes]


def _runs(records: Sequence[RunRecord]) -> Iterable[Sequence[object]]:
    return zip(
        *(
            (
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
            for record in records
        ),
        strict=True,
    )


def _flows(records: Sequence[FlowRecord]) -> Iterable[Sequence[object]]:
    _, _, form, src_ip, dst_ip, dst_port, protocol, features, attributes, _ = zip(*records, strict=True)
    return (
        *(form, src_ip, dst_ip, dst_port, protocol),
        [json.dumps(value) for value in features],
        [_json(value) for value in attributes],
    )


def _json(value: Mapping[str, object] | None) -> str | None:
    return json.dumps(value) if value else None


_NUMBERS = {"response_time_ms": pl.Float64, "status_code": pl.Int64, "dst_port": pl.Int64} | dict.fromkeys(
    PIPELINE_FEATURES, pl.Float64
)


def _writer(
    table: Table, columns: Callable[[Sequence[Any]], Iterable[Sequence[object]]], names: tuple[str, ...]
) -> Writer:
    statement = f"copy millrace.{table.name} (ts, {table.row_id}, source, source_id, {', '.join(names)}) from stdin"
    schema = {name: _NUMBERS.get(name, pl.String) for name in names}
    return Writer(table=table, copy=statement, columns=columns, schema=schema)


_WRITERS = {
    writer.table.name: writer
    for writer in (
        _writer(
            LOGS,
            _logs,
            (
                *("response_time_ms", "status_code", "level", "service", "host", "trace_id"),
                *("message", "attributes"),
            ),
        ),
        _writer(
            PIPELINE_RUNS,
            _runs,
            (
                *("provider", "repository", "branch", "workflow", "language"),
                *PIPELINE_FEATURES,
                *("hosts", "evidence", "attributes"),
            ),
        ),
        _writer(
            NETWORK_FLOWS,
            _flows,
            ("form", "src_ip", "dst_ip", "dst_port", "protocol", "features", "attributes"),
        ),
    )
}


def writer(table: Table) -> Writer:
    """How the records of a table are written."""
    return _WRITERS[table.name]
