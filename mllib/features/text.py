"""Messages as templates, and templates as TF-IDF vectors.

Log messages hardly ever repeat; their templates do. So a message is masked first (numbers, addresses, identifiers,
anything that looks like a secret become placeholders), and all else is done once per distinct template.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllib.features._memo import Memo
from mllib.features.encoders import distinct_codes, without_nulls

MAX_CHARACTERS = 500
"""A message is cut here before anything looks at it, so that a line of a million characters costs no more."""

Templates = pl.Series | list[str]

WIDTH = 50
MIN_ROWS = 2
MAX_SHARE = 0.8

_KEY_WORDS = (
    "pass(?:word|wd|phrase|code)?|pwd|secret|token|credential|cookie|signature|auth|authorization|"
    "(?:api|access|private|encryption|signing|account|shared)[_ -]?key|session[_-]?id"
)
_QUOTED = r'"[^"]*"?|\'[^\']*\'?'

# Numbers first, as runs of hexadecimal digits that hold a digit: messages become few, and the costly patterns below
# run once per distinct outcome. It leaves the form of dates, addresses and identifiers, and letters that are no digit.
_DIGITS = r"[0-9a-f]*[0-9][0-9a-f]*"

# Then, in this order. Secrets go first, because a later mask could cut one in two and leave a piece. There is no end
# to what a secret may look like: besides the known forms, every word with a digit in it and every long run of letters
# is masked, which leaves short plain words for a vocabulary to hold.
_MASKS = (
    (r"-----begin [a-z0-9 ]*-----[^-]*(?:-----end [a-z0-9 ]*-----)?", "<secret>"),
    (
        rf"((?:{_KEY_WORDS})[\w-]*[\"']?\s*(?:[:=]+|\bis\b|\bwas\b)\s*)"
        rf"(?:(?:bearer|basic|digest|token)\s+)?(?:{_QUOTED}|[^\s,;&]+)",
        "${1}<secret>",
    ),
    (rf"(--?(?:[a-z]+-)*(?:{_KEY_WORDS})[\w-]*\s+)\S+", "${1}<secret>"),
    (r"\b(bearer|basic) [\w.~+/=-]{6,}", "${1} <secret>"),
    (r"\beyj[\w-]+\.[\w.-]+|\b(?:sk|pk|rk)[-_](?:live|test|proj)[-_]\w+|\bgh[opsur]_\w+|\bxox[a-z]-[\w-]+", "<secret>"),
    (r"[a-z][a-z0-9+.-]*://\S+", "<url>"),
    (r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)+", "<email>"),
    (r'"(\w+)"\s*:', "${1}:"),  # the keys of JSON are words, not values
    (r'"[^"]*"', "<str>"),
    (r"(^|[\s=:(,\[])'[^']*'", "${1}<str>"),
    (r"(^|[\s=:(,\[<>])/[\w.~-]+\S*|[\w.~-]+/[\w.~-]+/\S*|\b[a-z]:\\\S+", "${1}<path>"),
    (r"\b0-0-0-0-0\b", "<uuid>"),
    (r"\b0[-/.]0[-/.]0[t _-]0[:.]0(?:[:.]0)?(?:[.,]0)?(?:z\b|[+-]0(?::0)?)?", "<time>"),
    (r"\b0\.0\.0\.0(?::0)?\b|\b[0a-f]{1,4}(?:::?[0a-f]{1,4}){3,7}\b", "<ip>"),
    (r"\b0:0:0(?:[.,]0)?\b", "<time>"),
    (r"\b(?:0x[0a-f]+|[0a-f]{8,})\b", "<hex>"),
    (r"[\w+=-]{28,}|[a-z]{25,}", "<long>"),
    (r"[\w+-]*\d[\w.:%+-]*", "<num>"),
)

_MASKED = reduce(lambda text, mask: text.str.replace_all(*mask), _MASKS, pl.first())

_HEAD = pl.first().str.head(MAX_CHARACTERS)
# A cut may have gone through a secret, whose first half no longer looks like one.
_CUT = pl.when(pl.first() != _HEAD).then(_HEAD.str.replace(r"\S*$", "")).otherwise(pl.first())
_SHAPE = pl.first().str.to_lowercase().str.replace_all(_DIGITS, "0")

_FEW = 250  # messages up to which Python is faster than a query of polars
# The masks in one query take a millisecond however few there are. Python tries again from each place, where polars
# reads once: on 200 hostile characters that is 2 ms, on 500 it would be 30.
_FEW_SHAPES, _SHORT = 10, 200
# What _DIGITS matches is a whole run of hexadecimal digits: said so, Python need not try each place within one.
_RUN_WITH_DIGIT = re.compile(r"(?<![0-9a-f])[a-f]*[0-9][0-9a-f]*")


def mask(messages: pl.Series) -> pl.Series:
    """The template of each message: lower case, its first 500 characters, everything variable a placeholder.

    Null stays null.
    """
    codes, templates = distinct_templates(messages)
    return templates.gather(codes).set(messages.is_null(), None).alias("template")


def distinct_templates(messages: pl.Series) -> tuple[NDArray[np.int64], pl.Series]:
    """``mask`` as the distinct templates, and which one each message has. A null message has the empty template."""
    codes, templates = template_codes(messages)
    return codes, pl.Series("template", templates, dtype=pl.String)


def template_codes(messages: pl.Series) -> tuple[NDArray[np.int64], list[str]]:
    """``distinct_templates`` in the form that the vectorizer wants."""
    messages = messages.cast(pl.String)
    shape_of, shapes = distinct_codes(_few_shapes(messages) if len(messages) <= _FEW else _shapes(messages))
    template_of, templates = distinct_codes(_TEMPLATES.of(shapes))
    return template_of[shape_of], templates


def _shapes(messages: pl.Series) -> pl.Series:
    """Lower case, cut, every run of digits a 0; null becomes empty."""
    head = without_nulls(messages)
    if (head.str.len_bytes() > MAX_CHARACTERS).any():
        head = head.to_frame().select(_CUT).to_series()
    return head.to_frame().select(_SHAPE).to_series()


def _few_shapes(messages: pl.Series) -> pl.Series | list[str]:
    """The same without a query. Of what is not plain ASCII, Python and polars might think differently."""
    texts = [text or "" for text in messages.to_list()]
    if all(text.isascii() and len(text) <= MAX_CHARACTERS for text in texts):
        return [_RUN_WITH_DIGIT.sub("0", text.lower()) for text in texts]
    return _shapes(messages)


def _masked(shapes: list[str]) -> list[str]:
    if len(shapes) <= _FEW_SHAPES and all(shape.isascii() and len(shape) <= _SHORT for shape in shapes):
        for pattern, placeholder in _compiled_masks():
            shapes = [pattern.sub(placeholder, shape) for shape in shapes]
        return shapes
    masked = pl.Series(shapes, dtype=pl.String).to_frame().select(_MASKED).to_series()
    return masked.to_list()


@cache
def _compiled_masks() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(mask, re.ASCII), placeholder.replace("${1}", r"\g<1>")) for mask, placeholder in _MASKS]


_TEMPLATES = Memo(_masked)


@dataclass(frozen=True, kw_only=True)
class TemplateVectorizer:
    """TF-IDF of templates: the same figures as scikit-learn's ``TfidfVectorizer`` fitted on the messages' templates.

    Terms are words of two characters or more and pairs of neighbouring words. The vectors have ``WIDTH`` columns:
    those beyond the vocabulary are 0. The vocabulary and the weights are the whole state.
    """

    vocabulary: tuple[str, ...]
    """Up to WIDTH terms, in alphabetical order: the columns."""

    idf: tuple[float, ...]
    """The inverse document frequency of each, ``ln((1 + rows) / (1 + rows with the term)) + 1``."""

    def transform(self, templates: Templates) -> NDArray[np.float32]:
        """Shape (n, WIDTH), float32: each row of length 1, or all zeros when no term occurs. Null counts as empty."""
        vectors = self._vectors.of(_texts(templates))
        return np.array(vectors) if vectors else np.empty((0, WIDTH), dtype=np.float32)

    @cached_property
    def _vectors(self) -> Memo[NDArray[np.float32]]:
        return Memo(lambda templates: list(self._computed(templates)))

    def _computed(self, texts: list[str]) -> NDArray[np.float32]:
        rows, occurring = _terms(texts)
        column_of = {term: column for column, term in enumerate(self.vocabulary)}
        columns = np.array([column_of.get(term, -1) for term in occurring], dtype=np.int64)
        known = columns >= 0
        cells = rows[known] * WIDTH + columns[known]
        counts = np.bincount(cells, minlength=len(texts) * WIDTH).reshape(-1, WIDTH)
        weights = np.zeros(WIDTH)
        weights[: len(self.idf)] = self.idf
        weighted = counts * weights
        # Summed column by column: the order of a plain sum along rows could depend on how many rows there are.
        length = np.sqrt(np.cumsum(weighted**2, axis=1)[:, -1])
        return (weighted / np.where(length > 0, length, 1.0)[:, None]).astype(np.float32)


def fit_vectorizer(templates: Templates, counts: NDArray[np.int64]) -> TemplateVectorizer:
    """Fit on distinct templates and how many rows have each.

    Kept are the 50 most frequent of the terms that occur in at least two rows and in at most 80 % of them; between
    equally frequent ones, the alphabetically first. Nothing that qualifies leaves the vocabulary empty.
    """
    total = int(counts.sum())
    rows, occurring = _terms(_texts(templates))
    weight = pl.Series("weight", counts[rows], dtype=pl.Int64)
    found = pl.DataFrame({"term": occurring, "row": rows, "weight": weight})
    chosen = (
        found.group_by("term")
        .agg(
            frequency=pl.col("weight").sum(),
            documents=pl.col("weight").filter(pl.col("row").is_first_distinct()).sum(),
        )
        .filter(pl.col("documents") >= MIN_ROWS, pl.col("documents") <= MAX_SHARE * total)
        .sort(["frequency", "term"], descending=[True, False])
        .head(WIDTH)
        .sort("term")
    )
    idf = [math.log((1 + total) / (1 + documents)) + 1 for documents in chosen["documents"]]
    return TemplateVectorizer(vocabulary=tuple(chosen["term"]), idf=tuple(idf))


def terms(templates: pl.Series) -> tuple[NDArray[np.int64], pl.Series]:
    """Every occurrence of a term, as (position of its template, term): the words, then the pairs of words.

    Words have two characters or more. Null counts as empty.
    """
    rows, found = _terms(_texts(templates))
    return rows, pl.Series("term", found, dtype=pl.String)


def _texts(templates: Templates) -> list[str]:
    return templates if isinstance(templates, list) else without_nulls(templates).to_list()


def _terms(texts: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    words = matches(texts, r"\b\w\w+\b")
    pairs = [[f"{one} {other}" for one, other in pairwise(of_text)] for of_text in words]
    rows = [np.repeat(np.arange(len(texts)), [len(of_text) for of_text in found]) for found in (words, pairs)]
    return np.concatenate(rows), [term for found in (words, pairs) for of_text in found for term in of_text]


def matches(texts: list[str], pattern: str) -> list[list[str]]:
    """All that a pattern without groups finds in each text, in lower case."""
    if len(texts) <= _FEW and all(map(str.isascii, texts)):
        return [re.findall(pattern, text.lower(), re.ASCII) for text in texts]
    return pl.Series(texts, dtype=pl.String).str.to_lowercase().str.extract_all(pattern).to_list()
