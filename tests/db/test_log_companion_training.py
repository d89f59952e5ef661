"""The companion of log_anomaly on the real database: offered, chosen, promoted over the ensemble, and trained again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mllib import demo
from mllib.detectors import log_anomaly
from mllib.jobs import scoring
from mllib.jobs.intake import ingest
from mllib.jobs.judging import train
from mllib.jobs.reproducing import reproduce
from mllib.types import Verdict
from tests.db.factories import rows, scalar
from tests.db.training_factories import change, stored_model, version_row

DETECTOR = "log_anomaly"
ROWS = 20_000


def load(engine: Engine, folder: Path) -> None:
    paths = demo.generate(folder, now=datetime(2026, 3, 1, tzinfo=UTC), rows=ROWS, seed=11)
    report = ingest(engine, paths, format_name="jsonl", with_labels=True)
    assert (report.rows, report.labels) == (ROWS, ROWS)


def test_the_gate_takes_it_in_place_of_an_ensemble_that_had_no_verdicts(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(engine, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(log_anomaly, "MIN_LABELLED", ROWS)  # as if too few lines of the training were labelled
        first = train(engine, DETECTOR, by="a test")
    assert (first.verdict, version_row(engine, first.version)["algorithm"]) == (Verdict.PROMOTE, "ensemble")

    second = train(engine, DETECTOR, by="a test")
    row = version_row(engine, second.version)
    assert (second.verdict, row["algorithm"]) == (Verdict.PROMOTE, "ensemble and companion"), second.reason
    assert second.candidate_f1 > first.candidate_f1 + 0.1
    assert row["parameters"]["anomaly_rows"] >= 30
    assert stored_model(engine, second.version).algorithm == row["algorithm"]
    assert reproduce(engine, DETECTOR, second.version).exact

    assert scoring.score(engine, DETECTOR).scored == ROWS
    alarms = rows(
        engine,
        "select (explanation #>> '{members,companion}')::float8, p.model_version from millrace.predictions as p"
        " where is_anomaly",
    )
    assert len(alarms) > 100
    assert {version for _, version in alarms} == {second.version}
    assert sum(heard > 0 for heard, _ in alarms) > 0.8 * len(alarms)


def test_verdicts_of_the_training_are_part_of_what_is_reproduced(engine: Engine, tmp_path: Path) -> None:
    load(engine, tmp_path)
    version = train(engine, DETECTOR, by="a test").version
    # Known later, so of no matter to what was trained before.
    change(
        engine,
        "insert into millrace.labels (ts, row_id, label, origin, labelled_by)"
        " select ts, row_id, '1', 'analyst', 'x' from millrace.labels where row_id % 3 = 0",
    )
    assert reproduce(engine, DETECTOR, version).exact
    # Deleted behind its back.
    end = scalar(engine, "select upper(train_window) from millrace.model_registry")
    change(engine, "delete from millrace.labels where ts < :end and label = '1' and origin = 'import'", end=end)
    found = reproduce(engine, DETECTOR, version)
    assert not found.exact
    assert any("label" in reason or "verdict" in reason for reason in found.reasons)
