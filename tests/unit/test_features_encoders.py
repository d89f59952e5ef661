from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from mllib.features.encoders import (
    FEW,
    LEVELS,
    canonical_level_codes,
    category_codes,
    cyclic_time,
    factorize,
    numbers,
    one_hot,
    without_nulls,
)


@pytest.mark.parametrize(
    ("written", "level"),
    [
        ("INFO", "INFO"),
        (" info ", "INFO"),
        ("Notice", "INFO"),
        ("I", "INFO"),
        ("TRACE", "DEBUG"),
        ("V", "DEBUG"),
        ("d", "DEBUG"),
        ("WARNING", "WARN"),
        ("W", "WARN"),
        ("SEVERE", "ERROR"),
        ("FAILURE", "ERROR"),
        ("err", "ERROR"),
        ("E", "ERROR"),
        ("FATAL", "CRITICAL"),
        ("F", "CRITICAL"),
        ("emerg", "CRITICAL"),
        ("ALERT", "CRITICAL"),
        ("combo", None),
        ("", None),
        (None, None),
    ],
)
def test_levels_of_all_dialects(written, level):
    (code,) = canonical_level_codes(pl.Series([written], dtype=pl.String))
    assert code == (-1 if level is None else LEVELS.index(level))


def test_levels_keep_their_rows():
    codes = canonical_level_codes(pl.Series(["INFO", None, "fatal", "INFO", "?"]))
    assert codes.tolist() == [1, -1, 4, 1, -1]
    assert codes.dtype == np.int8


def test_categories_and_one_hot():
    codes = category_codes(pl.Series(["b", "a", None, "x", "b"]), ["a", "b"])
    assert codes.tolist() == [1, 0, -1, -1, 1]
    assert one_hot(codes, 3).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert category_codes(pl.Series(["a"]), []).tolist() == [-1]


def test_factorize_counts_from_the_first():
    codes, distinct = factorize(pl.Series(["x", "y", "x", ""]))
    assert codes.tolist() == [0, 1, 0, 2]
    assert distinct.to_list() == ["x", "y", ""]


@pytest.mark.parametrize("times", [1, FEW])
def test_many_values_are_coded_as_few_are(times):
    values = pl.Series(["b", None, "", " Error", "b", "é"] * times)
    assert canonical_level_codes(values).tolist() == [-1, -1, -1, 3, -1, -1] * times
    assert category_codes(values, ["é", "b"]).tolist() == [1, -1, -1, -1, 1, 0] * times
    codes, distinct = factorize(without_nulls(values))
    assert codes.tolist() == [0, 1, 1, 2, 0, 3] * times
    assert distinct.to_list() == ["b", "", " Error", "é"]


@pytest.mark.parametrize("values", [[], [None, None]])
def test_no_values_and_nulls_alone_are_coded(values):
    column = pl.Series(values, dtype=pl.String)
    assert canonical_level_codes(column).tolist() == category_codes(column, ["a"]).tolist() == [-1] * len(values)
    codes, distinct = factorize(without_nulls(column))
    assert (codes.tolist(), distinct.to_list()) == ([0] * len(values), [""] if values else [])
    assert np.isnan(numbers(pl.Series(values, dtype=pl.Int32))).tolist() == [True] * len(values)


@pytest.mark.parametrize(
    ("moment", "hour", "day"),
    [
        (datetime(2026, 3, 2, 0, tzinfo=UTC), 0, 0),  # a Monday
        (datetime(2026, 3, 8, 23, 59, 59, 999999, tzinfo=UTC), 23, 6),
        (datetime(1969, 12, 31, 23, tzinfo=UTC), 23, 2),  # a Wednesday, before the epoch
        (datetime(9999, 12, 31, 6, tzinfo=UTC), 6, 4),
    ],
)
def test_time_turns_with_hour_and_day(moment, hour, day):
    epoch = pl.Series([moment]).cast(pl.Datetime("us", "UTC")).cast(pl.Int64).to_numpy()
    expected = [f(2 * np.pi * x / n) for x, n in ((hour, 24), (day, 7)) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(cyclic_time(epoch)[0], expected, atol=1e-7)
