"""Texts and numbers as they stand in an explanation: short, printable, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TEXT = 40
_LARGE = 1e4  # numbers from here on keep all of their digits before the point


def json_texts(values: Sequence[str | None]) -> list[str]:
    """``json_text`` of each value, once for each that occurs."""
    known = {value: json_text(value) for value in set(values)}
    return [known[value] for value in values]


def json_text(value: str | None) -> str:
    """A JSON string of at most MAX_TEXT characters that PostgreSQL takes as well; null stays null."""
    return json.dumps(plain_text(value), ensure_ascii=False)


def plain_text(value: str | None, most: int = MAX_TEXT) -> str | None:
    """At most ``most`` characters that can be stored and shown; None stays None."""
    if value is None:
        return None
    clipped = value if len(value) <= most else value[: most - 1] + "…"
    # A null character cannot be stored, and nothing that steers a terminal or turns text around belongs here.
    return clipped if clipped.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in clipped)


def json_numbers(values: NDArray[np.floating[Any]]) -> list[str]:
    """``json_number`` of each value."""
    if (np.abs(values) >= _LARGE).any():
        return [json_number(value) for value in values.tolist()]
    return [f"{value:.4g}" for value in values.tolist()]


def json_number(value: float) -> str:
    """Four significant digits, or all of those before the point, as JSON."""
    return f"{value:.0f}" if _LARGE <= abs(value) < 1e15 else f"{value:.4g}"
