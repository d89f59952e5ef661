"""Does the gate earn its place? Months lived through under four policies: generated ones with drifts, or BGL."""

from __future__ import annotations

import csv
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mllib import demo
from mllib.demo.drift import Drift
from mllib.store import labels
from mllib.store.database import engine_for, transaction
from tests.bench.common import database, millrace, table

DETECTOR = "log_anomaly"
WEEKS = 26
ROWS_A_WEEK = 10_000
SEEDS = (1, 2, 3)
END = datetime(2026, 3, 1, 2, tzinfo=UTC)
BGL_SUNDAYS = ("--from", "2005-06-05T02:00", "--to", "2006-01-08T02:00")
LABELS = {"some weeks wrong": Drift(), "right": Drift(mislabelled=())}


def run(data: Path | None) -> None:
    """Generated logs of 26 weeks with two drifts, or, with a folder, its BGL_2k.log.gz."""
    pictures = Path(tempfile.mkdtemp(prefix="millrace-replay-"))
    if data is not None:
        with database() as (_, dsn):
            millrace(dsn, "ingest", str(data / "BGL_2k.log.gz"), "--format", "bgl", "--labels")
            rows = []
            for least in (30, 10):
                report = _replay(dsn, pictures / f"bgl-{least}.svg", *BGL_SUNDAYS, "--min-positives", str(least))
                rows += [{"anomalies a verdict needs": least, **row} for row in _figures(report)]
        table("Replay of BGL_2k", rows)
        return
    rows = []
    for quality, drift in LABELS.items():
        for seed in SEEDS:
            with database() as (folder, dsn):
                files = demo.generate(
                    folder / "in", now=END, days=7 * WEEKS, rows=ROWS_A_WEEK * WEEKS, seed=seed, drift=drift
                )
                millrace(dsn, "ingest", *map(str, files), "--format", "jsonl", "--labels")
                if drift.mislabelled:
                    _correct(dsn, folder / "in" / "corrections.csv")
                report = _replay(dsn, pictures / f"generated-{quality.replace(' ', '-')}-{seed}.svg")
            rows += [{"labels": quality, "seed": seed, **row} for row in _figures(report)]
    table(f"Replay of {WEEKS} generated weeks, {ROWS_A_WEEK:,} rows each", rows)
    print(f"\nPictures: {pictures}")


def _correct(dsn: str, corrections: Path) -> None:
    """Files the true labels as an analyst's of today: they measure what was done with the wrong ones, and were not
    known then. `millrace label` would count them as known from the time of their rows on, as if nothing had been wrong.
    """
    with corrections.open(newline="", encoding="utf-8") as file, transaction(engine_for(dsn)) as conn:
        verdicts = csv.DictReader(file)
        labels.stage(
            conn,
            (labels.StagedLabel(source=row["source"], source_id=row["id"], label=row["label"]) for row in verdicts),
        )
        labels.apply_staged(conn, origin="analyst", labelled_by="bench")


def _replay(dsn: str, picture: Path, *options: str) -> dict[str, Any]:
    report = millrace(dsn, "replay", DETECTOR, "--output", str(picture), *options)
    promoted = {
        name: [number for number, period in enumerate(policy["periods"], start=1) if period["promoted"]]
        for name, policy in report["policies"].items()
    }
    print(
        f"\n{picture.name}: {len(report['periods'])} periods in {report['seconds']:.0f} s, peak {report['peak_mib']} "
        f"MiB, compared from {report['compared_from']}; promoted in week: "
        + "; ".join(f"{name} {', '.join(map(str, weeks)) or '-'}" for name, weeks in promoted.items()),
        flush=True,
    )
    return report


def _figures(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "policy": name,
            "F1": policy["f1"],
            "worst week": policy["worst_f1"],
            "promotions": policy["promotions"],
            "made it worse": policy["made_worse"],
            "alerts a day": policy["alerts_per_day"],
        }
        for name, policy in report["policies"].items()
    ]
