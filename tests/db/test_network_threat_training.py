"""network_threat on the real database: from files of connections to predictions, and which labels it learns from."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mllib.demo.connections import generate_connections
from mllib.errors import NothingToTrainOn
from mllib.ingest.base import ParseOptions
from mllib.jobs import rescoring, scoring
from mllib.jobs.doctor import Patience, examine
from mllib.jobs.intake import ingest
from mllib.jobs.judging import train
from mllib.jobs.reproducing import reproduce
from mllib.store.database import transaction
from mllib.types import Verdict, Window
from tests.db.scoring_factories import predictions_hash, rows, scalar
from tests.factories import START

DETECTOR = "network_threat"
ROWS = 9_000
AT_ONCE = Patience(stuck=timedelta(0), waiting=timedelta(0), held=timedelta(0))


def load(engine: Engine, folder: Path, *, labels: bool = True) -> None:
    path = generate_connections(folder / "flows.csv", rows=ROWS)
    report = ingest(engine, [path], format_name="nsl_kdd", with_labels=labels, options=ParseOptions(start=START))
    assert (report.rows, report.rejected, report.labels) == (ROWS, 0, ROWS if labels else 0)


@pytest.fixture
def trained(engine: Engine, tmp_path: Path) -> Engine:
    load(engine, tmp_path)
    report = train(engine, DETECTOR, by="a test")
    assert report.verdict is Verdict.PROMOTE, report.reason
    assert report.candidate_f1 is not None
    assert report.candidate_f1 > 0.7
    return engine


def test_from_the_file_to_the_verdict_and_scored_again(trained: Engine) -> None:
    report = scoring.score(trained, DETECTOR)
    assert (report.claimed, report.scored) == (ROWS, ROWS)
    found = rows(
        trained,
        "select l.label <> '0', p.is_anomaly, count(*), count(p.explanation -> 'look_at')"
        " from millrace.predictions as p"
        " join millrace.labels as l on l.subject = 'network_flows' and l.ts = p.ts and l.row_id = p.log_id"
        " group by 1, 2",
    )
    counts = {(attack, flagged): (count, explained) for attack, flagged, count, explained in found}
    flagged = {kind: counts[kind, True][0] / (counts[kind, True][0] + counts[kind, False][0]) for kind in (False, True)}
    assert flagged[True] > 0.9
    assert flagged[False] < 0.1
    assert all(explained == (count if said else 0) for (_, said), (count, explained) in counts.items())

    before = predictions_hash(trained)
    plan = rescoring.plan(trained, DETECTOR, Window(START, START + timedelta(hours=1)), run_key="k", by="a test")
    assert (plan.rows, plan.changes) == (3_600, 0)
    assert rescoring.execute(trained, plan.plan_id, run_key="k").scored == 3_600
    assert predictions_hash(trained) == before
    assert examine(trained, patience=AT_ONCE).findings == ()


def test_it_learns_from_the_labels_that_were_known_and_is_made_again_from_them(trained: Engine) -> None:
    # The threshold is the model's own: on validation it leaves false alarms that the best one for its labels would not.
    parameters, measured = rows(trained, "select parameters, validation_metrics from millrace.model_registry")[0]
    normal = measured["rows"] - measured["positives"]
    assert 0.02 < (measured["alarms"] - measured["true_positives"]) / normal < 0.1
    start, end = rows(trained, "select lower(train_window), upper(train_window) from millrace.model_registry")[0]
    known = scalar(
        trained,
        "select count(*) from millrace.labels where label <> '0' and ts >= :start and ts < :end",
        start=start,
        end=end,
    )
    assert parameters["attack_rows"] == known
    change = (
        "insert into millrace.labels (subject, ts, row_id, label, origin, labelled_by)"
        " select subject, ts, row_id, 'worm', 'analyst', 'x' from millrace.labels where ts < :end and label = '0'"
    )
    with transaction(trained) as conn:
        conn.execute(text(change), {"end": end})
    again = reproduce(trained, DETECTOR, 1)
    assert again.now is not None
    assert again.now.artifact_digest == again.then.artifact_digest
    assert again.now.labels_hash == again.then.labels_hash
    with transaction(trained) as conn:
        conn.execute(
            text("delete from millrace.labels where label <> '0' and ts < :end and row_id % 3 = 0"), {"end": end}
        )
    other = reproduce(trained, DETECTOR, 1)
    assert other.now is not None
    assert other.now.labels_hash != other.then.labels_hash
    assert any("those that it learned from" in reason for reason in other.reasons)


def test_without_labels_nothing_is_trained_and_it_says_what_is_needed(engine: Engine, tmp_path: Path) -> None:
    load(engine, tmp_path, labels=False)
    with pytest.raises(NothingToTrainOn, match="labelled normal"):
        train(engine, DETECTOR, by="a test")


def test_connections_by_plain_sql_with_little_or_nonsense_in_them_are_scored(trained: Engine) -> None:
    scoring.score(trained, DETECTOR)
    odd: list[dict[str, object]] = [
        {},
        {"count": None, "flag": "??"},
        {"service": "x" * 10_000},
        {"src_bytes": 1e300, "unheard_of": 1},
        {"count": "many", "flag": 7, "serror_rate": [1], "service": {"name": "http"}},
    ]
    statement = text("insert into millrace.network_flows (ts, form, features) values (:ts, 'nsl_kdd', :features)")
    with transaction(trained) as conn:
        conn.execute(statement, [{"ts": START, "features": json.dumps(features)} for features in odd])
    assert scoring.score(trained, DETECTOR).scored == len(odd)
    # What is not of its type is missing, so the last one is scored as the first one.
    scores = rows(trained, "select raw_score from millrace.predictions order by log_id desc limit :n", n=len(odd))
    assert scores[0] == scores[-1]
