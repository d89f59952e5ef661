"""What a message says, without what would give its level away: its text, its terms, and what kinds of words it has.

The level that a line has often stands in its message as well ("ERROR: disk full"). Whoever learns from that learns to
read, not to judge, so words that are names of levels are taken out before anything else looks at the text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.features.encoders import factorize
from mllib.features.text import distinct_templates, terms

_NAMES = (
    "errors?|err|warn(?:ing)?s?|info|information(?:al)?|debug|dbg|fatal|critical|crit|severe|notice|trace|verbose"
    "|emerg|emergency|alert|failure"
)
# Names of levels that are common words too, and so are only taken for one where a level would stand.
_COMMON = "log|config|fine(?:r|st)?|panic"
_LEVELS = (
    rf"(?:\b|_)(?:{_NAMES})(?:\b|_)",
    rf"[\[({{|]\s*(?:{_COMMON})\s*[\])}}|]",
    rf"\b(?:level|lvl|severity|loglevel|log_level)\W{{1,4}}(?:{_COMMON})\b",
)
_PLACEHOLDER = r"<[a-z]+>"

KINDS = {
    "crash": (
        r"panic|abort\w*|crash\w*|corrupt\w*|killed|kill|segfault|segmentation|dump(?:ed)?|oom|unrecoverable|halt\w*"
        r"|terminated|shutdown|exit code|signal"
    ),
    "failure": (
        r"fail\w*|exception\w*|cannot|can t|could ?n[o ]t|unable|refused|denied|invalid|illegal|reject\w*|unsupported"
        r"|undefined|forbidden|unauthorized|wrong|bad|mismatch\w*|null ?pointer\w*|not found|no such|violat\w*"
        r"|malformed|overflow|incorrect|impossible"
    ),
    "caution": (
        r"time(?:d)? ?out|timeout\w*|retr\w*|slow\w*|missing|miss|lost|los[es]|broken|interrupt\w*|expired?"
        r"|deprecat\w*|ignor\w*|skip\w*|unexpected\w*|unknown|unavailable|unreachable|disconnect\w*|clos\w*|drop\w*"
        r"|late|exceed\w*|stale|delay\w*|too (?:many|long|large)|not \w+|no \w+|without|already|attempt\w*|empty"
        r"|leak\w*|conflict|suspend\w*|degrad\w*|give up|giving up"
    ),
    "success": (
        r"success\w*|start\w*|complet\w*|receiv\w*|open\w*|connect(?:ed|ing)|establish\w*|creat\w*|initiali\w*|load\w*"
        r"|regist\w*|finish\w*|ok|done|ready|accept\w*|added|add|sent|serving|listening|running|launch\w*|assigned"
        r"|allocat\w*|verif\w*|succeed\w*|transition\w*|get|post|request\w*|return\w*|find|found"
    ),
    "state": (
        r"dump|enter\w*|exit\w*|called|value|values|flag|flags|state|true|false|null|old|new|index|callback|print"
        r"|getting|setting|param\w*|args|in|size"
    ),
}
"""Kinds of English words that software uses whatever it does. What they mean for the level is learned."""

PATTERNS = 2 ** len(KINDS)


@dataclass(frozen=True, eq=False)
class Wording:
    """Distinct texts, lower case, in words of letters with one space between."""

    texts: pl.Series

    @cached_property
    def _occurring(self) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
        rows, found = terms(self.texts)
        code, distinct = factorize(found)
        return rows, code, distinct.to_list()

    @property
    def rows(self) -> NDArray[np.int64]:
        """The text of each occurrence of a term: of all words, then of all pairs of words."""
        return self._occurring[0]

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """The digest of each occurrence's term: what a model keeps of a term, so that its artifact holds no text."""
        _, code, distinct = self._occurring
        return np.array([digest(term) for term in distinct], dtype=np.uint64)[code]

    @cached_property
    def terms(self) -> dict[int, str]:
        """The terms by their digests."""
        return {digest(term): term for term in self._occurring[2]}

    @cached_property
    def kinds(self) -> NDArray[np.bool_]:
        """Shape (texts, len(KINDS)): whether there is a word of that kind."""
        found = [self.texts.str.contains(rf"\b(?:{words})\b").to_numpy() for words in KINDS.values()]
        return np.stack(found, axis=1).astype(np.bool_)


def wordings(messages: pl.Series) -> tuple[NDArray[np.int64], Wording]:
    """Which distinct text each message has, and these texts. Null counts as empty; only the first 500 characters."""
    template_of, templates = distinct_templates(messages)
    shapes = templates.str.replace_all(_PLACEHOLDER, " ")
    for pattern in _LEVELS:
        shapes = shapes.str.replace_all(pattern, " ")
    text_of, texts = factorize(shapes.str.replace_all(r"[^\p{L}_]+", " ").str.strip_chars())
    return text_of[template_of], Wording(texts)


def patterns(kinds: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Shape (n, len(KINDS)) as numbers below PATTERNS."""
    code = np.zeros(len(kinds), dtype=np.int64)
    for place in range(len(KINDS)):
        code += kinds[:, place].astype(np.int64) << place
    return code


def pattern_texts() -> pl.Series:
    """What each of the PATTERNS says, in words that a model can be fitted on like any other text."""
    texts = []
    for code in range(PATTERNS):
        found = [kind for place, kind in enumerate(KINDS) if code >> place & 1]
        trouble = not {"crash", "failure", "caution"}.isdisjoint(found)
        found.append("trouble" if trouble else "no_trouble")
        if trouble and "success" not in found:
            found.append("only_trouble")
        texts.append(" ".join(found))
    return pl.Series(texts, dtype=pl.String)


def digest(text: str) -> int:
    """64 bits of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
