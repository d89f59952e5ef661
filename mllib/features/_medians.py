"""Exact medians of windows over a series: compiled where the installation found a compiler, in numpy elsewhere.

Both choose among the same integers, so they agree to the last bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Middles = Callable[[Ints, Ints, Ints], tuple[Ints, Ints]]


def medians(values: Ints, start: Ints, end: Ints) -> Floats:
    """The median of each non-empty slice ``values[start:end]``; of an even number the mean of the middle two.

    Ordered by their ends, the slices' starts must not go back: windows that move forward.
    """
    lower, upper = (compiled() or in_numpy)(values, start, end)
    return (lower.astype(np.float64) + upper) / 2


def in_numpy(values: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """The middle two of each slice, which are one and the same in a slice of odd length."""
    count = end - start
    lower = _kth_smallest(values, start, end, (count - 1) // 2)
    upper = lower.copy()
    even = count % 2 == 0
    upper[even] = _kth_smallest(values, start[even], end[even], count[even] // 2)
    return lower, upper


@cache
def compiled() -> Middles | None:
    """The compiled version, None where there is none."""
    for library in Path(__file__).parent.glob("_medians_c*.so"):
        try:
            return _bound(ctypes.CDLL(str(library)))
        except (OSError, AttributeError):
            continue  # built for another machine, or by another version: numpy does
    return None


def _bound(library: ctypes.CDLL) -> Middles:
    function = library.millrace_medians
    function.restype = None
    int32, int64 = (np.ctypeslib.ndpointer(kind, ndim=1, flags="C_CONTIGUOUS") for kind in (np.int32, np.int64))
    function.argtypes = [int32, int64, int64, ctypes.c_int64, ctypes.c_int64, int32, int32, int32]

    def run(values: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        distinct, ranks = np.unique(values, return_inverse=True)
        levels = max(len(distinct) - 1, 0).bit_length()
        order = np.argsort(end * (len(values) + 1) + start)
        counts = np.zeros(2**levels + 1, dtype=np.int32)
        lower, upper = np.empty((2, len(start)), dtype=np.int32)
        function(ranks.astype(np.int32), start[order], end[order], len(start), levels, counts, lower, upper)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return distinct[lower[places]], distinct[upper[places]]

    return run


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
