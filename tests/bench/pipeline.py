"""pipeline_drift on real CI logs: injected security changes in later runs, and outcomes.

Trained on the commits of the first three quarters of the runs, measured on the others, which are nearly all of
repositories that training has not seen. A change is found when its run scores higher than 95 % of the unchanged later
runs. A plain isolation forest over the same 17 features is measured on the same runs.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from mllib import artifacts
from mllib.detectors import detector
from mllib.features.pipeline import PipelineFeatures, PipelineMeta, pipeline_features
from mllib.gate.evaluation import best_threshold
from mllib.sources import PIPELINE_FEATURES, SOURCES
from tests.bench.common import table
from tests.bench.injections import GENERATORS, KINDS, inject

SEEDS = 5
PER_KIND = 15
"""Injections of each kind, generator and seed: one miss is 7 points of a kind."""
FALSE_ALARMS = 0.05
TRAIN, VALIDATE = 0.75, 0.6
"""Shares of the runs that come first. For the F1, the threshold is chosen between the two."""

Row = dict[str, Any]
Scores = NDArray[np.float64]


def frame(rows: list[Row], features: list[PipelineFeatures]) -> pl.DataFrame:
    """Runs as a frame of the source, with ``label``."""
    schema = SOURCES["pipeline_runs"].schema
    columns: dict[str, list[Any]] = {name: [None] * len(rows) for name in schema} | {
        "log_id": list(range(1, len(rows) + 1)),
        "repository": [found.repository for found in features],
        "language": [row["language"] or None for row in rows],
        "hosts": [list(found.hosts) for found in features],
        "evidence": [None if found.evidence is None else json.dumps(found.evidence) for found in features],
        "claimed": [True] * len(rows),
        **{name: [found.values[name] for found in features] for name in PIPELINE_FEATURES},
    }
    verdicts = {"passed": "0", "failed": "failed", "errored": "errored"}
    labels = [verdicts.get(row["outcome"]) for row in rows]
    ts = pl.datetime(2026, 1, 1, time_zone="UTC") + pl.duration(seconds=pl.int_range(pl.len()))
    made = pl.DataFrame(columns, schema=schema).with_columns(ts=ts.cast(schema["ts"]))
    return made.with_columns(label=pl.Series(labels, dtype=pl.String))


def read(row: Row, text: str) -> PipelineFeatures:
    return pipeline_features(text, PipelineMeta(duration_s=row["duration_s"]))


def changed(rows: list[Row], generator: str, seed: int) -> Iterator[tuple[str, pl.DataFrame]]:
    """Of each kind, runs with a change in them."""
    draw = random.Random(f"{generator} {seed}")
    for kind in KINDS:
        chosen = draw.sample(rows, PER_KIND)
        yield kind, frame(chosen, [read(row, inject(row["text"], generator, kind, draw)) for row in chosen])


def drift(train: pl.DataFrame, seed: int) -> Callable[[pl.DataFrame], Scores]:
    return detector("pipeline_drift").fit([train], rows=train.height, seed=seed).raw_scores


def forest(train: pl.DataFrame, seed: int) -> Callable[[pl.DataFrame], Scores]:
    """The plain one: 100 trees over the 17 numbers as they are."""
    from sklearn.ensemble import IsolationForest

    fills = train.select(pl.col(PIPELINE_FEATURES).median()).row(0)

    def values(rows: pl.DataFrame) -> NDArray[np.float64]:
        filled = (pl.col(name).fill_null(fill) for name, fill in zip(PIPELINE_FEATURES, fills, strict=True))
        return rows.select(filled).to_numpy()

    fitted = IsolationForest(n_estimators=100, random_state=seed).fit(values(train))
    return lambda rows: -fitted.score_samples(values(rows))


MODELS = {"pipeline_drift": drift, "plain isolation forest": forest}


def run(data: Path | None) -> None:
    """Prints the medians over SEEDS seeds, of the forest and of the injections."""
    assert data is not None
    rows = _in_time(pl.read_parquet(data))
    began = time.perf_counter()
    read_once = [read(row, row["text"]) for row in rows]
    size = sum(len(row["text"]) for row in rows) / 1e6
    seconds = time.perf_counter() - began
    print(f"Read {len(rows):,} logs of {size:,.0f} MB in {seconds:.0f} s: {size / seconds:.1f} MB/s", flush=True)
    every = frame(rows, read_once)
    begin = _border(rows, TRAIN)
    train, test = every[:begin], every[begin:]
    known = test["label"].is_not_null().to_numpy()
    failed = (test["label"].fill_null("0") != "0").to_numpy()
    found: dict[tuple[str, str], list[list[float]]] = {}
    outcomes: dict[str, list[list[float]]] = {name: [] for name in MODELS}
    for seed in range(SEEDS):
        made = {generator: dict(changed(rows[begin:], generator, seed)) for generator in GENERATORS}
        for name, fit in MODELS.items():
            score = fit(train, seed)
            clean = score(test)
            limit = float(np.quantile(clean, 1 - FALSE_ALARMS))
            for generator, kinds in made.items():
                hits = [float((score(of_kind) > limit).mean()) for of_kind in kinds.values()]
                found.setdefault((generator, name), []).append([*hits, float(np.mean(hits))])
            auc = float(roc_auc_score(failed[known], clean[known]))
            outcomes[name].append([auc, *_f1(every, rows, fit, seed)])
        print(f"seed {seed} done", flush=True)
    table(
        f"Recall of injected changes at {FALSE_ALARMS:.0%} false alarms, median of {SEEDS} seeds",
        [
            {"generator": generator, "model": name, **_medians(figures, (*KINDS, "all"))}
            for (generator, name), figures in found.items()
        ],
    )
    columns = ("ROC-AUC", "F1", "F1 of flagging all", "flagged")
    table(
        "Failed or errored against passed, later runs",
        [{"model": name, **_medians(figures, columns)} for name, figures in outcomes.items()],
    )
    _cost(train, test)


def _in_time(logs: pl.DataFrame) -> list[Row]:
    """By the time of the commit, so that no commit is on both sides of a border."""
    at = pl.when(pl.col("commit") == "").then("start_epoch").otherwise(pl.col("start_epoch").min().over("commit"))
    return logs.with_row_index("i").with_columns(at=at.fill_null(0)).sort("at", "commit", "i").to_dicts()


def _border(rows: list[Row], share: float) -> int:
    at = [row["at"] for row in rows]
    return at.index(at[int(len(at) * share)])


def _f1(
    every: pl.DataFrame, rows: list[Row], fit: Callable[[pl.DataFrame, int], Callable[..., Scores]], seed: int
) -> tuple[float, float, float]:
    """F1 of the outcome on the later runs, with the threshold that is best on the validation runs; see VALIDATE."""
    first, begin = _border(rows, VALIDATE), _border(rows, TRAIN)
    score = fit(every[:first], seed)
    validation, test = (part.drop_nulls("label") for part in (every[first:begin], every[begin:]))
    threshold = best_threshold(score(validation), (validation["label"] != "0").to_numpy())
    truth, flags = (test["label"] != "0").to_numpy(), score(test) >= threshold
    return float(f1_score(truth, flags)), float(f1_score(truth, np.ones(len(truth)))), float(flags.mean())


def _medians(figures: list[list[float]], names: tuple[str, ...]) -> dict[str, float]:
    return dict(zip(names, np.median(figures, axis=0).tolist(), strict=True))


def _cost(train: pl.DataFrame, test: pl.DataFrame) -> None:
    began = time.perf_counter()
    model = detector("pipeline_drift").fit([train], rows=train.height)
    line: Row = {"fit, s": time.perf_counter() - began, "artifact, MB": len(artifacts.dumps(model.state())) / 1e6}
    asked = test.drop("label")
    for size in (1, 100):
        times = []
        for place in range(200):
            began = time.perf_counter()
            model.predict(asked.slice(place * size % (asked.height - size), size))
            times.append(time.perf_counter() - began)
        line[f"{size} row{'s' if size > 1 else ''}, ms (median)"] = float(np.median(times)) * 1e3
    table("What it costs; scoring is from the frame to the prediction, with its explanation", [line])
