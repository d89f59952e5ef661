"""The session view on HDFS_v1, 2 % of its blocks: trained on earlier blocks, measured on later ones.

Three ways to train: no labels, normal blocks only, labels of 10 %. Seeds vary which 90 % of the earlier blocks are
learned from, or which 10 % are labelled. An isolation forest and a principal component analysis over the same
template counts stand beside it; where there are no labels they take the share of anomalies that the session view
assumes too, where there are only normal blocks they flag what is beyond 99 % of those. So does the session view itself
without its patience with open sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib import sessions
from mllib.detectors._calibration import ANOMALY
from mllib.sessions.training import NORMAL_SHARE, UNLABELLED_SHARE
from tests.bench.common import table

SEEDS = 5
INNER = ((0.2, 0.35), (0.35, 0.5), (0.5, 0.7))
OUTER = ((0.7, 1.0), (0.87, 1.0))
"""Shares of the blocks, by their first line: trained up to the first, measured up to the second. The inner cuts were
for choosing. The second outer one was added after a look at the errors on the first."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def blocks(data: Path) -> tuple[pl.DataFrame, list[str], Bools]:
    """The lines with the number of their block (``place``), and names and truth of the blocks, by first line."""
    lines = pl.read_parquet(data / "hdfs_events.parquet").select(
        pl.col("block_id").alias("trace_id"), pl.col("timestamp").alias("ts"), "message", "anomaly"
    )
    first = lines.group_by("trace_id", maintain_order=True).agg(pl.col("ts").first(), pl.col("anomaly").first())
    first = first.sort("ts", maintain_order=True).with_row_index("place")
    placed = lines.join(first.select("trace_id", "place"), on="trace_id", maintain_order="left")
    return placed, first["trace_id"].to_list(), first["anomaly"].to_numpy()


def f1(truth: Bools, flagged: Bools) -> float:
    return float(2 * (truth & flagged).sum() / max(truth.sum() + flagged.sum(), 1))


def forest(train: Floats, seed: int) -> Callable[[Floats], Floats]:
    from sklearn.ensemble import IsolationForest

    fitted = IsolationForest(n_estimators=100, random_state=seed).fit(train)
    return lambda rows: -fitted.score_samples(rows)


def components(train: Floats, _: int) -> Callable[[Floats], Floats]:
    """The squared distance from the plane of the components that hold 95 % of the variance."""
    from sklearn.decomposition import PCA

    fitted = PCA(0.95, svd_solver="full").fit(train)
    return lambda rows: ((rows - fitted.inverse_transform(fitted.transform(rows))) ** 2).sum(axis=1)


BASELINES = {"isolation forest": forest, "PCA": components}


def measure(lines: pl.DataFrame, names: list[str], truth: Bools, cut: tuple[int, int]) -> list[dict[str, Any]]:
    """F1 on the blocks of ``cut`` of every model in every way to train."""
    begin, end = cut
    watched: datetime = lines["ts"].max()
    earlier = sessions.gather(lines.filter(pl.col("place") < begin), observed_until=watched)
    later = sessions.gather(lines.filter(pl.col("place").is_between(begin, end - 1)), observed_until=watched)
    positive = truth[_places(later, names)]
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        kept = np.sort(random.permutation(begin)[: int(0.9 * begin)])
        most = sessions.gather(lines.filter(pl.col("place").is_in(kept)), observed_until=watched)
        normal = {names[place]: False for place in kept if not truth[place]}
        tenth = {names[place]: bool(truth[place]) for place in random.permutation(begin)[: begin // 10]}
        for way, learnt, labels in (("none", most, {}), ("normal", most, normal), ("10 %", earlier, tenth)):
            model = sessions.fit(learnt, labels=labels, seed=seed)
            found.setdefault(("session view", way), []).append(f1(positive, model.scores(later) >= ANOMALY))
            seen = model.deviations(later)
            strict = model.judged(replace(seen, open=np.zeros_like(seen.open))) >= ANOMALY
            found.setdefault(("the same, open sessions as any", way), []).append(f1(positive, strict))
            if way == "10 %":
                continue
            rows = np.log1p(model.counts(learnt))
            used = np.array([way == "none" or name in labels for name in learnt.names])
            for name, baseline in BASELINES.items():
                score = baseline(rows[used], seed)
                bar = np.quantile(score(rows[used]), 1 - (UNLABELLED_SHARE if way == "none" else NORMAL_SHARE))
                flagged = score(np.log1p(model.counts(later))) > bar
                found.setdefault((name, way), []).append(f1(positive, flagged))
    title = {"train": f"0 to {begin:,}", "test": f"{begin:,} to {end:,}", "anomalies": int(positive.sum())}
    return [
        {**title, "model": name, "labels": way, "F1": float(np.median(values)), "min": min(values), "max": max(values)}
        for (name, way), values in found.items()
    ]


def _places(found: sessions.Sessions, names: list[str]) -> NDArray[np.int64]:
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[name] for name in found.names])


def run(data: Path | None) -> None:
    """Prints the median F1 over SEEDS seeds for all cuts."""
    assert data is not None
    lines, names, truth = blocks(data)
    for title, cuts in (("inner cuts", INNER), ("outer cuts", OUTER)):
        rows = []
        for begin, end in cuts:
            rows += measure(lines, names, truth, (int(begin * len(names)), int(end * len(names))))
        table(f"HDFS_v1, 2 %, sessions, {title}, median of {SEEDS} seeds", rows)
