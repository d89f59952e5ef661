"""What a pure function gave, kept for the next time: templates repeat from line to line and from chunk to chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 10_000
"""Texts that are kept; a template has at most 500 characters."""


class Memo(Generic[T]):
    """``compute`` gives one value, not None, for each of several texts, the same whatever the others are.

    When it is full it starts anew. Threads may share it.
    """

    def __init__(self, compute: Callable[[list[str]], Sequence[T]], most: int = MOST) -> None:
        self._compute = compute
        self._most = most
        self._known: dict[str, T] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, texts: Sequence[str]) -> list[T]:
        """The value of each text."""
        known = self._known
        found = [known.get(text) for text in texts]
        missing = list(dict.fromkeys(text for text, value in zip(texts, found, strict=True) if value is None))
        if missing:
            fresh = dict(zip(missing, self._compute(missing), strict=True))
            found = [fresh[text] if value is None else value for text, value in zip(texts, found, strict=True)]
            if len(known) + len(fresh) > self._most:
                self._known = known = {}
            if len(fresh) <= self._most:
                known.update(fresh)
        return found  # type: ignore[return-value]  # whatever was None is computed
