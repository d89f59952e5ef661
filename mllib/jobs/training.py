"""Fits a candidate on what was known at a time, chooses its threshold, and stores it with its lineage."""

from __future__ import annotations

import logging
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as library_version
from typing import Any

import polars as pl
from sqlalchemy import Connection, Engine

from mllib import artifacts, sources
from mllib.detectors import detector as detector_named
from mllib.detectors.base import LABELS, MACRO_F1, Detector, Model
from mllib.errors import NothingToTrainOn
from mllib.fingerprint import Fingerprint, RowHashes, VerdictHash
from mllib.gate import evaluation
from mllib.gate.class_metrics import ClassMetrics
from mllib.gate.evaluation import BinaryMetrics
from mllib.gate.labelled_scores import LabelledScores
from mllib.gate.slices import Slices, grain_for, plan_slices
from mllib.jobs.labelled import score_labelled
from mllib.settings import PROJECT
from mllib.store import labels, lineage, registry
from mllib.store import rows as row_store
from mllib.store.database import transaction
from mllib.types import Window

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


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingBasis:
    """All that a model is made from. The same basis gives the same model, whatever is ingested or labelled later."""

    train: Window
    validation: Window
    training_rows: int
    """How many rows ``train`` holds: the sample is spread over them."""
    snapshot: str
    """Which rows count: those that it sees."""
    as_of: datetime
    """Up to when a label may have been known."""
    recorded_until: datetime
    """Up to when a label may have been filed; one that came in late counts as known at the time of its row."""
    options: TrainingOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A model with its threshold, and what it was made from."""

    model: Model
    artifact: bytes
    artifact_digest: str
    rows: RowHashes
    labels_hash: str
    """SHA-256 over ids and verdicts of the validation rows, and of the training rows that a detector learned from."""
    validation: BinaryMetrics | ClassMetrics


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
    as_of = (as_of or datetime.now(UTC)).astimezone(UTC)
    with transaction(engine) as conn:
        snapshot = row_store.current_snapshot(conn)
        slices = plan(conn, method, as_of=as_of, options=options, snapshot=snapshot)
        basis = TrainingBasis(
            train=slices.train,
            validation=slices.validation,
            training_rows=slices.train_counts.rows,
            snapshot=snapshot,
            as_of=as_of,
            recorded_until=lineage.training_time(conn),
            options=options,
        )
        fitted = fit(conn, method, basis)
        version = registry.add(
            conn,
            registry.NewVersion(
                detector=detector,
                artifact=fitted.artifact,
                artifact_digest=fitted.artifact_digest,
                algorithm=fitted.model.algorithm,
                parameters={**fitted.model.parameters, "training": _plain(options)},
                feature_names=tuple(fitted.model.feature_names),
                threshold=fitted.model.threshold,
                seed=options.seed,
                train=slices.train,
                validation=slices.validation,
                holdout=slices.holdout,
                training_rows=slices.train_counts.rows,
                label_counts={
                    "train": {**asdict(slices.train_counts), "content_hash": fitted.rows.content},
                    "validation": {**asdict(slices.validation_counts), "labels_hash": fitted.labels_hash},
                    "holdout": asdict(slices.holdout_counts),
                },
                data_hash=fitted.rows.ids,
                validation_metrics=asdict(fitted.validation),
                code_revision=code_revision(),
                library_versions=libraries(),
                as_of=as_of,
                trained_by=trained_by,
                snapshot=snapshot,
            ),
        )
    log.info("Stored %s version %s with threshold %.4f.", detector, version, fitted.model.threshold)
    return version


def plan(conn: Connection, method: Detector, *, as_of: datetime, options: TrainingOptions, snapshot: str) -> Slices:
    """The slices for a training at ``as_of``. Raises NothingToTrainOn where the rows do not allow any."""
    source = sources.source(method.source)
    extent = labels.extent(conn, source, as_of=as_of, delay=options.label_delay)
    if extent.first_row is None or extent.last_row is None:
        raise NothingToTrainOn(
            f"There is no {source.table.row} up to {as_of:%Y-%m-%d %H:%M:%S}. "
            "Ingest some with `millrace ingest PATH --format FORMAT`."
        )
    # Where the rows themselves hold the true class, all of them count as labelled, and none asks for a longer holdout.
    in_rows = method.metric == MACRO_F1 and method.truth != LABELS
    first_known, last_known = (None, None) if in_rows else (extent.first_labelled, extent.last_labelled)
    last = last_known or extent.last_row
    grain = grain_for(first_known or extent.first_row, last)
    counts = labels.hours(
        conn, source, until=last, as_of=as_of, delay=options.label_delay, grain=grain, snapshot=snapshot
    )
    if in_rows:
        counts = [replace(hour, labelled=hour.rows, positives=0) for hour in counts]
    return plan_slices(
        counts,
        first_row=extent.first_row,
        last_row=last,
        embargo=method.context,
        grain=grain,
        min_positives=options.min_positives,
        train_days=options.train_days,
    )


def fit(conn: Connection, method: Detector, basis: TrainingBasis) -> Fitted:
    """Fits a model on the training rows; validation chooses among its variants, and the threshold. Writes nothing.

    Raises NothingToTrainOn when there are too few rows.
    """
    log.info("Training on %s: %s rows.", basis.train, f"{basis.training_rows:,}")
    options = basis.options
    source = sources.source(method.source)
    fingerprint, verdict_hash = Fingerprint(source), VerdictHash()

    def frames() -> Iterator[pl.DataFrame]:
        verdicts = None
        if method.learns_from_labels:
            verdicts = labels.in_window(
                conn,
                source,
                basis.train,
                as_of=basis.as_of,
                delay=options.label_delay,
                recorded_until=basis.recorded_until,
            ).select("log_id", "label")
        for frame in training_rows(conn, method, basis.train, basis.snapshot):
            fingerprint.add(frame)
            if verdicts is None:
                yield frame
            else:
                told = with_verdicts(frame, verdicts)
                verdict_hash.add(told)
                yield told

    variants = method.fit(frames(), rows=basis.training_rows, seed=options.seed).variants()
    validation = score_labelled(
        conn,
        method,
        basis.validation,
        variants,
        as_of=basis.as_of,
        label_delay=options.label_delay,
        snapshot=basis.snapshot,
        recorded_until=basis.recorded_until,
    )
    chosen = best_ranking(validation)
    model = variants[chosen]
    if method.tunes_threshold:
        threshold = threshold_on(validation, chosen)
        if threshold is None:
            log.info(
                "Validation has labels of one class or none, so the threshold follows the budget of %g alerts a day.",
                options.alerts_per_day,
            )
            rate = budgeted_rate(basis.train, basis.training_rows, options.alerts_per_day)
            threshold = model.expected_threshold(rate)
        model = model.with_threshold(threshold)
    content = artifacts.dumps(model.state())
    return Fitted(
        model=model,
        artifact=content,
        artifact_digest=artifacts.digest(content),
        rows=fingerprint.hashes(),
        labels_hash=verdict_hash.with_those_of(
            evaluation.holdout_hash(validation.ts_us, validation.log_ids, validation.truth)
        ),
        validation=validation.metrics(chosen, model.threshold),
    )


def best_ranking(validation: LabelledScores) -> int:
    """Which of the models ranks the anomalies of validation best, by average precision; the first where none does.

    Not by the F1 at its best threshold: with few anomalies that is the luck of one cut.
    """
    if len(validation.scores) == 1:
        return 0
    known = validation.classed.labelled if validation.classed else slice(None)
    positive = validation.positive[known]
    if positive.all() or not positive.any():
        return 0
    ranked = [evaluation.average_precision(scores[known], positive) or 0.0 for scores in validation.scores]
    return ranked.index(max(ranked))


def with_verdicts(frame: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """The frame that a detector learns from: with the column ``label`` of the verdicts on its claimed rows."""
    told = frame.join(verdicts, on="log_id", how="left", maintain_order="left")
    # A verdict on a context row is one on a row before the training window.
    return told.with_columns(label=pl.when("claimed").then("label"))


def threshold_on(validation: LabelledScores, model: int) -> float | None:
    """The threshold with the highest F1 of a model on the rows of validation; None for labels of one class."""
    known = validation.classed.labelled if validation.classed else slice(None)
    return evaluation.best_threshold(validation.scores[model][known], validation.positive[known])


def budgeted_rate(train: Window, rows: int, alerts_per_day: float) -> float:
    """Share of rows to flag for so many alerts a day, at the volume of these rows; never more than one in ten."""
    return min(0.1, alerts_per_day * (train.length / timedelta(days=1)) / max(rows, 1))


def training_rows(conn: Connection, method: Detector, window: Window, snapshot: str) -> Iterator[pl.DataFrame]:
    """The rows of a window that a snapshot sees, led by the detector's context."""
    selection = row_store.RowsInWindow(window=window, current=snapshot)
    return row_store.stream(conn, sources.source(method.source), selection, [window], context=method.context)


def options_of(parameters: Mapping[str, Any]) -> TrainingOptions:
    """The options in a version's parameters. Those that it was trained without, being older, are the defaults."""
    stored = {**parameters.get("training", {})}
    if "label_delay" in stored:
        stored["label_delay"] = timedelta(seconds=stored["label_delay"])
    known = {field.name for field in fields(TrainingOptions)}
    return TrainingOptions(**{name: value for name, value in stored.items() if name in known})


def libraries() -> dict[str, str]:
    """Versions of Python and of the libraries that a model's figures depend on."""
    return {"python": platform.python_version(), **{name: library_version(name) for name in _LIBRARIES}}


def code_revision() -> str | None:
    """Git revision of the checkout; None where it runs without one, as in a container."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _plain(options: TrainingOptions) -> dict[str, Any]:
    return {**asdict(options), "label_delay": options.label_delay.total_seconds()}
