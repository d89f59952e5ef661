"""All detectors, each fitted once for the contract suite on rows of its source."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mllib import sources
from mllib.detectors import detector, names
from mllib.detectors.base import Detector, Model
from tests.detectors.connections import make_connections
from tests.detectors.flows import make_flows
from tests.detectors.runs import make_runs
from tests.factories import in_chunks, make_logs

ROWS = 3_000
LOG_DETECTORS = [name for name in names() if detector(name).source == "logs"]
LOG_FORESTS = [name for name in LOG_DETECTORS if detector(name).metric == "f1"]
MAKERS = {
    "logs": make_logs,
    "nsl_kdd_flows": make_connections,
    "cicflowmeter_flows": make_flows,
    "pipeline_runs": make_runs,
}
PLANTED = {"pipeline_runs": pl.col("change").is_not_null()}
"""Which rows of a maker are unlike the others, where it is not those that are labelled so."""
KINDS = [name for name in names() if detector(name).source in MAKERS]

_models: dict[str, Model] = {}


def made(kind: Detector, n: int, *, seed: int = 0, span_s: float | None = None) -> pl.DataFrame:
    """Rows of the detector's source; with labels, and rows that they call anomalies, where it needs them.

    log_anomaly does with and without; with them it is looked at in test_log_companion.py.
    """
    rows = MAKERS[kind.source](n, seed=seed, span_s=span_s)
    if kind.source != "logs" or not kind.learns_from_labels or kind.name == "log_anomaly":
        return rows
    odd, planted = with_outliers(rows)
    return odd.with_columns(label=pl.Series(planted).cast(pl.Int8).cast(pl.String))


def training_rows(kind: Detector, n: int = ROWS) -> pl.DataFrame:
    """What a detector is fitted on; with labels where it needs them."""
    rows = made(kind, n)
    return rows if kind.learns_from_labels else rows.select(*sources.source(kind.source).schema)


def rows_to_score(kind: Detector, n: int, *, seed: int = 1, span_s: float | None = None) -> pl.DataFrame:
    """Rows of the detector's source, as they are scored: nobody says what they are."""
    return made(kind, n, seed=seed, span_s=span_s).select(*sources.source(kind.source).schema)


def fitted(name: str) -> Model:
    """One model per detector for the whole suite: models do not change."""
    if name not in _models:
        kind = detector(name)
        _models[name] = kind.fit(in_chunks(training_rows(kind), 1_000), rows=ROWS)
    return _models[name]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Detector:
    return detector(request.param)


@pytest.fixture
def model(kind: Detector) -> Model:
    return fitted(kind.name)


@pytest.fixture
def rows(kind: Detector) -> pl.DataFrame:
    return rows_to_score(kind, 2_000)


@pytest.fixture(params=LOG_DETECTORS)
def log_kind(request: pytest.FixtureRequest) -> Detector:
    return detector(request.param)


@pytest.fixture
def log_model(log_kind: Detector) -> Model:
    return fitted(log_kind.name)


@pytest.fixture(params=LOG_FORESTS)
def forest_kind(request: pytest.FixtureRequest) -> Detector:
    return detector(request.param)


@pytest.fixture
def forest_model(forest_kind: Detector) -> Model:
    return fitted(forest_kind.name)


@pytest.fixture(scope="module")
def logs() -> pl.DataFrame:
    return make_logs(2_000, seed=1)


def outliers_of(kind: Detector, n: int, *, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """Rows of the detector's source, with labels where it needs them, and which of them are unlike the others."""
    # Log lines are spread over a day, so that the five minutes of an outlier do not cover all rows.
    rows = made(kind, n, seed=seed, span_s=86_400 if kind.source == "logs" else None)
    if "label" not in rows.columns:
        return with_outliers(rows)
    planted = PLANTED.get(kind.source, pl.col("label") != "0")
    return rows, rows.select(planted=planted)["planted"].to_numpy()


def with_outliers(logs: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """Every hundredth row unlike the others in all that a log line has, and which rows those are."""
    planted = np.arange(logs.height) % 100 == 50
    outlier = pl.Series(planted)
    return (
        logs.with_columns(
            level=pl.when(outlier).then(pl.lit("FATAL")).otherwise("level"),
            message=pl.when(outlier).then(pl.lit("panic: out of memory, killing request")).otherwise("message"),
            response_time_ms=pl.when(outlier).then(60_000.0).otherwise("response_time_ms"),
            status_code=pl.when(outlier).then(500).otherwise("status_code"),
        ),
        planted,
    )
