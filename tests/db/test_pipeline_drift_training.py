"""pipeline_drift on the real database: from the logs of runs to predictions, their view, and what it says of them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mllib.demo.runs import generate_runs
from mllib.ingest.base import ParseOptions
from mllib.jobs import rescoring, scoring
from mllib.jobs.doctor import Patience, examine
from mllib.jobs.intake import ingest
from mllib.jobs.judging import train
from mllib.jobs.reporting import find
from mllib.jobs.reproducing import reproduce
from mllib.store.database import transaction
from mllib.types import Verdict, Window
from tests.db.scoring_factories import predictions_hash, rows, scalar
from tests.factories import START

DETECTOR = "pipeline_drift"
RUNS = 1_000
END = START + timedelta(days=28)
AT_ONCE = Patience(stuck=timedelta(0), waiting=timedelta(0), held=timedelta(0))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_runs(tmp_path_factory.mktemp("runs") / "runs.jsonl.gz", now=END, runs=RUNS)


def load(engine: Engine, path: Path, *, labels: bool) -> None:
    report = ingest(engine, [path], format_name="auto", with_labels=labels, options=ParseOptions())
    assert (report.rows, report.rejected, report.labels) == (RUNS, 0, RUNS if labels else 0)


def test_from_the_logs_to_the_verdict_the_view_and_scored_again(engine: Engine, runs: Path) -> None:
    load(engine, runs, labels=True)
    report = train(engine, DETECTOR, by="a test")
    assert report.verdict is Verdict.PROMOTE, report.reason
    assert report.candidate_f1 is not None
    assert report.candidate_f1 > 0.6
    _, page = find(engine, DETECTOR)
    assert "F1 by repository, provider" in page
    assert '<th scope="col">Repository</th><th scope="col">Provider</th><th scope="col">Message</th>' in page
    scored = scoring.score(engine, DETECTOR)
    assert (scored.claimed, scored.scored) == (RUNS, RUNS)

    # What the training did not see: the planted changes stand out whatever the outcome.
    train_end = scalar(engine, "select upper(train_window) from millrace.model_registry")
    found = rows(
        engine,
        "select r.attributes ->> 'planted', d.risk_level, d.drift_score, d.is_anomaly, d.issues"
        " from analytics.pipeline_drift as d join millrace.pipeline_runs as r using (ts, row_id) where d.ts >= :end",
        end=train_end,
    )
    planted = [(kind, level, flagged, issues) for kind, level, _, flagged, issues in found if kind]
    assert len(planted) >= 5
    assert sum(level == "critical" and flagged for _, level, flagged, _ in planted) >= 0.9 * len(planted)
    told = [kind in {issue["kind"] for issue in issues} for kind, _, flagged, issues in planted if flagged]
    assert sum(told) >= 0.9 * len(told)
    calm = [drift for kind, _, drift, flagged, _ in found if not kind and not flagged]
    assert max(calm) < 70

    # The view says of every run what the model itself says of the anomalies.
    same = rows(
        engine,
        "select d.drift_score, d.risk_level, p.explanation from analytics.pipeline_drift as d"
        " join millrace.predictions as p on p.ts = d.ts and p.log_id = d.row_id where d.is_anomaly",
    )
    assert same
    for drift, level, explanation in same:
        assert drift == pytest.approx(explanation["drift_score"], abs=0.06)
        assert level == explanation["risk_level"]
    assert scalar(engine, "select count(*) from analytics.pipeline_drift") == RUNS

    before = predictions_hash(engine)
    plan = rescoring.plan(engine, DETECTOR, Window(START, START + timedelta(days=7)), run_key="k", by="a test")
    assert plan.changes == 0
    assert rescoring.execute(engine, plan.plan_id, run_key="k").scored == plan.rows > 0
    assert predictions_hash(engine) == before
    assert examine(engine, patience=AT_ONCE).findings == ()

    again = reproduce(engine, DETECTOR, 1)
    assert again.now is not None
    assert again.now.artifact_digest == again.then.artifact_digest


def test_without_labels_it_is_trained_all_the_same_and_scores_odd_rows(engine: Engine, runs: Path) -> None:
    load(engine, runs, labels=False)
    report = train(engine, DETECTOR, by="a test")
    assert report.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert scalar(engine, "select parameters ->> 'passed_rows' from millrace.model_registry") == "0"
    with transaction(engine) as conn:
        conn.execute(text("update millrace.model_registry set status = 'champion'"))
    scoring.score(engine, DETECTOR)
    odd: list[dict[str, object]] = [
        {"lines": None, "hosts": None, "evidence": None},
        {"lines": 1e300, "hosts": ["", "x" * 253], "evidence": json.dumps({"contacts": [1], "privileges": {"a": 1}})},
        {"lines": 0, "hosts": [], "evidence": json.dumps({"contacts": {"h.example.org": ["command", "many"]}})},
    ]
    statement = (
        "insert into millrace.pipeline_runs (ts, log_lines, hosts, evidence) values (:ts, :lines, :hosts, :evidence)"
    )
    with transaction(engine) as conn:
        conn.execute(text(statement), [{"ts": END, **values} for values in odd])
    assert scoring.score(engine, DETECTOR).scored == len(odd)
