"""Tests of a difference between two models on the same rows, exact or by swapping, and Holm's correction for many.

The gate reports them beside its verdict. Only the test by segment (`mllib.gate.segments`) takes part in deciding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mllib.gate.paired_counts import COLUMNS, Array, Floats, Ints, PairedCounts, binary, distinct, f1_difference

FEW_MOVES = 5_000
MANY_BINOMIALS = 20
"""A binomial draw costs as much as so many coins."""


def mcnemar(labels: Array, candidate: Array, champion: Array) -> float:
    """Two-sided p-value of McNemar's exact test: does one model err on more rows than the other?

    Labels and flags are 0/1, of shape (rows,). It takes rows for independent, which lines of one burst are not, and
    it is about accuracy, not F1: a small value is a hint, no proof. Raises ValueError for different lengths or other
    values.
    """
    truth = binary(labels, "labels")
    new, old = binary(candidate, "candidate", truth.size), binary(champion, "champion", truth.size)
    return mcnemar_exact(int(((new == truth) & (old != truth)).sum()), int(((new != truth) & (old == truth)).sum()))


def mcnemar_exact(only_candidate: int, only_champion: int) -> float:
    """The same from the two counts of rows that only one model gets right: twice the binomial tail, at most 1.

    Summed in logarithms, so that millions of rows neither overflow nor round to nothing early.
    """
    if min(only_candidate, only_champion) < 0:
        raise ValueError(f"counts of rows cannot be negative, got {only_candidate} and {only_champion}")
    n, fewer = only_candidate + only_champion, min(only_candidate, only_champion)
    steps = np.arange(1, fewer + 1, dtype=np.float64)
    # log C(n, i) for i = 0 .. fewer, each out of the one before it.
    terms = np.append(0.0, np.cumsum(np.log((n - steps + 1) / steps)))
    largest = float(terms.max())
    tail = math.log(float(np.exp(terms - largest).sum())) + largest - n * math.log(2)
    return min(1.0, 2 * math.exp(tail))


def permutation_test(
    counts: PairedCounts,
    *,
    fall: bool = False,
    flips: int = 2000,
    seed: int = 0,
    difference: Callable[[Ints], Floats] = f1_difference,
) -> float:
    """P-value of the difference in F1 when, in every cluster, it is a coin's toss which model is which.

    With several classes it is that of macro-F1; ``difference`` takes it from totals, and may take another figure.
    Two-sided, or with ``fall`` one-sided: how often a difference as low as the one measured, or lower, comes about by
    chance. Clusters are swapped as a whole, for their rows stand or fall together. The measured case counts as one of
    the tosses, so the value is at least 1 / (flips + 1).

    Clusters with the same counts are interchangeable: how many of them are swapped is one binomial draw.
    """
    totals, vectors = counts.totals, counts.vectors.reshape(counts.times.size, -1, COLUMNS)
    # What swapping a cluster moves from one model's totals to the other's. Where that is nothing, no coin is needed.
    moved = (vectors[:, :, [2, 3]] - vectors[:, :, [0, 1]]).reshape(counts.times.size, -1)
    measured = float(difference(totals))
    matters = moved.any(axis=1)
    if not matters.any():
        return 1.0
    generator = np.random.default_rng(seed)
    extreme = 0
    for swapped in _swapped(generator, moved[matters], counts.times[matters], flips):
        by_class = swapped.reshape(swapped.shape[0], -1, 2)
        both = np.concatenate([by_class, -by_class, np.zeros_like(by_class[:, :, :1])], axis=2)
        drawn = difference(totals + both.reshape(swapped.shape[0], -1))
        # Equal differences can come out of different quotients: a hair of slack counts them as equal.
        extreme += int((drawn <= measured + 1e-12).sum() if fall else (np.abs(drawn) >= abs(measured) - 1e-12).sum())
    return (extreme + 1) / (flips + 1)


def _swapped(generator: np.random.Generator, moved: Ints, times: Ints, flips: int) -> Iterator[Ints]:
    """What is moved in each of ``flips`` tosses, in blocks of shape (some tosses, moved.shape[1])."""
    together = distinct(moved, times=times)
    moves, tossed = together.vectors, together.times
    # In blocks, so that many distinct moves do not need flips * moves integers at once; the draws are the same.
    if tossed.size * MANY_BINOMIALS <= int(tossed.sum()) or tossed.size < FEW_MOVES:
        block = max(1, 2_000_000 // tossed.size)
        for start in range(0, flips, block):
            tosses: Ints = generator.binomial(tossed, 0.5, size=(min(block, flips - start), tossed.size))
            yield np.asarray(tosses @ moves, dtype=np.int64)
        return
    # Hardly two clusters are alike: a coin for each is cheaper, and so is a product of floats, which is exact here.
    exact = np.float32 if int(tossed.sum()) * int(np.abs(moves).max()) < 2**24 else np.float64
    each = np.repeat(moves, tossed, axis=0).astype(exact)
    block = max(1, 20_000_000 // each.shape[0])
    for start in range(0, flips, block):
        coins = generator.integers(0, 2, size=(min(block, flips - start), each.shape[0]), dtype=np.bool_)
        yield np.asarray(np.dot(coins.astype(each.dtype), each), dtype=np.int64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that may be compared with one level although many were looked at.

    In the order given. Rejecting those at most alpha keeps the chance of any false rejection at alpha or less,
    whether the tests are independent or not.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = highest
    return corrected
