"""log_anomaly on lines of systems that nobody labelled: the forest alone, the ensemble, and its other weights.

Of each system the first half is fitted on, without labels, and the second half is measured. The threshold is what
``expected_threshold`` says for a budget of 2 % of the lines. Where a data set has no labels, a level stands in for
them (marked with a star), and is hidden from the features: that favours rare wording.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib import sources
from mllib.detectors import detector
from mllib.gate.evaluation import average_precision, binary_metrics
from mllib.ingest import bgl, loghub_csv
from mllib.ingest.base import LogRecord, Parse, ParseOptions, Refused
from tests.bench.common import table

BUDGET = 0.02
AT_MOST = 80_000  # lines of a system
LEVEL_WORDS = r"(?i)\b(fatal|error|err|warn|warning|severe|info|debug|critical|failure)\b"
STAND_INS = {
    "Hadoop": ("ERROR", "FATAL"),
    "Zookeeper": ("ERROR",),
    "OpenStack": ("WARNING",),
    "HDFS": ("WARN",),
    "Android": ("E", "W"),
}

Bools = NDArray[np.bool_]


def run(data: Path | None) -> None:
    """A table by system of average precision, F1 at the budget, and alerts per alert of the budget."""
    assert data is not None
    found = []
    for name, lines in systems(data):
        half = lines.height // 2
        positive = lines["positive"].fill_null(value=False).to_numpy()[half:]
        frame = lines.select(*sources.source("logs").schema)
        variants = detector("log_anomaly").fit([frame[:half]], rows=half).variants()
        row: dict[str, Any] = {"system": name, "lines": lines.height, "positives": float(positive.mean())}
        for model in variants:
            raw = model.raw_scores(frame)[half:]
            flagged = raw >= model.expected_threshold(BUDGET)
            f1 = binary_metrics(positive, flagged, raw).f1
            precision = average_precision(raw, positive) or 0.0
            row[_said(model.parameters["weights"])] = (precision, f1, float(flagged.mean()) / BUDGET)
        found.append(row)
        print(f"{name}: done", flush=True)
    kinds = [name for name in found[0] if isinstance(found[0][name], tuple)]
    shown = [
        {name: "{:.3f} / {:.3f} ({:.1f})".format(*value) if name in kinds else value for name, value in row.items()}
        for row in found
    ]
    table("AP / F1 at the budget (alerts : budget), by weights of forest, autoencoder, rarity, sequence", shown)
    table(
        "Over all systems",
        [
            {
                "weights": kind,
                "mean AP": float(np.mean([row[kind][0] for row in found])),
                "mean AP, real labels": float(np.mean([row[kind][0] for row in found if "*" not in row["system"]])),
                "mean F1": float(np.mean([row[kind][1] for row in found])),
                "budget kept within a factor of two": sum(0.5 <= row[kind][2] <= 2 for row in found),
                "more than twice": sum(row[kind][2] > 2 for row in found),
            }
            for kind in kinds
        ],
    )


def systems(data: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """Name and lines of each system, in order of time, with a column ``positive``; ``data`` holds the sets."""
    alerts = records(data / "bgl" / "BGL_2k.log.gz", bgl)
    yield "BGL", log_frame(alerts, [record.label == "1" for record in alerts])
    hidden = [record.label == "1" for record in alerts]
    yield "BGL, level hidden", log_frame(alerts, hidden, level=False)
    yield from nezha(data / "nezha" / "rca_data_2023-01-29.parquet")
    events = pl.read_parquet(data / "hdfs_v1_2pct" / "hdfs_events.parquet")[:60_000]
    yield (
        "HDFS, lines of bad blocks",
        in_order(
            events.select(
                ts=pl.col("timestamp").dt.replace_time_zone("UTC"),
                level="level",
                service="component",
                message="message",
                positive="anomaly",
            )
        ),
    )
    for name, levels in STAND_INS.items():
        path = data / "loghub_2k" / f"{name}_2k.log_structured.csv.gz"
        found = records(path, loghub_csv)
        yield f"{name} {'/'.join(levels)}*", log_frame(found, [row.level in levels for row in found], level=False)


def nezha(path: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    """Lines of the pod that a fault was injected into; and lines at ERROR."""
    lines = pl.read_parquet(path).sort("TimeUnixNano")[:AT_MOST]
    shared = {
        "ts": pl.from_epoch(pl.col("TimeUnixNano").cast(pl.Int64) // 1000, time_unit="us").dt.replace_time_zone("UTC"),
        "service": pl.col("PodName").str.replace(r"-[0-9a-f]+-\w+$", ""),
    }
    yield (
        "Nezha, pod with a fault",
        in_order(lines.select(level="level", message="message", positive=pl.col("in_fault_pod") == 1, **shared)),
    )
    hidden = pl.col("message").str.replace_all(LEVEL_WORDS, "level")
    yield (
        "Nezha ERROR*",
        in_order(lines.select(level=pl.lit(None), message=hidden, positive=pl.col("level") == "ERROR", **shared)),
    )


def records(path: Path, parser: Any) -> list[LogRecord]:
    """What a parser of the project makes of a file; lines that it refuses are left out."""
    parse: Parse = parser.parser(ParseOptions(year=2005))
    found = []
    with gzip.open(path, "rt", errors="replace") as lines:
        for line in lines:
            try:
                record = parse(line.rstrip("\n"))
            except Refused:
                continue
            if isinstance(record, LogRecord):
                found.append(record)
    return found


def log_frame(found: list[LogRecord], positive: list[bool], *, level: bool = True) -> pl.DataFrame:
    """The records as lines; without ``level`` neither the level nor the words for levels in the message."""
    frame = pl.DataFrame(
        {
            "ts": [record.ts for record in found],
            "level": pl.Series([record.level if level else None for record in found], dtype=pl.String),
            "service": pl.Series([record.service for record in found], dtype=pl.String),
            "message": [record.message for record in found],
            "positive": positive,
        }
    )
    return in_order(frame if level else frame.with_columns(pl.col("message").str.replace_all(LEVEL_WORDS, "level")))


def in_order(lines: pl.DataFrame) -> pl.DataFrame:
    """A frame of the source in order of time, with ``positive``."""
    schema = sources.source("logs").schema
    numbered = lines.sort("ts", maintain_order=True).with_columns(
        log_id=pl.int_range(pl.len()), claimed=pl.lit(value=True), response_time_ms=None, status_code=None
    )
    return numbered.select(*(pl.col(name).cast(kind) for name, kind in schema.items()), "positive")


def _said(weights: dict[str, Any]) -> str:
    shares = "/".join(f"{weights[name]:g}" for name in ("forest", "autoencoder", "rarity", "sequence"))
    return f"{shares}, beyond" if weights["beyond"] else shares
