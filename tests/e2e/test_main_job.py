"""The main job on a real stack, over the REST API, in the order in which an operator lives through it.

The tests share one stack and build on each other: each leaves the data to the next.
"""

from __future__ import annotations

import json
import urllib.parse
from datetime import datetime, timedelta
from typing import Any

import pytest

from mllib.detectors import names
from mllib.local import stack as local_stack
from mllib.local.airflow_api import AirflowApi, ApiProblem
from mllib.local.environment import passwords
from tests.e2e.conftest import DETECTOR, ROWS, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

INGEST, RETRAIN, SCORE = "ingest", f"retrain_{DETECTOR}", f"score_{DETECTOR}"


def test_all_dags_are_there(local: Stack) -> None:
    each = {f"{kind}_{name}" for name in names() for kind in ("retrain", "score")}
    assert {RETRAIN, SCORE} < each
    assert set(local.api.dags()) == {INGEST, "maintain", "rescore", "score_sessions", *each}
    assert local.api.import_errors() == []


def test_without_a_champion_scoring_is_skipped_and_says_what_to_do(local: Stack) -> None:
    run = local.run(SCORE)
    assert run.state == "success"
    assert set(run.tasks().values()) == {"skipped"}
    assert f"millrace train {DETECTOR}" in run.log("claim_rows")
    assert local.rows("select count(*) from millrace.scoring_runs") == [(0,)]


def test_training_without_logs_is_skipped_and_says_why(local: Stack) -> None:
    run = local.run(RETRAIN)
    assert run.state == "success"
    assert run.tasks()["fit_candidate"] == "skipped"
    assert "There is no log line" in run.log("fit_candidate")


def test_ingest_loads_every_file_once(local: Stack) -> None:
    run = local.run(INGEST)
    assert run.state == "success"
    local.run(INGEST)
    assert local.rows("select count(*), count(distinct source_id) from millrace.logs") == [(ROWS, ROWS)]
    assert local.rows("select count(*) from millrace.labels") == [(ROWS,)]


def test_an_unreadable_file_is_red_once_and_names_itself(local: Stack) -> None:
    (local.home / "landing" / "picture.log").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    run = local.run(INGEST, {"files": "picture.log"})
    assert run.state == "failed"
    assert run.tasks() == {"find_files": "success", "picture.log": "failed"}
    assert "--format" in run.log("load_file", 0)
    (local.home / "landing" / "picture.log").unlink()


def test_the_first_model_is_promoted_by_its_figures(local: Stack) -> None:
    run = local.run(RETRAIN)
    assert run.state == "success"
    assert run.tasks()["promoted"] == "success"
    assert run.tasks()["refused"] == "skipped"
    verdict = run.returned("judge_candidate", "verdict")
    assert verdict["verdict"] == "promote"
    [(status, f1, by)] = local.rows(
        "select status, f1, trained_by from analytics.model_history where version = :version",
        version=verdict["version"],
    )
    assert (status, by) == ("champion", f"{run.run_id} ({local.api.user})")
    assert f1 == pytest.approx(verdict["candidate_f1"])


def test_scoring_puts_every_row_into_the_predictions_table(local: Stack) -> None:
    run = local.run(SCORE)
    assert run.state == "success"
    assert run.returned("publish")["rows"] == ROWS
    assert any(name.endswith(f"{ROWS:,} rows") for name in run.tasks())
    rows, rows_once, anomalies = local.rows(
        "select count(*), count(distinct log_id), count(*) filter (where is_anomaly)"
        " from analytics.predictions_current where detector = :detector",
        detector=DETECTOR,
    )[0]
    assert rows == rows_once == ROWS
    assert 0 < anomalies < ROWS / 5
    assert local.rows("select sum(rows), sum(anomalies) from analytics.scoring_hourly") == [(ROWS, anomalies)]
    # XComs hold counts and ids, never log text.
    assert len(json.dumps(run.returned("claim_rows"))) < 1_000


def test_the_new_predictions_are_announced(local: Stack) -> None:
    events = local.api.call("GET", "/assets/events?order_by=-timestamp&limit=1")["asset_events"]
    assert events[0]["extra"]["rows"] == ROWS
    assert events[0]["name"] == f"predictions_{DETECTOR}"


def test_an_empty_hour_is_green_and_says_so(local: Stack) -> None:
    run = local.run(SCORE)
    assert run.state == "success"
    assert "There was nothing to score" in run.log("publish")
    assert run.returned("publish")["rows"] == 0


def test_a_second_training_on_the_same_logs_is_refused(local: Stack) -> None:
    run = local.run(RETRAIN)
    assert run.state == "success"
    assert run.tasks()["refused"] == "success"
    assert run.tasks()["promoted"] == "skipped"
    assert run.returned("judge_candidate", "verdict")["verdict"] == "refuse"
    assert local.rows("select version from millrace.model_registry where status = 'champion'") == [(1,)]
    [(reason, same_rows)] = local.rows(
        "select reason, (select count(distinct holdout_hash) from millrace.promotion_decisions) = 1"
        " from analytics.promotion_decisions order by decision_id desc limit 1"
    )
    assert "the same as that of the champion" in reason
    assert same_rows


def test_a_dry_run_of_the_training_records_no_verdict(local: Stack) -> None:
    before = local.rows("select count(*) from millrace.promotion_decisions")
    run = local.run(RETRAIN, {"dry_run": True, "policy": "evidence"})
    assert run.tasks()["dry_run"] == "success"
    assert local.rows("select count(*) from millrace.promotion_decisions") == before


def test_a_native_backfill_scores_its_hours_again(local: Stack) -> None:
    first = _busy_hour(local)
    hours = 3
    [(rows,)] = local.rows(
        "select count(*) from millrace.logs where ts >= :start and ts < :end",
        start=first,
        end=first + timedelta(hours=hours),
    )
    backfill = local.api.call(
        "POST",
        "/backfills",
        {
            "dag_id": SCORE,
            "from_date": first.isoformat(),
            "to_date": (first + timedelta(hours=hours - 1)).isoformat(),
            "max_active_runs": 2,
            "reprocess_behavior": "completed",
        },
    )
    runs = [run for run in local.api.runs(SCORE) if run["run_type"] == "backfill"]
    assert backfill["dag_id"] == SCORE
    assert len(runs) == hours
    states = [local.finished(SCORE, run["dag_run_id"]).state for run in runs]
    assert states == ["success"] * hours
    assert local.rows("select count(*), count(distinct superseded_by) from millrace.predictions_history") == [
        (rows, hours)
    ]
    assert local.rows("select count(*) from millrace.predictions") == [(ROWS,)]
    assert local.rows("select sum(rows) from analytics.scoring_hourly") == [(ROWS,)]


def test_a_run_by_hand_takes_a_partition_or_a_window(local: Stack) -> None:
    hour = _busy_hour(local)
    by_key = local.run(SCORE, partition_key=f"{hour:%Y-%m-%dT%H:%M:%S}")
    by_window = local.run(SCORE, {"from": hour.isoformat(), "to": (hour + timedelta(hours=1)).isoformat()})
    [(rows,)] = local.rows(
        "select count(*) from millrace.logs where ts >= :start and ts < :end",
        start=hour,
        end=hour + timedelta(hours=1),
    )
    assert by_key.returned("publish")["rows"] == by_window.returned("publish")["rows"] == rows


def test_a_cleared_run_finds_its_claim_again(local: Stack) -> None:
    [(run_key, run_id)] = local.rows(
        "select run_key, run_id from millrace.scoring_runs where kind = 'new_rows' and claimed > 0"
    )
    local.api.call(
        "POST",
        f"/dags/{SCORE}/dagRuns/{urllib.parse.quote(run_key, safe='')}/clear",
        {"dry_run": False, "only_failed": False},
    )
    again = local.finished(SCORE, run_key)
    assert again.state == "success"
    assert again.returned("publish")["ledger_run"] == run_id
    assert local.rows("select run_id from millrace.scoring_runs where run_key = :key", key=run_key) == [(run_id,)]
    assert local.rows("select count(*) from millrace.predictions") == [(ROWS,)]


@pytest.mark.parametrize(
    ("conf", "advice"),
    [({"from": "2026-01-01T00:00:00Z"}, "give `from` and `to`"), ({"from": "yesterday", "to": "now"}, "write it like")],
)
def test_a_window_that_is_none_is_red_at_once_and_says_what_to_give(
    local: Stack, conf: dict[str, str], advice: str
) -> None:
    run = local.run(SCORE, conf)
    assert run.state == "failed"
    assert advice in run.log("claim_rows")
    assert [
        task["try_number"] for task in local.api.task_instances(SCORE, run.run_id) if task["task_id"] == "claim_rows"
    ] == [1]


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        (SCORE, {"model": "best"}),
        (RETRAIN, {"policy": "lenient"}),
        (RETRAIN, {"train_days": 0}),
    ],
)
def test_a_parameter_of_the_wrong_kind_is_refused_before_it_runs(local: Stack, dag_id: str, conf: Any) -> None:
    with pytest.raises(ApiProblem) as caught:
        local.api.trigger(dag_id, conf)
    assert caught.value.status == 400


def test_an_analyst_may_look_but_not_trigger(local: Stack) -> None:
    analyst = AirflowApi(local.api.url, "analyst", passwords(local.home)["analyst"])
    assert SCORE in analyst.dags()
    with pytest.raises(ApiProblem) as caught:
        analyst.trigger(SCORE)
    assert caught.value.status == 403


def test_maintenance_makes_partitions_ahead(local: Stack) -> None:
    run = local.run("maintain")
    assert run.state == "success"
    assert run.returned("partitions")["partitions_ahead"] >= 7
    again = local.run("maintain").returned("partitions")
    assert (again["partitions_ahead"], again["partitions_for_strays"], again["dropped"]) == (0, 0, {})


def test_everything_is_still_running(local: Stack) -> None:
    status = local_stack.status(local.home)
    assert status.running
    assert set(status.processes.values()) == {"RUNNING"}


def _busy_hour(local: Stack) -> datetime:
    """An hour in the middle of the data that has rows, and so have the two after it."""
    [(hour,)] = local.rows(
        "select hour from analytics.scoring_hourly order by hour"
        " offset (select count(*) / 2 from analytics.scoring_hourly) limit 1"
    )
    found: datetime = hour
    return found
