"""A fitted isolation forest as flat arrays, and scoring with them.

The arrays are what an artifact holds: no pickled estimator, nothing that could run code. They are checked before they
are walked: the walk itself trusts them, and an index out of range would read memory that is not the tree's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mllib.detectors._explanation import Reasons
from mllib.detectors._ranked_walk import FEWEST_ROWS, RankedWalk, ranked_walk
from mllib.detectors._walk import CompleteTrees, attribute, walk
from mllib.errors import BadArtifact

MAX_DEPTH = 12
"""Trees deeper than this are refused: all are filled up to one depth, and each level doubles them. A tree that is grown
on a subsample of 256 rows is at most 8 deep."""

_LEAF = -1
_DTYPES: dict[str, np.dtype[Any]] = {
    "offsets": np.dtype(np.int64),
    "left": np.dtype(np.int32),
    "right": np.dtype(np.int32),
    "feature": np.dtype(np.int32),
    "split": np.dtype(np.float64),
    "length": np.dtype(np.float64),
    "normaliser": np.dtype(np.float64),
}


class IsolationTrees:
    """The trees of an isolation forest, ready to score.

    ``arrays`` holds, for the nodes of all trees one after the other (tree i has those from ``offsets[i]`` to
    ``offsets[i + 1]``): the positions within the tree of both children (-1 for a leaf), the feature and the value it
    is split at (at most that value goes left), and the path length that ending there stands for. ``normaliser`` is
    the number of trees times the average path length of the subsample that each was grown on.

    Raises BadArtifact when the arrays do not form such trees over ``n_features`` features.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, n_features: int) -> None:
        self.arrays = {name: np.ascontiguousarray(arrays[name]) for name in _checked(arrays, n_features)}
        self._normaliser = float(self.arrays["normaliser"][0])
        self._trees = _filled(list(_per_tree(self.arrays)))

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (n,): ``2^(-E[h(x)] / c)`` of each row of ``features``, 0 to 1, higher is more anomalous.

        The path lengths of a row are summed tree by tree, so its score does not depend on the rows around it.
        """
        return np.exp2(-self._walked(features) / self._normaliser)

    @cached_property
    def usual_path(self) -> float:
        """The path length of an average row of the subsamples that the trees were grown on, on average over trees."""
        return float(self._expected[:, 0].mean())

    def paths(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (n,): the path length E[h(x)] of each row, on average over the trees."""
        return self._walked(features) / len(self._trees.feature)

    def reasons(self, features: NDArray[np.float32]) -> Reasons:
        """By how much each row's path is shorter than usual, and what each feature has to do with it."""
        paths, parts = self.credited(features)
        excess = self.usual_path - paths
        form = f'"excess":%.3f,"path":%.3f,"usual_path":{self.usual_path:.3f}'
        return Reasons(excess, form, (excess, paths), parts)

    def attributions(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Shape (n, n_features): by how much each feature shortened each row's path, on average over the trees.

        A node stands for the path length that a row of the subsample can expect there; a step down changes it, and
        the change is credited to the feature that was asked. So the sum over a row is ``usual_path`` less its path.
        """
        return self.credited(features)[1]

    def credited(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``paths`` and ``attributions``, in one walk."""
        parts, lengths = attribute(self._trees, self._expected, features)
        parts /= len(self._trees.feature)
        return lengths / len(self._trees.feature), parts

    def _walked(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        many = self._ranked if len(features) >= FEWEST_ROWS else None
        return walk(self._trees, features) if many is None else many(features)

    @cached_property
    def _ranked(self) -> RankedWalk | None:
        """Made when many rows are scored for the first time: it takes some milliseconds."""
        return ranked_walk(self._trees)

    @cached_property
    def _expected(self) -> NDArray[np.float64]:
        """Of every node of the filled trees, the path length to expect there. Made when the first row is explained."""
        return _filled_values(self.arrays, _expected_lengths(self.arrays), self._trees.depth)


def fit_trees(
    features: NDArray[np.float32], *, n_estimators: int, seed: int, max_samples: int | Literal["auto"] = "auto"
) -> IsolationTrees:
    """Grow an isolation forest with scikit-learn's defaults on ``features``, shape (n, n_features), without NaN."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=n_estimators, max_samples=max_samples, random_state=seed).fit(features)
    subsample = float(forest._max_samples)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("left", "right", "feature", "split", "length")}
    for estimator in forest.estimators_:
        tree = estimator.tree_
        parts["left"].append(tree.children_left)
        parts["right"].append(tree.children_right)
        parts["feature"].append(np.where(tree.children_left == _LEAF, 0, tree.feature))
        parts["split"].append(np.where(tree.children_left == _LEAF, 0.0, tree.threshold))
        parts["length"].append(tree.compute_node_depths() - 1.0 + average_path_length(tree.n_node_samples))
    arrays = {name: np.concatenate(values).astype(_DTYPES[name]) for name, values in parts.items()}
    sizes = [len(values) for values in parts["left"]]
    arrays["offsets"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    arrays["normaliser"] = len(sizes) * average_path_length(np.array([subsample]))
    return IsolationTrees(arrays, n_features=features.shape[1])


def average_path_length(rows: NDArray[Any]) -> NDArray[np.float64]:
    """c(n), the average length of an unsuccessful search in a binary tree of n rows: what a leaf of n stands for."""
    n = np.asarray(rows, dtype=np.float64)
    many = np.maximum(n, 3.0)
    grown = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(n <= 1, 0.0, np.where(n <= 2, 1.0, grown))


def _checked(arrays: Mapping[str, NDArray[Any]], n_features: int) -> list[str]:
    def refuse(what: str) -> BadArtifact:
        return BadArtifact(
            f"The stored isolation forest cannot be used: {what}. Roll back to another version, or train again."
        )

    for name, dtype in _DTYPES.items():
        if name not in arrays or arrays[name].dtype != dtype or arrays[name].ndim != 1:
            raise refuse(f"its array {name!r} is missing or is not a vector of {dtype}")
    offsets, left, right = arrays["offsets"], arrays["left"], arrays["right"]
    nodes = len(left)
    if any(len(arrays[name]) != nodes for name in ("right", "feature", "split", "length")):
        raise refuse("its arrays differ in length")
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != nodes or (np.diff(offsets) < 1).any():
        raise refuse("its trees do not cover its nodes")
    size = np.repeat(np.diff(offsets), np.diff(offsets))
    own = np.arange(nodes) - np.repeat(offsets[:-1], np.diff(offsets))
    leaf = left == _LEAF
    # Children come after their parent: that rules out loops, which would never end.
    if ((right == _LEAF) != leaf).any() or any(
        ((child <= own) | (child >= size))[~leaf].any() for child in (left, right)
    ):
        raise refuse("a node's children are out of range")
    if n_features > np.iinfo(np.int16).max or ((arrays["feature"] < 0) | (arrays["feature"] >= n_features)).any():
        raise refuse("a node asks for a feature that does not exist")
    if not (np.isfinite(arrays["split"]).all() and np.isfinite(arrays["length"]).all()):
        raise refuse("a split or a path length is not a number")
    if len(arrays["normaliser"]) != 1 or not (np.isfinite(arrays["normaliser"][0]) and arrays["normaliser"][0] > 0):
        raise refuse("its normaliser is not a positive number")
    if (arrays["length"] < 0).any():
        raise refuse("a path length is negative")
    return list(_DTYPES)


def _per_tree(arrays: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    offsets = arrays["offsets"]
    names = ("left", "right", "feature", "split", "length")
    return [{name: arrays[name][begin:end] for name in names} for begin, end in pairwise(offsets.tolist())]


def _filled(trees: list[dict[str, NDArray[Any]]]) -> CompleteTrees:
    """The same trees, each filled up to the depth of the deepest. Raises BadArtifact when that is above MAX_DEPTH."""
    depth = max(_depth(nodes) for nodes in trees)
    if depth > MAX_DEPTH:
        raise BadArtifact(
            f"The stored isolation forest is {depth} levels deep, at most {MAX_DEPTH} can be walked. Train again."
        )
    inner = 2**depth - 1
    feature = np.zeros((len(trees), inner), dtype=np.int16)
    split = np.full((len(trees), inner), np.inf, dtype=np.float32)
    length = np.empty((len(trees), inner + 1))
    for number, nodes in enumerate(trees):
        at = np.zeros(1, dtype=np.int64)  # the node of the stored tree at each place of the present level
        for level in range(depth):
            places = slice(2**level - 1, 2 ** (level + 1) - 1)
            leaf = nodes["left"][at] == _LEAF
            feature[number, places] = nodes["feature"][at]
            split[number, places] = np.where(leaf, np.inf, _rounded_down(nodes["split"][at]))
            at = np.where(leaf, [at, at], [nodes["left"][at], nodes["right"][at]]).T.ravel()
        length[number] = nodes["length"][at]
    return CompleteTrees(feature=feature, split=split, length=length, depth=depth)


def _levels(arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[np.int64]]:
    """The nodes of all trees by their depth, as positions in the arrays."""
    begins = arrays["offsets"][:-1]
    tree = np.arange(len(begins))
    at, levels = begins, []
    while at.size:
        levels.append(at)
        inner = arrays["left"][at] != _LEAF
        at, tree = at[inner], tree[inner]
        at = np.concatenate([begins[tree] + arrays["left"][at], begins[tree] + arrays["right"][at]])
        tree = np.concatenate([tree, tree])
    return levels


def _expected_lengths(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Of every node, the mean path length of the subsample's rows that come by.

    How many rows a leaf holds is not stored: its length, less its depth, is the average path among that many.
    """
    lengths = arrays["length"].copy()
    rows = np.ones(len(lengths))
    of_rows = average_path_length(np.arange(1, 2**MAX_DEPTH + 1))
    borders = (of_rows[1:] + of_rows[:-1]) / 2
    levels = _levels(arrays)
    for depth, at in enumerate(levels):
        rows[at] = np.searchsorted(borders, lengths[at] - depth) + 1.0
    begin_of = np.repeat(arrays["offsets"][:-1], np.diff(arrays["offsets"]))
    for at in reversed(levels):
        inner = at[arrays["left"][at] != _LEAF]
        left, right = begin_of[inner] + arrays["left"][inner], begin_of[inner] + arrays["right"][inner]
        rows[inner] = rows[left] + rows[right]
        lengths[inner] = (rows[left] * lengths[left] + rows[right] * lengths[right]) / rows[inner]
    return lengths


def _filled_values(arrays: Mapping[str, NDArray[Any]], values: NDArray[np.float64], depth: int) -> NDArray[np.float64]:
    """Shape (trees, 2**(depth + 1) - 1): the values of the stored nodes in trees filled up to ``depth``."""
    begins = arrays["offsets"][:-1, None]
    filled = np.empty((len(begins), 2 ** (depth + 1) - 1))
    at = begins
    for level in range(depth + 1):
        filled[:, 2**level - 1 : 2 ** (level + 1) - 1] = values[at]
        leaf = arrays["left"][at] == _LEAF
        children = [np.where(leaf, at, begins + arrays[side][at]) for side in ("left", "right")]
        at = np.stack(children, axis=2).reshape(len(begins), -1)
    return filled


def _depth(nodes: Mapping[str, NDArray[Any]]) -> int:
    """Steps from the root to the deepest leaf, counted no further than one past MAX_DEPTH."""
    level = np.zeros(1, dtype=np.int64)
    for depth in range(MAX_DEPTH + 1):
        level = level[nodes["left"][level] != _LEAF]
        if not level.size:
            return depth
        level = np.unique(np.concatenate([nodes["left"][level], nodes["right"][level]]))
    return MAX_DEPTH + 1


def _rounded_down(split: NDArray[np.float64]) -> NDArray[np.float32]:
    """The highest float32 that is no higher: a float32 value is above the one exactly if it is above the other."""
    near = split.astype(np.float32)
    return np.where(near > split, np.nextafter(near, np.float32(-np.inf)), near)
