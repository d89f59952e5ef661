"""Flows as frames of the source cicflowmeter_flows, out of the demo's generator."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllib.demo.flows import generate_flows
from mllib.sources import CICFLOWMETER_FEATURES, SOURCES
from tests.factories import START

SCHEMA = SOURCES["cicflowmeter_flows"].schema


@cache
def _generated(rows: int, seed: int) -> pl.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = generate_flows(Path(folder) / "flows.csv.gz", now=START, days=2, rows=rows, seed=seed)
        found = pl.read_csv(path, infer_schema=False)
    numbers = pl.col(CICFLOWMETER_FEATURES).replace({"Infinity": None, "NaN": None}).cast(pl.Float64)
    return found.select(
        numbers,
        protocol=pl.col("Protocol").replace({"6": "tcp", "17": "udp"}),
        label=pl.col("Label").replace({"BENIGN": "0"}),
    )


def make_flows(n: int = 3_000, *, seed: int = 0, span_s: float | None = None, **columns: Any) -> pl.DataFrame:
    """``n`` flows over ``span_s`` seconds (default: one a second), with the column ``label``: "0" or the attack.

    ``columns`` replace whole columns: a value for all rows, or a list of n.
    """
    # All days are in it, however few rows are asked for: an attack comes in bursts.
    found = _generated(max(n, 2_000), seed).sample(n, seed=seed, shuffle=True)
    seconds = np.linspace(0, n if span_s is None else span_s, n, endpoint=False)
    made = found.with_columns(
        **{name: pl.lit(None, dtype=SCHEMA[name]) for name in SCHEMA if name not in found.columns}
        | {
            "log_id": pl.int_range(1, n + 1, dtype=pl.Int64),
            "ts": pl.Series(int(START.timestamp() * 1e6) + (seconds * 1e6).astype(np.int64)).cast(SCHEMA["ts"]),
            "claimed": pl.lit(True),
        },
    ).select(*(pl.col(name).cast(kind) for name, kind in SCHEMA.items()), "label")
    return made.with_columns(
        **{
            name: pl.Series(value if isinstance(value, list) else [value] * n, dtype=made.schema[name])
            for name, value in columns.items()
        }
    )
