"""Evaluates a detector on files, without a database: the protocol and the code of the gate, for anybody to repeat."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mllib import artifacts, sources
from mllib.detectors import detector as detector_named
from mllib.detectors.base import LABELS, MACRO_F1, Detector
from mllib.errors import BadInput
from mllib.gate.evaluation import holdout_hash
from mllib.gate.labelled_scores import LabelledScores
from mllib.ingest.base import ParseOptions
from mllib.ingest.frames import FileRead, read_files
from mllib.jobs.evaluation_figures import figures, medians
from mllib.jobs.evaluation_slices import (
    Slice,
    cut,
    frames,
    labelled_by,
    masked,
    score_slice,
    true_class,
    verdicts,
    window_of,
)
from mllib.jobs.training import (
    DEFAULTS,
    best_ranking,
    budgeted_rate,
    code_revision,
    libraries,
    threshold_on,
    with_verdicts,
)

log = logging.getLogger(__name__)

VALIDATION = 0.25
"""The last quarter of the training rows chooses the threshold, where labels do that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """What is learned from, and what is measured on."""

    test: tuple[Path, ...] = ()
    """Files to measure on; all others are learned from."""
    leave_one_out: bool = False
    """Measure on each file in turn, and learn from the others."""
    split: float = 0.7
    """Without either: the share of rows, the first by time, that is learned from."""
    by_class: bool = False
    """Take that share of each class."""
    no_labels: bool = False
    """Learn without labels, the threshold by the budget of alerts."""
    alerts_per_day: float = DEFAULTS.alerts_per_day
    masked: tuple[str, ...] = ()
    """Columns that the model is not shown."""
    seeds: tuple[int, ...] = (DEFAULTS.seed,)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fold:
    name: str
    train: pl.DataFrame
    validation: Slice | None
    test: Slice


def evaluate(
    detector: str,
    paths: Sequence[Path],
    protocol: Protocol,
    *,
    format_name: str | None = None,
    labels: Path | None = None,
    options: ParseOptions | None = None,
) -> dict[str, Any]:
    """Fits on the first part of the rows, measures on the other, for each seed. Returns all figures, JSON-able.

    Labels are those inside the files and those of the CSV file ``labels``, which count first. Raises BadInput for
    files, labels or protocols that cannot be used, and NothingToTrainOn where there is too little to learn from.
    """
    started = time.monotonic()
    method = detector_named(detector)
    _check(method, paths, protocol)
    source = sources.source(method.source)
    rows, files = read_files([*paths, *protocol.test], source, format_name=format_name, options=options)
    if len({file.sha256 for file in files}) < len(files):
        raise BadInput("Two files have the same content: what is measured on must not be learned from.")
    for file in files:
        rejected = f", {file.rejected:,} rejected ({file.reason})" if file.rejected else ""
        log.info("%s: %s rows%s.", file.name, f"{file.rows:,}", rejected)
    if labels is not None:
        rows = labelled_by(rows, labels, [*paths, *protocol.test])
    rows = masked(rows.with_columns(**{"class": true_class(rows, method)}), source, protocol.masked)
    folds = [_measured(method, fold, protocol) for fold in _folds(method, rows, files, len(paths), protocol)]
    return {
        "detector": detector,
        "metric": method.metric,
        "protocol": _told(method, protocol),
        "files": [
            {**asdict(file), "role": "train and test" if not protocol.test else "train" if n < len(paths) else "test"}
            for n, file in enumerate(files)
        ],
        "labels_sha256": artifacts.digest(labels.read_bytes()) if labels is not None else None,
        "folds": folds,
        "figure": _mean([fold["median"]["figure"] for fold in folds]),
        "remarks": _remarks(folds, files, wanted=not protocol.no_labels),
        "code_revision": code_revision(),
        "library_versions": libraries(),
        "seconds": round(time.monotonic() - started, 3),
    }


def _check(method: Detector, paths: Sequence[Path], protocol: Protocol) -> None:
    if protocol.leave_one_out and len(paths) < 2:
        raise BadInput("To leave one file out of the training, at least two are needed.")
    schema = sources.source(method.source).schema
    for name in protocol.masked:
        if name not in schema or name in ("log_id", "ts", "claimed"):
            raise BadInput(f"{method.source} has no column {name!r} to mask. There are: {', '.join(schema)}.")
        if method.metric == MACRO_F1 and name == method.truth:
            raise BadInput(f"{name} is what {method.name} is to tell, and is hidden from it anyway.")


def _folds(
    method: Detector, rows: pl.DataFrame, files: Sequence[FileRead], training_files: int, protocol: Protocol
) -> Iterator[_Fold]:
    """What to learn from and what to measure on, each time."""
    embargo = None if protocol.by_class else method.context
    by = "class" if protocol.by_class else None
    of_file, first = [], 1
    for file in files:
        of_file.append(rows.filter(pl.col("log_id").is_between(first, first + file.rows - 1)))
        first += file.rows
    if protocol.leave_one_out:
        for number, file in enumerate(files):
            others = rows.join(of_file[number], on="log_id", how="anti", maintain_order="left")
            yield _fold(method, file.name, others, Slice.whole(of_file[number]), protocol, by=by or "file")
    elif protocol.test:
        train, test = (
            pl.concat(part).sort("ts", "log_id") for part in (of_file[:training_files], of_file[training_files:])
        )
        yield _fold(
            method, ", ".join(f.name for f in files[training_files:]), train, Slice.whole(test), protocol, by=by
        )
    else:
        early, late = cut(rows, protocol.split, by=by, embargo=embargo)
        held = Slice(rows=rows, chosen=late, follows=not protocol.by_class)
        name = f"the last {1 - protocol.split:.0%} of {'each class' if by else 'the rows'}"
        yield _fold(method, name, rows.filter(early), held, protocol, by=by)


def _fold(method: Detector, name: str, rows: pl.DataFrame, test: Slice, protocol: Protocol, *, by: str | None) -> _Fold:
    """Takes what chooses the threshold off the rows to learn from. Raises BadInput where nothing is left of a part."""
    if not test.chosen.any() or rows.is_empty():
        raise BadInput(
            f"{rows.height:,} rows to learn from and {int(test.chosen.sum()):,} to measure on is too little: the rows "
            "are too few or too close together in time to be cut. Give more of them, or other files with --test."
        )
    if not test.own["class"].drop_nulls().len():
        if method.truth == LABELS:
            what, remedy = "label", "Give labels in the files, or as a CSV file with --labels."
        else:
            what, remedy = f"{method.truth} that {method.name} tells apart", "Leave such files out."
        raise BadInput(f"No row to measure on ({name}) has a {what}, so there is nothing to measure by. {remedy}")
    validation = None
    train = rows
    if method.tunes_threshold and not protocol.no_labels:
        early, late = cut(rows, 1 - VALIDATION, by=by, embargo=None if protocol.by_class else method.context)
        train = rows.filter(early)
        if late.any():
            validation = Slice(rows=rows, chosen=late, follows=by is None)
    if train.is_empty():
        raise BadInput(f"The {rows.height:,} rows to learn from are too close together in time to be cut.")
    return _Fold(name=name, train=train, validation=validation, test=test)


def _measured(method: Detector, fold: _Fold, protocol: Protocol) -> dict[str, Any]:
    seeds, told = [], None
    for seed in protocol.seeds:
        found, rows = _of_seed(method, fold, protocol, seed)
        figure = "not known" if found["figure"] is None else f"{found['figure']:.4f}"
        log.info("Measured on %s, seed %d: %s %s.", fold.name, seed, method.metric, figure)
        seeds.append(found)
        told = told or {
            "judged": rows.positive.size,
            "positives": int(rows.positive.sum()),
            "left_out": dict(rows.tied),
            "hash": holdout_hash(rows.ts_us, rows.log_ids, rows.truth),
        }
    own = fold.test.own
    return {
        "test": fold.name,
        "train": _contents(fold.train),
        "validation": _contents(fold.validation.own) if fold.validation else None,
        "held_out": {**_contents(own), **(told or {})},
        "seeds": seeds,
        "median": medians(seeds),
    }


def _of_seed(method: Detector, fold: _Fold, protocol: Protocol, seed: int) -> tuple[dict[str, Any], LabelledScores]:
    """Fits, chooses the threshold, stores and loads as the registry would, scores, and measures."""
    began = time.process_time()
    variants = method.fit(_to_learn_from(method, fold.train, protocol), rows=fold.train.height, seed=seed).variants()
    rate = budgeted_rate(window_of(fold.train), fold.train.height, protocol.alerts_per_day)
    threshold, by = None, "detector"
    validated = score_slice(method, fold.validation, variants) if fold.validation else None
    chosen = best_ranking(validated) if validated else 0
    model = variants[chosen]
    if method.tunes_threshold:
        threshold, by = threshold_on(validated, chosen) if validated else None, "labels"
        if threshold is None:
            threshold, by = model.expected_threshold(rate), "budget"
        model = model.with_threshold(threshold)
    content = artifacts.dumps(model.state())
    digest = artifacts.digest(content)
    model = method.load(artifacts.loads(content, digest))
    fitted = time.process_time()
    rows = score_slice(method, fold.test, [model])
    found = {
        "seed": seed,
        "threshold": model.threshold,
        "threshold_by": by,
        "budgeted_rate": rate,
        **figures(rows, model),
        "validation_figure": validated.metrics(chosen, model.threshold).f1 if validated else None,
        "artifact_bytes": len(content),
        "artifact_sha256": digest,
        "processor_seconds": {"fit": round(fitted - began, 3), "score": round(rows.seconds[0], 3)},
    }
    return found, rows


def _to_learn_from(method: Detector, rows: pl.DataFrame, protocol: Protocol) -> Iterator[pl.DataFrame]:
    said = verdicts(rows.clear() if protocol.no_labels else rows).select("log_id", "label")
    for frame in frames(rows, sources.source(method.source)):
        yield with_verdicts(frame, said) if method.learns_from_labels else frame


def _contents(rows: pl.DataFrame) -> dict[str, Any]:
    labelled = rows["label"].drop_nulls()
    return {
        "from": rows["ts"][0].isoformat(),
        "to": rows["ts"][-1].isoformat(),
        "rows": rows.height,
        "labelled": labelled.len(),
        "anomalies": int((labelled != "0").sum()),
    }


def _told(method: Detector, protocol: Protocol) -> dict[str, Any]:
    """The protocol in words and figures."""
    cut_by = "files" if protocol.test else "leave one file out" if protocol.leave_one_out else "time"
    return {
        "cut_by": cut_by,
        "split": protocol.split if cut_by == "time" else None,
        "by_class": protocol.by_class,
        "labels": not protocol.no_labels,
        "validation_share": VALIDATION if method.tunes_threshold and not protocol.no_labels else None,
        "embargo_seconds": None if protocol.by_class else method.context.total_seconds(),
        "alerts_per_day": protocol.alerts_per_day,
        "masked": list(protocol.masked),
        "seeds": list(protocol.seeds),
    }


def _remarks(folds: Sequence[Mapping[str, Any]], files: Sequence[FileRead], *, wanted: bool) -> list[str]:
    """What a reader of the figures should know. ``wanted``: labels were to choose the threshold."""
    return [
        *(
            f"{fold['test']}: all rows measured on are of one class, of which F1 says nothing"
            for fold in folds
            if fold["median"]["figure"] is None
        ),
        *(
            f"{fold['test']}: validation has labels of one class or none, so the budget of alerts chose the threshold"
            for fold in folds
            if wanted and any(seed["threshold_by"] == "budget" for seed in fold["seeds"])
        ),
        *(
            f"{file.name}: {file.rejected:,} lines could not be read, the first {file.reason}"
            for file in files
            if file.rejected
        ),
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
