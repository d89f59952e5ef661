"""Trees of classes as arrays: what is refused, and that both walks give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mllib.detectors._class_trees import MAX_DEPTH, ClassTrees
from mllib.detectors._class_walk import compiled_steps, compiled_sums, steps_in_numpy, sums_in_numpy
from mllib.detectors._ranked_walk import MOST_LEAVES, _compiled, ranked_sums
from mllib.errors import BadArtifact
from tests.guarded_memory import at_the_end_of_memory

FEATURES = 5


def grown(*, trees: int = 7, classes: int = 1, splits: int = 40) -> dict[str, np.ndarray]:
    """Trees whose leaves were split at random, the children after all nodes before them."""
    rng = np.random.default_rng(trees * classes)
    parts: dict[str, list[Any]] = {name: [] for name in ("left", "right", "feature", "split")}
    sizes = []
    for _ in range(trees):
        left, right, depth = [-1], [-1], [0]
        for _ in range(splits):
            leaves = [node for node, child in enumerate(left) if child < 0 and depth[node] < MAX_DEPTH]
            node = int(rng.choice(leaves))
            left[node], right[node] = len(left), len(left) + 1
            left, right, depth = [*left, -1, -1], [*right, -1, -1], [*depth, depth[node] + 1, depth[node] + 1]
        sizes.append(len(left))
        parts["left"] += left
        parts["right"] += right
        parts["feature"] += rng.integers(0, FEATURES, len(left)).tolist()
        parts["split"] += rng.normal(size=len(left)).tolist()
    kinds = {"left": np.int32, "right": np.int32, "feature": np.int16, "split": np.float32}
    return {
        **{name: np.array(values, dtype=kinds[name]) for name, values in parts.items()},
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "value": rng.random((sum(sizes), classes)).astype(np.float32),
    }


def ended_at(arrays: dict[str, np.ndarray], begin: int, row: np.ndarray) -> int:
    node = 0
    while arrays["left"][begin + node] >= 0:
        above = row[arrays["feature"][begin + node]] > arrays["split"][begin + node]
        node = arrays["right" if above else "left"][begin + node]
    return int(begin + node)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_score_is_the_mean_of_the_leaves_that_a_row_ends_at(classes: int) -> None:
    arrays = grown(classes=classes)
    rows = np.random.default_rng(1).normal(size=(100, FEATURES)).astype(np.float32)
    leaves = [[ended_at(arrays, begin, row) for begin in arrays["offsets"][:-1]] for row in rows]
    expected = arrays["value"].astype(np.float64)[leaves].mean(axis=1)
    assert ClassTrees(arrays, n_features=FEATURES).scores(rows) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 63, 64, 65, 80, 1_000])
def test_both_walks_give_the_same_bits_whatever_the_number_of_rows(classes: int, rows: int) -> None:
    trees = ClassTrees(grown(classes=classes), n_features=FEATURES)._trees
    features = np.random.default_rng(rows).normal(size=(rows, FEATURES)).astype(np.float32)
    features[1::7, 2], features[2::7, 3], features[3::7, 1] = np.inf, -np.inf, np.nan
    chosen = np.arange(rows) % classes
    for fast, slow in (
        (compiled_sums(), sums_in_numpy(trees, features)),
        (compiled_steps(), steps_in_numpy(trees, features, chosen)),
    ):
        if fast is not None:
            found = fast(trees, features, *([chosen] if fast is compiled_steps() else []))
            assert found.tobytes() == slow.tobytes()


@pytest.mark.parametrize("splits", [0, 1, 2, 40, 254, 255, 256])
@pytest.mark.parametrize("rows", [1, 63, 64, 127, 128, 129, 1_000])
def test_many_rows_walk_by_ranks_to_the_same_bits(splits: int, rows: int) -> None:
    trees = ClassTrees(grown(trees=9, splits=splits), n_features=FEATURES)
    rng = np.random.default_rng(rows)
    on = rng.choice(trees.arrays["split"], (rows, FEATURES))
    odd = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0], dtype=np.float32), on.shape)
    kinds = [on, np.nextafter(on, np.float32(np.inf)), odd, rng.normal(size=on.shape)]
    features = np.choose(rng.integers(0, 4, on.shape), kinds).astype(np.float32)
    ranked = ranked_sums(trees._trees)
    assert (ranked is None) == (splits >= MOST_LEAVES or _compiled() is None)
    if ranked is not None:
        assert ranked(at_the_end_of_memory(features)).tobytes() == sums_in_numpy(trees._trees, features).tobytes()
    few = [trees.scores(features[begin : begin + 63]) for begin in range(0, rows, 63)]
    assert trees.scores(features).tobytes() == np.concatenate(few).tobytes()


def test_trees_of_several_outputs_are_left_to_the_other_walk() -> None:
    assert ranked_sums(ClassTrees(grown(classes=3), n_features=FEATURES)._trees) is None


def test_a_tree_of_one_leaf_says_the_same_of_all_rows() -> None:
    arrays = grown(trees=2, splits=0)
    found = ClassTrees(arrays, n_features=FEATURES).scores(np.zeros((70, FEATURES), dtype=np.float32))
    assert (found == arrays["value"].astype(np.float64).mean()).all()


def test_nodes_with_a_child_in_common_are_refused_before_they_multiply() -> None:
    # Fifteen nodes that lead to the next one on both sides would be 32,768 ends.
    steps = np.arange(1, 17, dtype=np.int32)
    steps[-1] = -1
    arrays = {**grown(trees=1, splits=0), "left": steps, "right": steps, "offsets": np.array([0, 16])}
    arrays |= {"feature": np.zeros(16, np.int16), "split": np.zeros(16, np.float32)}
    arrays["value"] = np.ones((16, 1), np.float32)
    with pytest.raises(BadArtifact, match="a child in common"):
        ClassTrees(arrays, n_features=FEATURES)


def test_trees_deeper_than_can_be_walked_are_refused() -> None:
    # Each left child is a leaf, each right one is split again.
    nodes = 2 * MAX_DEPTH + 3
    left = np.where(np.arange(nodes) % 2 == 0, np.arange(nodes) + 1, -1).astype(np.int32)
    left[-1] = -1
    right = np.where(left < 0, -1, left + 1).astype(np.int32)
    arrays = {"left": left, "right": right, "offsets": np.array([0, nodes])}
    arrays |= {"feature": np.zeros(nodes, np.int16), "split": np.zeros(nodes, np.float32)}
    arrays["value"] = np.ones((nodes, 1), np.float32)
    with pytest.raises(BadArtifact, match=f"deeper than {MAX_DEPTH}"):
        ClassTrees(arrays, n_features=FEATURES)
