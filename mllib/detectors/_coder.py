"""Runs an autoencoder in compiled code, where the installation found a compiler.

It needs no library of matrices, whose threads would wait for each other longer than they compute here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.compiled import compiled_function, pointer

STEPS = 4096
"""All values are multiples of 1 / STEPS, see `_autoencoder`."""

FARTHEST = 10
"""Standard deviations from the mean beyond which it does not matter how far."""

MOST_FEATURES = 256
_TILE = 16  # outputs that are computed together
_LOW = 64  # where values of the first layer are multiplied in two parts: whole multiples of this, and the rest
_LAST = 19_968  # as a multiple of 1 / STEPS, an argument whose hyperbolic tangent is 1 for good

Layer = tuple[NDArray[np.float64], NDArray[np.float64]]  # weight (inputs, outputs) and bias (outputs,), multiples
Coder = Callable[[NDArray[np.float32], NDArray[np.float32] | None], NDArray[np.float64]]


def coder(mean: NDArray[np.float32], scale: NDArray[np.float32], layers: Sequence[Layer]) -> Coder | None:
    """A function that gives the sum of the errors of each of its rows, shape (n, at least ``len(mean)``).

    It puts the errors themselves into its second argument, an array of shape (n, len(mean)), if there is one. None
    where there is no compiled function, or none for so many features or such great weights.
    """
    function = _compiled()
    features = len(mean)
    if function is None or features > MOST_FEATURES:
        return None
    whole = [(_multiples(weight, STEPS), _multiples(bias, STEPS**2)) for weight, bias in layers]
    if not _sums_fit(whole):
        return None
    weights = np.concatenate([_tiled(weight).ravel() for weight, _ in whole])
    biases = np.concatenate([_padded(bias, _TILE).astype(np.int32) for _, bias in whole])
    tiles = np.array([-(-len(bias) // _TILE) for _, bias in whole])
    inside = np.array([-(-len(weight) // 2) for weight, _ in whole])
    most = _most_undivided(*whole[0])
    mean, scale = mean.copy(), scale.copy()  # in an artifact they may lie at any address
    arrays = (mean, scale, weights, biases, tiles, inside, _steps())
    # Pointers keep their arrays alive. To look at arrays again in each call would take half of the time of one row.
    mean_at, scale_at, *network = (array.ctypes.data_as(ctypes.c_void_p) for array in arrays)

    def run(rows: NDArray[np.float32], errors: NDArray[np.float32] | None) -> NDArray[np.float64]:
        # Compiled code would read beyond the end of narrower rows, and write beyond the end of fewer errors.
        if rows.ndim != 2 or rows.shape[1] < features:
            raise ValueError(f"rows of {features} features are needed, got the shape {rows.shape}")
        if errors is not None and (
            errors.shape != (len(rows), features) or errors.dtype != np.float32 or not errors.flags.carray
        ):
            raise ValueError(f"no place for the errors of {len(rows)} rows: {errors.dtype} of shape {errors.shape}")
        total = np.empty(len(rows))
        function(
            np.ascontiguousarray(rows, dtype=np.float32), len(rows), rows.shape[1], features,
            mean_at, scale_at, most, *network, len(_steps()),
            total, None if errors is None else errors.ctypes.data,
        )  # fmt: skip
        return total

    return run


def _sums_fit(layers: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> bool:
    """Whether compiled code can hold all weights in 16 bits and all sums in 32: see there.

    Weights of 8 are too great, and sums of 128. After training weights are about 1 at most, and sums 13.
    """
    most = [(STEPS, 0)] * len(layers)  # the greatest value that comes in, and what is taken off the sum
    most[0], most[-1] = (FARTHEST * STEPS // _LOW, 0), (STEPS, FARTHEST * STEPS**2)
    for (weight, bias), (value, off) in zip(layers, most, strict=True):
        sums = np.abs(weight).sum(axis=0)
        if (np.abs(weight) >= 2**15).any() or (sums * value + np.abs(bias) + off >= 2**31).any():
            return False
    weight, bias = layers[0]
    # What the rest adds must not bring a sum back that was cut off, nor be too much for 32 bits together with it.
    return bool((np.abs(weight).sum(axis=0) * (_LOW - 1) + np.abs(bias) < 2**29).all())


def _most_undivided(weight: NDArray[np.int64], bias: NDArray[np.int64]) -> int:
    """The greatest value of the first layer that fits into 16 bits and whose sums fit into 32, as a multiple."""
    fits = (2**31 - 1 - np.abs(bias)) // np.maximum(np.abs(weight).sum(axis=0), 1)
    return min(2**15 - 1, int(fits.min()))


@cache
def _steps() -> NDArray[np.int32]:
    """Shape (n,): the hyperbolic tangent, rounded to multiples of 1 / STEPS, from i / STEPS to (i + 1) / STEPS.

    How many multiples it has at first, times 65,536, and how far behind that it goes one multiple up, as a multiple of
    1 / STEPS²: STEPS where it does not.
    """
    halves = (np.arange(STEPS) + 0.5) / STEPS
    step = np.ceil(np.arctanh(halves) * STEPS**2)
    # By rounding it could be one too many or too few: what counts is what NumPy's own function does.
    step += _rounded_tanh(step) < halves * STEPS
    step -= _rounded_tanh(step - 1) > halves * STEPS
    begins = np.arange(_LAST + 1) * STEPS
    before = np.searchsorted(step, begins, side="left")
    behind = np.minimum(np.append(step, np.inf)[before] - begins, STEPS)
    return (before * 2**16 + behind).astype(np.int32)


def _rounded_tanh(multiples: NDArray[np.float64]) -> NDArray[np.float64]:
    rounded: NDArray[np.float64] = np.rint(np.tanh(multiples / STEPS**2) * STEPS)
    return rounded


def _multiples(values: NDArray[np.float64], of: int) -> NDArray[np.int64]:
    return np.rint(values * of).astype(np.int64)


def _padded(values: NDArray[np.int64], to: int) -> NDArray[np.int64]:
    """With zeros up to a multiple of ``to`` along the first axis."""
    return np.pad(values, [(0, -len(values) % to)] + [(0, 0)] * (values.ndim - 1))


def _tiled(weight: NDArray[np.int64]) -> NDArray[np.int16]:
    """Shape (tiles, pairs of inputs, _TILE, 2)."""
    pairs = _padded(_padded(weight, 2).T, _TILE).reshape(-1, _TILE, -(-len(weight) // 2), 2)
    return np.ascontiguousarray(pairs.transpose(0, 2, 1, 3), dtype=np.int16)


@cache
def _compiled() -> Any:
    function = compiled_function("millrace_code_rows", library="detectors/_coder_c")
    if function is None or not compiled_function("millrace_can_code", library="detectors/_coder_c")():
        return None
    function.restype = None
    function.argtypes = [
        pointer(np.float32, 2), ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, *[ctypes.c_void_p] * 5, ctypes.c_int64,
        pointer(np.float64, 1), ctypes.c_void_p,
    ]  # fmt: skip
    return function
