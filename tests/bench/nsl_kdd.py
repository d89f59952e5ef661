"""network_threat on NSL-KDD's training file: what of attacks whose whole family the training never saw is found.

Four times for each seed one family of attacks is left out of the training, and so are 30 % of the normal rows and of
the other attacks. The rest is fitted on. Rows are then weighted as published of the official test file: 43 % normal,
and of the attacks 29 % of types that training does not have. That file is not read. A plain random
forest is measured on the same rows.
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
from mllib.detectors._connection_features import NUMBERS
from tests.bench.common import table

SEEDS = 5
FAMILIES = {
    "dos": ("back", "land", "neptune", "pod", "smurf", "teardrop"),
    "probe": ("ipsweep", "nmap", "portsweep", "satan"),
    "r2l": ("ftp_write", "guess_passwd", "imap", "multihop", "phf", "spy", "warezclient", "warezmaster"),
    "u2r": ("buffer_overflow", "loadmodule", "perl", "rootkit"),
}
WEIGHTS = {"dos": 0.45, "probe": 0.35, "r2l": 0.18, "u2r": 0.02}
"""Of the families among attacks; within a family a type counts as the square root of its rows."""

NORMAL_SHARE, UNSEEN_SHARE = 0.43, 0.29

Bools = NDArray[np.bool_]
Texts = NDArray[np.object_]


def frame(rows: pl.DataFrame) -> pl.DataFrame:
    """NSL-KDD's columns, with ``label``, as a frame of the source; the columns that the file lacks are null."""
    numbered = rows.with_columns(
        log_id=pl.int_range(1, pl.len() + 1, dtype=pl.Int64),
        ts=pl.datetime(2026, 1, 1, time_zone="UTC") + pl.duration(seconds=pl.int_range(pl.len())),
        claimed=pl.lit(True),
    )
    schema = sources.source("nsl_kdd_flows").schema
    there = set(numbered.columns)
    columns = [
        (pl.col(name) if name in there else pl.lit(None)).cast(kind).alias(name) for name, kind in schema.items()
    ]
    return numbered.select(*columns, "label")


def recall(flagged: Bools, kinds: Texts, types: tuple[str, ...]) -> float:
    """Of one family."""
    there = [name for name in types if (kinds == name).any()]
    weights = [(kinds == name).sum() ** 0.5 for name in there]
    return float(np.average([flagged[kinds == name].mean() for name in there], weights=weights))


def measured(flagged: Bools, kinds: Texts, out: str) -> tuple[float, float, float]:
    """False alarms, recall of the known families, recall of the one that was left out."""
    known = {name: recall(flagged, kinds, types) for name, types in FAMILIES.items() if name != out}
    weights = [WEIGHTS[name] for name in known]
    known_recall = float(np.average(list(known.values()), weights=weights))
    return float(flagged[kinds == "normal"].mean()), known_recall, recall(flagged, kinds, FAMILIES[out])


def weighted(alarms: float, known: float, unseen: float) -> tuple[float, float]:
    """Accuracy and F1 with the test file's shares."""
    hits = (1 - NORMAL_SHARE) * ((1 - UNSEEN_SHARE) * known + UNSEEN_SHARE * unseen)
    false = NORMAL_SHARE * alarms
    return NORMAL_SHARE - false + hits, 2 * hits / (hits + false + 1 - NORMAL_SHARE)


def forest(train: pl.DataFrame, test: pl.DataFrame, seed: int) -> Bools:
    """The plain one: 100 trees of depth 15 over the same columns, threshold 0.5."""
    from sklearn.ensemble import RandomForestClassifier

    texts = ("protocol_type", "service", "flag")
    known = {name: {value: code for code, value in enumerate(train[name].unique().sort())} for name in texts}

    def values(rows: pl.DataFrame) -> NDArray[np.float32]:
        codes = [[known[name].get(value, -1) for value in rows[name]] for name in texts]
        return np.column_stack([rows.select(NUMBERS).to_numpy(), *codes]).astype(np.float32)

    fitted = RandomForestClassifier(100, max_depth=15, random_state=seed)
    fitted.fit(values(train), (train["label"] != "normal").to_numpy())
    flagged: Bools = fitted.predict_proba(values(test))[:, 1] >= 0.5
    return flagged


def threat(train: pl.DataFrame, test: pl.DataFrame, seed: int) -> Bools:
    model = detector("network_threat").fit([train], rows=train.height, seed=seed)
    flagged: Bools = model.raw_scores(test) >= model.threshold
    return flagged


MODELS: dict[str, Callable[[pl.DataFrame, pl.DataFrame, int], Bools]] = {
    "network_threat": threat,
    "plain random forest": forest,
}


def run(data: Path | None) -> None:
    """Prints the medians over SEEDS seeds, then what a model of all rows costs."""
    assert data is not None
    rows = frame(pl.read_parquet(data / "KDDTrain+_full_36feat.parquet").rename({"class": "label"}))
    found: dict[str, list[list[float]]] = {name: [] for name in MODELS}
    for seed in range(SEEDS):
        held = np.random.default_rng(100 + seed).random(rows.height) < 0.3
        folds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in MODELS}
        for out, types in FAMILIES.items():
            left = rows["label"].is_in(types).to_numpy()
            train, test = rows.filter(~held & ~left), rows.filter(held | left)
            kinds = test["label"].to_numpy()
            for name, model in MODELS.items():
                folds[name].append(measured(model(train, test, seed), kinds, out))
        for name, figures in folds.items():
            alarms, known, unseen = np.average(figures, axis=0, weights=list(WEIGHTS.values())).tolist()
            per_family = [fold[2] for fold in figures]
            found[name].append([alarms, known, unseen, *weighted(alarms, known, unseen), *per_family])
        print(f"seed {seed}: " + ", ".join(f"{name} F1 {found[name][-1][4]:.3f}" for name in MODELS), flush=True)
    columns = [
        "false alarms",
        "recall, known",
        "recall, left out",
        "accuracy",
        "F1",
        *(f"{out} out" for out in FAMILIES),
    ]
    table(
        f"NSL-KDD, training file, one family left out at a time, median of {SEEDS} seeds",
        [
            {"model": name, **dict(zip(columns, np.median(found[name], axis=0).tolist(), strict=True))}
            for name in MODELS
        ],
    )
    spread = np.array(found["network_threat"])[:, 4]
    print(f"\nF1 of network_threat over the seeds: {spread.min():.4f} to {spread.max():.4f}")
    _cost(rows)


def _cost(rows: pl.DataFrame) -> None:
    """Time and size: the first 20,000 rows fitted, all rows fitted, one row and 100 rows scored."""
    method = detector("network_threat")
    line: dict[str, Any] = {}
    for name, part in (("20,000 rows", rows.head(20_000)), ("all rows", rows)):
        began = time.perf_counter()
        model = method.fit([part], rows=part.height)
        line[f"fit {name}, s"] = time.perf_counter() - began
    line["artifact, MB"] = len(artifacts.dumps(model.state())) / 1e6
    asked = rows.drop("label")
    for size in (1, 100):
        times = []
        for place in range(300):
            part = asked.slice(place * size, size)
            began = time.perf_counter()
            model.predict(part)
            times.append(time.perf_counter() - began)
        line[f"{size} row{'s' if size > 1 else ''}, ms (median)"] = float(np.median(times)) * 1e3
        line[f"{size} row{'s' if size > 1 else ''}, ms (best)"] = min(times) * 1e3
    table("NSL-KDD: what it costs; scoring is from the frame to the prediction, with its explanation", [line])
