"""P-values against scipy and against trying every case."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mllib.gate.paired_counts import count_clusters, f1_difference
from mllib.gate.significance import holm, mcnemar, mcnemar_exact, permutation_test


@given(st.integers(0, 300), st.integers(0, 300))
@settings(deadline=None)
def test_mcnemar_is_the_binomial_test_of_the_rows_that_one_model_gets_right(only_new: int, only_old: int) -> None:
    expected = stats.binomtest(only_new, only_new + only_old).pvalue if only_new + only_old else 1.0
    assert mcnemar_exact(only_new, only_old) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("only_new", "only_old"), [(500_000, 502_000), (2_000_000, 2_000_000), (40_000, 41_000)])
def test_mcnemar_holds_for_millions_of_rows(only_new: int, only_old: int) -> None:
    expected = min(1.0, 2 * stats.binom.cdf(only_new, only_new + only_old, 0.5))
    assert mcnemar_exact(only_new, only_old) == pytest.approx(expected, rel=1e-6)
    assert mcnemar_exact(0, 1_000_000) == 0.0


def test_mcnemar_counts_the_rows_that_only_one_model_gets_right() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    candidate = np.array([1, 1, 1, 0, 0, 0, 0, 0, 1])
    champion = np.array([0, 0, 1, 0, 1, 1, 1, 0, 0])
    assert mcnemar(labels, candidate, champion) == pytest.approx(mcnemar_exact(5, 1)) == pytest.approx(14 / 64)


def make_clusters(seed: int, clusters: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), rng.integers(1, 7, clusters))
    labels = rng.random(codes.size) < 0.4
    candidate = rng.random(codes.size) < np.where(labels, 0.8, 0.1)
    champion = rng.random(codes.size) < np.where(labels, 0.5, 0.2)
    return labels, candidate, champion, codes


def f1(labels: np.ndarray, flags: np.ndarray) -> float:
    return 2 * (labels & flags).sum() / max(labels.sum() + flags.sum(), 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("fall", [False, True])
def test_the_permutation_test_comes_near_to_swapping_every_set_of_clusters(seed: int, fall: bool) -> None:
    labels, candidate, champion, codes = make_clusters(seed)
    measured = f1(labels, candidate) - f1(labels, champion)
    extreme = 0
    for swaps in product([False, True], repeat=9):
        swapped = np.array(swaps)[codes]
        new, old = np.where(swapped, champion, candidate), np.where(swapped, candidate, champion)
        difference = f1(labels, new) - f1(labels, old)
        extreme += difference <= measured + 1e-12 if fall else abs(difference) >= abs(measured) - 1e-12
    counts = count_clusters(labels, candidate, champion, codes)
    assert f1_difference(counts.totals) == pytest.approx(measured)
    found = permutation_test(counts, fall=fall, flips=20_000)
    assert found == pytest.approx(extreme / 2**9, abs=0.015)


def test_clusters_are_swapped_as_a_whole() -> None:
    # Three bursts of 40 lines that only the candidate sees: by lines beyond doubt, by bursts 2 of 8 coin tosses.
    codes = np.repeat(np.arange(60), 40)
    labels = codes < 6
    candidate, champion = labels, codes < 3
    by_burst = permutation_test(count_clusters(labels, candidate, champion, codes))
    by_line = permutation_test(count_clusters(labels, candidate, champion, np.arange(codes.size)))
    assert by_burst == pytest.approx(0.25, abs=0.04)
    assert by_line < 0.001


def test_many_different_clusters_are_swapped_in_blocks_alike() -> None:
    sizes = np.arange(1, 1_502)
    codes = np.repeat(sizes, sizes)
    labels = np.ones(codes.size, dtype=bool)
    champion = codes % 2 == 0
    # What every odd cluster has and no even one: 751 and 750 different moves, some 1.5 blocks of 2,000 flips.
    p = permutation_test(count_clusters(labels, ~champion, champion, codes), flips=2000)
    z = (sizes[sizes % 2 == 1].sum() - sizes[sizes % 2 == 0].sum()) / np.sqrt((sizes**2.0).sum())
    assert p == pytest.approx(2 * stats.norm.sf(z), abs=0.05)


def test_the_same_seed_gives_the_same_value_and_equal_models_differ_by_chance_always() -> None:
    labels, candidate, champion, codes = make_clusters(4)
    counts = count_clusters(labels, candidate, champion, codes)
    assert permutation_test(counts, seed=3) == permutation_test(counts, seed=3)
    assert permutation_test(count_clusters(labels, candidate, candidate, codes)) == 1.0


def test_holm_multiplies_the_smallest_most_and_never_turns_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
