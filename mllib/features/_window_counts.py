"""Counts, sums and medians of moving windows: compiled where the installation found a compiler, in numpy elsewhere.

Both give the same integers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mllib.compiled import compiled_function, pointer

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_RESPONSE = 2**32
"""Response times are below this: their squares fit 64 bits."""
_MAX_LINES = 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class Lines:
    """What the windows count; one value per line, in the order of time."""

    ts: Ints  # microseconds, ascending
    service: Ints  # codes from 0 on
    error: Bools
    response: Ints  # below MAX_RESPONSE; -1 where there is none


class Counts(NamedTuple):
    """One value per asked row; all but the first count the lines of its service in its window."""

    first: Ints  # position of the first line of any service in the window
    previous: Ints  # position of the service's line before, -1 without one in the window
    volume: Ints
    errors: Ints
    present: Ints  # response times
    total: Ints  # of the response times
    high: Ints  # of the upper halves of their squares, 32 bits each
    low: Ints  # of the lower halves
    lower: Ints  # the middle two response times, which are one and the same of an odd number; 0 without any
    upper: Ints


Run = Callable[[Lines, Ints, int], Counts]


def counts(lines: Lines, rows: Ints, span: int) -> Counts:
    """Of the lines in ``(ts - span, ts]`` before and at each of ``rows``, which ascend.

    Raises ValueError for positions, codes or response times out of range.
    """
    n = len(lines.ts)
    if any(len(values) != n for values in (lines.service, lines.error, lines.response)):
        raise ValueError("the columns of the lines differ in length")
    run = compiled() if n <= _MAX_LINES else None
    return (run or in_numpy)(lines, rows, span)


def in_numpy(lines: Lines, rows: Ints, span: int) -> Counts:
    """``counts`` without a compiler."""
    # Rows regrouped by service, in the order of time within each: a window is then one slice of this order.
    n = len(lines.ts)
    _check(lines, rows)
    first = np.searchsorted(lines.ts, lines.ts[rows] - span, side="right")
    order = np.argsort(lines.service, kind="stable")
    position = np.empty(n, dtype=np.int64)
    position[order] = np.arange(n)
    keys = lines.service[order] * (n + 1) + order
    start = np.searchsorted(keys, lines.service[rows] * (n + 1) + first)
    end = position[rows] + 1
    previous = np.full(len(rows), -1, dtype=np.int64)
    follows = end - start > 1
    previous[follows] = order[end[follows] - 2]

    response = lines.response[order]
    present = response >= 0
    values = response[present]
    squares = values.astype(np.uint64) ** 2
    counted = _running(present)
    begin, stop = counted[start], counted[end]
    total, high, low = (
        sums[stop] - sums[begin]
        for sums in map(_running, (values, squares >> np.uint64(32), squares & np.uint64(0xFFFFFFFF)))
    )
    some = stop > begin
    lower, upper = np.zeros((2, len(rows)), dtype=np.int64)
    lower[some], upper[some] = _middles(values, begin[some], stop[some])
    errors = _running(lines.error[order])
    return Counts(
        first, previous, end - start, errors[end] - errors[start], stop - begin, total, high, low, lower, upper
    )


@cache
def compiled() -> Run | None:
    """The compiled version, None where there is none."""
    function = compiled_function("millrace_windows", library="features/_window_counts_c")
    return None if function is None else _bound(function)


def _bound(function: Any) -> Run:
    function.restype = ctypes.c_int
    int64, flags = pointer(np.int64, 1), pointer(np.bool_, 1)
    size = ctypes.c_int64
    function.argtypes = [int64, int64, flags, int64, size, size, int64, size, int64]

    def run(lines: Lines, rows: Ints, span: int) -> Counts:
        rows = np.ascontiguousarray(rows)
        out = np.zeros(len(Counts._fields) * len(rows), dtype=np.int64)
        failed = function(
            lines.ts, lines.service, lines.error, lines.response, len(lines.ts), span, rows, len(rows), out
        )
        if failed:
            _check(lines, rows)
            raise MemoryError(f"no memory to count {len(lines.ts)} lines")
        return Counts(*out.reshape(len(Counts._fields), len(rows)))

    return run


def _check(lines: Lines, rows: Ints) -> None:
    """What the compiled version refuses as well, without saying what it is."""
    n = len(lines.ts)
    if len(rows) and (rows[0] < 0 or rows[-1] >= n or (rows[1:] <= rows[:-1]).any()):
        raise ValueError("rows must ascend and be positions of lines")
    if n and (lines.service.min() < 0 or lines.service.max() >= n):
        raise ValueError("services must be codes from 0 on, below the number of lines")
    if n and (lines.response.min() < -1 or lines.response.max() >= MAX_RESPONSE):
        raise ValueError("response times must be -1 or more and below 2^32")


def _running(values: NDArray[np.generic]) -> Ints:
    """Running totals with a leading 0, so that the sum of a slice is ``total[end] - total[start]``."""
    total = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=total[1:])
    return total


def _middles(values: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """The middle two of each non-empty slice ``values[start:end]``, one and the same of an odd number."""
    count = end - start
    lower = _kth_smallest(values, start, end, (count - 1) // 2)
    upper = lower.copy()
    even = count % 2 == 0
    upper[even] = _kth_smallest(values, start[even], end[even], count[even] // 2)
    return lower, upper


def _kth_smallest(values: Ints, start: Ints, end: Ints, k: Ints) -> Ints:
    """The k-th smallest (from 0) of each slice ``values[start:end]``.

    A wavelet matrix: the values are ranked, and the ranks are split bit by bit from the top. At each bit, running
    totals say how many of a slice have a 0 there, hence on which side its k-th smallest is and where the slice goes.
    The cost is that of a few array operations per bit whatever the length of the windows, where a sorted list per
    window slows down as windows grow.
    """
    distinct, ranks = np.unique(values, return_inverse=True)
    found = np.zeros(len(start), dtype=np.int64)
    for bit in reversed(range(max(len(distinct) - 1, 0).bit_length())):
        is_zero = (ranks >> bit) & 1 == 0
        zeros = np.concatenate([[0], np.cumsum(is_zero)])
        start_zero, end_zero = zeros[start], zeros[end]
        inside = end_zero - start_zero
        high = k >= inside
        start = np.where(high, zeros[-1] + start - start_zero, start_zero)
        end = np.where(high, zeros[-1] + end - end_zero, end_zero)
        k = np.where(high, k - inside, k)
        found |= high.astype(np.int64) << bit
        ranks = np.concatenate([ranks[is_zero], ranks[~is_zero]])
    return distinct[found]
