"""network_attack on a class-capped sample of CICIDS2017: the first 70 % of each class by time to its last 30 %.

Macro-F1 is the mean over the classes with 30 rows or more to be judged; of rarer ones it is said how many were found.
A plain random forest and an entropy tree of depth 12 are measured on the same rows and features, without the ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib import artifacts, sources
from mllib.detectors import detector
from mllib.detectors._flow_features import FIGURES, measure
from mllib.detectors.network_attack import BENIGN
from mllib.types import Severity
from tests.bench.common import table

SEEDS = 5
TRAINED_ON = 0.7
ENOUGH = 30
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}

Texts = NDArray[np.object_]
Named = Callable[[pl.DataFrame, pl.DataFrame, int], Texts]


def frame(rows: pl.DataFrame) -> pl.DataFrame:
    """CICFlowMeter's columns as a frame of the source, with ``label`` ("0" for BENIGN), in the order of time."""
    rows = rows.sort("Timestamp", maintain_order=True)
    named = rows.with_columns(
        log_id=pl.int_range(1, pl.len() + 1, dtype=pl.Int64),
        ts=pl.col("Timestamp").dt.replace_time_zone("UTC"),
        protocol=pl.col("Protocol").replace_strict(PROTOCOLS, default="0"),
        label=pl.col("Label").replace({BENIGN: "0"}),
        claimed=pl.lit(True),
    )
    schema = sources.source("cicflowmeter_flows").schema
    there = set(named.columns)
    columns = [
        (pl.col(name) if name in there else pl.lit(None)).cast(kind).alias(name) for name, kind in schema.items()
    ]
    return named.select(*columns, "label")


def attack(train: pl.DataFrame, test: pl.DataFrame, seed: int) -> Texts:
    model = detector("network_attack").fit([train], rows=train.height, seed=seed)
    return model.predict(test)["class"].replace({BENIGN: "0"}).to_numpy()


def plain(make: Callable[[int], Any]) -> Named:
    """An estimator of scikit-learn on the plain figures."""

    def named(train: pl.DataFrame, test: pl.DataFrame, seed: int) -> Texts:
        width = len(FIGURES)
        fitted = make(seed).fit(measure(train)[:, :width], train["label"].to_numpy())
        said: Texts = fitted.predict(measure(test)[:, :width])
        return said

    return named


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, random_state=seed)


def _tree(seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(criterion="entropy", max_depth=12, random_state=seed)


MODELS: dict[str, Named] = {
    "network_attack": attack,
    "plain random forest": plain(_forest),
    "tree of depth 12": plain(_tree),
}


def run(data: Path | None) -> None:
    """Prints the figures of SEEDS seeds, those of each class for the first one, then what a model costs."""
    assert data is not None
    from sklearn.metrics import f1_score

    rows = frame(pl.read_parquet(data / "flows.parquet"))
    place = (pl.col("ts").rank("ordinal").over("label") - 1) / pl.len().over("label")
    first = rows.select(place < TRAINED_ON).to_series()
    train, test = rows.filter(first), rows.filter(~first)
    truth = test["label"].to_numpy()
    names, counts = np.unique(truth.astype(str), return_counts=True)
    judged = names[counts >= ENOUGH]
    found: dict[str, list[float]] = {name: [] for name in MODELS}
    per_class: list[dict[str, Any]] = []
    for seed in range(SEEDS):
        for name, model in MODELS.items():
            said = model(train, test, seed)
            each = f1_score(truth, said, labels=judged, average=None, zero_division=0)
            found[name].append(float(each.mean()))
            if name == "network_attack" and seed == 0:
                of = dict(zip(judged.tolist(), each.tolist(), strict=True))
                per_class = [
                    {
                        "class": BENIGN if label == "0" else label,
                        "rows": count,
                        "found": int((said[truth == label] == label).sum()),
                        "F1": of.get(label),
                    }
                    for label, count in zip(names.tolist(), counts.tolist(), strict=True)
                ]
        print(f"seed {seed}: " + ", ".join(f"{name} {found[name][-1]:.4f}" for name in MODELS), flush=True)
    table(
        f"CICIDS2017 sample, the last {1 - TRAINED_ON:.0%} of each class, macro-F1 over {len(judged)} classes, "
        f"{SEEDS} seeds",
        [
            {"model": name, "median": float(np.median(f1)), "lowest": min(f1), "highest": max(f1)}
            for name, f1 in found.items()
        ],
    )
    table("network_attack, seed 0, class by class", per_class)
    _cost(train, test)


def _cost(train: pl.DataFrame, test: pl.DataFrame) -> None:
    """Time and size, and how attacks and false alarms spread over the severities."""
    began = time.perf_counter()
    model = detector("network_attack").fit([train], rows=train.height)
    line: dict[str, Any] = {f"fit {train.height:,} rows, s": time.perf_counter() - began}
    line["artifact, MB"] = len(artifacts.dumps(model.state())) / 1e6
    asked = test.drop("label").sample(fraction=1.0, shuffle=True, seed=0)
    for size in (1, 100):
        times = []
        for part in range(300):
            rows = asked.slice(part * size % (asked.height - size), size)
            began = time.perf_counter()
            model.predict(rows)
            times.append(time.perf_counter() - began)
        line[f"{size} row{'s' if size > 1 else ''}, ms (median)"] = float(np.median(times)) * 1e3
        line[f"{size} row{'s' if size > 1 else ''}, ms (best)"] = min(times) * 1e3
    table("CICIDS2017 sample: what it costs; scoring is from the frame to the prediction, with its explanation", [line])
    severity = model.predict(test)["severity"].to_numpy()
    benign = (test["label"] == "0").to_numpy()
    table(
        "CICIDS2017 sample: flows by severity",
        [
            {"severity": level.name.lower(), "benign": int(of[benign].sum()), "attacks": int(of[~benign].sum())}
            for level in Severity
            for of in (severity == level,)
        ],
    )
