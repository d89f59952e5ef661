"""Walks many rows through trees at once, by ranks in place of values, where the processor has AVX2.

Gives the sums of `_walk` and `_class_walk`, bit for bit, in half of their time or less. It asks every question of
every row, so that few rows are walked faster there.
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
from mllib.detectors._class_walk import LinkedTrees
from mllib.detectors._walk import CompleteTrees

FEWEST_ROWS = 64
"""With fewer rows than this, `_walk` is faster."""

MOST_LEAVES = 256  # so that the number of a leaf is a byte
_ROWS_A_BLOCK = 128
_RANKS_A_COLUMN = 127
_FEW_SPLITS, _STRIDE = 64, 16
_QUESTION = np.dtype(
    {
        "names": ["column", "rank", "place", "step"],
        "formats": [np.int16, np.int8, np.uint8, np.uint8],
    },
    align=True,
)

RankedWalk = Callable[[NDArray[np.float32]], NDArray[np.float64]]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Nodes:
    """The nodes of all trees that ask something, one value of each; tree by tree, and within a tree level by level."""

    tree: Integers
    level: Integers
    feature: Integers
    split: NDArray[np.float32]
    place: Integers  # the first of the leaves below it
    step: Integers  # leaves below its left child


def ranked_walk(trees: CompleteTrees) -> RankedWalk | None:
    """A function that gives what ``walk(trees, rows)`` does. None where this machine or these trees have none."""
    if 2**trees.depth > MOST_LEAVES:
        return None
    tree, node = np.nonzero(trees.split < np.inf)  # those that only fill a tree up ask nothing
    level = np.frexp(node + 1.0)[1] - 1
    nodes = _Nodes(
        tree=tree,
        level=level,
        feature=trees.feature[tree, node].astype(np.int64),
        split=trees.split[tree, node],
        place=(node + 1 - (1 << level)) << (trees.depth - level),
        step=1 << (trees.depth - level - 1),
    )
    return _walk_of(nodes, trees.length, trees.depth)


def ranked_sums(trees: LinkedTrees) -> RankedWalk | None:
    """A function that gives the column of ``sums(trees, rows)``.

    None where this machine has none, or trees have too many leaves or several columns.
    """
    if trees.value.shape[1] > 1:
        return None
    first = trees.nodes["first"].astype(np.int64)
    leaf = first == np.arange(len(first))
    levels, level = [], trees.roots
    while len(level):
        levels.append(level)
        children = first[level[~leaf[level]]]
        level = np.stack([children, children + 1], axis=1).ravel()
    leaves = np.ones(len(first), dtype=np.int64)
    for level in reversed(levels):
        inner = level[~leaf[level]]
        leaves[inner] = leaves[first[inner]] + leaves[first[inner] + 1]
    if leaves[trees.roots].max() > MOST_LEAVES:
        return None
    tree, depth, place = (np.zeros(len(first), dtype=np.int64) for _ in range(3))
    tree[trees.roots] = np.arange(len(trees.roots))
    for number, level in enumerate(levels):
        depth[level] = number
        inner = level[~leaf[level]]
        for side in (0, 1):
            tree[first[inner] + side] = tree[inner]
            place[first[inner] + side] = place[inner] + side * leaves[first[inner]]
    values = np.zeros((len(trees.roots), int(leaves[trees.roots].max())))
    values[tree[leaf], place[leaf]] = trees.value[leaf, 0]
    asks = np.flatnonzero(~leaf)
    asks = asks[np.lexsort((depth[asks], tree[asks]))]
    nodes = _Nodes(
        tree=tree[asks],
        level=depth[asks],
        feature=trees.nodes["feature"][asks].astype(np.int64),
        split=trees.nodes["split"][asks],
        place=place[asks],
        step=leaves[first[asks]],
    )
    return _walk_of(nodes, values, trees.depth)


def _walk_of(nodes: _Nodes, leaves: NDArray[np.float64], depth: int) -> RankedWalk | None:
    """``leaves``, shape (trees, places), are their values."""
    function = _compiled()
    if function is None:
        return None
    split, splits, column, rank = _ranked(nodes)
    columns = int(column.max(initial=-1)) + 1
    if columns > np.iinfo(np.int16).max:
        return None
    asked = np.zeros(len(nodes.tree), dtype=_QUESTION)
    for name, values in (("column", column), ("rank", rank), ("place", nodes.place), ("step", nodes.step)):
        asked[name] = values
    begins = np.searchsorted(nodes.tree * depth + nodes.level, np.arange(len(leaves) * depth + 1)).astype(np.int32)
    features = len(splits)

    def run(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        # Compiled code would read beyond the end of narrower rows.
        if rows.ndim != 2 or rows.shape[1] < features:
            raise ValueError(f"rows of {features} features are needed, got the shape {rows.shape}")
        total = np.zeros(len(rows))
        function(
            np.ascontiguousarray(rows), len(rows), rows.shape[1],
            split, splits, features, asked, begins, depth, leaves, *leaves.shape,
            np.empty(columns * _ROWS_A_BLOCK, dtype=np.int8), total,
        )  # fmt: skip
        return total

    return run


def _ranked(nodes: _Nodes) -> tuple[NDArray[np.float32], Integers, Integers, Integers]:
    """The splits of all features; shape (features, 2), where those of each begin and how many they are; and of each
    node the column of ranks that it asks for, and the rank in it. See `_ranked_walk.c`.
    """
    splits = np.zeros((int(nodes.feature.max(initial=-1)) + 1, 2), dtype=np.int64)
    column, rank = np.zeros((2, len(nodes.tree)), dtype=np.int64)
    parts: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)]
    end = columns = 0
    for feature in range(len(splits)):
        mine = np.flatnonzero(nodes.feature == feature)
        values, of_node = np.unique(nodes.split[mine], return_inverse=True)
        splits[feature] = end, len(values)
        column[mine] = columns + of_node // _RANKS_A_COLUMN
        rank[mine] = of_node % _RANKS_A_COLUMN
        # What is searched in steps has whole steps, and one more, where a value above all splits ends.
        fill = -len(values) % _STRIDE + _STRIDE if len(values) > _FEW_SPLITS else 0
        parts += [values, np.full(fill, np.inf, dtype=np.float32)]
        end += len(values) + fill
        columns += -(-len(values) // _RANKS_A_COLUMN)
    return np.concatenate(parts), splits, column, rank


@cache
def _compiled() -> Any:
    function = compiled_function("millrace_ranked_walk", library="detectors/_ranked_walk_c")
    if function is None or not compiled_function("millrace_can_rank", library="detectors/_ranked_walk_c")():
        return None
    function.restype = None
    size = ctypes.c_int64
    function.argtypes = [
        pointer(np.float32, 2), size, size,
        pointer(np.float32, 1), pointer(np.int64, 2), size,
        pointer(_QUESTION, 1), pointer(np.int32, 1), size,
        pointer(np.float64, 2), size, size,
        pointer(np.int8, 1), pointer(np.float64, 1),
    ]  # fmt: skip
    return function
