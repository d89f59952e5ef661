"""Time of day and week, levels and categories as numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")
"""The canonical levels; their codes are their positions."""

ERROR_LEVELS = (LEVELS.index("ERROR"), LEVELS.index("CRITICAL"))

_SYNONYMS = {
    "DEBUG": ("TRACE", "VERBOSE", "FINE", "FINER", "FINEST", "DBG", "T", "D", "V"),
    "INFO": ("NOTICE", "INFORMATION", "INFORMATIONAL", "LOG", "CONFIG", "I", "N"),
    "WARN": ("WARNING", "W"),
    "ERROR": ("ERR", "SEVERE", "FAILURE", "E"),
    "CRITICAL": ("FATAL", "CRIT", "EMERG", "EMERGENCY", "ALERT", "PANIC", "C", "F"),
}
_CODES = {word: LEVELS.index(level) for level, words in _SYNONYMS.items() for word in (level, *words)}

FEW = 2_000
"""Values up to which plain Python is faster than a query of polars, which takes 30 to 150 microseconds to set up."""

_HOUR_US = 3_600_000_000


def _turn(parts: int) -> NDArray[np.float32]:
    angles = 2 * np.pi * np.arange(parts) / parts
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


_WEEK = np.concatenate([np.tile(_turn(24), (7, 1)), np.repeat(_turn(7), 24, axis=0)], axis=1)
"""Shape (168, 4): what ``cyclic_time`` gives for each hour of a week."""


def numbers(values: pl.Series) -> NDArray[np.float64]:
    """A column of numbers, NaN where they are missing."""
    return values.cast(pl.Float64).to_numpy()


def without_nulls(values: pl.Series) -> pl.Series:
    """Strings, empty where they are missing."""
    return values.fill_null("") if values.null_count() else values


def coded(values: pl.Series, code: Callable[[str | None], int]) -> NDArray[np.int64]:
    """The code of each string or null; ``code`` is asked once for each that occurs."""
    if len(values) <= FEW:
        written = values.to_list()
        return _looked_up(written, {value: code(value) for value in set(written)})
    codes, distinct = distinct_codes(values)
    return np.array(list(map(code, distinct)), dtype=np.int64)[codes]


def factorize(values: pl.Series) -> tuple[NDArray[np.int64], pl.Series]:
    """The distinct values in the order of their first appearance, and the position among them of each value.

    Takes strings without nulls.
    """
    codes, distinct = distinct_codes(values)
    return codes, pl.Series(values.name, distinct, dtype=pl.String)


def distinct_codes(values: pl.Series | list[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    """``factorize`` of strings and nulls, with the distinct values as a list, which few of them are sooner made into.

    Of many values, null is the last.
    """
    if len(values) <= FEW or isinstance(values, list):
        written = values if isinstance(values, list) else values.to_list()
        places = {value: place for place, value in enumerate(dict.fromkeys(written))}
        return _looked_up(written, places), list(places)
    known = values.unique(maintain_order=True).drop_nulls()
    codes = values.cast(pl.Enum(known)).to_physical().cast(pl.Int64)
    if codes.null_count():
        return codes.fill_null(len(known)).to_numpy(), [*known, None]
    return codes.to_numpy(), known.to_list()


def _looked_up(written: list[Any], codes: Mapping[Any, int]) -> NDArray[np.int64]:
    return np.fromiter(map(codes.__getitem__, written), np.int64, len(written))


def canonical_level_codes(levels: pl.Series) -> NDArray[np.int8]:
    """The position in LEVELS of each level, whatever its case or dialect; -1 for null and unknown ones."""
    return coded(levels, level_code).astype(np.int8)


def level_code(level: str | None) -> int:
    """The same of one level."""
    return -1 if level is None else _CODES.get(level.strip().upper(), -1)


def category_codes(values: pl.Series, categories: Sequence[str]) -> NDArray[np.int64]:
    """The position of each value in ``categories``; -1 for null and anything else."""
    places: dict[str | None, int] = {name: place for place, name in enumerate(categories)}
    return coded(values, lambda value: places.get(value, -1))


def cyclic_time(epoch_us: NDArray[np.int64]) -> NDArray[np.float32]:
    """Shape (n, 4): sine and cosine of the hour of the day, then of the day of the week, both in UTC, Monday first.

    Whole hours and days out of a table: the same instant gives the same bits everywhere. Instants before 1970 work.
    """
    hours: NDArray[np.float32] = _WEEK[(epoch_us // _HOUR_US + 3 * 24) % len(_WEEK)]  # 1970-01-01 was a Thursday
    return hours


def one_hot(codes: NDArray[np.integer], width: int) -> NDArray[np.float32]:
    """Shape (n, width): 1 in the column of each code; a row of zeros for a code outside ``range(width)``."""
    out: NDArray[np.float32] = (codes[:, None] == np.arange(width)).astype(np.float32)
    return out
