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

from mllib.features._medians import medians
from mllib.features.encoders import ERROR_LEVELS, canonical_level_codes, factorize

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


def windows(frame: pl.DataFrame, rows: Ints) -> Windows:
    """The window figures of the rows at positions ``rows`` (ascending) of a log frame sorted by (ts, log_id).

    Context rows count in the windows of others; a missing service is a service of its own. Null, infinite, NaN and
    negative response times are left out.
    """
    ts = epoch_us(frame)
    first = np.searchsorted(ts, ts[rows] - WINDOW_US, side="right")

    # Rows regrouped by service, in the order of time within each: a window is then one slice of this order.
    service, _ = factorize(frame["service"].fill_null(""))
    order = np.argsort(service, kind="stable")
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    keys = service[order] * (len(order) + 1) + order
    start = np.searchsorted(keys, service[rows] * (len(order) + 1) + first)
    end = position[rows] + 1
    volume = end - start

    since = np.full(len(rows), WINDOW_US, dtype=np.int64)
    follows = volume > 1
    previous = np.full(len(rows), -1, dtype=np.int64)
    previous[follows] = order[end[follows] - 2]
    since[follows] = ts[rows[follows]] - ts[previous[follows]]

    errors = _running(is_error(frame)[order])
    response_us, present = response_times(frame)
    response_us, present = response_us[order], present[order]
    counted = _running(present)
    mean, std, median = _response_figures(response_us[present], counted[start], counted[end])
    return Windows(
        time_since_last_log=since / 1e6,
        logs_in_last_5min=(rows - first + 1).astype(np.float64),
        response_time_mean_5min=mean / 1e3,
        response_time_std_5min=std / 1e3,
        response_time_median_5min=median / 1e3,
        error_rate_5min=(errors[end] - errors[start]) / volume,
        log_volume_5min=volume.astype(np.float64),
        previous=previous,
    )


def epoch_us(frame: pl.DataFrame) -> Ints:
    """``ts`` as microseconds since 1970 in UTC."""
    return frame["ts"].cast(pl.Int64).to_numpy()


def is_error(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """Which rows count as errors: the level says ERROR or CRITICAL, or the status code is 500 or above."""
    status = (frame["status_code"] >= 500).fill_null(False).to_numpy()
    errors: NDArray[np.bool_] = np.isin(canonical_level_codes(frame["level"]), ERROR_LEVELS) | status
    return errors


def response_times(frame: pl.DataFrame) -> tuple[Ints, NDArray[np.bool_]]:
    """Response times in whole microseconds, clipped at an hour, and which of them are there (0 where not)."""
    values = frame["response_time_ms"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    present = np.isfinite(values) & (values >= 0)
    clipped = np.minimum(np.where(present, values, 0.0), MAX_RESPONSE_TIME_MS)
    return np.rint(clipped * 1e3).astype(np.int64), present


def _running(values: NDArray[np.generic]) -> Ints:
    """Running totals with a leading 0, so that the sum of a slice is ``total[end] - total[start]``."""
    total = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=total[1:])
    return total


def _response_figures(values: Ints, start: Ints, end: Ints) -> tuple[Floats, Floats, Floats]:
    """Mean, standard deviation and median, in microseconds, of ``values[start:end]`` for each pair; 0 when empty."""
    mean, std, median = (np.zeros(len(start)) for _ in range(3))
    some = end > start
    start, end = start[some], end[some]
    count = end - start

    total = _running(values)
    summed = total[end] - total[start]
    mean[some] = summed / count

    squares = values.astype(np.uint64) ** 2
    high_total, low_total = _running(squares >> np.uint64(32)), _running(squares & np.uint64(0xFFFFFFFF))
    high, low = high_total[end] - high_total[start], low_total[end] - low_total[start]
    # Squared deviations from the whole part of the mean: sum(q^2) - m (2 sum(q) - n m). The floating value suffers
    # from cancellation; the same in integers modulo 2^64 is exact wherever the result fits, which the floating
    # value tells. Beyond that its relative error is negligible.
    whole = summed // count
    rough = (high * 2.0**32 + low) - whole.astype(np.float64) * (2 * summed - count * whole)
    exact = (high.astype(np.uint64) << np.uint64(32)) + low.astype(np.uint64)
    exact -= whole.astype(np.uint64) * (2 * summed - count * whole).astype(np.uint64)
    deviations = np.where(rough < 2.0**62, exact.astype(np.float64), rough)
    remainder = (summed - count * whole).astype(np.float64)
    std[some] = np.sqrt(np.maximum(deviations - remainder * remainder / count, 0.0) / count)

    median[some] = medians(values, start, end)
    return mean, std, median
