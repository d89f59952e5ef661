"""Draws the report of a verdict and keeps it beside the decision; finds it again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine

from mllib.detectors import detector as detector_named
from mllib.detectors.base import Model
from mllib.errors import BadInput
from mllib.gate.labelled_scores import LabelledScores
from mllib.report import measures, page
from mllib.report.contents import Classes, Example, ExampleGroup, Judgement, Rows, Version
from mllib.sources import Table
from mllib.store import reports
from mllib.store.database import transaction
from mllib.store.detectors import source_of
from mllib.store.lineage import Lineage, lineage_of
from mllib.store.reports import StoredPage
from mllib.types import Window

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Kinds = Sequence[tuple[str, str, npt.NDArray[np.bool_]]]
"""Ways in which models treat rows: a title, what it means, and which rows those are."""

_QUOTES = str.maketrans("", "", '"{}')


def keep(
    conn: Connection, decision_id: int, judgement: Judgement, scored: LabelledScores, models: Sequence[Model]
) -> None:
    """Draws the page of a decision and stores it in the decision's transaction.

    A page that cannot be drawn or stored stops no verdict: everything that the verdict rests on is in the decision
    itself, and a detector that needs a new champion must not wait for a picture. The failure is logged with its
    traceback, and the savepoint leaves the transaction as it was. Only a lost connection is passed on.
    """
    try:
        with conn.begin_nested():
            reports.add(conn, decision_id, draw(conn, judgement, scored, models))
    except Exception:
        if conn.invalidated:
            raise
        log.exception(
            "The report of decision %s (%s version %s) could not be drawn. The verdict stands, its figures are in "
            "analytics.promotion_decisions.",
            decision_id,
            judgement.detector,
            judgement.version,
        )


def draw(conn: Connection, judgement: Judgement, scored: LabelledScores, models: Sequence[Model]) -> str:
    """The page of a verdict on ``models``, the candidate first, as `mllib.report.page.render` makes it."""
    if judgement.evidence.candidate is None:
        # Its stored model cannot be loaded, or gives rows no score: then there is nothing to compare.
        scored, models = replace(scored, scores=()), ()
    rows = Rows(
        ts_us=scored.ts_us,
        log_ids=scored.log_ids,
        positive=scored.positive,
        clusters=scored.clusters,
        dimensions=scored.dimensions,
        scores=scored.scores,
        thresholds=tuple(model.threshold for model in models),
        classes=_classes(scored, len(models)),
    )
    candidate = lineage_of(conn, judgement.detector, judgement.version)
    versions = [_version("Candidate", judgement.version, candidate)]
    if judgement.champion_version is not None:
        champion = lineage_of(conn, judgement.detector, judgement.champion_version)
        versions.append(_version("Champion", judgement.champion_version, champion))
    lines = candidate.label_counts.get("holdout", {}).get("rows")
    return page.render(
        judgement,
        rows,
        label_counts=candidate.label_counts,
        rows_per_day=lines / (candidate.holdout.length / timedelta(days=1)) if lines and candidate.holdout else None,
        versions=tuple(versions),
        examples=_examples(conn, source_of(judgement.detector).table, rows, models),
    )


def find(engine: Engine, detector: str, version: int | None = None) -> tuple[StoredPage, str]:
    """The page of the last verdict of the gate on a version, or on any version of the detector, and its content.

    Raises UnknownDetector, and BadInput when there is no verdict, or no page of it.
    """
    detector_named(detector)
    with transaction(engine) as conn:
        found = reports.page(conn, reports.latest_decision(conn, detector, version))
    if found is None or found.content is None:
        raise BadInput(
            f"There is no report of the last verdict on {detector}{f' version {version}' if version else ''}: it is "
            "from before reports were kept, or could not be drawn, which the log of that run says. The figures are in "
            "analytics.promotion_decisions."
        )
    return found, found.content


def write(found: StoredPage, content: str, path: Path | None = None) -> Path:
    """Writes a page to a file, by default one named for the verdict in the present folder, and returns its path.

    Raises BadInput when the file is there already or cannot be written.
    """
    path = path or Path(f"report-{found.detector}-v{found.version}-decision{found.decision_id}.html")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise BadInput(f"{path} is there already, and was left as it is. Name another file with --output.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}. Name another file with --output.") from None
    return path.resolve()


def _classes(scored: LabelledScores, models: int) -> Classes | None:
    classed = scored.classed
    if classed is None:
        return None
    return Classes(names=classed.names, truth=classed.truth, predicted=classed.predicted[:models])


def _examples(conn: Connection, table: Table, rows: Rows, models: Sequence[Model]) -> tuple[ExampleGroup, ...]:
    if not models:
        return ()
    kinds = _kinds_of_classes(rows) if rows.classes else _kinds(rows)
    chosen = [measures.pick(rows, among) for _, _, among in kinds]
    every = np.concatenate(chosen)
    texts = reports.messages(
        conn, table, rows.ts_us[every].tolist(), rows.log_ids[every].tolist(), characters=page.MAX_TEXT + 1
    )
    return tuple(
        ExampleGroup(
            title=title,
            meaning=meaning,
            total=int(among.sum()),
            examples=tuple(_example(rows, models, int(at), texts) for at in picked),
        )
        for (title, meaning, among), picked in zip(kinds, chosen, strict=True)
    )


def _kinds(rows: Rows) -> Kinds:
    new = rows.flags(0)
    if len(rows.scores) > 1:
        old = rows.flags(1)
        return (
            ("Found only by the candidate", "Anomalies that the champion misses.", rows.positive & new & ~old),
            ("Lost by the candidate", "Anomalies that only the champion finds.", rows.positive & old & ~new),
            ("New false alarms", "Normal rows that only the candidate flags.", ~rows.positive & new & ~old),
        )
    return (
        ("Found", "Anomalies that the candidate flags.", rows.positive & new),
        ("Missed", "Anomalies that the candidate does not flag.", rows.positive & ~new),
        ("False alarms", "Normal rows that the candidate flags.", ~rows.positive & new),
    )


def _kinds_of_classes(rows: Rows) -> Kinds:
    new = rows.right(0)
    if len(rows.scores) > 1:
        old = rows.right(1)
        return (
            ("Put right by the candidate", "Rows that the champion calls by another class.", new & ~old),
            ("Lost by the candidate", "Rows that only the champion calls by their class.", old & ~new),
            ("Wrong with both", "Rows that neither calls by their class.", ~new & ~old),
        )
    return (("Wrong", "Rows that the candidate calls by another class.", ~new),)


def _example(rows: Rows, models: Sequence[Model], at: int, texts: Mapping[int, str]) -> Example:
    codes = {name: int(dimension.codes[at]) for name, dimension in rows.dimensions.items()}
    return Example(
        ts=_EPOCH + timedelta(microseconds=int(rows.ts_us[at])),
        parts={name: rows.dimensions[name].names[code] if code >= 0 else None for name, code in codes.items()},
        message=texts.get(int(rows.log_ids[at]), ""),
        scores=tuple(
            float(model.calibrated(scores[at : at + 1])[0]) for model, scores in zip(models, rows.scores, strict=True)
        ),
        positive=bool(rows.positive[at]),
        truth=rows.classes.names[int(rows.classes.truth[at])] if rows.classes else None,
        said=tuple(rows.classes.names[int(said[at])] for said in rows.classes.predicted) if rows.classes else (),
    )


def _version(role: str, version: int, made: Lineage) -> Version:
    facts = {
        "Estimator": made.algorithm,
        "Trained on": f"{_span(made.train)}, {made.training_rows:,} lines",
        "Threshold chosen on": _span(made.validation),
        "Holdout planned": _span(made.holdout),
        "As of": _moment(made.as_of),
        "Trained": _moment(made.trained_at),
        "Threshold": f"{made.threshold:.6g} (raw score)",
        "Parameters": _plain(made.parameters),
        # A vocabulary can have hundreds of words; the registry holds them all.
        "Features": f"{len(made.feature_names)}: {', '.join(made.feature_names[:12])}"
        + (", and more" if len(made.feature_names) > 12 else ""),
        "Seed": str(made.seed),
        "Training rows (SHA-256)": made.data_hash,
        "Model (SHA-256)": made.artifact_digest,
        "Snapshot": made.snapshot or "not kept",
        "Code revision": made.code_revision or "unknown: trained outside a git checkout",
        "Libraries": _plain(made.library_versions),
    }
    return Version(role=role, version=version, facts=facts)


def _span(window: Window | None) -> str:
    return "-" if window is None else f"{_moment(window.start)} to {_moment(window.end)}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _plain(values: Mapping[str, Any]) -> str:
    """JSON for people: names and values without quotes and braces."""
    return ", ".join(f"{name} {json.dumps(value)}".translate(_QUOTES) for name, value in values.items())
