"""500 hours of native backfill through Airflow, with small hours: what a run costs beside its scoring."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from mllib import demo
from mllib.local import stack
from mllib.local.airflow_api import AirflowApi
from mllib.local.progress import shown
from mllib.store.database import engine_for
from tests.bench.common import millrace, table

DETECTOR = "log_anomaly"
DAG_ID = f"score_{DETECTOR}"
HOURS = 500
ROWS_AN_HOUR = 20
AT_ONCE = 4
STUCK_AFTER = 180
"""Seconds without a single run that ends."""

FINAL = ("success", "failed")
STATES = ("queued", "running", *FINAL)


def run(_: Path | None) -> None:
    """Backfill the hours one run each, then score the same range again by one plan of `rescore`."""
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        try:
            stack.up(home, step=shown)
            _run(home)
        finally:
            stack.down(home)


def _run(home: Path) -> None:
    dsn = stack.current_dsn(home)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(hours=HOURS)
    days = HOURS // 24 + 2
    with tempfile.TemporaryDirectory() as logs:
        demo.generate(Path(logs), now=end, days=days, rows=days * 24 * ROWS_AN_HOUR)
        millrace(dsn, "ingest", logs, "--format", "jsonl", "--labels")
    version = millrace(dsn, "train", DETECTOR)["version"]
    if not [model for model in millrace(dsn, "models", DETECTOR)["models"] if model["status"] == "champion"]:
        millrace(dsn, "promote", DETECTOR, str(version), "--reason", "benchmark: any model will do")
    api = stack.api(home)
    while DAG_ID not in api.dags():
        time.sleep(0.5)
    seconds = _backfill(api, start, end)
    runs = _runs(api)
    states = [run["state"] for run in runs]
    lasted = sorted(_lasted(run) for run in runs if run["state"] in FINAL)
    with engine_for(dsn).connect() as conn:
        scored, worked = conn.execute(
            text(
                "select sum(scored), extract(epoch from sum(finished_at - claimed_at))::float8"
                " from millrace.scoring_runs where kind = 'window'"
            )
        ).one()
    table(
        f"{HOURS} hours of native backfill, {AT_ONCE} runs at once",
        [
            {
                "runs": len(runs),
                "succeeded": states.count("success"),
                "failed": states.count("failed"),
                "not ended": len(runs) - len(lasted),
                "rows": int(scored),
                "seconds": seconds,
                "seconds a run": seconds / len(runs),
                "median run lasted": lasted[len(lasted) // 2],
                "longest": lasted[-1],
                "claim to publication, mean": worked / len(runs),
            }
        ],
    )
    by_plan = _rescore(api, start, end)
    table("The same range by the DAG `rescore`", [{**by_plan, "times faster": seconds / by_plan["seconds"]}])


def _rescore(api: AirflowApi, start: datetime, end: datetime) -> dict[str, Any]:
    """The whole range by one plan: trigger to end of the run, the plan with its count of changed verdicts included."""
    api.pause("rescore", paused=False)
    started = time.monotonic()
    conf = {"detector": DETECTOR, "from": start.isoformat(), "to": end.isoformat(), "reason": "benchmark"}
    run_id = api.trigger("rescore", conf)
    state = api.wait("rescore", run_id)["state"]
    seconds = time.monotonic() - started
    published = api.xcom("rescore", run_id, "publish")
    return {
        "state": state,
        "ledger runs": len(published["ledger_runs"]),
        "rows": published["rows"],
        "seconds": seconds,
    }


def _backfill(api: AirflowApi, start: datetime, end: datetime) -> float:
    """Runs the backfill until every run has ended, or none has for a long time. Returns the seconds it took."""
    api.pause(DAG_ID, paused=False)
    started = progress = time.monotonic()
    last = end - timedelta(hours=1)
    body = {
        "dag_id": DAG_ID,
        "from_date": start.isoformat(),
        "to_date": last.isoformat(),
        "max_active_runs": AT_ONCE,
    }
    api.call("POST", "/backfills", body)
    ended = 0
    while ended < HOURS:
        time.sleep(5)
        counts = {state: _total(api, state) for state in STATES}
        now = sum(counts[state] for state in FINAL)
        if now // 50 > ended // 50:
            print(f"  {time.monotonic() - started:5.0f} s  {counts}", flush=True)
        if now > ended:
            ended, progress = now, time.monotonic()
        elif time.monotonic() - progress > STUCK_AFTER:
            print(f"\nStuck: no run has ended for {STUCK_AFTER} s. {counts}")
            for run in [run for run in _runs(api) if run["state"] == "running"]:
                tasks = {task["task_id"]: task["state"] for task in api.task_instances(DAG_ID, run["dag_run_id"])}
                print(f"  {run['dag_run_id']}: {tasks}")
            break
    return time.monotonic() - started


def _total(api: AirflowApi, state: str) -> int:
    query = f"/dags/{DAG_ID}/dagRuns?run_type=backfill&state={state}&limit=1"
    return int(api.call("GET", query)["total_entries"])


def _runs(api: AirflowApi) -> list[dict[str, Any]]:
    """All backfill runs; the API hands out a hundred at a time."""
    found: list[dict[str, Any]] = []
    while True:
        query = f"/dags/{DAG_ID}/dagRuns?run_type=backfill&order_by=id&limit=100&offset={len(found)}"
        page = api.call("GET", query)["dag_runs"]
        if not page:
            return found
        found += page


def _lasted(run: dict[str, Any]) -> float:
    begun, ended = (datetime.fromisoformat(run[name]) for name in ("start_date", "end_date"))
    return (ended - begun).total_seconds()
