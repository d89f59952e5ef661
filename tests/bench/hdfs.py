"""The main job on HDFS_v1, 2 % of its blocks, written back as raw lines and a label file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tests.bench.common import database, millrace, table

DETECTOR = "log_anomaly"


def write_raw(parquet: Path, lines: Path, labels: Path) -> None:
    """Writes the events back as HDFS wrote them, in their order, and a label file with the line numbers as ids."""
    events = pl.read_parquet(parquet).sort("timestamp", maintain_order=True)
    raw = events.select(
        pl.format("{} {} {} {} {}: {}", "date", "time", "pid", "level", "component", "message").alias("line")
    )
    lines.write_text("\n".join(raw["line"].to_list()) + "\n")
    events.select(pl.int_range(1, pl.len() + 1).alias("id"), pl.col("anomaly").cast(pl.Int8).alias("label")).write_csv(
        labels
    )


def run(data: Path | None) -> None:
    """Ingest, label, train once on everything, score all hours."""
    assert data is not None
    with database() as (folder, dsn):
        lines, labels = folder / "hdfs.log", folder / "labels.csv"
        write_raw(data / "hdfs_events.parquet", lines, labels)
        ingested = millrace(dsn, "ingest", str(lines), "--format", "hdfs")
        labelled = millrace(dsn, "label", str(labels), "--source", "hdfs")
        trained = millrace(dsn, "train", DETECTOR)
        table(
            "HDFS_v1, 2 %: training",
            [
                {
                    "lines": ingested["rows"],
                    "rejected": ingested["rejected"],
                    "labels": labelled["labels"],
                    "verdict": trained["verdict"],
                    "candidate F1": trained["candidate_f1"],
                    "holdout rows": trained["holdout_rows"],
                    "holdout positives": trained["holdout_positives"],
                }
            ],
        )
        print(f"\n{trained['reason']}")
        if trained["verdict"] != "promote":
            millrace(dsn, "promote", DETECTOR, str(trained["version"]), "--reason", "benchmark: scored to be timed")
        scored = millrace(dsn, "score", DETECTOR)
        table(
            "HDFS_v1, 2 %: scoring",
            [{name: scored[name] for name in ("claimed", "scored", "anomalies", "rows_per_second", "peak_mib")}],
        )
