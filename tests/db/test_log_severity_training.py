"""log_severity on the real database: from a file of log lines to levels, confidence and severity, and back again."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mllib.errors import NothingToTrainOn
from mllib.jobs import scoring
from mllib.jobs.doctor import Patience, examine
from mllib.jobs.intake import ingest
from mllib.jobs.judging import train
from mllib.jobs.reproducing import reproduce
from mllib.store.database import transaction
from mllib.types import Verdict
from tests.db.factories import rows, scalar, write_lines
from tests.factories import START

DETECTOR = "log_severity"
ROWS = 4_000
AT_ONCE = Patience(stuck=timedelta(0), waiting=timedelta(0), held=timedelta(0))
SAID = (
    ("info", "[INFO] request {n} completed"),
    ("info", "user {n} signed in"),
    ("DEBUG", "DEBUG: cache entry {n} renewed"),
    ("warning", "slow query took {n} ms"),
    ("ERROR", "ERROR payment {n} refused"),
)
ODD = ("ERROR", "replica {n} diverged from its primary")
SEVERITIES = {"DEBUG": (1, 2), "INFO": (1, 2), "WARN": (2, 3), "ERROR": (3, 4), "FATAL": (3, 4)}


def load(engine: Engine, folder: Path, *, labels: bool = False) -> None:
    """A line a minute; every 25th is odd, a few levels mean nothing."""
    lines = []
    for n in range(ROWS):
        level, message = ODD if n % 25 == 24 else SAID[n * 7919 % len(SAID)]
        line = {
            "timestamp": (START + timedelta(minutes=n)).isoformat(),
            "level": "loud" if n % 100 == 50 else level,
            "service": ("shop", "search", "mail")[n % 3],
            "message": message.format(n=n),
            "label": int((level, message) == ODD),
        }
        lines.append(json.dumps(line))
    report = ingest(engine, [write_lines(folder / "logs.jsonl", *lines)], format_name="jsonl", with_labels=labels)
    assert (report.rows, report.rejected, report.labels) == (ROWS, 0, ROWS if labels else 0)


@pytest.mark.parametrize("labelled", [False, True])
def test_from_the_file_to_level_confidence_and_severity(engine: Engine, tmp_path: Path, labelled: bool) -> None:
    load(engine, tmp_path, labels=labelled)
    report = train(engine, DETECTOR, by="a test")
    assert (report.verdict, report.metric) == (Verdict.PROMOTE, "macro_f1"), report.reason
    assert report.candidate_f1 == 1.0
    assert scalar(engine, "select parameters ->> 'score' from millrace.model_registry") == (
        "labels" if labelled else "rarity"
    )
    found = scoring.score(engine, DETECTOR)
    assert (found.claimed, found.scored) == (ROWS, ROWS)
    said = rows(
        engine,
        "select l.message like 'replica%', l.level, p.class, p.is_anomaly, p.severity, min(p.confidence),"
        " count(*), count(p.explanation -> 'level')"
        " from millrace.predictions as p join millrace.logs as l using (ts, log_id) group by 1, 2, 3, 4, 5",
    )
    named = {"info": "INFO", "DEBUG": "DEBUG", "warning": "WARN", "ERROR": "ERROR"}
    assert sum(count for *_, count, _ in said) == ROWS
    for odd, level, name, anomaly, severity, confidence, count, explained in said:
        assert name == named.get(level, name)
        assert severity == SEVERITIES[name][anomaly]
        assert 0.2 < confidence <= 1
        assert explained == (count if anomaly else 0)
        if labelled:
            assert anomaly == odd
    assert scalar(engine, "select count(class) from analytics.predictions_current where confidence > 0.2") == ROWS
    assert examine(engine, patience=AT_ONCE).findings == ()
    assert reproduce(engine, DETECTOR, report.version).exact


def test_anomalies_that_are_found_clearly_worse_stop_a_candidate(engine: Engine, tmp_path: Path) -> None:
    load(engine, tmp_path, labels=True)
    assert train(engine, DETECTOR, by="a test").verdict is Verdict.PROMOTE
    # From here on the training learns that what is odd is not, while the holdout still knows better.
    start = scalar(engine, "select lower(holdout_window) from millrace.model_registry")
    change = (
        "insert into millrace.labels (ts, row_id, label, origin, labelled_by)"
        " select ts, row_id, case when row_id % 9 = 0 then '1' else '0' end, 'analyst', 'x' from millrace.labels"
        " where ts < :start"
    )
    with transaction(engine) as conn:
        conn.execute(text(change), {"start": start})
    report = train(engine, DETECTOR, by="a test")
    assert report.verdict is Verdict.REFUSE
    assert "anomalies" in report.reason


def test_logs_without_levels_are_not_trained_on(engine: Engine, tmp_path: Path) -> None:
    load(engine, tmp_path)
    with transaction(engine) as conn:
        conn.execute(text("update millrace.logs set level = null"))
    with pytest.raises(NothingToTrainOn, match="Ingest logs that have levels"):
        train(engine, DETECTOR, by="a test")
