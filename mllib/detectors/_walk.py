"""Walks rows through the trees of a forest: compiled where the installation found a compiler, in numpy elsewhere.

Both give the same sums, bit for bit. scikit-learn's own walk would do as well, but importing it takes longer than
scoring a hundred thousand rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.compiled import compiled_function, pointer

_BLOCK = 4096  # rows walked at a time in numpy: they stay in the processor's cache over all trees


@dataclass(frozen=True, kw_only=True, eq=False)
class CompleteTrees:
    """Binary trees filled up to one depth, so that the children of node i are 2i + 1 and 2i + 2.

    A value above ``split`` goes right. Below a leaf that came early, all nodes lead left, to the leaf's own ``length``.
    """

    feature: NDArray[np.int16]  # (trees, 2**depth - 1)
    split: NDArray[np.float32]  # (trees, 2**depth - 1)
    length: NDArray[np.float64]  # (trees, 2**depth)
    depth: int

    @cached_property
    def pointers(self) -> tuple[ctypes.c_void_p, ...]:
        """To feature, split and length, which they keep alive. To look at these in each call takes as long as a row."""
        kinds = (pointer(np.int16, 2), pointer(np.float32, 2), pointer(np.float64, 2))
        arrays = (self.feature, self.split, self.length)
        for kind, array in zip(kinds, arrays, strict=True):
            kind.from_param(array)  # type: ignore[attr-defined]
        return tuple(array.ctypes.data_as(ctypes.c_void_p) for array in arrays)


Walk = Callable[[CompleteTrees, NDArray[np.float32]], NDArray[np.float64]]
Credited = tuple[NDArray[np.float64], NDArray[np.float64]]
Attribution = Callable[[CompleteTrees, NDArray[np.float64], NDArray[np.float32]], Credited]


def walk(trees: CompleteTrees, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shape (n,): for each of the ``rows``, shape (n, n_features), the sum of the lengths it ends at over all trees."""
    return (compiled() or in_numpy)(trees, rows)


def in_numpy(trees: CompleteTrees, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The walk without a compiler."""
    total = np.zeros(len(rows))
    width = rows.shape[1]
    for begin in range(0, len(rows), _BLOCK):
        block = rows[begin : begin + _BLOCK].ravel()
        starts = np.arange(0, len(block), width)
        for feature, split, length in zip(trees.feature, trees.split, trees.length, strict=True):
            node = np.zeros(len(starts), dtype=np.intp)
            for _ in range(trees.depth):
                node = 2 * node + 1 + (block.take(starts + feature.take(node)) > split.take(node))
            total[begin : begin + _BLOCK] += length.take(node - len(feature))
    return total


def attribute(trees: CompleteTrees, values: NDArray[np.float64], rows: NDArray[np.float32]) -> Credited:
    """Shape of ``rows``: what each feature's questions took off ``values``, from node to child, over all trees.

    And shape (n,): the sum of the values where a row ends. ``values``, shape (trees, 2**(depth + 1) - 1), has one
    number per node. What was taken off adds up to the roots' values less those of the leaves.
    """
    return (compiled_attribution() or attribute_in_numpy)(trees, values, rows)


def attribute_in_numpy(trees: CompleteTrees, values: NDArray[np.float64], rows: NDArray[np.float32]) -> Credited:
    """``attribute`` without a compiler."""
    gained, ended = np.zeros(rows.shape), np.zeros(len(rows))
    every = np.arange(len(rows))
    for feature, split, value in zip(trees.feature, trees.split, values, strict=True):
        node = np.zeros(len(rows), dtype=np.intp)
        for _ in range(trees.depth):
            asked = feature.take(node)
            child = 2 * node + 1 + (rows[every, asked] > split.take(node))
            gained[every, asked] += value.take(node) - value.take(child)
            node = child
        ended += value.take(node)
    return gained, ended


@cache
def compiled() -> Walk | None:
    """The compiled walk, None where there is none."""
    function = compiled_function("millrace_walk", library="detectors/_walk_c")
    return None if function is None else _bound_walk(function)


@cache
def compiled_attribution() -> Attribution | None:
    """The compiled attribution, None where there is none."""
    function = compiled_function("millrace_attribute", library="detectors/_walk_c")
    return None if function is None else _bound_attribution(function)


def _bound_attribution(function: Any) -> Attribution:
    function.restype = None
    function.argtypes = [
        pointer(np.float32, 2), ctypes.c_int64, ctypes.c_int64,
        pointer(np.int16, 2), pointer(np.float32, 2), pointer(np.float64, 2),
        ctypes.c_int64, ctypes.c_int64, pointer(np.float64, 2), pointer(np.float64, 1),
    ]  # fmt: skip

    def run(trees: CompleteTrees, values: NDArray[np.float64], rows: NDArray[np.float32]) -> Credited:
        gained, ended = np.zeros(rows.shape), np.zeros(len(rows))
        function(
            np.ascontiguousarray(rows), len(rows), rows.shape[1],
            trees.feature, trees.split, values, len(trees.feature), trees.depth, gained, ended,
        )  # fmt: skip
        return gained, ended

    return run


def _bound_walk(function: Any) -> Walk:
    function.restype = None
    function.argtypes = [
        pointer(np.float32, 2), ctypes.c_int64, ctypes.c_int64,
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, pointer(np.float64, 1),
    ]  # fmt: skip

    def run(trees: CompleteTrees, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        total = np.zeros(len(rows))
        function(
            np.ascontiguousarray(rows), len(rows), rows.shape[1],
            *trees.pointers, len(trees.feature), trees.depth, total,
        )  # fmt: skip
        return total

    return run
