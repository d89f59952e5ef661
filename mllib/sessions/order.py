"""How surprising the order of a session's templates is: bigrams with Witten-Bell smoothing.

A template that was followed by many kinds keeps more room for an unseen successor (Witten, Bell 1991). A session's
surprise is that of its least expected transition, in bits; the end of a session is no transition, since it may go on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mllib.sessions.gathering import Bools, Floats, Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """Fitted bigrams of template codes below ``width``; ``width`` itself stands for the start of a session."""

    pairs: Ints
    """Ascending keys ``before * (width + 1) + after`` of the transitions seen."""
    bits: Floats
    """Of each of those."""
    backoff: Floats
    """Shape (width + 1,): bits that an unseen transition costs on top, by the template before."""
    unigram: Floats
    """Shape (width + 1,): bits of each template by itself."""

    @classmethod
    def fit(cls, codes: Ints, of: Ints, used: Bools, width: int) -> Order:
        """``codes`` and ``of``, shape (lines,): template and session; ``used``, shape (sessions,): which to learn."""
        size = width + 1
        mine = used[of]
        before, after = _before(codes, of, width)[mine], codes[mine]
        total = np.bincount(before, minlength=size)
        single = np.bincount(after, minlength=size) + 1.0 / size
        single = single / single.sum()
        pairs, count = np.unique(before * size + after, return_counts=True)
        left, right = pairs // size, pairs % size
        kinds = np.bincount(left, minlength=size)
        bits = -np.log2((count + kinds[left] * single[right]) / (total[left] + kinds[left]))
        room = np.where(total > 0, kinds / np.maximum(total + kinds, 1), 1.0)
        return cls(pairs=pairs, bits=bits, backoff=-np.log2(room), unigram=-np.log2(single))

    def surprise(self, codes: Ints, of: Ints) -> Floats:
        """Shape (lines,): the bits of the transition to each line from the one before it."""
        width = len(self.unigram) - 1
        before = _before(codes, of, width)
        key = before * (width + 1) + codes
        place = np.minimum(np.searchsorted(self.pairs, key), len(self.pairs) - 1)
        seen = self.pairs[place] == key
        return np.where(seen, self.bits[place], self.backoff[before] + self.unigram[codes])


def _before(codes: Ints, of: Ints, start: int) -> Ints:
    if not len(codes):
        return codes
    first = np.r_[True, of[1:] != of[:-1]]
    return np.where(first, start, np.r_[start, codes[:-1]])
