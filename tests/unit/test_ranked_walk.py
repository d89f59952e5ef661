"""The walk by ranks: it gives the bits of the other walks, for any trees and any values."""

from __future__ import annotations

import numpy as np
import pytest

from mllib.compiled import compiled_function
from mllib.detectors import _ranked_walk
from mllib.detectors._isolation import fit_trees
from mllib.detectors._ranked_walk import FEWEST_ROWS, MOST_LEAVES, ranked_walk
from mllib.detectors._walk import CompleteTrees, compiled, in_numpy
from tests.guarded_memory import at_the_end_of_memory

MOST_LEVELS = MOST_LEAVES.bit_length() - 1
EXTREMES = np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 0.0, -0.0], dtype=np.float32)


def random_trees(*, trees: int, depth: int, features: int, choices: int, filling: float = 0.1) -> CompleteTrees:
    """Splits are drawn out of so many ``choices``; of the nodes a share, and all below them, only fill up."""
    rng = np.random.default_rng(depth)
    inner = 2**depth - 1
    fills = rng.random((trees, inner)) < filling
    for node in range(1, inner):
        fills[:, node] |= fills[:, (node - 1) // 2]
    split = rng.choice(rng.normal(size=choices).astype(np.float32), (trees, inner))
    return CompleteTrees(
        feature=rng.integers(0, features, (trees, inner)).astype(np.int16),
        split=np.where(fills, np.float32(np.inf), split),
        length=rng.random((trees, inner + 1)),
        depth=depth,
    )


def rows_on_and_around(trees: CompleteTrees, count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    splits = trees.split.ravel() if trees.split.size else np.zeros(1, np.float32)
    on = rng.choice(splits, (count, width))
    kinds = [on, np.nextafter(on, np.float32(np.inf)), rng.choice(EXTREMES, on.shape), rng.normal(size=on.shape)]
    return np.choose(rng.integers(0, 4, on.shape), kinds).astype(np.float32)


def agree(trees: CompleteTrees, rows: np.ndarray) -> None:
    fast = ranked_walk(trees)
    if fast is None:
        assert not available(), "this machine has what the walk needs"
        return
    assert fast(at_the_end_of_memory(rows) if rows.size else rows).tobytes() == in_numpy(trees, rows).tobytes()


def available() -> bool:
    can_rank = compiled_function("millrace_can_rank", library="detectors/_ranked_walk_c")
    return can_rank is not None and bool(can_rank())


def test_where_there_is_a_compiler_it_was_built() -> None:
    built = compiled_function("millrace_can_rank", library="detectors/_ranked_walk_c")
    assert (built is None) == (compiled() is None)


@pytest.mark.parametrize("depth", range(MOST_LEVELS + 1))
@pytest.mark.parametrize("trees", [1, 7, 8, 9])
def test_the_sums_are_those_of_the_other_walk_for_any_number_of_trees_and_levels(depth: int, trees: int) -> None:
    forest = random_trees(trees=trees, depth=depth, features=5, choices=40)
    for count in (1, 127, 128, 300):
        agree(forest, rows_on_and_around(forest, count, 5))


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 127, 128, 129, 160, 1_000])
@pytest.mark.parametrize("features", [1, 7, 8, 9, 78])
def test_the_sums_are_those_of_the_other_walk_for_any_number_of_rows_and_features(count: int, features: int) -> None:
    forest = random_trees(trees=20, depth=6, features=features, choices=1_000)
    agree(forest, rows_on_and_around(forest, count, features))
    agree(forest, rows_on_and_around(forest, count, features + 3))


@pytest.mark.parametrize("choices", [1, 63, 64, 65, 80, 127, 128, 254, 255, 5_000])
def test_a_feature_may_have_any_number_of_splits(choices: int) -> None:
    # Of many trees thousands: more than fit into a byte.
    forest = random_trees(trees=100, depth=8, features=2, choices=choices, filling=0)
    agree(forest, rows_on_and_around(forest, 500, 2))


def test_splits_at_the_ends_of_all_numbers() -> None:
    forest = random_trees(trees=12, depth=5, features=4, choices=3)
    ends = np.resize(EXTREMES[2:], forest.split.shape)
    agree(
        CompleteTrees(feature=forest.feature, split=ends, length=forest.length, depth=5),
        rows_on_and_around(forest, 400, 4),
    )


def test_trees_that_ask_nothing() -> None:
    forest = random_trees(trees=3, depth=4, features=2, choices=5)
    nothing = np.full_like(forest.split, np.inf)
    agree(
        CompleteTrees(feature=forest.feature, split=nothing, length=forest.length, depth=4),
        rows_on_and_around(forest, 200, 2),
    )


def test_a_fitted_forest_scores_the_same_by_either_walk() -> None:
    rng = np.random.default_rng(5)
    rows = np.concatenate([rng.normal(size=(2_000, 4)), rng.integers(0, 2, (2_000, 9))], axis=1).astype(np.float32)
    forest = fit_trees(rows, n_estimators=50, seed=3)
    many = forest.paths(rows)
    few = [forest.paths(rows[begin : begin + FEWEST_ROWS - 1]) for begin in range(0, 2_000, FEWEST_ROWS - 1)]
    assert many.tobytes() == np.concatenate(few).tobytes()


def test_deeper_trees_are_left_to_the_other_walk() -> None:
    assert ranked_walk(random_trees(trees=1, depth=MOST_LEVELS + 1, features=2, choices=9)) is None


def test_compiled_code_is_given_no_rows_that_it_would_overrun() -> None:
    forest = random_trees(trees=5, depth=4, features=6, choices=9)
    run = ranked_walk(forest)
    if run is None:
        return
    for wrong in (np.zeros((200, 5), np.float32), np.zeros(1_200, np.float32)):
        with pytest.raises(ValueError, match="6 features are needed"):
            run(wrong)


def test_more_columns_than_can_be_numbered_are_left_to_the_other_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ranked_walk, "_RANKS_A_COLUMN", 1)
    forest = random_trees(trees=200, depth=8, features=2, choices=100_000, filling=0)
    assert ranked_walk(forest) is None
