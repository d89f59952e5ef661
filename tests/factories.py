"""Plain functions that make test data: defaults everywhere, override what matters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

START = datetime(2026, 3, 2, 8, tzinfo=UTC)  # a Monday

LOG_SCHEMA = {
    "log_id": pl.Int64,
    "ts": pl.Datetime("us", "UTC"),
    "level": pl.String,
    "service": pl.String,
    "message": pl.String,
    "response_time_ms": pl.Float64,
    "status_code": pl.Int32,
    "claimed": pl.Boolean,
}

SERVICES = ("checkout", "search", "payments", "gateway", "mailer")

MESSAGES = (
    "request {n} completed in {ms} ms",
    "user {n} signed in from 10.0.{a}.{b}",
    "cache miss for key item:{n}",
    "order {n} stored, {a} lines",
    "GET /items/{n}/detail 200",
    "worker {a} picked job {n} from queue",
    "session {n} renewed",
    "published event order_paid for order {n}",
)


def make_logs(n: int = 1_000, *, seed: int = 0, span_s: float | None = None, **columns: Any) -> pl.DataFrame:
    """A log frame of ``n`` ordinary rows over ``span_s`` seconds (default: 10 rows a second), some values missing.

    ``columns`` replace whole columns: a value for all rows, or a sequence of n.
    """
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.uniform(0, n / 10 if span_s is None else span_s, n))
    epoch = int(START.timestamp() * 1e6)
    a, b, number = rng.integers(0, 255, n), rng.integers(0, 255, n), rng.integers(0, 10**9, n)
    response = np.round(rng.lognormal(3.5, 0.4, n), 3)
    templates = rng.integers(0, len(MESSAGES), n)
    data: dict[str, Any] = {
        "log_id": np.arange(1, n + 1),
        "ts": pl.Series(epoch + (seconds * 1e6).astype(np.int64)).cast(LOG_SCHEMA["ts"]),
        "level": rng.choice(["INFO", "info", "DEBUG", "WARNING", "ERROR"], n, p=[0.6, 0.1, 0.2, 0.08, 0.02]),
        "service": rng.choice(SERVICES, n, p=[0.3, 0.25, 0.2, 0.15, 0.1]),
        "message": [
            MESSAGES[template].format(n=number[row], a=a[row], b=b[row], ms=response[row])
            for row, template in enumerate(templates.tolist())
        ],
        "response_time_ms": [None if row % 7 == 0 else value for row, value in enumerate(response.tolist())],
        "status_code": [None if row % 11 == 0 else 200 for row in range(n)],
        "claimed": True,
    }
    return make_frame(**(data | columns))


def make_frame(**columns: Any) -> pl.DataFrame:
    """A log frame of the given columns, each a sequence or one value for all; the others are null, all rows claimed."""
    data = {"level": None, "service": None, "message": None, "response_time_ms": None, "status_code": None}
    frame = pl.DataFrame({**data, "claimed": True, **columns}, strict=False)
    return frame.select(pl.col(name).cast(kind) for name, kind in LOG_SCHEMA.items())


def empty_logs() -> pl.DataFrame:
    """A log frame without rows."""
    return pl.DataFrame(schema=LOG_SCHEMA)


def in_chunks(frame: pl.DataFrame, *sizes: int) -> list[pl.DataFrame]:
    """The frame cut into consecutive chunks of these sizes, the last size repeated until the rows run out."""
    chunks, begin, left = [], 0, list(sizes)
    while begin < frame.height:
        size = left.pop(0) if len(left) > 1 else left[0]
        chunks.append(frame.slice(begin, size))
        begin += size
    return chunks
