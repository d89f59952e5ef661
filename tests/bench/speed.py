"""Speed and memory of ingest, training and scoring on generated logs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from mllib import demo
from tests.bench.common import database, millrace, table

DETECTOR = "log_anomaly"
RUNS = 5


def run(_: Path | None) -> None:
    """200,000 and 800,000 synthetic rows: is scoring fast enough, and is memory flat?"""
    figures = []
    for rows in (200_000, 800_000):
        with database() as (folder, dsn):
            demo.generate(folder / "input", rows=rows)
            ingested = millrace(dsn, "ingest", str(folder / "input"), "--labels")
            trained = millrace(dsn, "train", DETECTOR)
            first = millrace(dsn, "score", DETECTOR)
            window = ["--from", "2000-01-01", "--to", f"{datetime.now(UTC):%Y-%m-%dT%H:%M}"]
            again = [millrace(dsn, "score", DETECTOR, *window) for _ in range(RUNS)]
        figures.append(
            {
                "rows": rows,
                "ingest, lines/s": round(ingested["rows"] / ingested["seconds"]),
                "candidate F1": trained["candidate_f1"],
                "new rows, rows/s": round(first["rows_per_second"]),
                "peak, MiB": first["peak_mib"],
                f"scored again, rows/s (median of {RUNS})": round(median(run["rows_per_second"] for run in again)),
                "peak again, MiB": max(run["peak_mib"] for run in again),
            }
        )
    table("Scoring with the command line, whole process, exactly-once ledger included", figures)
