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

from mllib.detectors._walk import compiled_function
from mllib.features._compiled import pointer

STEPS = 4096
"""All values are multiples of 1 / STEPS, see `_autoencoder`."""

MOST_FEATURES = 256
_TILE = 8  # outputs that are computed together
_LAST = 19_968  # as a multiple of 1 / STEPS, an argument whose hyperbolic tangent is 1 for good

Layer = tuple[NDArray[np.float64], NDArray[np.float64]]  # weight (inputs, outputs) and bias (outputs,), multiples
Coder = Callable[[NDArray[np.float32], NDArray[np.float32] | None], NDArray[np.float64]]


def coder(mean: NDArray[np.float32], scale: NDArray[np.float32], layers: Sequence[Layer]) -> Coder | None:
    """A function that gives the sum of the errors of each of its rows, shape (n, at least ``len(mean)``).

    It puts the errors themselves into its second argument, an array of shape (n, len(mean)), if there is one. None
    where there is no compiled function, or none for so many features.
    """
    function = _compiled()
    features = len(mean)
    if function is None or features > MOST_FEATURES:
        return None
    weights = np.concatenate([_tiled(weight).ravel() for weight, _ in layers])
    biases = np.concatenate([_padded(bias) for _, bias in layers])
    tiles = np.array([len(_padded(bias)) // _TILE for _, bias in layers])
    inside = np.array([len(weight) for weight, _ in layers])
    mean, scale = mean.copy(), scale.copy()  # in an artifact they may lie at any address

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
            np.ascontiguousarray(rows, dtype=np.float32), len(rows), rows.shape[1], features, mean, scale,
            weights, biases, tiles, inside, _steps(), len(_steps()),
            total, None if errors is None else errors.ctypes.data,
        )  # fmt: skip
        return total

    return run


@cache
def _steps() -> NDArray[np.int32]:
    """Shape (n, 2): the hyperbolic tangent, rounded to multiples of 1 / STEPS, from i / STEPS to (i + 1) / STEPS.

    First where it goes one multiple up, as a multiple of 1 / STEPS², then how many multiples it has before.
    """
    halves = (np.arange(STEPS) + 0.5) / STEPS
    step = np.ceil(np.arctanh(halves) * STEPS**2)
    # By rounding it could be one too many or too few: what counts is what NumPy's own function does.
    step += _rounded_tanh(step) < halves * STEPS
    step -= _rounded_tanh(step - 1) > halves * STEPS
    before = np.searchsorted(step, np.arange(_LAST) * STEPS, side="left")
    return np.stack([np.append(step, 2**31 - 1)[before], before], axis=1).astype(np.int32)


def _rounded_tanh(multiples: NDArray[np.float64]) -> NDArray[np.float64]:
    rounded: NDArray[np.float64] = np.rint(np.tanh(multiples / STEPS**2) * STEPS)
    return rounded


def _padded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """With zeros up to whole tiles along the last axis."""
    missing = -values.shape[-1] % _TILE
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def _tiled(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shape (tiles, inputs, _TILE)."""
    return np.ascontiguousarray(_padded(weight).reshape(len(weight), -1, _TILE).transpose(1, 0, 2))


@cache
def _compiled() -> Any:
    function = compiled_function("millrace_code", library="_coder_c")
    if function is None or not compiled_function("millrace_can_code", library="_coder_c")():
        return None
    function.restype = None
    function.argtypes = [
        pointer(np.float32, 2), ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
        pointer(np.float32, 1), pointer(np.float32, 1), pointer(np.float64, 1), pointer(np.float64, 1),
        pointer(np.int64, 1), pointer(np.int64, 1), pointer(np.int32, 2), ctypes.c_int64,
        pointer(np.float64, 1), ctypes.c_void_p,
    ]  # fmt: skip
    return function
