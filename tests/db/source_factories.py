"""Rows of each source: as files in the format that they come in, and by plain SQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text

from mllib.ingest.base import ParseOptions
from mllib.jobs.intake import ingest
from mllib.sources import CICFLOWMETER_FEATURES, NSL_KDD_FEATURES, PIPELINE_FEATURES
from tests.db.factories import write_lines
from tests.factories import START


def bad(number: int) -> bool:
    """Whether the row of this number is an anomaly: one in ten, at no fixed distance."""
    return number * 7919 % 100 < 10


def run_line(number: int, **keys: Any) -> str:
    """A CI/CD run, two minutes after the one before; a bad one has many error lines."""
    run = {
        "ts": (START + timedelta(minutes=2 * number)).isoformat(),
        "id": f"run-{number}",
        "provider": ("github_actions", "travis")[number % 2],
        "repository": ("shop/web", "shop/api", "shop/mail")[number % 3],
        "branch": "main",
        **dict.fromkeys(PIPELINE_FEATURES, number % 5),
        "error_lines": 400 + number % 7 if bad(number) else number % 7,
        "hosts": ["packages.example.org", f"h{number % 4}.example.org"],
        "label": "failed" if bad(number) else "passed",
    }
    return json.dumps({**run, **keys})


def connection_line(number: int, **values: Any) -> str:
    """A connection as in NSL-KDD's files; a bad one has many failed logins."""
    told = {
        **dict.fromkeys(NSL_KDD_FEATURES, "0"),
        "protocol_type": ("tcp", "udp", "icmp")[number % 3],
        "service": "http",
        "flag": "SF",
        "num_failed_logins": 300 if bad(number) else number % 4,
        **values,
    }
    return ",".join([*(str(told[name]) for name in NSL_KDD_FEATURES), "neptune" if bad(number) else "normal", "21"])


FLOW_HEADER = ",".join(
    ["Flow ID", "Src IP", "Dst IP", "Dst Port", "Protocol", "Timestamp", *CICFLOWMETER_FEATURES, "Label"]
)


def flow_line(number: int, **values: Any) -> str:
    """A flow as CICFlowMeter writes it, a minute after the one before; a bad one has many SYN flags."""
    told = {
        **dict.fromkeys(CICFLOWMETER_FEATURES, "1.5"),
        "Flow Bytes/s": "Infinity" if number % 11 == 0 else "12.5",
        "SYN Flag Count": 200 if bad(number) else number % 3,
        **values,
    }
    ts = START + timedelta(minutes=number)
    ends = [f"a-{number}", "10.0.0.1", "10.0.0.2", "443", ("6", "17")[number % 2], f"{ts:%d/%m/%Y %I:%M:%S %p}"]
    return ",".join(
        [*ends, *(str(told[name]) for name in CICFLOWMETER_FEATURES), "DoS Hulk" if bad(number) else "BENIGN"]
    )


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A source, with the tiny detector that reads it and how its rows are made."""

    detector: str
    source: str
    table: str
    format: str
    line: Callable[..., str]
    header: str | None = None
    step: timedelta
    columns: str
    """Columns and values of a row by plain SQL; :value is what the detector looks at."""

    def file(self, folder: Path, numbers: range, name: str = "rows") -> Path:
        """A file of rows."""
        lines = [self.line(number) for number in numbers]
        return write_lines(folder / f"{name}.txt", *([self.header] if self.header else []), *lines)

    def load(self, engine: Engine, folder: Path, rows: int, name: str = "rows") -> None:
        """So many rows with their labels."""
        path = self.file(folder, range(rows), name)
        report = ingest(engine, [path], format_name=self.format, with_labels=True, options=ParseOptions(start=START))
        assert (report.rows, report.labels, report.rejected) == (rows, rows, 0)

    def insert(self, conn: Connection, rows: int, *, start: datetime, step: timedelta, value: int = 3) -> list[int]:
        """Rows by plain SQL, as any program may insert them. Returns their ids."""
        names, values = self.columns.split(" = ")
        values = values.replace(":value", "cast(:value as integer)")
        statement = (
            f"insert into millrace.{self.table} (ts, {names}) select cast(:start as timestamptz)"  # noqa: S608  our own words
            f" + i * cast(:step as interval), {values} from generate_series(1, :rows) as i returning row_id"
        )
        binds = {"start": start, "step": step, "rows": rows, "value": value}
        return list(conn.execute(text(statement), binds).scalars())


KINDS = {
    kind.detector: kind
    for kind in (
        Kind(
            detector="tiny_runs",
            source="pipeline_runs",
            table="pipeline_runs",
            format="pipeline_jsonl",
            line=run_line,
            step=timedelta(minutes=2),
            columns="error_lines = :value + i % 5",
        ),
        Kind(
            detector="tiny_connections",
            source="nsl_kdd_flows",
            table="network_flows",
            format="nsl_kdd",
            line=connection_line,
            step=timedelta(seconds=1),
            columns="form, features = 'nsl_kdd', jsonb_build_object('num_failed_logins', :value + i % 5)",
        ),
        Kind(
            detector="tiny_flows",
            source="cicflowmeter_flows",
            table="network_flows",
            format="cicflowmeter",
            line=flow_line,
            header=FLOW_HEADER,
            step=timedelta(minutes=1),
            columns="form, features = 'cicflowmeter', jsonb_build_object('SYN Flag Count', :value + i % 5)",
        ),
    )
}
