"""What `millrace evaluate` says of files is what the jobs say of the same rows in a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

import mllib.detectors
from mllib import artifacts, demo
from mllib.demo.connections import generate_connections
from mllib.detectors import detector
from mllib.ingest.base import ParseOptions
from mllib.ingest.frames import START
from mllib.jobs.evaluating import Protocol, evaluate
from mllib.jobs.intake import ingest
from mllib.jobs.labelled import score_labelled
from mllib.jobs.training import TrainingBasis, TrainingOptions, fit
from mllib.store.database import transaction
from mllib.store.rows import current_snapshot
from mllib.types import Window
from tests.db.factories import write_lines
from tests.db.source_factories import FLOW_HEADER, flow_line, run_line

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def tiny_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parent.parent / "tiny" / "detectors"
    monkeypatch.setattr(mllib.detectors, "__path__", [*mllib.detectors.__path__, str(folder)])


def shop(folder: Path) -> list[Path]:
    return demo.generate(folder, now=NOW, days=14, rows=12_000)


def connections(folder: Path) -> list[Path]:
    return [generate_connections(folder / "flows.csv", rows=6_000)]


def runs(folder: Path) -> list[Path]:
    return [write_lines(folder / "runs.jsonl", *map(run_line, range(2_000)))]


def flows(folder: Path) -> list[Path]:
    return [write_lines(folder / "flows.csv", FLOW_HEADER, *map(flow_line, range(1_000)))]


def window(part: dict[str, Any]) -> Window:
    start, last = (datetime.fromisoformat(part[name]) for name in ("from", "to"))
    return Window(start, last + timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("name", "make", "format_name"),
    [
        ("log_light", shop, "jsonl"),
        ("log_anomaly", shop, "jsonl"),
        ("network_threat", connections, "nsl_kdd"),
        ("tiny_runs", runs, "pipeline_jsonl"),
        ("tiny_attacks", flows, "cicflowmeter"),
        ("tiny_levels", shop, "jsonl"),
    ],
)
def test_the_figures_are_those_of_the_gate_on_the_same_rows(
    engine: Engine, tmp_path: Path, name: str, make: Any, format_name: str
) -> None:
    files: Sequence[Path] = make(tmp_path)
    fold = evaluate(name, files, Protocol(seeds=(7,)), format_name=format_name)["folds"][0]
    (measured,) = fold["seeds"]

    ingest(engine, files, format_name=format_name, with_labels=True, options=ParseOptions(start=START))
    method, now = detector(name), datetime.now(UTC)
    train, held_out = window(fold["train"]), window(fold["held_out"])
    # A detector with its own threshold has no validation here; the job scores one all the same.
    validation = window(fold["validation"]) if fold["validation"] else held_out
    with transaction(engine) as conn:
        basis = TrainingBasis(
            train=train,
            validation=validation,
            training_rows=fold["train"]["rows"],
            snapshot=current_snapshot(conn),
            as_of=now,
            recorded_until=now,
            options=TrainingOptions(seed=7),
        )
        fitted = fit(conn, method, basis)
        model = method.load(artifacts.loads(fitted.artifact, fitted.artifact_digest))
        rows = score_labelled(
            conn,
            method,
            held_out,
            [model],
            as_of=now,
            label_delay=timedelta(0),
            snapshot=basis.snapshot,
            trained_on=[train],
        )

    assert measured["artifact_sha256"] == fitted.artifact_digest
    assert measured["threshold"] == fitted.model.threshold
    assert measured["metrics"] == asdict(rows.metrics(0, model.threshold))
    assert fold["held_out"]["left_out"] == rows.tied
    assert (fold["held_out"]["judged"], fold["held_out"]["positives"]) == (rows.positive.size, rows.positive.sum())
    if fold["validation"]:
        assert measured["validation_figure"] == fitted.validation.f1
