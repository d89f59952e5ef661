"""A fitted random forest as flat arrays: scoring and explaining with them, without scikit-learn.

Every node keeps its own value (the class shares of the training rows that reached it), not only the leaves: the step
from a node to its child then says what that one question changed. A row's score is the mean of its leaves' values;
the steps add up to it exactly (Saabas 2014), so an explanation needs no sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._class_walk import NODE, LinkedTrees, steps, sums
from mllib.detectors._ranked_walk import FEWEST_ROWS, RankedWalk, ranked_sums
from mllib.errors import BadArtifact

MAX_DEPTH = 16

_DTYPES: dict[str, np.dtype[Any]] = {
    "offsets": np.dtype(np.int64),
    "left": np.dtype(np.int32),
    "right": np.dtype(np.int32),
    "feature": np.dtype(np.int16),
    "split": np.dtype(np.float32),
    "value": np.dtype(np.float32),
}


class ClassTrees:
    """Trees whose leaves hold one value per output.

    ``arrays`` holds, for the nodes of all trees one after the other (tree i has those from ``offsets[i]`` to
    ``offsets[i + 1]``): the positions within the tree of both children (-1 for a leaf), the feature and the value it
    is split at (at most that value goes left), and ``value``, shape (nodes, n_outputs), finite.

    Raises BadArtifact when the arrays do not form such trees over ``n_features`` features.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, n_features: int) -> None:
        _check(arrays, n_features)
        self.arrays = {name: np.ascontiguousarray(arrays[name]) for name in _DTYPES}
        self.n_features = n_features
        self._trees = _linked(self.arrays)

    @property
    def n_outputs(self) -> int:
        return int(self.arrays["value"].shape[1])

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (n, n_outputs): the mean of the leaves that each of the ``rows``, shape (n, n_features), ends at.

        A row's score does not depend on the rows around it. Raises ValueError for rows of another width.
        """
        self._check_width(rows)
        many = self._ranked if len(rows) >= FEWEST_ROWS else None
        return (sums(self._trees, rows) if many is None else many(rows)[:, None]) / len(self._trees.roots)

    def contributions(self, rows: NDArray[np.float32], outputs: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Shape (n, n_features): what the questions about each feature added to the score of each row.

        ``outputs``, shape (n,), says which of its scores; the first of all rows without it. With the score before any
        question, the mean of the roots, they add up to ``scores(rows)[i, outputs[i]]`` but for rounding. They do not
        depend on the rows around.
        """
        self._check_width(rows)
        chosen = np.zeros(len(rows), dtype=np.int64) if outputs is None else outputs
        return steps(self._trees, rows, chosen) / len(self._trees.roots)

    @cached_property
    def _ranked(self) -> RankedWalk | None:
        """Made when many rows are scored for the first time: it takes some milliseconds."""
        return ranked_sums(self._trees)

    def _check_width(self, rows: NDArray[np.float32]) -> None:
        # Compiled code would read beyond the end of narrower rows.
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(f"rows of {self.n_features} features are needed, got the shape {rows.shape}")


def from_sklearn(forest: Any, *, outputs: list[int], n_features: int) -> ClassTrees:
    """The trees of a fitted scikit-learn forest classifier, with the class shares of ``outputs`` as values."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("left", "right", "feature", "split", "value")}
    for estimator in forest.estimators_:
        tree = estimator.tree_
        leaf = tree.children_left < 0
        shares = tree.value[:, 0, :]
        shares = shares / shares.sum(axis=1, keepdims=True)
        parts["left"].append(tree.children_left)
        parts["right"].append(tree.children_right)
        parts["feature"].append(np.where(leaf, 0, tree.feature))
        parts["split"].append(np.where(leaf, np.float32(0), _rounded_down(tree.threshold)))
        parts["value"].append(shares[:, outputs])
    arrays = {name: np.concatenate(values).astype(_DTYPES[name]) for name, values in parts.items()}
    sizes = [len(values) for values in parts["left"]]
    arrays["offsets"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return ClassTrees(arrays, n_features=n_features)


def joined(forests: Sequence[ClassTrees]) -> ClassTrees:
    """The trees of several forests, which have the same features and outputs, as one."""
    arrays = {name: np.concatenate([forest.arrays[name] for forest in forests]) for name in _DTYPES}
    sizes = np.concatenate([np.diff(forest.arrays["offsets"]) for forest in forests])
    arrays["offsets"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return ClassTrees(arrays, n_features=forests[0].n_features)


def _rounded_down(split: NDArray[np.float64]) -> NDArray[np.float32]:
    """The highest float32 that is no higher: a float32 value is above the one exactly if it is above the other."""
    near = split.astype(np.float32)
    return np.where(near > split, np.nextafter(near, np.float32(-np.inf)), near)


def _check(arrays: Mapping[str, NDArray[Any]], n_features: int) -> None:
    for name, dtype in _DTYPES.items():
        wanted = 2 if name == "value" else 1
        if name not in arrays or arrays[name].dtype != dtype or arrays[name].ndim != wanted:
            raise _refuse(f"its array {name!r} is missing or is not {dtype} in {wanted} dimensions")
    offsets, left, right = arrays["offsets"], arrays["left"], arrays["right"]
    nodes = len(left)
    if any(len(arrays[name]) != nodes for name in ("right", "feature", "split", "value")):
        raise _refuse("its arrays differ in length")
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != nodes or (np.diff(offsets) < 1).any():
        raise _refuse("its trees do not cover its nodes")
    size = np.repeat(np.diff(offsets), np.diff(offsets))
    own = np.arange(nodes) - np.repeat(offsets[:-1], np.diff(offsets))
    leaf = left == -1
    # Children come after their parent: that rules out loops.
    if ((right == -1) != leaf).any() or any(((c <= own) | (c >= size))[~leaf].any() for c in (left, right)):
        raise _refuse("a node's children are out of range")
    if ((arrays["feature"] < 0) | (arrays["feature"] >= n_features)).any():
        raise _refuse("a node asks for a feature that does not exist")
    if not (np.isfinite(arrays["split"]).all() and np.isfinite(arrays["value"]).all()):
        raise _refuse("a split or a value is not a number")
    if arrays["value"].shape[1] < 1:
        raise _refuse("its leaves have no values")


def _linked(arrays: Mapping[str, NDArray[Any]]) -> LinkedTrees:
    """The same trees level by level, all trees' roots first: then the children of a node stand beside each other."""
    starts = np.repeat(arrays["offsets"][:-1], np.diff(arrays["offsets"]))
    leaf = arrays["left"] < 0
    children = np.stack([arrays["left"] + starts, arrays["right"] + starts], axis=1)
    levels: list[NDArray[Any]] = []
    level, left = arrays["offsets"][:-1], len(leaf)
    while len(level):
        if len(levels) > MAX_DEPTH:
            raise _refuse(f"a tree is deeper than {MAX_DEPTH} levels")
        # Children that several nodes have in common would double from level to level.
        left -= len(level)
        if left < 0:
            raise _refuse("two nodes have a child in common")
        levels.append(level)
        level = children[level[~leaf[level]]].ravel()
    order = np.concatenate(levels)
    nodes = np.zeros(len(order), dtype=NODE)
    inner = ~leaf[order]
    nodes["feature"] = np.where(inner, arrays["feature"][order], 0)
    nodes["split"] = np.where(inner, arrays["split"][order], np.float32(np.inf))
    # Children come in the order of their parents, after all roots. A leaf leads to itself.
    nodes["first"] = np.where(inner, len(levels[0]) + 2 * (np.cumsum(inner) - 1), np.arange(len(order)))
    return LinkedTrees(
        nodes=nodes,
        value=arrays["value"][order].astype(np.float64),
        roots=np.arange(len(levels[0])),
        depth=len(levels) - 1,
    )


def _refuse(what: str) -> BadArtifact:
    return BadArtifact(f"The stored forest cannot be used: {what}. Roll back to another version, or train again.")
