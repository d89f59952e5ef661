"""The detectors of log lines, each fitted once for the contract suite."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mllib.detectors import detector, names
from mllib.detectors.base import Detector, Model
from tests.factories import in_chunks, make_logs

ROWS = 3_000
LOG_DETECTORS = [name for name in names() if detector(name).source == "logs"]

_models: dict[str, Model] = {}


def fitted(name: str) -> Model:
    """One model per detector for the whole suite: models do not change."""
    if name not in _models:
        _models[name] = detector(name).fit(in_chunks(make_logs(ROWS), 1_000), rows=ROWS)
    return _models[name]


@pytest.fixture(params=LOG_DETECTORS)
def kind(request: pytest.FixtureRequest) -> Detector:
    return detector(request.param)


@pytest.fixture
def model(kind: Detector) -> Model:
    return fitted(kind.name)


@pytest.fixture(scope="module")
def logs() -> pl.DataFrame:
    return make_logs(2_000, seed=1)


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
