"""Walks rows through trees of classes: compiled where the installation found a compiler, in numpy elsewhere.

Both give the same sums, bit for bit, whatever the number of rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.compiled import compiled_function, pointer

_FEW = 16  # rows up to which one call is faster than a loop over the trees
_BLOCK = 2048  # rows walked at a time: their nodes stay in the processor's cache


NODE = np.dtype([("split", np.float32), ("feature", np.int32), ("first", np.int32)])
"""What a step asks of its node. A value above ``split`` leads to the node after ``first``, any other to ``first``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinkedTrees:
    """The nodes of all trees. A leaf leads to itself, so all rows can take the same number of steps."""

    nodes: NDArray[np.void]  # (nodes,), of NODE
    value: NDArray[np.float64]  # (nodes, classes)
    roots: NDArray[np.int64]  # (trees,)
    depth: int


Sums = Callable[[LinkedTrees, NDArray[np.float32]], NDArray[np.float64]]
Steps = Callable[[LinkedTrees, NDArray[np.float32], NDArray[np.int64]], NDArray[np.float64]]


def sums(trees: LinkedTrees, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shape (n, classes): the values of the leaves that each of the ``rows`` ends at, added tree by tree."""
    return (compiled_sums() or sums_in_numpy)(trees, rows)


def steps(trees: LinkedTrees, rows: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shape of ``rows``: what the questions about each feature added to the value of a row's class, over all trees."""
    return (compiled_steps() or steps_in_numpy)(trees, rows, classes)


def sums_in_numpy(trees: LinkedTrees, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """``sums`` without a compiler."""
    result = np.empty((len(rows), trees.value.shape[1]))
    split, feature, first = (trees.nodes[name] for name in ("split", "feature", "first"))
    for begin in range(0, len(rows), _BLOCK):
        block = np.ascontiguousarray(rows[begin : begin + _BLOCK])
        flat = block.ravel()
        starts = (np.arange(len(block)) * rows.shape[1])[:, None]
        node = np.broadcast_to(trees.roots, (len(block), len(trees.roots)))
        for _ in range(trees.depth):
            node = first.take(node) + (flat.take(starts + feature.take(node)) > split.take(node))
        # Tree by tree in both: the order of the sum, and so each of its bits, is always the same.
        if len(block) <= _FEW:
            total = trees.value[node].cumsum(axis=1)[:, -1]
        else:
            total = np.zeros((len(block), trees.value.shape[1]))
            for tree in range(len(trees.roots)):
                total += trees.value[node[:, tree]]
        result[begin : begin + _BLOCK] = total
    return result


def steps_in_numpy(trees: LinkedTrees, rows: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """``steps`` without a compiler."""
    result = np.empty(rows.shape)
    value, width = trees.value.ravel(), trees.value.shape[1]
    split, feature, first = (trees.nodes[name] for name in ("split", "feature", "first"))
    for begin in range(0, len(rows), _BLOCK):
        block = np.ascontiguousarray(rows[begin : begin + _BLOCK])
        flat = block.ravel()
        starts = (np.arange(len(block)) * rows.shape[1])[:, None]
        chosen = classes[begin : begin + _BLOCK, None]
        node = np.broadcast_to(trees.roots, (len(block), len(trees.roots)))
        before = value.take(node * width + chosen)
        added = np.zeros(block.size)
        for _ in range(trees.depth):
            place = starts + feature.take(node)
            node = first.take(node) + (flat.take(place) > split.take(node))
            after = value.take(node * width + chosen)
            # A leaf leads to itself: adds nothing. Added up tree by tree, whatever the number of rows.
            added += np.bincount(place.ravel(), (after - before).ravel(), block.size)
            before = after
        result[begin : begin + _BLOCK] = added.reshape(block.shape)
    return result


@cache
def compiled_sums() -> Sums | None:
    """The compiled ``sums``, None where there is none."""
    function = compiled_function("millrace_class_sums", library="detectors/_walk_c")
    if function is None:
        return None
    function.restype = None
    function.argtypes = [*_ARGUMENTS, pointer(np.float64, 2)]

    def run(trees: LinkedTrees, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        total = np.zeros((len(rows), trees.value.shape[1]))
        function(
            np.ascontiguousarray(rows), len(rows), rows.shape[1], *_arguments(trees), total,
        )  # fmt: skip
        return total

    return run


@cache
def compiled_steps() -> Steps | None:
    """The compiled ``steps``, None where there is none."""
    function = compiled_function("millrace_class_steps", library="detectors/_walk_c")
    if function is None:
        return None
    function.restype = None
    function.argtypes = [
        *_ARGUMENTS, pointer(np.int64, 1), pointer(np.int64, 1), pointer(np.float64, 1), pointer(np.float64, 2),
    ]  # fmt: skip

    def run(trees: LinkedTrees, rows: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float64]:
        added = np.zeros(rows.shape)
        function(
            np.ascontiguousarray(rows), len(rows), rows.shape[1], *_arguments(trees),
            np.ascontiguousarray(classes, dtype=np.int64),
            np.empty(len(trees.roots), dtype=np.int64), np.empty(rows.shape[1]), added,
        )  # fmt: skip
        return added

    return run


_ARGUMENTS = [
    pointer(np.float32, 2), ctypes.c_int64, ctypes.c_int64,
    pointer(NODE, 1), pointer(np.float64, 2), ctypes.c_int64, pointer(np.int64, 1), ctypes.c_int64, ctypes.c_int64,
]  # fmt: skip
"""Rows with their number and width, then the trees."""


def _arguments(trees: LinkedTrees) -> tuple[Any, ...]:
    return trees.nodes, trees.value, trees.value.shape[1], trees.roots, len(trees.roots), trees.depth
