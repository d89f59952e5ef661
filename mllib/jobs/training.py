"""Fits a candidate on what was known at a time, chooses its threshold, and stores it with its lineage."""

from __future__ import annotations

import hashlib
import logging
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as library_version
from typing import Any

import polars as pl
from sqlalchemy import Connection, Engine

from mllib import artifacts, evaluation, sources
from mllib.detectors import detector as detector_named
from mllib.detectors.base import Detector
from mllib.errors import NothingToTrainOn
from mllib.jobs.labelled import score_labelled
from mllib.settings import PROJECT
from mllib.slices import Slices, grain_for, plan_slices
from mllib.store import labels, registry
from mllib.store import rows as row_store
from mllib.store.database import transaction

log = logging.getLogger(__name__)

_LIBRARIES = ("numpy", "pandas", "polars", "scikit-learn")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """What a training run may be told. The defaults are those of the weekly DAG."""

    train_days: int = 30
    min_positives: int = 30
    """Labelled anomalies that the holdout needs for a verdict."""
    label_delay: timedelta = timedelta(0)
    """How long labels ripen before they are believed."""
    alerts_per_day: float = 50.0
    """Chooses the threshold where labels cannot."""
    seed: int = 42


DEFAULTS = TrainingOptions()


def fit_candidate(
    engine: Engine,
    detector: str,
    *,
    as_of: datetime | None = None,
    options: TrainingOptions = DEFAULTS,
    trained_by: str,
) -> int:
    """Fits a model on the training slice, chooses its threshold on validation, and stores it as a candidate.

    Looks at no row or label that was not known at ``as_of`` (default: now). Returns the version's number.
    Raises NothingToTrainOn when the rows are too few, or too close together to be sliced.
    """
    method = detector_named(detector)
    source = sources.source(method.source)
    as_of = (as_of or datetime.now(UTC)).astimezone(UTC)
    with transaction(engine) as conn:
        snapshot = row_store.current_snapshot(conn)
        slices = _plan(conn, method, as_of, options, snapshot)
        log.info("Training on %s: %s rows.", slices.train, f"{slices.train_counts.rows:,}")
        rows_hash = hashlib.sha256()

        def frames() -> Iterator[pl.DataFrame]:
            selection = row_store.RowsInWindow(window=slices.train, current=snapshot)
            for frame in row_store.stream(conn, source, selection, [slices.train], context=method.context):
                rows_hash.update(
                    frame.filter("claimed").select(pl.col("ts").to_physical(), "log_id").to_numpy().tobytes()
                )
                yield frame

        model = method.fit(frames(), rows=slices.train_counts.rows, seed=options.seed)
        validation = score_labelled(
            conn,
            method,
            slices.validation,
            [model],
            as_of=as_of,
            label_delay=options.label_delay,
            snapshot=snapshot,
        )
        threshold = evaluation.best_threshold(validation.scores[0], validation.positive)
        if threshold is None:
            threshold = model.expected_threshold(_budgeted_rate(slices, options.alerts_per_day))
            log.info(
                "Validation has labels of one class or none, so the threshold follows the budget of %g alerts a day.",
                options.alerts_per_day,
            )
        model = model.with_threshold(threshold)
        content = artifacts.dumps(model.state())
        version = registry.add(
            conn,
            registry.NewVersion(
                detector=detector,
                artifact=content,
                artifact_digest=artifacts.digest(content),
                algorithm=model.algorithm,
                parameters={**model.parameters, "training": _plain(options)},
                feature_names=tuple(model.feature_names),
                threshold=threshold,
                seed=options.seed,
                train=slices.train,
                validation=slices.validation,
                holdout=slices.holdout,
                training_rows=slices.train_counts.rows,
                label_counts={
                    "train": asdict(slices.train_counts),
                    "validation": asdict(slices.validation_counts),
                    "holdout": asdict(slices.holdout_counts),
                },
                data_hash=rows_hash.hexdigest(),
                validation_metrics=asdict(validation.metrics(0, threshold)),
                code_revision=_code_revision(),
                library_versions=_versions(),
                as_of=as_of,
                trained_by=trained_by,
            ),
        )
    log.info("Stored %s version %s with threshold %.4f.", detector, version, threshold)
    return version


def _plan(conn: Connection, method: Detector, as_of: datetime, options: TrainingOptions, snapshot: str) -> Slices:
    source = sources.source(method.source)
    extent = labels.extent(conn, source, as_of=as_of, delay=options.label_delay)
    if extent.first_row is None or extent.last_row is None:
        raise NothingToTrainOn(
            f"There is no {source.table.row} up to {as_of:%Y-%m-%d %H:%M:%S}. "
            "Ingest some with `millrace ingest PATH --format FORMAT`."
        )
    last = extent.last_labelled or extent.last_row
    grain = grain_for(extent.first_labelled or extent.first_row, last)
    counts = labels.hours(
        conn, source, until=last, as_of=as_of, delay=options.label_delay, grain=grain, snapshot=snapshot
    )
    return plan_slices(
        counts,
        first_row=extent.first_row,
        last_row=last,
        embargo=method.context,
        grain=grain,
        min_positives=options.min_positives,
        train_days=options.train_days,
    )


def _budgeted_rate(slices: Slices, alerts_per_day: float) -> float:
    """Share of rows to flag for so many alerts a day, at the training slice's volume; never more than one in ten."""
    days = slices.train.length / timedelta(days=1)
    return min(0.1, alerts_per_day * days / max(slices.train_counts.rows, 1))


def _plain(options: TrainingOptions) -> dict[str, Any]:
    return {**asdict(options), "label_delay": options.label_delay.total_seconds()}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: library_version(name) for name in _LIBRARIES}}


def _code_revision() -> str | None:
    """Git revision of the checkout; None where it runs without one, as in a container."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
