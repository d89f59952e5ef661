"""Evaluates the session view on lines out of files, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from mllib import sessions
from mllib.detectors._calibration import ANOMALY
from mllib.errors import BadInput
from mllib.evaluation import BinaryMetrics, binary_metrics
from mllib.sessions.model import Mode


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
