"""log_severity on eight systems' logs: later lines of systems that it knows, systems that it never saw, anomalies.

The systems are those of loghub_2k that have levels, and Nezha's TrainTicket (every 28th line). **Later lines**: trained
on the first 70 % of all of them, asked for the last 30 % of each. **Left out**: trained on the seven others. Beside it
stand TF-IDF of words and pairs of words with logistic regression, plain and with balanced classes, on the same
masked texts. Macro-F1 is over the levels that the lines asked for really have. **Anomalies**: BGL's alerts, the last
30 % of its lines, with and without the labels of the first 70 %.
"""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllib import artifacts, sources
from mllib.detectors import detector
from mllib.detectors._wording import wordings
from tests.bench.common import table

LOGHUB = ("Android", "Apache", "BGL", "HDFS", "Hadoop", "OpenStack", "Zookeeper")
NEZHA, EVERY = "Nezha", 28
FIRST = 0.7
KIND = detector("log_severity")


def frame(service: str, messages: pl.Series, levels: pl.Series, labels: pl.Series | None = None) -> pl.DataFrame:
    """Lines as a frame of the source, with ``label`` (null without labels)."""
    known = pl.DataFrame(
        {
            "message": messages.fill_null(""),
            "level": levels,
            "service": pl.repeat(service, len(messages), eager=True),
            "label": pl.Series([None] * len(messages), dtype=pl.String) if labels is None else labels,
        }
    )
    schema = sources.source("logs").schema
    full = known.with_columns(
        log_id=pl.int_range(1, pl.len() + 1),
        ts=pl.datetime(2026, 1, 1, time_zone="UTC") + pl.duration(seconds=pl.int_range(pl.len())),
        claimed=pl.lit(True),
    )
    there = set(full.columns)
    columns = [
        (pl.col(name) if name in there else pl.lit(None)).cast(kind).alias(name) for name, kind in schema.items()
    ]
    return full.select(*columns, "label")


def read(data: Path) -> dict[str, pl.DataFrame]:
    """The lines of each system in their order."""
    systems = {}
    for name in LOGHUB:
        with gzip.open(data / "loghub_2k" / f"{name}_2k.log_structured.csv.gz") as file:
            lines = pl.read_csv(file.read(), infer_schema_length=0)
        labels = pl.Series(np.where(lines["Label"] == "-", "0", "1")) if name == "BGL" else None
        systems[name] = frame(name, lines["Content"], lines["Level"], labels)
    nezha = pl.read_parquet(data / "nezha" / "rca_data_2023-01-29.parquet").filter(pl.col("level").is_not_null())
    nezha = nezha.sort("TimeUnixNano").gather_every(EVERY)
    # What an ingest would take for time, level and trace is no part of a message.
    messages = nezha["message"].str.replace(r"^\S+\s+(?:INFO|WARN|ERROR|DEBUG)\s+", "")
    systems[NEZHA] = frame(NEZHA, messages.str.replace(r"TraceID: \S+ SpanID: \S+ ?", ""), nezha["level"])
    return systems


def macro_f1(truth: list[str], said: list[str]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth, said, labels=sorted(set(truth)), average="macro", zero_division=0))


def levels(lines: pl.DataFrame) -> list[str]:
    found: list[str] = KIND.true_classes(lines["level"]).to_list()
    return found


def compared(train: dict[str, pl.DataFrame], asked: dict[str, pl.DataFrame]) -> dict[str, dict[str, float]]:
    """Macro-F1 of each model on each system asked for. No model is shown a level or label of those."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    lines = pl.concat(train.values()).with_columns(log_id=pl.int_range(pl.len()))
    model = KIND.fit([lines.with_columns(label=pl.lit(None, dtype=pl.String))], rows=lines.height)
    hidden = {
        name: rows.drop("label").with_columns(level=pl.lit(None, dtype=pl.String)) for name, rows in asked.items()
    }
    found = {
        "log_severity": {
            name: macro_f1(levels(asked[name]), model.predict(rows)["class"].to_list()) for name, rows in hidden.items()
        }
    }
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=20_000)
    x, y = vectorizer.fit_transform(texts(lines)), levels(lines)
    for name, balance in (("TF-IDF + linear, plain", None), ("TF-IDF + linear, balanced", "balanced")):
        linear = LogisticRegression(max_iter=300, class_weight=balance).fit(x, y)
        found[name] = {
            system: macro_f1(levels(rows), linear.predict(vectorizer.transform(texts(rows))).tolist())
            for system, rows in asked.items()
        }
    return found


def texts(lines: pl.DataFrame) -> list[str]:
    """What log_severity sees of the messages, too."""
    text_of, wording = wordings(lines["message"])
    seen: list[str] = wording.texts.gather(text_of).to_list()
    return seen


def shown(title: str, found: dict[str, dict[str, float]]) -> None:
    table(
        title,
        [{"model": name, "mean": float(np.mean(list(of.values()))), **of} for name, of in found.items()],
    )


def run(data: Path | None) -> None:
    """Prints macro-F1 of both protocols, the anomalies of BGL, then what a model costs."""
    assert data is not None
    systems = read(data)
    cut = {name: int(lines.height * FIRST) for name, lines in systems.items()}
    early = {name: lines.head(cut[name]) for name, lines in systems.items()}
    late = {name: lines.tail(lines.height - cut[name]) for name, lines in systems.items()}
    shown("Macro-F1 of the level, last 30 % of each system", compared(early, late))
    unseen: dict[str, dict[str, float]] = {}
    for out in systems:
        rest = {name: lines for name, lines in systems.items() if name != out}
        for name, of in compared(rest, {out: systems[out]}).items():
            unseen.setdefault(name, {}).update(of)
    shown("Macro-F1 of the level, systems left out of the training", unseen)
    _anomalies(early["BGL"], late["BGL"])
    _cost(systems)


def _anomalies(early: pl.DataFrame, late: pl.DataFrame) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, roc_auc_score

    truth = (late["label"] != "0").to_numpy()
    found: dict[str, tuple[np.ndarray, float]] = {}
    for name, lines in (
        ("log_severity, labels", early),
        ("log_severity, rarity", early.with_columns(label=pl.lit(None, dtype=pl.String))),
    ):
        model = KIND.fit([lines], rows=lines.height)
        found[name] = model.raw_scores(late.drop("label")), model.threshold
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=20_000)
    x, y = vectorizer.fit_transform(texts(early)), (early["label"] != "0").to_numpy()
    for name, balance in (("TF-IDF + linear, plain", None), ("TF-IDF + linear, balanced", "balanced")):
        linear = LogisticRegression(max_iter=300, class_weight=balance).fit(x, y)
        raw = linear.predict_proba(vectorizer.transform(texts(late)))[:, 1]
        found[name] = raw, 0.5
    rows = [
        {
            "score": name,
            "threshold": threshold,
            "F1": float(f1_score(truth, raw >= threshold)),
            "flagged": int((raw >= threshold).sum()),
            "ROC-AUC": float(roc_auc_score(truth, raw)),
        }
        for name, (raw, threshold) in found.items()
    ]
    table(
        f"BGL: alerts among the last 30 % ({truth.sum()} of {truth.size}; {(early['label'] != '0').sum()} before)", rows
    )


def _cost(systems: dict[str, pl.DataFrame]) -> None:
    lines = pl.concat(systems.values()).with_columns(log_id=pl.int_range(pl.len()))
    began = time.perf_counter()
    model = KIND.fit([lines], rows=lines.height)
    line: dict[str, Any] = {"rows fitted": lines.height, "fit, s": time.perf_counter() - began}
    line["artifact, MB"] = len(artifacts.dumps(model.state())) / 1e6
    # One after the other, as a stream has them: each system's lines ten times.
    # One system after the other, as a stream would have them.
    asked = pl.concat([pl.concat([rows] * 10) for rows in systems.values()]).drop("label")
    for name, rows in (("each line once", lines.drop("label")), ("each ten times", asked)):
        times = []
        for _ in range(5):
            began = time.process_time()
            for start in range(0, rows.height, 50_000):
                model.predict(rows.slice(start, 50_000))
            times.append(time.process_time() - began)
        line[f"rows/s, {name}"] = rows.height / min(times)
    one = [asked.slice(place, 1) for place in range(0, asked.height, 1_000)]
    times = []
    for part in one:
        began = time.perf_counter()
        model.predict(part)
        times.append(time.perf_counter() - began)
    line["one row, ms (median)"] = float(np.median(times)) * 1e3
    table("What it costs: processor time from the frame to the prediction, explanations included", [line])
