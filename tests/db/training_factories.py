"""What the tests of training and of the gate do again and again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, text

from mllib import artifacts
from mllib.detectors import detector
from mllib.detectors.base import Model
from mllib.jobs import judging
from mllib.jobs.judging import TrainReport, train
from mllib.store import registry
from mllib.store.database import transaction
from tests.db.scoring_factories import DETECTOR

END = datetime(2026, 3, 1, tzinfo=UTC)
"""Where the labelled logs of the fixture ``shop`` end."""


def run(engine: Engine, **how: Any) -> TrainReport:
    """The whole weekly job."""
    return train(engine, DETECTOR, by="test", **how)


def change(engine: Engine, statement: str, **binds: Any) -> int:
    """Runs a statement, and returns how many rows it changed."""
    with transaction(engine) as conn:
        return conn.execute(text(statement), binds).rowcount


def version_row(engine: Engine, version: int) -> dict[str, Any]:
    """A version's row of model_registry."""
    with transaction(engine) as conn:
        found = conn.execute(text("select * from millrace.model_registry where version = :v"), {"v": version}).one()
    return dict(found._mapping)


def decisions(engine: Engine) -> list[dict[str, Any]]:
    """All rows of promotion_decisions, in their order."""
    with transaction(engine) as conn:
        found = conn.execute(text("select * from millrace.promotion_decisions order by decision_id"))
        return [dict(row._mapping) for row in found]


def stored_model(engine: Engine, version: int) -> Model:
    """A version's model, out of the registry."""
    with transaction(engine) as conn:
        return detector(DETECTOR).load(artifacts.loads(*registry.artifact(conn, DETECTOR, version)))


def add_version(engine: Engine, *, like: int, content: bytes, **override: Any) -> int:
    """Puts a candidate of these bytes into the registry, otherwise like version ``like`` unless overridden."""
    row = version_row(engine, like)
    with transaction(engine) as conn:
        beside = registry.get(conn, DETECTOR, like)
        values: dict[str, Any] = {
            "detector": DETECTOR,
            "artifact": content,
            "artifact_digest": artifacts.digest(content),
            "algorithm": row["algorithm"],
            "parameters": {},
            "feature_names": tuple(row["feature_names"]),
            "threshold": row["threshold"],
            "seed": 1,
            "train": beside.train,
            "validation": beside.validation,
            "holdout": beside.holdout,
            "training_rows": beside.training_rows,
            "label_counts": {},
            "data_hash": "0",
            "validation_metrics": {},
            "code_revision": None,
            "library_versions": {},
            "as_of": beside.as_of,
            "trained_by": "test",
        }
        return registry.add(conn, registry.NewVersion(**(values | override)))


def make_champion_like(engine: Engine, like: int, model: Model) -> int:
    """Puts a model into the registry beside version ``like``, trained on the same, and makes it champion."""
    version = add_version(engine, like=like, content=artifacts.dumps(model.state()), threshold=model.threshold)
    judging.promote(engine, DETECTOR, version, reason="a test needs it", by="test", against_current=True)
    return version
