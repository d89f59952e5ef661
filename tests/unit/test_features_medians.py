"""The medians of moving windows, in both versions."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mllib.features._medians import compiled, in_numpy, medians


@pytest.mark.parametrize("distinct", [1, 2, 3, 700, 100_000])
def test_both_versions_agree_with_numpy_s_own_median(distinct):
    run = compiled()
    if run is None:
        assert not any(map(shutil.which, ("cc", "gcc", "clang"))), "there is a compiler, and the medians were not built"
        return
    rng = np.random.default_rng(distinct)
    values = rng.integers(0, distinct, 3_000) * 1_200_000
    start = np.sort(rng.integers(0, 2_999, 2_000))
    end = np.maximum.accumulate(start + rng.integers(1, 40, 2_000)).clip(max=3_000)
    shuffled = rng.permutation(2_000)  # rows of several services come mixed
    start, end = start[shuffled], end[shuffled]
    for one, other in zip(run(values, start, end), in_numpy(values, start, end), strict=True):
        assert (one == other).all()
    expected = [np.median(values[a:b]) for a, b in zip(start, end, strict=True)]
    assert medians(values, start, end).tolist() == expected


def test_no_windows_and_no_values_have_no_medians():
    none = np.empty(0, dtype=np.int64)
    assert medians(none, none, none).tolist() == []
    assert [part.tolist() for part in in_numpy(none, none, none)] == [[], []]
