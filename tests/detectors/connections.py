"""Connections as frames of the source nsl_kdd_flows, out of the demo's generator."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllib.demo.connections import generate_connections
from mllib.sources import NSL_KDD_FEATURES, SOURCES
from tests.factories import START

SCHEMA = SOURCES["nsl_kdd_flows"].schema


@cache
def _generated(rows: int, seed: int) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = generate_connections(Path(folder) / "flows.csv", rows=rows, seed=seed)
        return pl.read_csv(path, has_header=False, new_columns=[*NSL_KDD_FEATURES, "label"])


def make_connections(n: int = 3_000, *, seed: int = 0, span_s: float | None = None, **columns: Any) -> pl.DataFrame:
    """``n`` connections over ``span_s`` seconds (default: one a second), with the column ``label``: "0" or the attack.

    ``columns`` replace whole columns: a value for all rows, or a sequence of n.
    """
    found = _generated(max(n, 2_000), seed).head(n)
    seconds = np.linspace(0, n if span_s is None else span_s, n, endpoint=False)
    made = found.with_columns(
        pl.col("label").replace("normal", "0"),
        **{name: pl.lit(None, dtype=SCHEMA[name]) for name in SCHEMA if name not in found.columns}
        | {
            "log_id": pl.int_range(1, n + 1, dtype=pl.Int64),
            "ts": pl.Series(int(START.timestamp() * 1e6) + (seconds * 1e6).astype(np.int64)).cast(SCHEMA["ts"]),
            "claimed": pl.lit(True),
        },
    )
    made = made.select(*(pl.col(name).cast(kind) for name, kind in SCHEMA.items()), "label")
    return made.with_columns(
        **{
            name: pl.Series(value if isinstance(value, list) else [value] * n, dtype=made.schema[name])
            for name, value in columns.items()
        }
    )
