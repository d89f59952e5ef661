"""Trains a version again from its lineage, and compares what comes out with what is on record."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
from sqlalchemy import Connection, Engine

from mllib import artifacts, sources
from mllib.detectors import detector as detector_named
from mllib.detectors.base import Detector, Model
from mllib.errors import BadInput, NothingToTrainOn
from mllib.features.stream import with_context
from mllib.fingerprint import Fingerprint
from mllib.jobs.training import (
    Fitted,
    TrainingBasis,
    code_revision,
    fit,
    libraries,
    options_of,
    training_rows,
)
from mllib.reproduction import Outcome, Reproduction, ScoreDifference, listed, why_models_differ, why_rows_differ
from mllib.store import identity, lineage, partitions, registry, retention
from mllib.store import rows as row_store
from mllib.store.database import transaction
from mllib.store.lineage import Lineage
from mllib.types import Window


def reproduce(engine: Engine, detector: str, version: int) -> Reproduction:
    """Trains a version again from the windows, rows, labels, options and seed on record, and compares. Writes nothing.

    Raises BadInput when there is no such version, when it was not trained by the weekly job, or when it is older than
    the keeping of snapshots and its rows cannot be told any more.
    """
    started = time.perf_counter()
    method = detector_named(detector)
    with transaction(engine) as conn:
        lineage.read_only(conn)
        made = lineage.lineage_of(conn, detector, version)
        if made.validation is None or "training" not in made.parameters:
            raise BadInput(
                f"{detector} version {version} has no training on record that could be run again: it was put into the "
                f"registry by hand. `millrace models {detector}` lists the others."
            )
        snapshot = made.snapshot or _matching_snapshot(conn, method, version, made)
        basis = TrainingBasis(
            train=made.train,
            validation=made.validation,
            training_rows=made.training_rows,
            snapshot=snapshot,
            as_of=made.as_of,
            recorded_until=made.trained_at,
            options=replace(options_of(made.parameters), seed=made.seed),
        )
        then = _then(made)
        now: Outcome | None = None
        scores: ScoreDifference | None = None
        reasons: list[str] = []
        try:
            fitted = fit(conn, method, basis)
        except NothingToTrainOn as error:
            reasons.append(f"What is left of the training rows cannot be trained on: {error}")
        else:
            now = _now(fitted, made)
            if now.artifact_digest != then.artifact_digest:
                stored = method.load(artifacts.loads(*registry.artifact(conn, detector, version)))
                window = made.holdout or made.validation
                scores = _score_difference(conn, method, window, snapshot, stored, fitted.model)
        if now is None or not now.same_rows_as(then):
            reasons += why_rows_differ(
                then,
                now,
                context=method.context,
                dropped=_dropped_days(conn, method, made),
                at_home=identity.identity(conn).at_home,
                adopted_at=lineage.adopted_since(conn, made.trained_at),
            )
        if now is not None:
            reasons += why_models_differ(then, now)
    return Reproduction(
        detector=detector,
        version=version,
        trained_at=made.trained_at,
        as_of=made.as_of,
        snapshot=snapshot,
        snapshot_kept=made.snapshot is not None,
        then=then,
        now=now,
        scores=scores,
        reasons=tuple(reasons),
        seconds=round(time.perf_counter() - started, 3),
    )


def _then(made: Lineage) -> Outcome:
    counts = made.label_counts
    return Outcome(
        training_rows=made.training_rows,
        data_hash=made.data_hash,
        content_hash=counts.get("train", {}).get("content_hash"),
        labels_hash=counts.get("validation", {}).get("labels_hash"),
        parameters={name: value for name, value in made.parameters.items() if name != "training"},
        feature_names=made.feature_names,
        seed=made.parameters["training"].get("seed", made.seed),
        threshold=made.threshold,
        artifact_digest=made.artifact_digest,
        code_revision=made.code_revision,
        library_versions=made.library_versions,
    )


def _now(fitted: Fitted, made: Lineage) -> Outcome:
    return Outcome(
        training_rows=fitted.rows.rows,
        data_hash=fitted.rows.ids,
        content_hash=fitted.rows.content,
        labels_hash=fitted.labels_hash,
        parameters=fitted.model.parameters,
        feature_names=tuple(fitted.model.feature_names),
        seed=made.seed,
        threshold=fitted.model.threshold,
        artifact_digest=fitted.artifact_digest,
        code_revision=code_revision(),
        library_versions=libraries(),
    )


def _matching_snapshot(conn: Connection, method: Detector, version: int, made: Lineage) -> str:
    """A snapshot that sees exactly the training rows of a version that did not keep its own."""
    source = sources.source(method.source)
    read = Window(made.train.start - method.context, (made.holdout or made.validation or made.train).end)
    for snapshot in (
        lineage.snapshot_by_ingestion(conn, source, read, made.trained_at),
        row_store.current_snapshot(conn),
    ):
        found = Fingerprint(source)
        for frame in training_rows(conn, method, made.train, snapshot):
            found.add(frame)
        if found.hashes().ids == made.data_hash:
            return snapshot
    dropped = _dropped_days(conn, method, made)
    why = (
        f"retention has dropped {listed(dropped)}"
        if dropped
        else "rows of its training window were added or deleted since"
    )
    raise BadInput(
        f"{method.name} version {version} cannot be trained again: it is from before the snapshot of its rows was "
        f"kept, and no rows match the hash on record, because {why}. Train a new one with "
        f"`millrace train {method.name}`; its rows can be told for good."
    )


def _score_difference(
    conn: Connection, method: Detector, window: Window, snapshot: str, stored: Model, fitted: Model
) -> ScoreDifference:
    """Over all rows of the window, labelled or not, as the snapshot sees them. Flat memory."""
    rows = verdicts = 0
    largest: float | None = None
    for frame in with_context(training_rows(conn, method, window, snapshot), method.context):
        old, new = stored.raw_scores(frame), fitted.raw_scores(frame)
        if old.size:
            rows += old.size
            verdicts += int(np.sum((old >= stored.threshold) != (new >= fitted.threshold)))
            largest = max(largest or 0.0, float(np.max(np.abs(old - new))))
    return ScoreDifference(rows=rows, largest=largest, verdicts=verdicts)


def _dropped_days(conn: Connection, method: Detector, made: Lineage) -> list[date]:
    """The days that training reads and that retention has dropped."""
    table = sources.source(method.source).table.name
    first = made.train.start.date()
    last = ((made.validation or made.train).end - timedelta(microseconds=1)).date()
    before = next(
        (rule.dropped_before for rule in retention.settings(conn) if rule.parent == table),
        None,
    )
    if before is None:
        return []
    there = partitions.existing(conn, table)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    gone = [day for day in days if day < before and day not in there]
    lead = (made.train.start - method.context).date()
    # The day that only leads in is named where nothing else explains the difference: it may have had no rows at all.
    return gone or [day for day in [lead] if day < before and day not in there]
