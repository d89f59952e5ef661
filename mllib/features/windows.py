"""What happened in the five minutes before each log line.

A window is (t - 5 min, t] in the order of (ts, log_id): a row sees itself and the earlier rows of its own instant,
not the later ones. The figures of a row depend on the rows in its window and on nothing else, bit for bit, however
the stream was cut into frames. That is why everything here is counted in integers: response times become whole
microseconds, sums are differences of integer running totals, squares are kept in two limbs of 32 bits. Floating
running totals would carry the rounding of everything that came before the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.features._window_counts import Counts, Lines, counts
from mllib.features.encoders import ERROR_LEVELS, canonical_level_codes, distinct_codes, numbers

WINDOW = timedelta(minutes=5)
WINDOW_US = 300_000_000

MAX_RESPONSE_TIME_MS = 3_600_000.0
"""Response times are clipped at an hour: in microseconds its square still fits 64 bits."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """One value per asked row. Windows without any response time give 0 for mean, std and median."""

    time_since_last_log: Floats  # seconds since the service's log before, 300 when there is none within the window
    logs_in_last_5min: Floats  # of all services
    response_time_mean_5min: Floats  # milliseconds, of the service, as are those below
    response_time_std_5min: Floats  # milliseconds, of the population: one value has a deviation of 0
    response_time_median_5min: Floats  # milliseconds
    error_rate_5min: Floats  # share of rows at ERROR or CRITICAL, or with a status of 500 and above
    log_volume_5min: Floats  # rows
    previous: Ints  # position in the frame of the service's row before, -1 when there is none within the window


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """The columns of a log frame that are figures, or count as such."""

    ts: Ints  # microseconds since 1970 in UTC
    level: NDArray[np.int8]  # codes of LEVELS, -1 for none
    status: Floats  # NaN where there is none
    response_us: Ints  # whole microseconds, clipped at an hour; -1 for null, infinite, NaN and negative ones
    service_of: Ints  # row i is of the service services[service_of[i]]
    services: list[str | None]


def figures(frame: pl.DataFrame) -> Figures:
    """Of each row of a log frame."""
    response = numbers(frame["response_time_ms"])
    present = np.isfinite(response) & (response >= 0)
    clipped = np.minimum(np.where(present, response, -1e-3), MAX_RESPONSE_TIME_MS)
    service_of, services = distinct_codes(frame["service"])
    return Figures(
        ts=frame["ts"].cast(pl.Int64).to_numpy(),
        level=canonical_level_codes(frame["level"]),
        status=numbers(frame["status_code"]),
        response_us=np.rint(clipped * 1e3).astype(np.int64),
        service_of=service_of,
        services=services,
    )


def windows(frame: pl.DataFrame, rows: Ints, read: Figures | None = None) -> Windows:
    """The window figures of the rows at positions ``rows`` (ascending) of a log frame sorted by (ts, log_id).

    Context rows count in the windows of others; a missing service is a service of its own. A row counts as an error
    when its level says ERROR or CRITICAL, or its status code is 500 or above. ``read`` saves reading the frame.
    """
    read = read or figures(frame)
    service = read.service_of
    if None in read.services:
        service = distinct_codes([name or "" for name in read.services])[0][service]
    lines = Lines(
        ts=read.ts,
        service=service,
        error=(read.level >= min(ERROR_LEVELS)) | (read.status >= 500),
        response=read.response_us,
    )
    counted = counts(lines, rows, WINDOW_US)
    follows = counted.previous >= 0
    since = np.where(follows, read.ts[rows] - read.ts[counted.previous], WINDOW_US)
    mean, std = _mean_and_deviation(counted)
    return Windows(
        time_since_last_log=since / 1e6,
        logs_in_last_5min=(rows - counted.first + 1).astype(np.float64),
        response_time_mean_5min=mean / 1e3,
        response_time_std_5min=std / 1e3,
        response_time_median_5min=(counted.lower.astype(np.float64) + counted.upper) / 2 / 1e3,
        error_rate_5min=counted.errors / counted.volume,
        log_volume_5min=counted.volume.astype(np.float64),
        previous=counted.previous,
    )


def _mean_and_deviation(counted: Counts) -> tuple[Floats, Floats]:
    """Of the response times in each window, in microseconds; 0 where there are none."""
    count = np.maximum(counted.present, 1)
    summed, high, low = counted.total, counted.high, counted.low
    # Squared deviations from the whole part of the mean: sum(q^2) - m (2 sum(q) - n m). The floating value suffers
    # from cancellation; the same in integers modulo 2^64 is exact wherever the result fits, which the floating
    # value tells. Beyond that its relative error is negligible.
    whole = summed // count
    rest = 2 * summed - count * whole
    rough = (high * 2.0**32 + low) - whole.astype(np.float64) * rest
    exact = (high << 32) + low - whole * rest  # of signed numbers the same bits
    deviations = np.where(rough < 2.0**62, exact.view(np.uint64).astype(np.float64), rough)
    remainder = (summed - count * whole).astype(np.float64)
    return summed / count, np.sqrt(np.maximum(deviations - remainder * remainder / count, 0.0) / count)
