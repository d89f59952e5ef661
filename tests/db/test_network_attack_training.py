"""network_attack on the real database: from a file of flows to predictions with classes, and labels of all sorts."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mllib.demo.flows import generate_flows
from mllib.errors import NothingToTrainOn
from mllib.jobs import rescoring, scoring
from mllib.jobs.doctor import Patience, examine
from mllib.jobs.intake import ingest
from mllib.jobs.judging import train
from mllib.jobs.reproducing import reproduce
from mllib.store.database import transaction
from mllib.types import Policy, Verdict, Window
from tests.db.scoring_factories import predictions_hash, rows, scalar
from tests.factories import START

DETECTOR = "network_attack"
ROWS, DAYS = 6_000, 7
AT_ONCE = Patience(stuck=timedelta(0), waiting=timedelta(0), held=timedelta(0))


def load(engine: Engine, folder: Path, *, labels: bool = True) -> None:
    path = generate_flows(folder / "flows.csv.gz", now=START + timedelta(days=DAYS), days=DAYS, rows=ROWS)
    report = ingest(engine, [path], format_name="cicflowmeter", with_labels=labels)
    assert (report.rows, report.rejected, report.labels) == (ROWS, 0, ROWS if labels else 0)


@pytest.fixture
def trained(engine: Engine, tmp_path: Path) -> Engine:
    load(engine, tmp_path)
    report = train(engine, DETECTOR, by="a test")
    assert (report.verdict, report.metric) == (Verdict.PROMOTE, "macro_f1"), report.reason
    assert report.candidate_f1 is not None
    assert report.candidate_f1 > 0.9
    return engine


def test_from_the_file_to_the_verdict_and_scored_again(trained: Engine) -> None:
    report = scoring.score(trained, DETECTOR)
    assert (report.claimed, report.scored) == (ROWS, ROWS)
    found = rows(
        trained,
        "select l.label, p.class, p.is_anomaly, count(*), count(p.explanation -> 'look_at'), min(p.confidence)"
        " from millrace.predictions as p"
        " join millrace.labels as l on l.subject = 'network_flows' and l.ts = p.ts and l.row_id = p.log_id"
        " group by 1, 2, 3",
    )
    right = sum(count for label, said, _, count, _, _ in found if said == label.replace("0", "BENIGN"))
    assert right > 0.97 * ROWS
    assert len({said for _, said, *_ in found}) == 7
    for _, said, flagged, count, explained, confidence in found:
        assert flagged == (said != "BENIGN")
        assert explained == (count if flagged else 0)
        assert 0 < confidence <= 1

    before = predictions_hash(trained)
    window = Window(START, START + timedelta(days=1))
    plan = rescoring.plan(trained, DETECTOR, window, run_key="k", by="a test")
    assert plan.rows > 100
    assert plan.changes == 0
    assert rescoring.execute(trained, plan.plan_id, run_key="k").scored == plan.rows
    assert predictions_hash(trained) == before
    assert examine(trained, patience=AT_ONCE).findings == ()


def test_it_is_made_again_from_the_labels_that_were_known(trained: Engine) -> None:
    with transaction(trained) as conn:
        conn.execute(
            text(
                "insert into millrace.labels (subject, ts, row_id, label, origin, labelled_by)"
                " select subject, ts, row_id, 'worm', 'analyst', 'x' from millrace.labels where label = '0'"
            )
        )
    again = reproduce(trained, DETECTOR, 1)
    assert again.now is not None
    assert again.now.artifact_digest == again.then.artifact_digest
    assert again.now.labels_hash == again.then.labels_hash


def test_classes_that_training_never_saw_count_against_it_and_verdicts_without_a_name_do_not(trained: Engine) -> None:
    first = scalar(trained, "select lower(holdout_window) from millrace.model_registry")
    relabel = text(
        "update millrace.labels set label = :new"
        " where ts >= :first and row_id in (select row_id from millrace.labels where label = :old)"
    )
    with transaction(trained) as conn:
        conn.execute(relabel, {"old": "beacon", "new": "worm", "first": first})
        conn.execute(relabel, {"old": "port_scan", "new": "1", "first": first})
    report = train(trained, DETECTOR, by="a test", policy=Policy.EVIDENCE)
    assert report.verdict is Verdict.REFUSE
    figures = scalar(trained, "select figures from millrace.promotion_decisions order by decision_id desc limit 1")
    assert isinstance(figures, dict)
    of = {figure["name"]: figure["f1"] for figure in figures["candidate"]["classes"]}
    assert of["worm"] == 0
    assert of["slow_headers"] > 0.9
    assert not {"1", "port_scan"} & of.keys()


def test_without_labels_nothing_is_trained_and_it_says_what_is_needed(engine: Engine, tmp_path: Path) -> None:
    load(engine, tmp_path, labels=False)
    with pytest.raises(NothingToTrainOn, match="labelled benign"):
        train(engine, DETECTOR, by="a test")


def test_flows_by_plain_sql_with_little_or_nonsense_in_them_are_scored(trained: Engine) -> None:
    scoring.score(trained, DETECTOR)
    odd: list[dict[str, object]] = [
        {},
        {"Flow Bytes/s": None, "unheard_of": 1},
        {"Flow Duration": 1e300, "Flow IAT Mean": -1e300},
        {"Flow Duration": "Infinity", "SYN Flag Count": [1], "Idle Max": {"a": 1}},
    ]
    statement = text(
        "insert into millrace.network_flows (ts, form, protocol, features)"
        " values (:ts, 'cicflowmeter', :protocol, :features)"
    )
    with transaction(trained) as conn:
        conn.execute(
            statement,
            [
                {"ts": START, "protocol": protocol, "features": json.dumps(features)}
                for features, protocol in zip(odd, (None, "??", "tcp", None), strict=True)
            ],
        )
    assert scoring.score(trained, DETECTOR).scored == len(odd)
    # What is not of its type is missing, so the last one is scored as the first one.
    found = rows(trained, "select raw_score, class from millrace.predictions order by log_id desc limit :n", n=len(odd))
    assert found[0] == found[-1]
