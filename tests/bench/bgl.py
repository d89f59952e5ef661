"""The main job on BGL, 2,000 lines over 214 days: weekly retraining replayed, then scoring through Airflow."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from mllib.local import stack
from mllib.local.progress import shown
from mllib.store.database import engine_for
from tests.bench.common import CommandFailedError, millrace, table

DETECTOR = "log_anomaly"
BACKFILLED_HOURS = 72


def run(data: Path | None) -> None:
    """Ingest, train every Sunday as of that day, score 72 hours by native backfill and the rest in one window."""
    assert data is not None
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        try:
            stack.up(home, step=shown)
            _run(data, home)
        finally:
            stack.down(home)


def _run(data: Path, home: Path) -> None:
    dsn = stack.current_dsn(home)
    ingested = millrace(dsn, "ingest", str(data / "BGL_2k.log.gz"), "--format", "bgl", "--labels")
    print(f"\n{ingested['rows']:,} rows, {ingested['rejected']} rejected, {ingested['labels']:,} labels")
    with engine_for(dsn).connect() as conn:
        first, last = conn.execute(text("select min(ts), max(ts) from millrace.logs")).one()
    decisions = []
    sunday = _next_sunday(first)
    while sunday < last + timedelta(days=7):
        try:
            report = millrace(dsn, "train", DETECTOR, "--as-of", sunday.isoformat())
        except CommandFailedError as refusal:
            report = {"verdict": str(refusal).removeprefix("millrace: ").split(".")[0]}
        columns = ("version", "verdict", "candidate_f1", "champion_f1", "holdout_rows", "holdout_positives")
        decisions.append({"as of": f"{sunday:%Y-%m-%d}", **{name: report.get(name) for name in columns}})
        sunday += timedelta(days=7)
    table("BGL_2k: weekly retraining, replayed", decisions)
    if not any(decision["verdict"] == "promote" for decision in decisions):
        newest = max(decision["version"] or 0 for decision in decisions)
        millrace(dsn, "promote", DETECTOR, str(newest), "--reason", "benchmark: no week had enough evidence")
        print(
            f"\nNo week had enough evidence; version {newest} was promoted by hand, so that there is one to score with."
        )
    start = last.replace(minute=0, second=0, microsecond=0) - timedelta(hours=BACKFILLED_HOURS - 1)
    _backfill(home, start, start + timedelta(hours=BACKFILLED_HOURS - 1))
    rest = millrace(dsn, "score", DETECTOR, "--from", first.isoformat(), "--to", start.isoformat())
    after = millrace(dsn, "score", DETECTOR)
    with engine_for(dsn).connect() as conn:
        counts = conn.execute(
            text(
                "select (select count(*) from millrace.logs), (select count(*) from millrace.predictions),"
                " (select count(*) from millrace.predictions_history),"
                " (select count(*) from millrace.predictions where is_anomaly)"
            )
        ).one()
    table(
        "BGL_2k: scoring",
        [
            {
                "rows": counts[0],
                "predictions": counts[1],
                "superseded": counts[2],
                "anomalies": counts[3],
                "by one long window": rest["scored"],
                "its seconds": rest["seconds"],
                "left for the hourly claim": after["scored"],
            }
        ],
    )


def _backfill(home: Path, first: datetime, last: datetime) -> None:
    api, dag_id = stack.api(home), f"score_{DETECTOR}"
    while dag_id not in api.dags():
        time.sleep(0.5)
    api.pause(dag_id, paused=False)
    started = time.monotonic()
    api.call(
        "POST",
        "/backfills",
        {"dag_id": dag_id, "from_date": first.isoformat(), "to_date": last.isoformat(), "max_active_runs": 4},
    )
    while True:
        runs = api.call("GET", f"/dags/{dag_id}/dagRuns?run_type=backfill&limit=1000")["dag_runs"]
        states = [run["state"] for run in runs]
        if runs and set(states) <= {"success", "failed"}:
            break
        time.sleep(1)
    seconds = time.monotonic() - started
    table(
        "BGL_2k: native backfill through Airflow",
        [
            {
                "hours": len(runs),
                "succeeded": states.count("success"),
                "failed": states.count("failed"),
                "seconds": seconds,
                "seconds an hour": seconds / len(runs),
            }
        ],
    )


def _next_sunday(moment: datetime) -> datetime:
    day = datetime(moment.year, moment.month, moment.day, 2, tzinfo=UTC)
    return day + timedelta(days=(6 - day.weekday()) % 7)
