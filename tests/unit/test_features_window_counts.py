"""The integers of moving windows, in both versions."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mllib.features._window_counts import MAX_RESPONSE, Counts, Lines, compiled, counts, in_numpy

SPAN = 300


def lines(
    n: int, *, services: int = 5, distinct: int = 700, step: int = 40, seed: int = 0, missing: float = 0.2
) -> Lines:
    rng = np.random.default_rng(seed)
    present = rng.random(n) >= missing
    return Lines(
        ts=np.cumsum(rng.integers(0, step, n)) - 10**6,
        service=rng.integers(0, min(services, n), n),
        error=rng.random(n) < 0.1,
        response=np.where(present, rng.integers(0, distinct, n) * ((MAX_RESPONSE - 1) // distinct), -1),
    )


def assert_equal(one: Counts, other: Counts) -> None:
    for name in Counts._fields:
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name


@pytest.mark.parametrize(
    "given",
    [
        lines(0),
        lines(1),
        lines(3_000),
        lines(3_000, distinct=1),
        lines(3_000, distinct=MAX_RESPONSE - 1),
        lines(3_000, services=1, step=1),  # all in one window but for the first
        lines(3_000, services=3_000),
        lines(3_000, step=1_000),  # windows of one line each
        lines(3_000, missing=1.0),
        lines(3_000, missing=0.0),
    ],
)
def test_both_versions_agree(given: Lines) -> None:
    run = compiled()
    if run is None:
        assert not any(map(shutil.which, ("cc", "gcc", "clang"))), "there is a compiler, and the windows were not built"
        return
    every = np.arange(len(given.ts))
    for rows in (every, every[::3], every[-1:], every[:0]):
        assert_equal(run(given, rows, SPAN), in_numpy(given, rows, SPAN))


@pytest.mark.parametrize("run", [in_numpy, counts])
def test_counts_are_those_of_each_window(run) -> None:
    given = lines(400)
    rows = np.arange(5, 400, 2)
    found = run(given, rows, SPAN)
    for place, row in enumerate(rows.tolist()):
        within = (given.ts > given.ts[row] - SPAN) & (np.arange(400) <= row)
        own = np.flatnonzero(within & (given.service == given.service[row]))
        times = [time for time in given.response[own].tolist() if time >= 0]
        assert found.first[place] == np.flatnonzero(within)[0]
        assert found.previous[place] == (own[-2] if len(own) > 1 else -1)
        assert (found.volume[place], found.errors[place]) == (len(own), given.error[own].sum())
        assert (found.present[place], found.total[place]) == (len(times), sum(times))
        assert (found.high[place], found.low[place]) == (
            sum(time**2 >> 32 for time in times),
            sum(time**2 & 0xFFFFFFFF for time in times),
        )
        middle = (found.lower[place] + found.upper[place]) / 2
        assert middle == (np.median(times) if times else 0)


@pytest.mark.parametrize(
    ("changed", "rows"),
    [
        ({"service": np.array([0, 1, 3])}, [0]),
        ({"service": np.array([0, -1, 1])}, [0]),
        ({"response": np.array([0, -2, 0])}, [0]),
        ({"response": np.array([0, MAX_RESPONSE, 0])}, [0]),
        ({"error": np.array([True])}, [0]),
        ({}, [3]),
        ({}, [-1]),
        ({}, [1, 1]),
        ({}, [2, 0]),
    ],
)
def test_what_would_be_read_beyond_an_end_is_refused(changed: dict[str, np.ndarray], rows: list[int]) -> None:
    given = Lines(**{**vars(lines(3)), **changed})
    with pytest.raises(ValueError, match=r"rows|services|response|length"):
        counts(given, np.array(rows), SPAN)
