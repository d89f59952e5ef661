"""Re-scoring and backfills on a real stack. Begins with whatever the main job has left, or does the main job itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from mllib.local.airflow_api import ApiProblem
from mllib.local.stack import BACKFILL_POOL
from tests.e2e.conftest import DETECTOR, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SCORE, RESCORE = f"score_{DETECTOR}", "rescore"
HOURS = 30
CURRENT = """
    select log_id, score, model_version, run_id from analytics.predictions_current where detector = :detector order by 1
"""
THEN = CURRENT.replace("predictions_current", "predictions_as_of(:moment)")


@pytest.fixture(scope="module")
def start(local: Stack) -> datetime:
    """A time from which on there are busy hours, all of them scored."""
    if not local.rows("select 1 from analytics.model_history where detector = :d and status = 'champion'", d=DETECTOR):
        local.run("ingest")
        local.run(f"retrain_{DETECTOR}")
    local.run(SCORE)
    [(hour,)] = local.rows(
        "select hour from analytics.scoring_hourly order by hour"
        " offset (select count(*) / 2 from analytics.scoring_hourly) limit 1"
    )
    found: datetime = hour
    return found


def form(start: datetime, hours: int = HOURS, **more: Any) -> dict[str, Any]:
    return {
        "detector": DETECTOR,
        "from": start.isoformat(),
        "to": (start + timedelta(hours=hours)).isoformat(),
        **more,
    }


def test_a_dry_run_shows_the_plan_and_the_plan_is_run_as_it_stands(local: Stack, start: datetime) -> None:
    [(rows,)] = local.rows(
        "select count(*) from millrace.logs where ts >= :start and ts < :end",
        start=start,
        end=start + timedelta(hours=HOURS),
    )
    runs = local.rows("select count(*) from millrace.scoring_runs")
    dry = local.run(RESCORE, form(start, dry_run=True, model="version", version=1, reason="to see"))
    assert dry.state == "success"
    assert {state for name, state in dry.tasks().items() if name != "plan_rescore"} == {"skipped"}
    plan = dry.returned("plan_rescore", "plan")
    assert (plan["rows"], plan["versions"], plan["exact"]) == (rows, [1], True)
    assert f"{rows:,} rows" in dry.log("plan_rescore")
    assert "A dry run" in dry.log("plan_rescore")
    assert local.rows("select count(*) from millrace.scoring_runs") == runs

    believed, [(moment,)] = local.rows(CURRENT, detector=DETECTOR), local.rows("select clock_timestamp()")
    run = local.run(RESCORE, {"plan": plan["plan_id"]})
    assert run.state == "success"
    assert run.returned("publish")["rows"] == rows
    pools = {task["task_id"]: task["pool"] for task in local.api.task_instances(RESCORE, run.run_id)}
    assert pools["score_shard"] == BACKFILL_POOL
    [ledger_run] = run.returned("publish")["ledger_runs"]
    assert local.rows("select plan_id, scored from analytics.scoring_runs where run_id = :run", run=ledger_run) == [
        (plan["plan_id"], rows)
    ]
    assert local.rows(THEN, detector=DETECTOR, moment=moment) == believed
    assert local.rows(THEN, detector=DETECTOR, moment="infinity") == local.rows(CURRENT, detector=DETECTOR) != believed
    assert local.rows("select count(*) from analytics.predictions_current where run_id = :run", run=ledger_run) == [
        (rows,)
    ]
    events = local.api.call("GET", "/assets/events?order_by=-timestamp&limit=1")["asset_events"]
    assert (events[0]["name"], events[0]["extra"]["plan_id"]) == (f"predictions_{DETECTOR}", plan["plan_id"])


def test_a_plan_whose_rows_have_changed_is_red_and_says_what_to_do(local: Stack, start: datetime) -> None:
    plan = local.run(RESCORE, form(start, hours=2, dry_run=True)).returned("plan_rescore", "plan")
    with local.engine.begin() as conn:
        conn.execute(text("insert into millrace.logs (ts, message) values (:ts, 'late')"), {"ts": start})
    run = local.run(RESCORE, {"plan": plan["plan_id"]})
    assert run.state == "failed"
    assert run.tasks()["claim_rows"] == "failed"
    assert "1 rows have come into" in run.log("claim_rows")
    assert "make a new plan" in run.log("claim_rows")


def test_shards_of_backfills_wait_in_a_pool_of_their_own(local: Stack, start: datetime) -> None:
    assert local.api.call("GET", f"/pools/{BACKFILL_POOL}")["slots"] == 2
    local.api.call(
        "POST",
        "/backfills",
        {
            "dag_id": SCORE,
            "from_date": start.isoformat(),
            "to_date": start.isoformat(),
            "max_active_runs": 1,
            "reprocess_behavior": "completed",
        },
    )
    newest = next(run for run in local.api.runs(SCORE) if run["run_type"] == "backfill")
    assert local.finished(SCORE, newest["dag_run_id"]).state == "success"
    pools = {task["task_id"]: task["pool"] for task in local.api.task_instances(SCORE, newest["dag_run_id"])}
    assert pools == {"claim_rows": "default_pool", "score_shard": BACKFILL_POOL, "publish": "default_pool"}
    by_hand = next(run for run in local.api.runs(SCORE) if run["run_type"] == "manual")
    assert {task["pool"] for task in local.api.task_instances(SCORE, by_hand["dag_run_id"])} == {"default_pool"}


def test_hours_that_are_not_over_and_hours_before_the_first_line(local: Stack, start: datetime) -> None:
    future = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    run = local.run(SCORE, partition_key=f"{future:%Y-%m-%dT%H:%M:%S}")
    assert run.state == "failed"
    assert "ends after now" in run.log("claim_rows")
    early = local.run(SCORE, partition_key="2001-01-01T00:00:00")
    assert early.state == "success"
    assert "the first one is of" in early.log("claim_rows")
    assert "There was nothing to score" in early.log("publish")


@pytest.mark.parametrize(
    ("conf", "status"),
    [({"detector": "nobody"}, 400), ({"model": "best"}, 400), ({"plan": 0}, 400)],
)
def test_the_form_takes_only_what_there_is(local: Stack, start: datetime, conf: Any, status: int) -> None:
    with pytest.raises(ApiProblem) as caught:
        local.api.trigger(RESCORE, conf)
    assert caught.value.status == status
