"""Time of day and week, levels and categories as numbers."""

from __future__ import annotations

from collections.abc import Sequence

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

_HOUR_US = 3_600_000_000


def _turn(parts: int) -> NDArray[np.float32]:
    angles = 2 * np.pi * np.arange(parts) / parts
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


_HOURS, _DAYS = _turn(24), _turn(7)


def canonical_level_codes(levels: pl.Series) -> NDArray[np.int8]:
    """The position in LEVELS of each level, whatever its case or dialect; -1 for null and unknown ones."""
    known = {raw: code for raw in levels.unique() if (code := level_code(raw)) >= 0}
    return category_codes(levels, list(known), codes=list(known.values())).astype(np.int8)


def level_code(level: str | None) -> int:
    """The same of one level."""
    return -1 if level is None else _CODES.get(level.strip().upper(), -1)


def category_codes(
    values: pl.Series, categories: Sequence[str], codes: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """The position of each value in ``categories`` (or its entry of ``codes``); -1 for null and anything else."""
    if not categories or values.is_empty():
        return np.full(len(values), -1, dtype=np.int64)
    places = list(range(len(categories)) if codes is None else codes)
    return values.replace_strict(list(categories), places, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()


def factorize(values: pl.Series) -> tuple[NDArray[np.int64], pl.Series]:
    """The distinct values in the order of their first appearance, and the position among them of each value.

    Takes strings without nulls.
    """
    distinct = values.unique(maintain_order=True)
    places = pl.int_range(len(distinct), dtype=pl.Int64, eager=True)
    if values.is_empty():  # replace_strict then forgets the type asked for
        return np.empty(0, dtype=np.int64), distinct
    return values.replace_strict(distinct, places, return_dtype=pl.Int64).to_numpy(), distinct


def cyclic_time(epoch_us: NDArray[np.int64]) -> NDArray[np.float32]:
    """Shape (n, 4): sine and cosine of the hour of the day, then of the day of the week, both in UTC, Monday first.

    Whole hours and days out of a table: the same instant gives the same bits everywhere. Instants before 1970 work.
    """
    hour = epoch_us // _HOUR_US
    day = hour // 24
    return np.concatenate([_HOURS[hour % 24], _DAYS[(day + 3) % 7]], axis=1)  # 1970-01-01 was a Thursday


def one_hot(codes: NDArray[np.integer], width: int) -> NDArray[np.float32]:
    """Shape (n, width): 1 in the column of each code; a row of zeros for a code outside ``range(width)``."""
    out = np.zeros((len(codes), width), dtype=np.float32)
    rows = np.flatnonzero((codes >= 0) & (codes < width))
    out[rows, codes[rows]] = 1.0
    return out
