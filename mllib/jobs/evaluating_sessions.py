"""Evaluates the session view on lines out of files, without a database."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from mllib import artifacts, sessions, sources
from mllib.detectors._calibration import ANOMALY
from mllib.errors import BadInput
from mllib.gate.evaluation import BinaryMetrics, binary_metrics
from mllib.ingest.base import ParseOptions
from mllib.ingest.frames import read_files
from mllib.jobs.training import code_revision, libraries
from mllib.sessions.model import Mode

NORMAL_WORDS = ("0", "normal", "false")
"""Verdicts of a file of labelled sessions that mean that nothing is wrong, whatever their case."""


@dataclass(frozen=True, kw_only=True)
class SessionEvaluation:
    """How a session model does on sessions that it was not fitted on."""

    mode: Mode
    """What the model learned from: see mllib.sessions.training."""
    trained: int
    """Sessions that it was fitted on."""
    labelled: int
    """Labels that it was shown."""
    rows: pl.DataFrame
    """One test session each: ``trace_id``, ``score``, ``is_anomaly``, ``open``, ``label`` (Boolean, null: unknown)."""
    metrics: BinaryMetrics
    """Over the test sessions with a label."""


def evaluate_sessions(
    train: pl.DataFrame,
    test: pl.DataFrame,
    *,
    labels: str | float = "all",
    seed: int = 42,
    observed_until: datetime | None = None,
) -> SessionEvaluation:
    """Fits on the sessions of ``train``, measures on those of ``test``.

    Both have the columns ``trace_id``, ``ts``, ``message`` or ``template``, and ``label`` (Boolean, or String with "0"
    for normal; null: unknown): a session is an anomaly when one of its lines is. ``labels`` says which the training may
    see: "all", "none", "normal" (of normal sessions only: the others are left out), or a share of the sessions between
    0 and 1, drawn by ``seed``. ``observed_until`` is the end of the observation, else the last line of each frame.

    Raises BadInput for columns or ``labels`` that cannot be used, NothingToTrainOn for too few sessions.
    """
    given = _shown(_truth(train), labels, seed)
    model = sessions.fit(sessions.gather(train, observed_until=observed_until), labels=given, seed=seed)
    asked = sessions.gather(test, observed_until=observed_until)
    truth = _truth(test)
    scores = model.scores(asked)
    rows = pl.DataFrame(
        {
            "trace_id": asked.names,
            "score": scores,
            "is_anomaly": scores >= ANOMALY,
            "open": model.is_open(asked),
            "label": pl.Series([truth.get(name) for name in asked.names], dtype=pl.Boolean),
        }
    )
    known = rows.filter(pl.col("label").is_not_null())
    figures = binary_metrics(
        known["label"].cast(pl.Int64).to_numpy(),
        known["is_anomaly"].cast(pl.Int64).to_numpy(),
        known["score"].to_numpy(),
    )
    return SessionEvaluation(mode=model.mode, trained=model.sessions, labelled=len(given), rows=rows, metrics=figures)


def evaluate_session_files(
    paths: Sequence[Path],
    *,
    test: Sequence[Path] = (),
    split: float = 0.7,
    shown: str = "all",
    seeds: Sequence[int] = (42,),
    labels: Path | None = None,
    format_name: str | None = None,
    options: ParseOptions | None = None,
) -> dict[str, Any]:
    """Fits on the sessions that began first, measures on the others, for each seed. Returns all figures, JSON-able.

    ``split`` is the share of the sessions that is learned from; with ``test`` those of other files are measured on.
    ``shown`` says which labels training may see, as in `evaluate_sessions`. Labels are those inside the files, or those
    of the CSV file ``labels``, which names sessions in its first column and their verdicts in its second. All is seen
    as it stands at the end of the files. Raises BadInput for files or labels that cannot be used, NothingToTrainOn for
    too few sessions.
    """
    started = time.monotonic()
    rows, files = read_files([*paths, *test], sources.source("logs"), format_name=format_name, options=options)
    rows = rows.filter(pl.col("trace_id").is_not_null())
    if labels is not None:
        rows = rows.drop("label").join(_verdicts(labels), on="trace_id", how="left", maintain_order="left")
    if test:
        last = sum(file.rows for file in files[: len(paths)])
        early, late = rows.filter(pl.col("log_id") <= last), rows.filter(pl.col("log_id") > last)
    else:
        began = rows.group_by("trace_id", maintain_order=True).agg(pl.col("ts").min()).sort("ts", maintain_order=True)
        first = began.head(round(split * began.height)).select("trace_id")
        early, late = (rows.join(first, on="trace_id", how=how, maintain_order="left") for how in ("semi", "anti"))
    if early.is_empty() or late.is_empty():
        raise BadInput("There are too few lines with a trace_id to learn from some sessions and to measure on others.")
    end: datetime = rows.select(pl.col("ts").max()).item()
    found = [evaluate_sessions(early, late, labels=shown, seed=seed, observed_until=end) for seed in seeds]
    if not found[0].metrics.rows:
        raise BadInput(
            "No session to measure on has a label. Give labels in the files, or as a CSV file with --labels."
        )
    return {
        "view": "sessions",
        "metric": "f1",
        "protocol": {"split": None if test else split, "labels": shown, "seeds": list(seeds)},
        "files": [asdict(file) for file in files],
        "labels_sha256": artifacts.digest(labels.read_bytes()) if labels is not None else None,
        "seeds": [
            {
                "seed": seed,
                "mode": one.mode,
                "trained": one.trained,
                "labels_shown": one.labelled,
                "open": int(one.rows["open"].sum()),
                "metrics": asdict(one.metrics),
            }
            for seed, one in zip(seeds, found, strict=True)
        ],
        "figure": median(one.metrics.f1 for one in found),
        "code_revision": code_revision(),
        "library_versions": libraries(),
        "seconds": round(time.monotonic() - started, 3),
    }


def _verdicts(path: Path) -> pl.DataFrame:
    """``trace_id`` and ``label`` ("0" for normal) of a CSV file of labelled sessions."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as CSV: {error}.") from error
    if len(lines) < 2 or any(len(line) < 2 or not line[1].strip() for line in lines):
        raise BadInput(f"{path} needs a header, and in each line a session and its verdict, such as blk_17,Normal.")
    told = {
        name: "0" if verdict.strip().lower() in NORMAL_WORDS else verdict.strip() for name, verdict, *_ in lines[1:]
    }
    return pl.DataFrame({"trace_id": list(told), "label": list(told.values())})


def _truth(lines: pl.DataFrame) -> dict[str, bool]:
    """Of each session with a label, whether it is an anomaly."""
    for name in ("trace_id", "label"):
        if name not in lines.columns:
            raise BadInput(f"Sessions are judged by the columns trace_id and label; {name} is missing.")
    kind = lines["label"].dtype
    if kind not in (pl.Boolean, pl.String, pl.Null):
        raise BadInput(f"Column label holds {kind}, but has to be Boolean, or String with 0 for normal.")
    positive = pl.col("label") != "0" if kind == pl.String else pl.col("label").cast(pl.Boolean)
    known = lines.filter(pl.col("trace_id").is_not_null() & pl.col("label").is_not_null())
    return dict(known.group_by("trace_id", maintain_order=True).agg(positive.any()).iter_rows())


def _shown(truth: Mapping[str, bool], labels: str | float, seed: int) -> dict[str, bool]:
    """The labels that training may see."""
    if labels == "all":
        return dict(truth)
    if labels == "none":
        return {}
    if labels == "normal":
        return {name: False for name, positive in truth.items() if not positive}
    try:
        share = float(labels)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise BadInput(f"Labels are all, none, normal, or a share between 0 and 1, not {labels!r}.")
    names = np.array(list(truth), dtype=object)
    drawn = np.random.default_rng(seed).permutation(len(names))[: round(share * len(names))]
    return {name: truth[name] for name in names[drawn]}
